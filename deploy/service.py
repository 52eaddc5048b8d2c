"""The site as a unit of systemd: after whatever stop of the machine, it is there again.

Docker starts the services by itself (``restart: always``); the unit also brings back what was
stopped by hand or is missing, in the order and with the rules that they need. It starts what the
last `make up` has set up, and builds nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from deploy import settings
from deploy.files import write_atomically
from deploy.settings import DEFAULTS, ROOT, Settings
from deploy.shell import Failure, output
from deploy.steps import Step

FOLDER = "/etc/systemd/system"  # LABCOMMONS_SYSTEMD in .env names another; empty: no unit
TIMEOUT = 60  # seconds for systemctl


def text(site: Settings, root: Path = ROOT, python: str = sys.executable) -> str:
    """The unit. Variables of the shell that were stronger than .env are in it."""
    given = {name: os.environ[name] for name in (*DEFAULTS, "DOCKER_HOST") if name in os.environ}
    lines = [
        "[Unit]",
        f"Description=LabCommons, the site {site.project}",
        "Wants=network-online.target",
        "After=network-online.target docker.service docker.socket",
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        f"WorkingDirectory={_escaped(str(root))}",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in given.items()),
        f"ExecStart={_quoted(python)} -m deploy start",
        # An Engine that comes late, or is repaired, is met again.
        "Restart=on-failure",
        "RestartSec=30",
        "TimeoutStartSec=600",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def unit(site: Settings) -> Path | None:
    """Where the unit is, or would be; None where this machine has no systemd, or wants none."""
    known = settings.parse_env(settings.read(ROOT / ".env"))
    folder = os.environ.get("LABCOMMONS_SYSTEMD", known.get("LABCOMMONS_SYSTEMD", FOLDER))
    if not folder or (folder == FOLDER and not Path("/run/systemd/system").is_dir()):
        return None
    return Path(folder, f"labcommons-{site.project}.service")


def install(site: Settings, step: Step) -> None:
    """Write and enable the unit where that may be done; ``step.result`` says what came of it."""
    path = unit(site)
    if path is None:
        step.result = "no systemd: Docker starts the site with itself"
        return
    if not os.access(path.parent, os.W_OK):
        step.result = "not without root: Docker starts the site with itself; or: sudo make service"
        return
    wanted = text(site)
    if settings.read(path) != wanted:
        write_atomically(path, wanted, 0o644)
    _systemctl("daemon-reload")
    if _systemctl("enable", path.name):
        step.result = f"{path.name}, enabled"
    else:
        step.result = f"{path} is written; enable it: systemctl enable {path.name}"


def remove(site: Settings) -> None:
    """The site is stopped for good: the machine does not start it."""
    path = unit(site)
    if path is None or not path.exists():
        return
    _systemctl("disable", path.name)
    try:
        path.unlink()
    except OSError as error:
        raise Failure(
            f"{path} cannot be removed ({error.strerror}): the machine would start the site again",
            f"as root: systemctl disable {path.name}; rm {path}",
        ) from error
    _systemctl("daemon-reload")


def _systemctl(*words: str) -> bool:
    return output(["systemctl", *words], timeout=TIMEOUT) is not None


def _escaped(value: str) -> str:
    """A path as a unit has it; ``%`` begins a specifier."""
    return value.replace("%", "%%")


def _quoted(value: str) -> str:
    return '"' + _escaped(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
