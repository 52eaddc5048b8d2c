"""What fills the disk: looked at when it is due, told in time, and refused with a way out."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from datetime import timedelta
from functools import partial

import pytest
from click.testing import CliRunner
from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.errors import NotAvailable
from commons.notice_kinds import KINDS
from commons.principal import Principal
from commons.site import Site
from commons.site.storage import Area, Storage
from commons.store import DiskUse, GpuNotice, Store
from commons.store.models import Course, utcnow
from hub_ext import disk_cli
from hub_ext.disk_watch import NEAR, REST, USED, DiskWatch, due
from spawner import storage
from spawner.runtime.docker import measure
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.protocol import FolderUse, LargeFolder

GIB = 2**30
ALICE: tuple[Area, str] = ("homes", "alice")
BOB: tuple[Area, str] = ("homes", "bob")
TEAM: tuple[Area, str] = ("teams", "vision")


def test_what_is_due_is_what_was_used_or_is_near_its_limit() -> None:
    now = utcnow()
    folders = {ALICE, BOB, TEAM}
    assert due(now, folders, {}, ()) in folders
    known = dict.fromkeys(folders, (now, 0.1))
    assert due(now, folders, known, {"alice"}) is None
    later = now + USED
    assert due(later, {ALICE, BOB}, known, {"alice"}) == ALICE
    assert due(later, {BOB}, known, {"alice"}) is None
    assert due(later, {TEAM}, known, ()) == TEAM
    assert due(now + REST, {BOB}, known, ()) == BOB
    assert due(now + NEAR, {ALICE, BOB}, {ALICE: (now, 1.0), BOB: (now, 1.0)}, {"alice"}) == ALICE
    assert due(now, (), known, ()) is None


@pytest.fixture
def runtime() -> MemoryRuntime:
    runtime = MemoryRuntime()
    large = (LargeFolder(path="data/old", bytes=6 * GIB), LargeFolder(path="x\n", bytes=2 * GIB))
    runtime.disk = {
        ALICE: FolderUse(bytes=9 * GIB, largest=large),
        BOB: FolderUse(bytes=0),
        TEAM: FolderUse(bytes=GIB, whole=False),
    }
    return runtime


def disk_watch(
    store: Store, runtime: MemoryRuntime, limits: Storage, told: Collection[str] = ()
) -> DiskWatch:
    return DiskWatch(store, runtime, limits, lambda: [], lambda _scope: told, logging.getLogger())


async def test_each_is_measured_and_who_is_near_the_limit_is_told_once(
    store: Store, runtime: MemoryRuntime
) -> None:
    watch = disk_watch(store, runtime, Storage(homes="10G"))
    for _ in range(5):
        await watch.once()
    assert runtime.calls["measure"] == 3
    rows = {(row.area, row.name): row.bytes for row in store.transact(_rows)}
    assert rows == {ALICE: 9 * GIB, BOB: 0, TEAM: GIB}
    [told] = store.transact(lambda s: list(s.scalars(select(GpuNotice))))
    assert (told.username, told.code) == ("alice", "home_fills")
    assert "data/old" in json.dumps(told.data)
    assert KINDS[told.code].remedy
    # A folder that is gone is forgotten.
    del runtime.disk[TEAM]
    watch._listed = None
    await watch.once()
    assert TEAM not in {(row.area, row.name) for row in store.transact(_rows)}


async def test_who_answers_for_a_folder_is_told_once_for_each_crossing(
    store: Store, runtime: MemoryRuntime
) -> None:
    watch = disk_watch(store, runtime, Storage(homes="10G", teams="10G"), ("carol", "alice"))

    async def grows(folder: tuple[Area, str], gib: int) -> list[tuple[str, str]]:
        before = len(store.transact(_notices))
        use = FolderUse(bytes=gib * GIB, largest=(LargeFolder(path="old", bytes=GIB),))
        await store.run(partial(watch._write, folder, use, ["alice", "carol"]))
        return [(one.username, one.code) for one in store.transact(_notices)[before:]]

    both = [("alice", "folder_fills"), ("carol", "folder_fills")]
    assert await grows(TEAM, 7) == []
    assert await grows(TEAM, 9) == both
    assert await grows(TEAM, 9) == []
    assert await grows(TEAM, 11) == [("alice", "folder_full"), ("carol", "folder_full")]
    # It is full again on the same day: they know it.
    assert await grows(TEAM, 9) == []
    assert await grows(TEAM, 11) == []
    # The person of a home is told in other words, and once.
    assert await grows(ALICE, 9) == [("alice", "home_fills"), ("carol", "folder_fills")]
    [*_, last] = store.transact(_notices)
    assert last.data["folder"] == "homes/alice"
    assert "old" in json.dumps(last.data)


def _notices(session: Session) -> list[GpuNotice]:
    return list(session.scalars(select(GpuNotice).order_by(GpuNotice.id)))


def test_who_writes_in_a_folder_that_is_too_large_starts_what_is_needed_to_delete(
    store: Store, site: Site
) -> None:
    site = site.model_copy(update={"storage": Storage(teams="5G", courses="5G")})
    for area, name in (("teams", "vision"), ("courses", "ml101")):
        row = DiskUse(area=area, name=name, bytes=6 * GIB, whole=True, at=utcnow())
        row.largest = [{"folder": "files/old", "bytes": 4 * GIB}]
        store.transact(lambda s, row=row: s.add(row))

    def start(size: str, **state: object) -> None:
        person = Principal.from_auth_state("bob", False, state)
        store.transact(lambda s: storage.check(s, person, size, 0, site.sizes, site), read=True)

    member, student = {"teams": {"vision": "member"}}, {"courses": {"ml101": "student"}}
    instructor = {"courses": {"ml101": "instructor"}}
    start("large")
    start("small", **member)
    start("large", **student)  # who can delete nothing there
    for state, words in ((member, "team vision"), (instructor, "course ml101")):
        with pytest.raises(NotAvailable) as caught:
            start("large", **state)
        first, second = [one.in_words() for one in caught.value.reasons]
        assert words in first
        assert "files/old (4" in second
        assert caught.value.code == "folder_over_limit"


async def test_a_course_with_a_limit_of_its_own_is_measured_by_that(
    store: Store, runtime: MemoryRuntime, site: Site
) -> None:
    site = site.model_copy(update={"storage": Storage(courses="5G")})
    spec = {"storage": "20G", "granted": {"storage": "10G"}}
    course = Course(name="ml101", spec=spec, reservations={}, changed_by="carol")
    store.transact(lambda s: s.add(course))
    watch = disk_watch(store, runtime, site.storage, ("carol",))

    async def grows(gib: int) -> list[str]:
        before = len(store.transact(_notices))
        await store.run(
            partial(watch._write, ("courses", "ml101"), FolderUse(bytes=gib * GIB), ["carol"])
        )
        return [one.code for one in store.transact(_notices)[before:]]

    assert await grows(7) == []
    person = Principal.from_auth_state("ida", False, {"courses": {"ml101": "instructor"}})

    def start() -> None:
        store.transact(lambda s: storage.check(s, person, "large", 0, site.sizes, site), read=True)

    start()
    assert await grows(9) == ["folder_fills"]
    # Of twenty that were asked for, ten were granted.
    assert await grows(11) == ["folder_full"]
    with pytest.raises(NotAvailable):
        start()


def _rows(session: object) -> list[DiskUse]:
    return list(session.scalars(select(DiskUse)))  # type: ignore[attr-defined]


def test_who_is_over_the_limit_starts_what_is_needed_to_delete(store: Store, site: Site) -> None:
    site = site.model_copy(update={"storage": Storage(homes="5G")})
    row = DiskUse(area="homes", name="alice", bytes=6 * GIB, whole=True, at=utcnow())
    row.largest = [{"folder": "data/old", "bytes": 4 * GIB}]

    def start(size: str, gpus: int = 0, user: str = "alice", where: Site = site) -> None:
        person = Principal(user)
        store.transact(
            lambda s: storage.check(s, person, size, gpus, where.sizes, where), read=True
        )

    start("large")  # nothing is known yet
    store.transact(lambda s: s.add(row))
    start("small")
    start("large", user="bob")
    start("large", where=site.model_copy(update={"storage": Storage()}))
    for size, gpus in (("large", 0), ("small", 1)):
        with pytest.raises(NotAvailable) as caught:
            start(size, gpus)
        sentences = [one.in_words() for one in caught.value.reasons]
        assert "6" in sentences[0]
        assert "Small" in sentences[0] or "small" in sentences[0]
        assert "data/old (4" in sentences[1]


def test_the_command_tells_it_with_its_age(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(disk_cli, "load_site", lambda: site)
    monkeypatch.setenv("LABCOMMONS_DATABASE_URL", store.url)
    monkeypatch.setenv("LABCOMMONS_DATA", str(tmp_path))
    (tmp_path / "store").mkdir()  # type: ignore[operator]
    empty = CliRunner().invoke(disk_cli.disk)
    assert "nothing is measured yet" in empty.output, empty.output
    row = DiskUse(area="homes", name="alice", bytes=GIB, whole=False)
    row.largest, row.at = [{"folder": "a\x1b[2Jb", "bytes": GIB}], utcnow() - timedelta(hours=3)
    store.transact(lambda s: s.add(row))
    said = CliRunner().invoke(disk_cli.disk).output
    assert "homes/alice" in said
    assert "at least (3 h ago)" in said
    assert "\x1b" not in said
    found = json.loads(CliRunner().invoke(disk_cli.disk, ["--json"]).output)
    assert found["areas"]["homes"]["bytes"] == GIB
    assert found["folders"][0]["largest"][0]["bytes"] == GIB


@pytest.mark.parametrize("raw", [b"", b"\0\0", b"x\t.\0", b"9" * 40 + b"\t.\0", b"\xff\t\xff\0"])
def test_whatever_du_says_is_read(raw: bytes) -> None:
    assert measure.read(raw, 1) == FolderUse(bytes=0)


def test_the_inner_one_of_folders_that_say_the_same_is_named() -> None:
    raw = b"900\t./a/b\x00910\t./a\x00300\t./c\n\xff\x001300\t.\x00"
    found = measure.read(raw, 0)
    assert found.bytes == 1300 * 1024
    assert [one.path for one in found.largest] == ["a/b", "c\n\ufffd"]
    assert measure.read(raw.rpartition(b"1300")[0], 124).bytes == 1210 * 1024
