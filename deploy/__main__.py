"""``python3 -m deploy COMMAND``: what the Makefile's targets call."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable

# Before the rest is imported: an older Python would fail there in less helpful words.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit("LabCommons needs Python 3.11 or newer; this is " + sys.version.split()[0])

from deploy import (
    bare,
    builder,
    checks,
    doctor,
    down,
    engine,
    locks,
    picture,
    restore,
    rollback,
    settings,
    up,
    whatsnew,
)
from deploy.shell import Failure


def logs() -> None:
    """Follow what the services say."""
    compose = up.Compose(engine.find(), settings.load())
    words = [*compose.words, "logs", "--tail=100", "--follow"]
    os.execvpe(words[0], words, {**os.environ, **compose.env})  # noqa: S606


COMMANDS = {
    "up": up.up,
    "rollback": rollback.rollback,
    "start": up.start,
    "service": up.unit,
    "down": down.down,
    "clean": down.clean,
    "logs": logs,
    "locks": locks.locks,
    "picture": picture.picture,
    "test": checks.test,
    "test-tools": checks.tools,
    "test-bare": bare.test_bare,
}


# `labcommons …` that the machine does itself.
_HERE: dict[tuple[str, ...], Callable[[list[str]], int]] = {
    ("doctor",): doctor.doctor,
    ("whatsnew",): whatsnew.whatsnew,
    ("backup", "restore"): restore.restore,
}


def main() -> int:
    """Exit 0: done; 1: failed, with cause and remedy; 130: interrupted; or what doctor says."""
    parser = argparse.ArgumentParser(prog="python3 -m deploy")
    parser.add_argument("command", choices=COMMANDS)
    # Its own words are not ours to look at.
    words = sys.argv[2:] if sys.argv[1:2] == ["labcommons"] else None
    command = COMMANDS[parser.parse_args().command] if words is None else None
    # As with Ctrl-C: whatever runs is ended, and the next run goes on from there.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        for begin, here in _HERE.items():
            if words and tuple(words[: len(begin)]) == begin:
                return here(words[len(begin) :])
        if command is None:
            builder.labcommons(words or ["--help"])
        else:
            command()
    except Failure as failure:
        print(f"\nError: {failure.cause}", file=sys.stderr)
        if failure.remedy:
            print(f"What to do: {failure.remedy}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as of `| head`; the rest would fail again at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
