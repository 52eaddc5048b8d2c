"""``labcommons run`` and ``labcommons jobs`` in a server: what they ask, and what they say."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kernels import jobs
from kernels.console import Console, ConsoleError
from kernels.messages import verbatim

ROW = {"id": "17", "state": "pending", "environment": "py313-data:2", "reasons": [], "gpus": 0}
ROW |= {"command": ["python", "a.py"]}


class Asked(Console):
    """Answers, and what it was asked."""

    def __init__(self, *answers: Any) -> None:
        super().__init__({})
        self.answers, self.asked = list(answers), list[tuple[str, str, Any]]()

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        self.asked.append((method, path, body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LABCOMMONS_ENVIRONMENT", "py313-data:2")
    monkeypatch.setenv("LABCOMMONS_LANGUAGE", "en")
    monkeypatch.delenv("LABCOMMONS_CHOSEN", raising=False)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(jobs, "LOOK", 0.01)
    return tmp_path


def test_a_program_is_asked_for_with_its_folder_and_the_servers_environment(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Asked({"jobs": [ROW]})
    words = "--gpus 1 --time 1d12h --after 3,4_1 --after 5 --preemptible -- python a.py --gpus 7"
    assert jobs.run(words.split(), console) == 0
    [(method, path, body)] = console.asked
    assert (method, path) == ("POST", "jobs")
    assert body == {
        "command": ["python", "a.py", "--gpus", "7"],
        "folder": "work",
        "environment": "py313-data:2",
        "gpus": 1,
        "time_limit": 36 * 60,
        "after": ["3", "4_1", "5"],
        "preemptible": True,
    }
    assert "job 17 is queued" in capsys.readouterr().out


def test_what_the_hub_finds_out_soon_after_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    new = {**ROW, "environment": "gone"}
    refused = {**new, "state": "failed", "reasons": [{"sentence": "There is no “gone”."}]}
    console = Asked({"jobs": [new]}, {"jobs": [new]}, {"jobs": [refused]})
    assert jobs.run(["--env", "gone", "--", "true"], console) == 1
    assert "There is no “gone”." in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [[], ["--time", "soon", "--", "true"], ["--notebook", "a.ipynb", "--", "true"]]
)
def test_wrong_usage_is_two(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        jobs.run(words, Asked())
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("text", "found"), [("90m", 90), ("4h", 240), ("1d12h", 2160), ("2:30", 150), ("1:00:00", 60)]
)
def test_times(text: str, found: int) -> None:
    assert jobs.minutes(text) == found


@pytest.mark.parametrize("text", ["", "0m", "h", "4", "-1h", "1.5h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="no time"):
        jobs.minutes(text)


def test_a_folder_outside_the_home_is_refused(tmp_path: Path) -> None:
    os.chdir("/")
    with pytest.raises(ConsoleError):
        jobs.run(["--", "true"], Asked())


def test_a_log_is_followed_to_its_end_and_moves_no_cursor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    running, done = {**ROW, "state": "running"}, {**ROW, "state": "done"}
    console = Asked(
        {"job": running, "log": "a\x1b[2J\n", "offset": 7},
        {"job": running, "log": "", "offset": 7},
        {"job": done, "log": "b\n", "offset": 9},
        {"job": done, "log": "", "offset": 9},
    )
    assert jobs.jobs(["log", "17", "--follow"], console) == 0
    assert capsys.readouterr().out == "a[2J\nb\n"
    assert console.asked[2][1] == "jobs/17/log?offset=7"


def test_lists_are_tables_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs.jobs(["list", "--open"], Asked({"jobs": [ROW]})) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["17", "pending"]
    assert jobs.jobs(["show", "17", "--json"], Asked({"jobs": [ROW]})) == 0
    assert json.loads(capsys.readouterr().out) == [ROW]
    assert jobs.jobs(["cancel", "17"], Asked({"jobs": [ROW], "cancelled": 1})) == 0
    assert jobs.jobs(["list"], Asked({"jobs": []})) == 0
    assert "labcommons run" in capsys.readouterr().out


def test_a_refusal_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "Console", lambda: Asked(ConsoleError(verbatim("Not now."))))
    assert jobs.main(["jobs", "list"]) == 1
    assert capsys.readouterr().err == "labcommons: Not now.\n"
