"""What `make rollback` puts back, and what it refuses before anything changes."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from commons.store import copies as sqlite_copies
from deploy import copies, images, release, rollback, settings
from deploy.release import Release
from deploy.settings import Settings
from deploy.shell import Failure
from rig.postgres import Postgres

TABLE = "labcommons_alembic_version"
A, B = "a" * 12, "b" * 12


class Engine:
    """An Engine with nothing but tags and ids."""

    def __init__(self, **tags: str) -> None:
        self.tags = {f"labcommons/{name}": image for name, image in tags.items()}

    def docker(self, *words: str, timeout: float = 60) -> str | None:
        if words[0] == "tag":
            self.tags[words[2]] = words[1]
            return ""
        wanted = words[-1]
        return wanted if wanted in self.tags.values() else self.tags.get(wanted)


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    (tmp_path / "data" / "secrets").mkdir(parents=True)
    return Settings("lab", (), "site.yaml", tmp_path / "data", "127.0.0.1", 8443, 8080)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``at(commit)``: the checkout is there."""

    def move(commit: str) -> None:
        monkeypatch.setattr(settings, "revision", lambda: commit)

    return move


def build(engine: Any, site: Settings, **new: str) -> None:
    """As `make up` builds images: what ran is kept first."""
    for name, image in new.items():
        release.keep(engine, site)
        engine.tags[f"labcommons/{name}"] = image


def test_a_first_make_up_has_nothing_to_go_back_to(site: Settings, at: Any) -> None:
    at(A)
    (site.data / "secrets").rmdir()
    engine: Any = Engine()
    build(engine, site, hub="1", agent="2")
    release.complete(engine, site, {})
    with pytest.raises(Failure, match="nothing is known of a version before this one"):
        rollback._previous(engine, release.load(site))
    release.keep_where_another(engine, site)
    assert release.load(site).previous is None


def test_make_ups_that_fail_leave_what_last_was_up_as_the_previous_one(
    site: Settings, at: Any
) -> None:
    at(A)
    engine: Any = Engine(hub="1", agent="2")
    release.complete(engine, site, {"store": "0001", "hub": "x"})
    at(B)
    release.keep_where_another(engine, site)
    build(engine, site, hub="3")  # and the machine goes down
    release.keep_where_another(engine, site)
    build(engine, site, hub="4", agent="5")
    before = rollback._previous(engine, release.load(site))
    assert (before.commit, before.schemas) == (A, {"store": "0001", "hub": "x"})
    assert before.images == {"labcommons/hub": "1", "labcommons/agent": "2"}
    assert engine.tags["labcommons/hub:previous"] == "1"
    release.complete(engine, site, {"store": "0002", "hub": "x"})
    state = release.load(site)
    assert state.previous == before
    assert state.running
    assert state.running.images["labcommons/hub"] == "4"
    # One more `make up` of the same changes nothing of it.
    release.keep_where_another(engine, site)
    release.complete(engine, site, {"store": "0002", "hub": "x"})
    assert release.load(site).previous == before
    del engine.tags["labcommons/hub:previous"]
    with pytest.raises(Failure, match=r"images of .* are gone .*: labcommons/hub"):
        rollback._previous(engine, release.load(site))


def test_who_goes_back_by_hand_has_no_previous_version(site: Settings, at: Any) -> None:
    at(A)
    engine: Any = Engine(hub="1")
    release.complete(engine, site, {})
    at(B)
    release.keep_where_another(engine, site)
    at(A)
    release.complete(engine, site, {})
    assert release.load(site).previous is None


def test_a_site_of_before_there_were_records_is_known_by_its_images(
    site: Settings, at: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "revision").write_text(A + "\n")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    engine: Any = Engine(hub="1", server="2")
    build(engine, site, hub="3")
    release.know_schemas(site, {"store": "0020", "hub": "x"})
    release.know_schemas(site, {"store": "0021", "hub": "x"})  # the second run of a failed one
    before = rollback._previous(engine, release.load(site))
    assert (before.commit, before.schemas["store"]) == (A, "0020")


