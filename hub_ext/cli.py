"""The command ``labcommons``. Groups live beside what they command and are added here by name."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
from contextlib import suppress

import click

# name -> module:attribute, imported only when called, so that --help is quick and a command
# needs only what it uses.
COMMANDS = {
    "env": "spawner.environments.cli:env",
    "gpu": "spawner.gpu.cli:gpu",
    "hub": "hub_ext.app:hub",
    "console": "hub_ext.console.app:console",
    "kernels": "kernels.service.cli:kernels",
    "ldap": "hub_ext.directory.cli:ldap",
    "quota": "spawner.gpu.quota_cli:quota",
    "reservation": "spawner.gpu.reservation_cli:reservation",
    "site": "hub_ext.admin_cli:site",
    "store": "hub_ext.admin_cli:store",
    "tls": "hub_ext.tls:tls",
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


@click.group(cls=_LazyGroup)
@click.version_option(package_name="labcommons")
def cli() -> None:
    """Run and administer LabCommons.

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
    sys.exit(code)


def _run() -> int:
    from hub_ext.site import SiteFileError
    from hub_ext.store.database import StoreError

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
