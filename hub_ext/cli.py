"""The command ``labcommons``. Groups live beside what they command and are added here by name."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

# name -> module:attribute, imported only when called, so that --help is quick and a command
# needs only what it uses.
COMMANDS = {
    "audit": "hub_ext.audit.cli:audit",
    "backup": "hub_ext.backup.cli:backup",
    "broadcast": "hub_ext.broadcast_cli:broadcast",
    "channel": "hub_ext.channel_cli:channel",
    "course": "hub_ext.course_cli:course",
    "demo": "hub_ext.demo:demo",
    "disk": "hub_ext.disk_cli:disk",
    "doctor": "hub_ext.doctor.cli:doctor",
    "env": "environments.cli:env",
    "gpu": "spawner.gpu.cli.gpu:gpu",
    "hub": "hub_ext.app:hub",
    "jobs": "hub_ext.jobs_cli:jobs",
    "run": "hub_ext.jobs_cli:run",
    "console": "hub_ext.console.app:console",
    "kernels": "kernels.service.cli:kernels",
    "ldap": "hub_ext.directory.cli:ldap",
    "maintenance": "hub_ext.maintenance_cli:maintenance",
    "mirror": "environments.mirror.cli:mirror",
    "package": "hub_ext.channel_cli:package",
    "quota": "spawner.gpu.cli.quota:quota",
    "reservation": "spawner.gpu.cli.reservation:reservation",
    "server": "hub_ext.server_cli:server",
    "shared": "hub_ext.shared_cli:shared",
    "site": "hub_ext.admin_cli:site",
    "ssh": "hub_ext.ssh_cli:ssh",
    "store": "hub_ext.admin_cli:store",
    "tls": "hub_ext.tls_cli:group",
    "usage": "hub_ext.usage_cli:usage",
    "user": "hub_ext.user_cli:user",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        # What is imported stays: to look through it for garbage takes a fifth of a short command.
        gc.disable()
        try:
            command = getattr(importlib.import_module(module), attribute)
        finally:
            gc.freeze()
            gc.enable()
        assert isinstance(command, click.Command)
        return command


def _say_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from commons.version import version

        click.echo(f"labcommons {version()}")
        context.exit()


@click.group(cls=_LazyGroup)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_say_version,
    help="Say which version this is, with its commit where that is known.",
)
def cli() -> None:
    """Run and administer LabCommons.

    What is new since the version before, on the machine itself: labcommons whatsnew

    \b
    Examples:
      labcommons site check
      labcommons env build py313-data
      labcommons gpu leases --json
    """


def main() -> None:
    """Exit 0: done; 1: refused or failed, with one clear line; 2: wrong usage."""
    code = 1
    # Registered first, it is called last: when threads have ended and all is tidied up.
    atexit.register(lambda: _leave(code))
    code = _run()
    _leave_a_line(sys.argv[1:], code)
    sys.exit(code)


# What a command's last word says when it changes nothing, or tells of itself what it does.
_ASKS = frozenset(
    {
        *("audit", "console", "demo", "hub", "kernels", "ldap", "serve"),
        *("check", "current", "diff", "doctor", "explain", "heads", "history", "leases"),
        *("list", "options", "queue", "report", "schedule", "scopes", "show", "status"),
    }
)


def _leave_a_line(words: Sequence[str], code: int) -> None:
    """What an administrator's command has done is in the audit trail."""
    from commons.audit import record_command

    plain = [word for word in words if not word.startswith("-")]
    if code == 2 or "--help" in words or _ASKS.intersection(plain[:3]) or len(plain) < 2:
        return
    said = " ".join(words)[:1000]
    record_command("command", "failure" if code else "success", {"command": said}, user=_who())


def _who() -> str:
    from spawner.gpu.cli.tools import operator

    return operator()


def _run() -> int:
    from commons.site import SiteFileError
    from commons.store.database import StoreError

    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        return 1
    except click.UsageError as error:
        error.show()
        return 2
    except click.ClickException as error:
        error.show()
        return 1
    except (SiteFileError, StoreError) as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    except SystemExit as error:
        if isinstance(error.code, str):
            click.echo(error.code, err=True)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


def _leave(code: int) -> None:
    """End the process at once: to take all that was imported apart takes as long as a command."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
