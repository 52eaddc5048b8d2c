"""``labcommons run`` and ``labcommons jobs`` in a person's server.

What is asked for is queued and run by the hub; the server may be stopped meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from kernels.console import Console, ConsoleError
from kernels.messages import Message, persons_language, say

LOOK = 1.0  # seconds between two looks
TAKEN_ON = 5.0  # seconds for the hub to find out whether it can be had
_UNFINISHED = ("pending", "starting", "running")
_TIME = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?")
_RUN = """examples:
  labcommons run -- python train.py
  labcommons run --gpus 1 --time 4h --env py313-data:2026.11 --size large -- python train.py
  labcommons run --array 0-9%3 -- sh -c 'python part.py $LABCOMMONS_TASK'
  labcommons run --after 17 --preemptible --retries 2 -- make figures
  labcommons run --notebook analysis.ipynb

exit status: 0 it was taken on; 1 it was refused; 2 wrong usage"""
_JOBS = """examples:
  labcommons jobs list
  labcommons jobs show 17 --json
  labcommons jobs log 17 --follow
  labcommons jobs cancel 17_3"""


def minutes(text: str) -> int:
    """``90m``, ``4h``, ``1d12h`` or ``H:MM`` as minutes. Raises ValueError."""
    if match := re.fullmatch(r"(\d{1,5}):([0-5]\d)(?::[0-5]\d)?", text):
        found = int(match[1]) * 60 + int(match[2])
    elif text and (match := _TIME.fullmatch(text)):
        days, hours, rest = (int(part or 0) for part in match.groups())
        found = (days * 24 + hours) * 60 + rest
    else:
        found = 0
    if not found:
        raise ValueError(f"no time: {text}")
    return found


def run(arguments: Sequence[str], console: Console) -> int:
    """``labcommons run``."""
    parser = argparse.ArgumentParser(
        prog="labcommons run",
        usage="labcommons run [options] -- PROGRAM [WORDS]",
        description="Run a program without this server: it is queued, and goes on by itself.",
        epilog=_RUN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--gpus", type=int, default=0, help="how many GPUs")
    add("--gpu-type", default="", help="their model")
    add("--time", default="", help="time limit: 90m, 4h, 1d12h")
    add("--env", default="", help="NAME or NAME:VERSION; without, that of this server")
    add("--size", default="", help="a size of the site")
    add("--account", default="", help="who is charged")
    add("--array", default="", help="tasks: 0-9, 1,4,7 or 0-99%%5 (five at once)")
    add("--after", action="append", default=[], help="a job that has to be done first")
    add("--retries", type=int, default=0, help="how often it is run again where it was cut off")
    add("--preemptible", action="store_true", help="it makes room for others")
    add("--notebook", default="", help="a notebook to run, in place of a program")
    add("--json", action="store_true", help="print JSON")
    add("command", nargs="*", metavar="PROGRAM", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    try:
        limit = minutes(chosen.time) if chosen.time else None
    except ValueError:
        parser.error(f"--time: {chosen.time!r} is no time; write for example 90m, 4h, 1d12h")
    if bool(chosen.notebook) == bool(chosen.command):
        parser.error("say what is to be run, after “--”, or --notebook")
    folder, command = _folder(), chosen.command
    if chosen.notebook:
        command = ["@notebook", chosen.notebook]
    body = {
        "command": command,
        "folder": folder,
        "environment": chosen.env or _own(),
        "size": chosen.size,
        "gpus": chosen.gpus,
        "gpu_type": chosen.gpu_type,
        "account": chosen.account,
        "array": chosen.array,
        "after": [one for given in chosen.after for one in given.split(",")],
        "retries": chosen.retries,
        "preemptible": chosen.preemptible,
        "time_limit": limit,
    }
    found = console.ask("POST", "jobs", {key: value for key, value in body.items() if value})
    jobs = _jobs(found)
    first = str(jobs[0]["id"])
    # An array is called by the number before its tasks'.
    name = first.partition("_")[0] if len(jobs) > 1 else first
    until = time.monotonic() + TAKEN_ON
    while _waits(jobs[0]) and not jobs[0].get("reasons") and time.monotonic() < until:
        time.sleep(LOOK / 4)
        jobs = _jobs(console.ask("GET", f"jobs/{quote(name)}"))
    if chosen.json:
        print(json.dumps(jobs, indent=2, ensure_ascii=False))
    else:
        print(_in_words(say("job_taken_on", job=name)))
        for reason in _reasons(jobs[0]):
            print(f"  {reason}")
    return int(jobs[0]["state"] in ("failed", "cancelled"))


def _waits(job: dict[str, Any]) -> bool:
    """Whether nobody has looked at it yet."""
    return job["state"] == "pending" and not job.get("environment", "").partition(":")[2]


def _own() -> str:
    """The environment of this server, as new notebooks have it."""
    return (
        "" if os.environ.get("LABCOMMONS_CHOSEN") else os.environ.get("LABCOMMONS_ENVIRONMENT", "")
    )


def _folder() -> str:
    """The working folder, below the home; the job sees no other of this server."""
    home, here = os.path.realpath(os.environ.get("HOME", "/")), os.getcwd()
    if here == home:
        return ""
    if not here.startswith(f"{home}/"):
        raise ConsoleError(say("job_folder_outside", folder=here))
    return here[len(home) + 1 :]


def jobs(arguments: Sequence[str], console: Console) -> int:
    """``labcommons jobs``."""
    parser = argparse.ArgumentParser(
        prog="labcommons jobs",
        description="Your jobs: programs that run without a server.",
        epilog=_JOBS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="{list,show,log,cancel}")
    for what, about in (
        ("list", "your jobs, the newest first"),
        ("show", "one, or all tasks of an array"),
        ("log", "what one has printed"),
        ("cancel", "end one, or all tasks of an array"),
    ):
        one = commands.add_parser(
            what,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=_JOBS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.add_argument("--json", action="store_true", help="print JSON")
        if what != "list":
            one.add_argument("job", help="its number: 17, or 17_3")
        if what == "log":
            one.add_argument("--follow", "-f", action="store_true", help="go on until it is over")
        if what == "list":
            one.add_argument("--open", action="store_true", help="only those that are not over")
    chosen = parser.parse_args(arguments)
    if chosen.what == "log":
        return _log(console, chosen)
    path = "jobs" + (f"/{quote(chosen.job, safe='')}" if chosen.what != "list" else "")
    path += "?open=true" if chosen.what == "list" and chosen.open else ""
    found = console.ask("DELETE" if chosen.what == "cancel" else "GET", path)
    rows = _jobs(found)
    if chosen.json:
        print(json.dumps(found if chosen.what == "cancel" else rows, indent=2, ensure_ascii=False))
    elif chosen.what == "cancel":
        print(_in_words(say("jobs_cancelled", count=int(found.get("cancelled") or 0))))
    elif chosen.what == "show" and len(rows) == 1:
        _show(rows[0])
    else:
        _table(rows)
    return 0


def _log(console: Console, chosen: argparse.Namespace) -> int:
    offset = 0
    path = f"jobs/{quote(chosen.job, safe='')}/log"
    whole: list[str] = []
    while True:
        found = console.ask("GET", f"{path}?offset={offset}")
        text, job = str(found.get("log") or ""), found.get("job")
        offset = int(found.get("offset") or 0)
        if not isinstance(job, dict):
            raise ConsoleError(say("console_silent"))
        if chosen.json:
            whole.append(text)
        else:
            sys.stdout.write(_printable(text))
            sys.stdout.flush()
        if not text and (not chosen.follow or job.get("state") not in _UNFINISHED):
            break
        if not text:
            time.sleep(LOOK)
    if chosen.json:
        print(json.dumps({"job": job, "log": "".join(whole)}, indent=2, ensure_ascii=False))
    return 0


def _jobs(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = found.get("jobs")
    good = isinstance(rows, list) and all(isinstance(row, dict) and "id" in row for row in rows)
    if not good or not isinstance(rows, list):
        raise ConsoleError(say("console_silent"))
    return rows


def _reasons(job: dict[str, Any]) -> list[str]:
    return [str(one.get("sentence") or "") for one in job.get("reasons") or ()]


def _show(job: dict[str, Any]) -> None:
    told = {"reasons": _reasons(job), "command": [str(word) for word in job["command"]]}
    for key, value in {**job, **{key: " ".join(words) for key, words in told.items()}}.items():
        if value not in (None, "", False):
            print(f"{key.replace('_', ' '):14} {_printable(str(value))}")


def _table(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print(_in_words(say("jobs_none")))
        return
    heads = ("ID", "STATE", "GPUS", "ENVIRONMENT", "COMMAND")
    lines = [heads] + [
        (
            str(row["id"]),
            str(row["state"]),
            str(row.get("gpus") or "-"),
            str(row.get("environment") or "-"),
            " ".join(map(str, row.get("command") or ()))[:60],
        )
        for row in rows
    ]
    widths = [max(len(line[n]) for line in lines) for n in range(len(heads))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(_printable("  ".join(cells).rstrip()))


def _printable(text: str) -> str:
    """Without what would move a terminal's cursor."""
    return "".join(sign for sign in text if sign.isprintable() or sign in "\n\t\r")


def _in_words(message: Message) -> str:
    return message.in_words(persons_language())


def main(arguments: Sequence[str] | None = None) -> int:
    """``run …`` or ``jobs …``; its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return (run if given[:1] == ["run"] else jobs)(given[1:], Console())
    except ConsoleError as error:
        print(f"labcommons: {_in_words(error.message)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
