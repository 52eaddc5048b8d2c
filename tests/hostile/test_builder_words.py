"""A package whose programs want to speak for the builder that installs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

from environments.builds import result_channel
from environments.builds.build_container import read_event

# Runs as a program of a package: same user, started by our worker. It tries every way to the
# log that Linux has, and says on its own output which one was open.
EVIL = r"""
import ctypes, json, os, signal, sys
forged = json.dumps({"result": {"lock": "# forged"}}).encode() + b"\n"
libc = ctypes.CDLL(None, use_errno=True)
worker = os.getppid()
with open(f"/proc/{worker}/stat") as file:
    first = int(file.read().rpartition(")")[2].split()[1])
won = []
for pid in (worker, first):
    for kind in ("fd", "map_files", "task"):
        try:
            names = os.listdir(f"/proc/{pid}/{kind}")
        except OSError:
            continue
        if kind != "task":
            won.append(f"list {kind}")
    for fd in range(64):
        for path in (f"/proc/{pid}/fd/{fd}", f"/proc/{pid}/task/{pid}/fd/{fd}"):
            try:
                with open(path, "wb", buffering=0) as file:
                    file.write(forged)
                won.append(path)
            except OSError:
                pass
        try:
            handle = libc.syscall(434, pid, 0)  # pidfd_open
            got = libc.syscall(438, handle, fd, 0)  # pidfd_getfd
            if got >= 0:
                os.write(got, forged)
                won.append(f"pidfd_getfd {fd}")
        except OSError:
            pass
    for name in ("mem", "environ", "maps"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                file.read(0 if name == "mem" else 10)
            won.append(name)
        except OSError:
            pass
    if libc.ptrace(0x4206, pid, 0, 0) == 0:  # PTRACE_SEIZE
        won.append("ptrace")
for fd in range(64):
    try:
        os.write(fd, b"\n" + forged)
        if fd > 2:
            won.append(f"fd {fd}")
    except OSError:
        pass
print(json.dumps({"progress": {"percent": 50, "step": 1, "message": "FORGED"}}), flush=True)
print(json.dumps({"won": won}), flush=True)
how = sys.argv[1]
if how:
    os.kill(worker, getattr(signal, how))
"""
WORK = """
import os, subprocess, sys
from environments.builds import result_channel

def work():
    subprocess.run([sys.argv[1], "-c", sys.argv[2], sys.argv[3]])
    result_channel.say(result={"lock": "ours"})
    return 0

if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    result_channel._prctl(4, 1)  # as a container's first process begins
if sys.argv[4:]:
    result_channel._prctl = lambda *_: None
result_channel.serve(work)
"""
PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable


def run(how: str, *more: str) -> tuple[int, list[dict[str, Any]]]:
    """The worker with an evil child, as a user without rights: exit code and what the hub reads."""
    done = subprocess.run(
        [sys.executable, "-c", WORK, PYTHON, EVIL, how, *more],
        capture_output=True, check=False, timeout=60, cwd="/",
    )  # fmt: skip
    return done.returncode, [read_event(line) for line in done.stdout.splitlines()]


def test_the_attack_works_on_a_worker_that_is_not_shut() -> None:
    _, events = run("", "open")
    assert {"lock": "# forged"} in [event.get("result") for event in events]


@pytest.mark.parametrize("how", ["", "SIGKILL", "SIGTERM", "SIGINT"])
def test_no_program_of_a_package_speaks_for_the_builder(how: str) -> None:
    code, events = run(how)
    texts = [event["log"] for event in events if "log" in event]
    won = next(json.loads(text)["won"] for text in texts if '"won"' in text)
    assert won == []
    assert not any("progress" in event for event in events)
    results = [event["result"] for event in events if "result" in event]
    if how:
        assert code != 0, "a worker that was killed has not succeeded"
        assert results == []
    else:
        assert (code, results) == (0, [{"lock": "ours"}])


def test_what_a_package_prints_has_an_end() -> None:
    script = (
        "import subprocess, sys\nfrom environments.builds import result_channel\n"
        "def work():\n"
        "    subprocess.run([sys.executable, '-c', "
        "\"import sys; [sys.stdout.write('x' * 65536) for _ in range(1024)]\"])\n"
        "    result_channel.say(result={})\n    return 0\n"
        "result_channel.serve(work)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, timeout=60
    )
    lines = done.stdout.splitlines()
    assert len(done.stdout) < 2 * result_channel.MAX_TEXT
    assert max(map(len, lines)) < result_channel.MAX_LINE
    assert read_event(lines[-1]) == {"result": {}} or read_event(lines[-2]) == {"result": {}}
