"""The channel's size is bounded, and never at the cost of a lock."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from commons.store import EnvironmentBuild, ScopeEnvironment, Store
from environments import offline
from environments.build import Places
from environments.channel import OFFLINE_URL
from environments.offline.index import write_index
from environments.offline.note import Kept, Note
from environments.offline.package import Member, Metadata, write_package
from environments.prune import prune_channel
from environments.spec import EnvironmentSpec

WriteSpec = Callable[..., EnvironmentSpec]
NAMES = ("alpha", "beta", "gamma", "delta")
DAY = 86400


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    """Four packages, last used four to one days ago."""
    folder = tmp_path / "data" / "channel"
    note = Note()
    for age, name in zip((5, 4, 3, 2), NAMES, strict=True):
        metadata = Metadata(name, "1.0", "0", noarch="generic")
        path = write_package(folder, metadata, [Member("share/x", os.urandom(10_000))])
        note.packages[metadata.path] = Kept.of(path, metadata)
        os.utime(path, (time.time() - age * DAY,) * 2)
    note.asked = {f"3.13 {name}": [f"noarch/{name}-1.0-0.conda"] for name in NAMES}
    write_index(folder, note.packages)
    note.write(folder)
    return folder


def there(channel: Path) -> list[str]:
    """The packages on the disk, which must be those of the index and of the note."""
    names = [path.name.split("-")[0] for path in sorted(channel.glob("*/*.conda"))]
    index = json.loads((channel / "noarch/repodata.json").read_bytes())["packages.conda"]
    note = Note.read(channel)
    assert [name.split("-")[0] for name in sorted(index)] == names
    assert sorted(key.split(" ")[1] for key in note.asked) == names
    return names


def limit(channel: Path, packages: int) -> int:
    return offline.size(channel) * packages // len(NAMES) + 100


def test_the_oldest_go_until_it_is_small_enough(channel: Path) -> None:
    before = offline.size(channel)
    room = offline.trim(channel, limit(channel, 2), ())
    assert there(channel) == ["delta", "gamma"]
    assert (room.size, room.freed) == (offline.size(channel), before - room.size)


def test_a_small_channel_stays_as_it_is(channel: Path) -> None:
    digest = offline.index_digest(channel)
    assert offline.trim(channel, offline.size(channel), ()).freed == 0
    assert (len(there(channel)), offline.index_digest(channel)) == (4, digest)


def test_what_a_lock_names_stays_however_old_and_large(channel: Path) -> None:
    needed = {"noarch/alpha-1.0-0.conda", "noarch/beta-1.0-0.conda"}
    offline.trim(channel, 1, needed)
    assert there(channel) == ["alpha", "beta"]


def test_what_was_used_a_moment_ago_stays(channel: Path) -> None:
    offline.touch(channel, ["noarch/alpha-1.0-0.conda", "noarch/not-there-1-0.conda"])
    offline.trim(channel, 1, ())
    assert there(channel) == ["alpha"]


def test_a_dry_run_only_counts(channel: Path) -> None:
    room = offline.trim(channel, limit(channel, 1), (), dry_run=True)
    assert room.freed > 0
    assert len(there(channel)) == 4


def test_names_are_found_in_any_lock_whole_or_not() -> None:
    text = f"""
    - conda: {OFFLINE_URL}noarch/a-1%2B2-0.conda
      {OFFLINE_URL}linux-64/b-1!2.0-0.conda"
    - conda: https://elsewhere.example/noarch/c-1-0.conda
    <<<<<<< a merge that went wrong"""
    assert offline.named_in([text]) == {"noarch/a-1+2-0.conda", "linux-64/b-1!2.0-0.conda"}


def test_locks_of_files_of_people_and_of_builds_that_wait_count(
    channel: Path, tmp_path: Path, store: Store
) -> None:
    places = Places(tmp_path / "environments", tmp_path / "data")
    url = f"- conda: {OFFLINE_URL}noarch/{{}}-1.0-0.conda\n"
    lock = places.environments / "data" / "pixi.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text(url.format("alpha"))

    def fill(session: object) -> None:
        session.add(
            ScopeEnvironment(
                scope="personal", owner="alice", name="x", version="1", built_by="alice",
                lock=url.format("beta"), exports={}, packages=[], kernels={}, findings=[],
            )
        )  # fmt: skip
        session.add(
            EnvironmentBuild(
                id="1", action="create", scope="personal", owner="bob", name="y",
                requested_by="bob", spec="", words="", lock=url.format("gamma"), state="queued",
            )
        )  # fmt: skip

    store.transact(fill)
    assert prune_channel(places, store, 1, dry_run=True).freed > 0
    prune_channel(places, store, 1)
    assert there(channel) == ["alpha", "beta", "gamma"]


def test_what_went_is_asked_for_anew(channel: Path, write_spec: WriteSpec) -> None:
    spec = write_spec("python 3.13.*", "numpy")
    note = Note.read(channel)
    note.asked["3.13 ipykernel numpy"] = ["noarch/alpha-1.0-0.conda"]
    (channel / "linux-64").mkdir(exist_ok=True)
    note.write(channel)
    assert offline.holds(channel, spec)
    assert offline.may_hold(channel, spec)
    offline.trim(channel, limit(channel, 3), ())
    assert not offline.holds(channel, spec)
    assert not offline.may_hold(channel, spec)
