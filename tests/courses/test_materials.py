"""Materials as the course says them, when they are fetched, and what is told of that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from commons.errors import BadRequest
from commons.messages import ENGLISH
from commons.site import Site
from commons.store import Store
from commons.store.models import utcnow
from courses import materials, records
from courses.document import CourseError, CourseSpec, check_course, read_course, to_plain, to_yaml
from courses.material_keeper import MaterialKeeper
from spawner.runtime.memory import MemoryRuntime, silent
from spawner.runtime.spec import Fetched

from .conftest import DOCUMENT

Make = Callable[..., CourseSpec]
GIT = {"git": "https://git.example.org/ml101.git", "branch": "main"}
GOOD = Fetched(revision="1" * 40, files=2, bytes=10, left_out=(("x.bin", "large"),))
NOW = datetime(2026, 11, 3, 9)


@pytest.mark.parametrize("said", ["folder", GIT, {"git": GIT["git"]}])
def test_materials_are_exported_as_they_were_said(course: Make, said: object) -> None:
    spec = course(materials=said)
    assert to_plain(spec)["materials"] == said
    assert read_course(to_yaml(spec)) == spec


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("files", "materials"),
        ({}, "materials"),
        ({"branch": "main"}, "materials"),
        ({"git": "http://git.example.org/x"}, "materials.git"),
        ({"git": "file:///etc"}, "materials.git"),
        ({"git": "ext::sh -c id"}, "materials.git"),
        ({"git": "https://me:secret@git.example.org/x"}, "materials.git"),
        ({"git": "https://git.example.org"}, "materials.git"),
        ({"git": "https://git.example.org/a b"}, "materials.git"),
        ({**GIT, "branch": "--upload-pack=id"}, "materials.branch"),
        ({**GIT, "depth": 1}, "materials.depth"),
    ],
)
def test_what_are_no_materials_is_said_by_its_key(said: object, path: str) -> None:
    with pytest.raises(CourseError) as caught:
        check_course({**DOCUMENT, "materials": said})
    assert [one.path for one in caught.value.problems] == [path]


@pytest.fixture
def given(filled: Store, lab: Site, course: Make) -> Store:
    """ml101, with materials in a repository."""
    apply(filled, lab, course(materials=GIT))
    return filled


def apply(store: Store, lab: Site, spec: CourseSpec) -> None:
    store.transact(
        lambda s: records.apply(s, spec, "dan", lab, now=NOW.replace(tzinfo=UTC).timestamp())
    )


def due(store: Store, now: datetime = NOW) -> list[str]:
    return [name for name, _ in store.transact(lambda s: materials.due(s, now), read=True)]


def end(store: Store, spec: CourseSpec, fetched: Fetched = GOOD, at: datetime = NOW) -> None:
    wanted = spec.materials
    assert wanted is not None
    store.transact(lambda s: materials.ended(s, "ml101", wanted, at, fetched))


def test_they_are_fetched_at_first_when_asked_when_changed_and_now_and_then_in_the_term(
    given: Store, lab: Site, course: Make
) -> None:
    spec = course(materials=GIT)
    assert due(given) == ["ml101"]
    end(given, spec)
    assert due(given) == []
    given.transact(lambda s: materials.want(s, "ml101", NOW + timedelta(seconds=1)))
    assert due(given) == ["ml101"]
    end(given, spec, at=NOW + timedelta(seconds=2))
    assert due(given, NOW + materials.EVERY) == []
    assert due(given, NOW + materials.EVERY + timedelta(seconds=2)) == ["ml101"]
    assert due(given, NOW + timedelta(days=300)) == []
    apply(given, lab, course(materials="folder"))
    assert due(given) == ["ml101"]
    apply(given, lab, course())
    assert due(given) == []


def test_what_was_fetched_before_stays_said_beside_what_is_wrong(
    given: Store, course: Make
) -> None:
    end(given, course(materials=GIT))
    failed = Fetched(failure="branch", detail="main")
    end(given, course(materials=GIT), failed, NOW + timedelta(hours=1))
    shown = given.transact(lambda s: materials.of(s, "ml101"), read=True)
    told = materials.in_words(shown, ENGLISH)
    assert told["fetched_at"] == "2026-11-03T09:00:00Z"
    assert told["files"] == 2
    assert told["left_out"] == [{"path": "x.bin", "why": "larger than 100 MB"}]
    assert "has no branch “main”" in told["problem"]
    end(given, course(materials=GIT), GOOD, NOW + timedelta(hours=2))
    assert given.transact(lambda s: materials.of(s, "ml101"), read=True)["problem"] is None


def test_a_course_without_materials_has_none_to_fetch(
    filled: Store, lab: Site, course: Make
) -> None:
    apply(filled, lab, course())
    with pytest.raises(BadRequest, match="says nothing of materials"):
        filled.transact(lambda s: materials.want(s, "ml101", NOW))


def test_with_the_course_goes_what_is_said_of_its_materials(
    given: Store, lab: Site, course: Make
) -> None:
    end(given, course(materials=GIT))
    given.transact(lambda s: records.remove(s, "ml101"))
    apply(given, lab, course(materials=GIT))
    assert given.transact(lambda s: materials.of(s, "ml101"), read=True)["fetched_at"] is None


@pytest.fixture
def runtime() -> MemoryRuntime:
    return MemoryRuntime()


@pytest.fixture
def keeper(given: Store, lab: Site, runtime: MemoryRuntime) -> MaterialKeeper:
    env = {"https_proxy": "http://proxy:3128"}
    return MaterialKeeper(runtime, given, lab, env, logging.getLogger("test"))


async def all_done(keeper: MaterialKeeper) -> None:
    await keeper.look()
    while len(keeper._works):
        await asyncio.sleep(0)


async def test_the_hub_fetches_what_is_due_and_writes_down_what_came_of_it(
    keeper: MaterialKeeper, given: Store, runtime: MemoryRuntime
) -> None:
    runtime.materials["course-ml101"] = GOOD
    await all_done(keeper)
    [asked] = runtime.fetches
    assert (asked.git, asked.branch) == (GIT["git"], "main")
    assert asked.env == {"https_proxy": "http://proxy:3128"}
    assert runtime.made["folder-course-ml101"] == 1
    assert due(given, utcnow()) == []
    await all_done(keeper)
    assert len(runtime.fetches) == 1


async def test_an_agent_that_is_away_is_told_and_tried_again_soon(
    keeper: MaterialKeeper, given: Store, runtime: MemoryRuntime
) -> None:
    runtime.faults["fetch_materials"] = silent()
    await all_done(keeper)
    shown = given.transact(lambda s: materials.of(s, "ml101"), read=True)
    assert shown["problem"]
    assert due(given, utcnow()) == []
    assert due(given, utcnow() + materials.SOON) == ["ml101"]
    assert shown["waits"] is False


async def test_a_hub_that_is_killed_in_the_middle_fetches_again(
    keeper: MaterialKeeper, given: Store, runtime: MemoryRuntime
) -> None:
    runtime.faults["fetch_materials:doing"] = asyncio.Event()
    await keeper.look()
    await asyncio.sleep(0)
    await keeper._works.close()
    assert due(given) == ["ml101"]
