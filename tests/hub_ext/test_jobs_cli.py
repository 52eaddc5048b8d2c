"""``labcommons run`` and ``labcommons jobs`` on the machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from commons.store import Store
from commons.store.models import Job
from hub_ext.jobs_cli import jobs, run
from jobs import records


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path / 'labcommons.sqlite'}"
    monkeypatch.setenv("LABCOMMONS_DATABASE_URL", url)
    monkeypatch.setenv("LABCOMMONS_DATA", str(tmp_path))
    store = Store(url)
    store.migrate()
    yield store
    store.close()


def call(command: object, *words: str) -> Result:
    return CliRunner().invoke(command, list(words))  # type: ignore[arg-type]


def test_a_job_of_somebodys_from_asking_to_cancelling(store: Store, tmp_path: Path) -> None:
    words = ("--user", "alice", "--gpus", "1", "--time", "4h", "--array", "0-1", "--json", "--")
    made = json.loads(call(run, *words, "python", "a.py", "--gpus", "7").stdout)
    assert [one["id"] for one in made] == ["1_0", "1_1"]
    assert (made[0]["command"], made[0]["time_limit"]) == (["python", "a.py", "--gpus", "7"], 240)
    assert "python a.py" in call(jobs, "list", "--user", "alice").stdout
    assert "no jobs" in call(jobs, "list", "--user", "bob").stdout
    store.transact(lambda s: records.begin(s, 1))
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "1.1.log").write_text("epoch 1\nepoch 2\n")
    assert call(jobs, "log", "1_0").stdout == "epoch 1\nepoch 2\n"
    assert json.loads(call(jobs, "cancel", "1", "--json").stdout)["cancelled"] == 2
    assert store.transact(lambda s: {row.stop for row in s.query(Job)}) == {"cancelled"}
    [shown] = json.loads(call(jobs, "show", "1_1", "--json").stdout)
    assert shown["ending"] is True


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--user", "alice", "--array", "x", "--", "true"), 1),
        (("--user", "alice", "--time", "soon", "--", "true"), 2),
        (("--user", "alice"), 2),
        (("--", "true"), 2),
    ],
)
def test_what_is_wrong_is_refused_in_a_line(
    store: Store, words: tuple[str, ...], code: int
) -> None:
    assert call(run, *words).exit_code == code
    assert store.transact(lambda s: s.query(Job).count()) == 0


def test_a_job_that_is_not_there(store: Store) -> None:
    for what in ("show", "log", "cancel"):
        result = call(jobs, what, "17")
        assert (result.exit_code, "no such job" in result.output) == (1, True)
