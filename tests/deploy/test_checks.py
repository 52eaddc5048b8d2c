"""`make test`: what becomes of tests that fail beside others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy import checks

TESTS = """
from pathlib import Path

def test_steady():
    pass

def test_the_first_time_only():
    mark = Path({mark!r})
    assert mark.exists() or mark.touch()

def test_always():
    assert {good}
"""


@pytest.mark.parametrize("good", [True, False])
def test_what_fails_beside_others_is_tried_alone_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], good: bool
) -> None:
    monkeypatch.setattr(checks, "CACHE", tmp_path)
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_some.py").write_text(TESTS.format(mark=str(tmp_path / "mark"), good=good))
    lane = checks._Lane("some", [], "not docker")
    first = subprocess.run(lane.command("--cache-clear"), cwd=tmp_path, check=False).returncode
    assert first == 1
    assert checks._alone(lane, first) == (0 if good else 1)
    named = [line for line in capfd.readouterr().out.splitlines() if line.startswith("UNSTEADY")]
    assert ["test_the_first_time_only" in line for line in named] == [True]


@pytest.mark.parametrize(("code", "failing"), [(1, checks._FEW + 1), (1, 0), (2, 1), (-11, 1)])
def test_many_failures_and_other_ends_are_no_accident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, failing: int
) -> None:
    monkeypatch.setattr(checks, "CACHE", tmp_path)
    names = ", ".join(f'"test_{n}": true' for n in range(failing))
    last = tmp_path / "pytest" / "some" / "v" / "cache" / "lastfailed"
    last.parent.mkdir(parents=True)
    last.write_text(f"{{{names}}}")
    lane = checks._Lane("some", ["false"], "docker")
    assert checks._alone(lane, code) == code


KINDS = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("kind", {kinds})
def test_kind(kind, request):
    with Path({order!r}).open("a") as file:
        file.write(kind + chr(10))
    assert kind != {failing!r}
"""
LANES = {"whole": ["e2e"], "breaks": ["e2e", "breaks"], "docker": ["docker"], "rest": []}


@pytest.mark.parametrize("failing", ["", "breaks"])
def test_every_test_is_in_one_lane_and_its_failure_is_everybodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    monkeypatch.setattr(checks, "CACHE", tmp_path)
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    monkeypatch.setattr(checks, "_in_bed", lambda *_: [])
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "log").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers=\n  e2e\n  breaks\n  docker\n")
    kinds = ", ".join(
        f"pytest.param({name!r}, marks=[{', '.join(f'pytest.mark.{mark}' for mark in marks)}])"
        for name, marks in LANES.items()
    )
    order = tmp_path / "order"
    (tmp_path / "test_some.py").write_text(
        KINDS.format(kinds=f"[{kinds}]", order=str(order), failing=failing)
    )
    assert bool(checks._pytest_in_lanes()) == bool(failing)
    ran = order.read_text().split()
    assert sorted(set(ran)) == sorted(LANES)
    assert len(ran) == len(LANES) + bool(failing)  # once more alone
    assert ran.index("docker") < ran.index("breaks")
