"""``labcommons course``, as an administrator types it."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jupyterhub import orm
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from commons.store import Store
from courses import archives, grading, handins, people, records
from courses.handins import State
from courses.roster_files import Entry
from hub_ext.cli import cli
from hub_ext.course_roster import asked, known
from hub_ext.directory.roster import Asked, Fit, Match
from spawner.runtime.docker import archive_task
from tests.courses.conftest import DOCUMENT, fill

SITE = """
version: 1
directory:
  servers: [ldaps://ldap.example.org]
  users: {base_dn: 'dc=example,dc=org'}
  courses: {ml101: {students: [ml101]}}
sizes: {small: {cpu: 1, memory: 1G}}
gpus:
  source: simulated
  max_per_server: 2
  devices:
    - {id: GPU-a0, model: A100, memory: 80G}
    - {id: GPU-a1, model: A100, memory: 80G}
"""


class Terminal:
    """Commands against a database of their own."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.file = folder / "ml101.yaml"
        (folder / "site.yaml").write_text(SITE, "utf-8")
        self.environment = {
            "LABCOMMONS_DATABASE_URL": store.url,
            "LABCOMMONS_SITE_FILE": str(folder / "site.yaml"),
            "LABCOMMONS_DATA": str(folder),
        }

    def __call__(self, *words: str, code: int = 0, typed: str | None = None) -> Result:
        result = CliRunner().invoke(cli, ["course", *words], env=self.environment, input=typed)
        assert result.exit_code == code, result.output
        return result

    def apply(self, document: object, *more: str, code: int = 0) -> str:
        self.file.write_text(json.dumps(document), "utf-8")
        return self("apply", "-f", str(self.file), *more, code=code).output


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    from commons.site import load_site

    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    found = Terminal(store, tmp_path)
    store.transact(lambda s: fill(s, load_site(tmp_path / "site.yaml")))
    return found


LATER = DOCUMENT | {"term": {"first": "2031-01-06", "last": "2031-02-28"}, "days_off": []}


def test_a_course_is_tried_applied_shown_exported_and_removed(terminal: Terminal) -> None:
    assert terminal("list").output.startswith("No course is set up.")
    tried = terminal.apply(LATER, "--dry-run")
    assert "+ title.en: Machine learning" in tried
    assert tried.endswith("Not applied (--dry-run).\n")
    terminal("show", "ml101", code=1)
    assert terminal.apply(LATER).endswith("Applied.\n")
    assert terminal.apply(LATER) == "Nothing changes.\n"
    exported = terminal("export", "ml101").output
    assert terminal("apply", "-f", "-", typed=exported).output == "Nothing changes.\n"
    changed = json.loads(terminal.apply(LATER | {"size": ""}, "--json"))
    assert changed == {
        "applied": True, "changes": [{"key": "size", "before": "small", "after": None}],
    }  # fmt: skip
    assert "ml101   Machine learning" in terminal("list").output
    shown = json.loads(terminal("show", "ml101", "--json").output)
    assert shown["course"]["title"]["zh"] == "机器学习"
    assert "Nobody is on the roster" in terminal("roster", "list", "ml101").output
    terminal("remove", "ml101", typed="n\n", code=1)
    assert terminal("remove", "ml101", "--yes").output == "Removed: ml101. Its folder stays.\n"
    assert terminal("list").output.startswith("No course is set up.")


def test_the_room_is_who_is_there_and_what_runs_for_the_course(
    terminal: Terminal, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    terminal.environment["LABCOMMONS_HUB_DATABASE_URL"] = url
    engine = create_engine(url)
    orm.Base.metadata.create_all(engine)
    with Session(engine) as hub:
        group = orm.Group(name="course:ml101:assistants")
        runs = {"ada": {"course": "ml101", "size": "small", "gpus": 1}, "eve": {"size": "small"}}
        for name, options in runs.items():
            user = orm.User(name=name)
            server = orm.Server(base_url=f"/user/{name}/")
            spawner = orm.Spawner(name="", user=user, server=server, user_options=options)
            hub.add_all([user, server, spawner])
            if name == "ada":
                group.users.append(user)
        hub.add(group)
        hub.commit()
    engine.dispose()
    listed = {"ada": "student", "eve": "student", "ida": "student"}
    store = Store(terminal.environment["LABCOMMONS_DATABASE_URL"])
    store.transact(lambda s: people.apply(s, "ml101", listed, "dan", False))
    store.close()
    found = json.loads(terminal("room", "ml101", "--json").output)
    assert {one["who"]: (one["position"], one["state"], one["gpus"]) for one in found} == {
        "ada": ("assistant", "running", 1), "eve": ("student", "other", 0),
        "ida": ("student", "none", 0),
    }  # fmt: skip
    assert "ada    assistant  running" in terminal("room", "ml101").output
    assert "ada,assistant,running" in terminal("room", "ml101", "--csv").output
    terminal("room", "none", code=1)


def test_what_is_wrong_is_told_with_its_line(terminal: Terminal) -> None:
    terminal.file.write_text("version: 1\ncourse: ml101\ntimezone: Mars\n", "utf-8")
    said = terminal("apply", "-f", str(terminal.file), code=1).output
    assert "line 3: timezone:" in said
    assert "Did you mean “ml101”" in terminal.apply(LATER | {"course": "ml102"}, code=1)
    assert terminal.apply(LATER | {"gpus": {"reserved": 3}}, code=1).count("granted this course 2")


def test_who_is_found_is_put_on_and_who_is_not_is_listed() -> None:
    entries = [
        Entry(2, "S01", "", "", "", "student"),
        Entry(3, "", "ada@example.org", "", "", "assistant"),
        Entry(4, "", "", "4711", "", "student"),
        Entry(5, "gone", "", "", "", "student"),
        Entry(6, "", "twins@example.org", "", "", "student"),
        Entry(7, "s01", "", "", "", "instructor"),
    ]
    matches = [
        Match(Fit.FOUND, ("s01",)),
        Match(Fit.FOUND, ("ada",)),
        Match(Fit.UNUSABLE, ()),
        Match(Fit.UNKNOWN),
        Match(Fit.AMBIGUOUS, ("eva", "ida")),
        Match(Fit.FOUND, ("s01",)),
    ]
    assert asked(entries)[1] == Asked("", "ada@example.org", "")
    found = known(entries, matches, people.WORDS)
    assert found.people == {"s01": "instructor", "ada": "assistant"}
    assert [(one.line, one.who, str(one.reason)) for one in found.left] == [
        (4, "4711", "is disabled in the directory, or has no account number there"),
        (5, "gone", "is not in the directory"),
        (6, "twins@example.org", "fits several people (eva, ida); write the login name"),
    ]


def test_a_course_is_frozen_archived_verified_and_removed(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Ed25519PrivateKey.generate()
    (tmp_path / "key").write_text(key.private_bytes_raw().hex())
    terminal.environment["LABCOMMONS_RECEIPT_KEY"] = str(tmp_path / "key")
    for name in ("course", "versions", "archives"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(archive_task, name.upper(), tmp_path / name)
    terminal.apply(LATER)
    assert terminal("freeze", "ml101").output == "Frozen: ml101.\n"
    assert terminal("freeze", "ml101").output == "ml101 is frozen already.\n"
    assert "no such archive" in terminal("archive", "verify", "ml101", code=1).output
    assert "The hub makes it" in terminal("archive", "create", "ml101", "--no-wait").output
    [row] = json.loads(terminal("archive", "list", "ml101", "--json").output)
    words = {"id": row["id"], "course": "ml101", "top": "t", "texts": {}, "environments": []}
    packed = archive_task.pack(words, print)
    statement = json.dumps({"sums": packed["sums"]})
    signature = key.sign(statement.encode()).hex()
    sealed = {"name": row["name"], "packed": packed["packed"], "statement": statement}
    done = archive_task.seal(words | sealed | {"signature": signature}, print)
    store = Store(terminal.environment["LABCOMMONS_DATABASE_URL"])
    store.transact(lambda s: archives.end(s, row["id"], archives.State.KEPT, size=done["size"]))
    store.close()
    assert "Whole and true: 1 files." in terminal("archive", "verify", "ml101").output
    path = tmp_path / "archives" / "ml101" / row["name"]
    assert "Whole and true" in terminal("archive", "verify", str(path)).output
    assert terminal("archive", "download", "ml101").stdout_bytes == path.read_bytes()
    (tmp_path / "key").write_text(Ed25519PrivateKey.generate().private_bytes_raw().hex())
    assert "signature" in terminal("archive", "verify", "ml101", code=1).output
    said = terminal("erase", "ml101", code=1, typed="ml102\n").output
    assert "courses/ml101: not measured yet" in said
    assert "type its name: ml101" in said
    assert terminal("thaw", "ml101").output == "Thawed: ml101.\n"
    assert "is not frozen" in terminal("erase", "ml101", "--yes", "ml101", code=1).output


def test_what_was_handed_in_is_graded_and_what_it_gave_is_told(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_ext.handin_cli.PAUSE", 0.01)
    terminal.apply(LATER | {"handins": [{"name": "hw1", "due": "2031-01-20"}]}, "--anyway")
    store = Store(terminal.environment["LABCOMMONS_DATABASE_URL"])

    def hand_in(session: Session) -> None:
        spec = records.spec_of(records.get(session, "ml101"))
        for who in ("s01", "s02"):
            handins.ask(session, spec, "hw1", who, "", 1_900_000_000.0).state = State.KEPT

    said = terminal("handin", "autograde", "ml101", "hw1", code=1).output
    assert "Nothing that could be graded" in said
    store.transact(hand_in)
    waits = terminal("handin", "autograde", "ml101", "hw1", "--for", "s01", "--wait", "0").output
    assert ("s01" in waits, "asked" in waits, "s02" in waits) == (True, True, False)

    def end(session: Session) -> bool:
        """What the hub's keeper does."""
        rows = grading.newest(session, "ml101", "hw1")
        if len(rows) < 2:
            return False
        one = {"name": "a.ipynb", "score": 7.5, "most": 10.0, "manual": True, "problem": "time"}
        told = {"score": 7.5, "most": 10.0, "manual": True, "kept": ["s01"], "notebooks": [one]}
        rows["s01"].state, rows["s01"].receipt = State.KEPT, told
        rows["s02"].state, rows["s02"].message = (
            State.REFUSED,
            grading.NOTHING_KEPT(name="hw1").as_json(),
        )
        return True

    def keep() -> None:
        while not store.transact(end):
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:
        keeping = pool.submit(keep)
        said = terminal("handin", "autograde", "ml101", "hw1", code=1).output
        keeping.result(30)
    for word in ("2 of 2", "7.5/10", "a.ipynb: time", "by a person", "stays: s01", "Nothing that"):
        assert word in said
