"""The services ``certificates`` and ``acme``: have certificates renewed, and look whether somebody
has put others, or what is needed for them, there.

It only waits, with Python's own library, and calls ``labcommons tls renew`` or ``labcommons tls
acme``: what hangs there is ended, what fails is tried again.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

EVERY = 3600.0  # seconds between two looks at the ends
LOOK = 10.0  # seconds between two looks whether a file has changed
LIMIT = 600.0  # seconds for one call
FIRST_PAUSE = 60.0  # seconds after a failure, then twice as long each time, up to EVERY
ACME_PAUSE = 900.0  # the first one there: authorities count failures, and stop to answer
FILES = (
    *("ca.crt", "ca.key", "server.crt", "server.key"),
    *("../acme/issued/server.pem", "../acme/issued/problem"),
)
ACME_FILES = ("nsupdate.key", "settings", "eab-hmac", "ca.crt")
log = logging.getLogger("labcommons.certificates")


def stamp(folder: Path, files: Sequence[str] = FILES) -> tuple[object, ...]:
    """Another one where a file is another."""
    found: list[object] = []
    for name in files:
        try:
            state = (folder / name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((state.st_ino, state.st_size, state.st_mtime_ns))
    return tuple(found)


def call(command: Sequence[str], limit: float = LIMIT) -> bool:
    """Whether the command did its work in time."""
    try:
        return subprocess.run(command, timeout=limit, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired) as error:
        log.error("%s", error)
        return False


def keep(
    folder: Path,
    renew: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    files: Sequence[str] = FILES,
    first_pause: float = FIRST_PAUSE,
) -> None:
    """For ever: at first, every hour, and soon after a file has changed."""
    seen: tuple[object, ...] | None = None
    due, pause = 0.0, first_pause
    while True:
        if (now := stamp(folder, files)) != seen or clock() >= due:
            well = renew()
            # What it has written itself is no news; what somebody writes meanwhile is.
            seen = stamp(folder, files) if well else now
            due = clock() + (EVERY if well else pause)
            pause = first_pause if well else min(EVERY, 2 * pause)
        sleep(LOOK)


def main() -> None:
    """Until it is stopped."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    data = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
    if sys.argv[1:] == ["acme"]:
        acme = ("labcommons", "tls", "acme")
        keep(data / "acme", lambda: call(acme), files=ACME_FILES, first_pause=ACME_PAUSE)
    keep(data / "tls", lambda: call(("labcommons", "tls", "renew")))


if __name__ == "__main__":
    main()
