"""The test bed itself: it runs a command on its own Engine and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.testbed import Testbed

from .conftest import ROOT

TESTBED = ROOT / "tests" / "rig" / "testbed.py"

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="networks are root's"),
]


# Not under tmp_path, which may lie on an overlay.
OURS = Testbed(ROOT / ".cache" / "testbed-of-tests")


@pytest.fixture
def bed() -> Iterator[list[str]]:
    """The words before a command that runs in a test bed of the tests' own."""
    words = [sys.executable, str(TESTBED), "exec", "--data", str(OURS.data), "--"]
    yield words
    subprocess.run([*words, "true"], timeout=180, check=False)


def traces() -> set[str]:
    """What this test bed has on the machine; other ones may come and go meanwhile."""
    listings = (
        ("ip", "netns", "list"),
        ("ip", "-o", "link", "show", "type", "veth"),
        ("iptables", "--wait", "-t", "nat", "-S"),
        ("iptables", "--wait", "-S", "FORWARD"),
    )
    lines = {str(path) for path in Path("/run").glob("labcommons-*")}
    for command in listings:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        lines |= set(said.splitlines())
    return {line for line in lines if OURS.namespace in line or OURS.outside in line}


def test_a_command_runs_on_an_engine_of_its_own_and_its_exit_code_comes_back(
    bed: list[str],
) -> None:
    script = 'docker info --format "{{.DockerRootDir}}"; exit 7'
    done = subprocess.run(
        [*bed, "sh", "-c", script], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 7, done.stderr
    assert "testbed-of-tests" in done.stdout
    assert not traces()


def test_after_a_kill_the_next_run_clears_up_and_works(bed: list[str]) -> None:
    process = subprocess.Popen(
        [*bed, "sh", "-c", "echo inside; exec sleep 600"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "inside\n"
    process.kill()
    process.wait()
    assert traces()
    done = subprocess.run(
        [*bed, "docker", "info"], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not traces()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_takes_everything_down(bed: list[str], number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*bed, "sh", "-c", "echo inside $$; exec sleep 600"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    pid = int(process.stdout.readline().split()[1])
    process.send_signal(number)
    assert process.wait(timeout=180) == 130
    assert not traces()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the command goes on"
        time.sleep(0.05)


def test_two_that_begin_at_once_have_networks_of_their_own(bed: list[str]) -> None:
    data = ROOT / ".cache" / "testbed-of-tests-2"
    other = [str(data) if word == str(OURS.data) else word for word in bed]
    gateway = ["ip", "-4", "route", "show", "default"]
    both = [
        subprocess.Popen([*words, *gateway], stdout=subprocess.PIPE, text=True)
        for words in (bed, other)
    ]
    said = [one.communicate(timeout=180)[0].split()[2] for one in both]
    shutil.rmtree(data)
    assert said[0] != said[1]


def test_two_runs_do_not_share_one_test_bed(bed: list[str]) -> None:
    first = subprocess.Popen(
        [*bed, "sh", "-c", "echo inside; exec sleep 600"], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout
    first.stdout.readline()
    second = subprocess.run([*bed, "true"], capture_output=True, text=True, timeout=60, check=False)
    first.terminate()
    first.wait(timeout=180)
    assert second.returncode == 1
    assert "another run uses it" in second.stderr