def test_what_can_be_put_back_is_not_tidied_away() -> None:
    gone: list[str] = []

    class Tagged(Engine):
        def docker(self, *words: str, timeout: float = 60) -> str | None:
            if words[0] == "rmi":
                gone.append(words[1])
            if words[3:4] == ("{{len .RepoTags}}",):
                return {"kept": "1", "former": "0"}[words[-1]]
            return super().docker(*words)

    engine: Any = Tagged(hub="new")
    images._tidy(engine, "kept", "labcommons/hub")
    images._tidy(engine, "former", "labcommons/hub")
    assert gone == ["former"]


# -- files ---------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A checkout of two commits; ``repository(words)`` asks its git."""
    root = tmp_path / "checkout"
    root.mkdir()
    for module in (rollback, release):
        monkeypatch.setattr(module, "ROOT", root)

    def git(*words: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        done = subprocess.run(
            ["git", "-C", str(root), *who, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "--quiet", "--initial-branch=main")
    for text in ("one", "two"):
        (root / "file").write_text(text)
        (root / "same").write_text("same")
        git("add", "-A")
        git("commit", "--quiet", "--message", text)
    git.root = root  # type: ignore[attr-defined]
    return git


def test_the_files_of_before_come_from_git(repository: Any) -> None:
    before = Release("1", repository("rev-parse", "--short=12", "HEAD~1"))
    (repository.root / "same").write_text("a site's own change, which stays")
    assert rollback._files(before) == "main"
    repository("checkout", "--quiet", "--detach", "HEAD~1")
    assert rollback._files(before) is None


@pytest.mark.parametrize(
    ("commit", "said"), [("", "does not know the files"), ("c" * 12, "does not know the files")]
)
def test_without_a_commit_nothing_is_begun(repository: Any, commit: str, said: str) -> None:
    with pytest.raises(Failure, match=said):
        rollback._files(Release("1", commit))


def test_a_change_that_would_be_overwritten_is_refused_and_stays(repository: Any) -> None:
    (repository.root / "file").write_text("a site's own")
    with pytest.raises(Failure, match="files that you have changed"):
        rollback._files(Release("1", repository("rev-parse", "HEAD~1")))
    assert (repository.root / "file").read_text() == "a site's own"
    assert repository("rev-parse", "--abbrev-ref", "HEAD") == "main"


def test_a_repository_around_the_checkout_is_not_touched(
    repository: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = repository.root / "inner"
    inner.mkdir()
    monkeypatch.setattr(release, "ROOT", inner)
    with pytest.raises(Failure, match="does not know the files"):
        rollback._files(Release("1", repository("rev-parse", "HEAD~1")))


# -- databases -----------------------------------------------------------------------------


class Fixed:
    """Copies of databases whose answers are given."""

    def __init__(self, now: str, copy: str) -> None:
        self.now, self.copy = now, copy

    def revision(self, _which: object) -> str:
        return self.now

    def newest(self, _which: object, _revision: str) -> str:
        return self.copy


def test_only_tables_that_went_forward_are_put_back_and_that_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Release("1", A, schemas={"store": "0022", "hub": "0022"})
    same: Any = Fixed("0022", "")
    assert rollback._forward(same, before) == {}
    rollback._tell(before, {})
    assert "nothing is lost" in capsys.readouterr().out
    nothing: Any = Fixed("0023", "")
    with pytest.raises(Failure, match="no copy of before its tables changed"):
        rollback._forward(nothing, before)
    ahead: Any = Fixed("0023", "/data/store/labcommons.before-0022-20261128T003520.sqlite")
    forward = rollback._forward(ahead, before)
    rollback._tell(before, forward)
    said = capsys.readouterr().out
    assert "its copy of 2026-11-28 00:35 UTC" in said
    assert "LOST is what was written since: quotas" in said
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(Failure, match="nobody there to ask"):
        rollback._ask()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "labcommons.sqlite"
    with closing(sqlite3.connect(file)) as made:
        made.execute("PRAGMA journal_mode=WAL")
        made.execute(f"CREATE TABLE {TABLE} (version_num TEXT)")
        made.execute(f"INSERT INTO {TABLE} VALUES ('0022')")
        made.commit()
    return file


def forward(file: Path) -> None:
    with closing(sqlite3.connect(file)) as changed:
        changed.execute(f"UPDATE {TABLE} SET version_num = '0023'")
        changed.commit()


def test_a_copy_comes_back_and_what_there_was_is_kept(database: Path) -> None:
    assert sqlite_copies.revision(database.with_name("none"), TABLE) == ""
    assert sqlite_copies.revision(database, TABLE) == "0022"
    made = sqlite_copies.copy(database, "0022")
    assert copies.made_at(made.name)
    forward(database)
    assert sqlite_copies.newest(database, "0023") is None
    kept = sqlite_copies.restore(database, "0022")
    assert sqlite_copies.revision(database, TABLE) == "0022"
    assert sqlite_copies.revision(kept, TABLE) == "0023"
    assert made.exists()
    assert not [path.name for path in database.parent.glob("*-wal")]


def test_a_database_that_is_in_use_is_not_replaced(database: Path) -> None:
    sqlite_copies.copy(database, "0022")
    forward(database)
    with closing(sqlite3.connect(database)) as reader:
        reader.execute("BEGIN")
        reader.execute(f"SELECT * FROM {TABLE}").fetchall()
        with pytest.raises(OSError, match="still in use"):
            sqlite_copies.restore(database, "0022")
    assert sqlite_copies.revision(database, TABLE) == "0023"


KILLED = """
import os, runpy, signal, sqlite3, sys
left = int(sys.argv.pop(1))
def count(event, *_):
    global left
    if event in ("os.rename", "os.remove", "sqlite3.connect", "open"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
exec(compile(sys.stdin.read(), "copies.py", "exec"), {"__name__": "__main__"})
"""


def test_killed_anywhere_it_is_the_one_or_the_other_and_the_next_run_goes_on(
    database: Path,
) -> None:
    sqlite_copies.copy(database, "0022")
    script = copies.SQLITE.read_text()
    for step in range(1, 100):
        forward(database)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(step), "restore", str(database), "0022"],
            input=script, text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert sqlite_copies.revision(database, TABLE) in ("0022", "0023")
        with closing(sqlite3.connect(database)) as found:
            assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if done.returncode != -signal.SIGKILL:
            break
    assert done.returncode == 0, done.stderr
    assert step > 5
    assert sqlite_copies.revision(database, TABLE) == "0022"
    assert len(list(database.parent.glob("*.until-*"))) == 1


def test_postgresql_is_copied_and_put_back(postgres: Postgres, tmp_path: Path) -> None:
    name = f"r{uuid.uuid4().hex[:12]}"
    url = postgres.database(name).replace("+psycopg", "")
    where = {"PGHOST": str(postgres.folder), "PGUSER": postgres.user, "PGPASSWORD": "none"}
    path = f"{postgres.bin}:{os.environ['PATH']}"

    def ask(*words: str) -> str:
        done = subprocess.run(
            ["sh", "-s", *words], input=copies.POSTGRES.read_text(), text=True,
            capture_output=True, check=False,
            env={**where, "PATH": path, "COPIES": str(tmp_path / "copies")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def execute(*statements: str) -> list[Any]:
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements[:-1]:
                connection.execute(statement)
            return connection.execute(statements[-1]).fetchall()

    assert ask("revision", name, TABLE) == ""
    execute(
        f"CREATE TABLE {TABLE} (version_num TEXT)", f"INSERT INTO {TABLE} VALUES ('0022')",
        "CREATE TABLE people (name TEXT PRIMARY KEY)", "INSERT INTO people VALUES ('alice')",
        "SELECT 1",
    )  # fmt: skip
    assert ask("revision", name, TABLE) == "0022"
    assert ask("newest", name, "0022") == ""
    ask("copy", name, "0022")
    made = ask("copy", name, "0022")
    assert ask("newest", name, "0022") == made
    assert copies.made_at(made)
    execute(
        f"UPDATE {TABLE} SET version_num = '0023'",
        "CREATE TABLE more (name TEXT REFERENCES people)", "INSERT INTO more VALUES ('alice')",
        "SELECT 1",
    )  # fmt: skip
    with psycopg.connect(url):  # somebody who forgot to leave
        kept = ask("restore", name, "0022").split()[-1]
    assert ask("revision", name, TABLE) == "0022"
    assert ask("revision", kept, TABLE) == "0023"
    assert execute("SELECT name FROM people") == [("alice",)]
    assert execute("SELECT to_regclass('more')") == [(None,)]
