"""The list goes on while storage hangs, goes away and comes back, and after a restart."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from kernels import cache, discovery
from kernels.discovery import Environment, Source, SourceDiscovery, State
from kernels.listing import Listing
from tests.kernels.conftest import MakePrefix, age


def names(environments: list[Environment]) -> list[tuple[str, State]]:
    return [(each.place.environment, each.state) for each in environments]


@pytest.fixture
def sources(make_prefix: MakePrefix, roots: Path) -> list[Source]:
    make_prefix("a", root="image")
    make_prefix("b", root="team")
    return [Source("image", f"{roots}/image/*"), Source("team-x", f"{roots}/team/*")]


def test_a_source_that_hangs_does_not_keep_the_others_from_being_seen(
    sources, make_prefix, monkeypatch
) -> None:
    monkeypatch.setattr("kernels.listing.STUCK", 0.2)
    monkeypatch.setattr("kernels.listing.UNAVAILABLE", 0.4)
    mounted = threading.Event()
    mounted.set()

    def scan(part: SourceDiscovery) -> list[Environment]:
        if part.source.id == "image":
            mounted.wait(60)
        return part.scan()

    others = threading.active_count()
    listing = Listing(sources, scan=scan)
    assert names(listing.environments(5)) == [("a", State.HEALTHY), ("b", State.HEALTHY)]
    mounted.clear()
    listing.environments(0.5)
    make_prefix("c", root="team")
    began = time.monotonic()
    expected = [("a", State.UNAVAILABLE), ("b", State.HEALTHY), ("c", State.HEALTHY)]
    while (found := names(listing.environments(60))) != expected:
        assert time.monotonic() < began + 10, found  # nobody waits for what hangs
    assert threading.active_count() <= others + 2  # the one that hangs, and one that works
    mounted.set()
    make_prefix("d", root="image")
    deadline = time.monotonic() + 10
    while ("d", State.HEALTHY) not in (found := names(listing.environments(1))):
        assert time.monotonic() < deadline, found
    assert ("a", State.HEALTHY) in found


def test_a_scan_that_fails_keeps_what_was_known(sources) -> None:
    fails = False

    def scan(part: SourceDiscovery) -> list[Environment]:
        if fails:
            raise RuntimeError("a mistake of ours")
        return part.scan()

    listing = Listing(sources, scan=scan)
    before = listing.environments(5)
    fails = True
    assert listing.environments(5) == before


# Storage that goes away ------------------------------------------------------------------------


def test_an_unmounted_root_keeps_its_environments_for_a_while(make_prefix, roots, monkeypatch):
    make_prefix("torch", root="team")
    clock = [0.0]
    scanned = SourceDiscovery(Source("team-x", f"{roots}/team/*"), 900, lambda: clock[0])
    assert names(scanned.scan()) == [("torch", State.HEALTHY)]
    # As after umount: the bare folder of another device, with nothing in it.
    (roots / "team").rename(roots / "away")
    (roots / "team").mkdir()
    stat = os.stat

    def another_device(path, *args, **kwargs):
        found = stat(path, *args, **kwargs)
        if str(path) != f"{roots}/team":
            return found
        return os.stat_result(
            (*found[:2], found.st_dev + 1, *found[3:10]), {"st_mtime_ns": found.st_mtime_ns}
        )

    monkeypatch.setattr(discovery.os, "stat", another_device)
    (found,) = scanned.scan()
    assert found.state is State.UNAVAILABLE
    assert [kernel.own_name for kernel in found.kernels] == ["python3"]
    assert "cannot be reached at the moment" in str(found.reason)
    monkeypatch.setattr(discovery.os, "stat", stat)
    (roots / "team").rmdir()
    (roots / "away").rename(roots / "team")
    assert names(scanned.scan()) == [("torch", State.HEALTHY)]


@pytest.mark.parametrize(
    ("where", "folder", "pattern"),
    [
        ("envs", "envs", "envs/*"),
        ("team", "team/envs", "team/envs/*"),
        ("teams", "teams/x/envs", "teams/*/envs/*"),
    ],
)
def test_a_file_system_that_is_really_unmounted_and_mounted_again(
    make_prefix, roots, mounted, where, folder, pattern
) -> None:
    mount = mounted(roots / where)
    make_prefix("torch", root=folder)
    scanned = SourceDiscovery(Source("team-x", f"{roots}/{pattern}"))
    assert names(scanned.scan()) == [("torch", State.HEALTHY)]
    mount.unmount()
    for _ in range(2):
        assert names(scanned.scan()) == [("torch", State.UNAVAILABLE)]
    mount.mount()
    assert names(scanned.scan()) == [("torch", State.HEALTHY)]


def test_a_root_that_may_not_be_read_any_more_is_unavailable_and_then_gone(
    make_prefix, roots, as_nobody
) -> None:
    make_prefix("torch", root="team")
    clock = [0.0]
    scanned = SourceDiscovery(Source("team-x", f"{roots}/team/*"), 900, lambda: clock[0])
    with as_nobody():
        assert names(scanned.scan()) == [("torch", State.HEALTHY)]
    (roots / "team").chmod(0)
    with as_nobody():
        assert names(scanned.scan()) == [("torch", State.UNAVAILABLE)]
        clock[0] = 901
        scanned.scan()
        assert scanned.scan() == []
    (roots / "team").chmod(0o755)


def test_an_environment_that_was_deleted_is_gone_at_once_even_if_it_was_the_last(
    make_prefix, roots
) -> None:
    prefix = make_prefix("last")
    scanned = SourceDiscovery(Source("personal", f"{roots}/envs/*"))
    scanned.scan()
    shutil.rmtree(prefix)
    assert scanned.scan() == []
    make_prefix("again")
    scanned.scan()
    shutil.rmtree(roots / "envs")
    assert scanned.scan() == []


def test_a_clock_that_was_set_back_hides_no_change(make_prefix, roots) -> None:
    prefix = make_prefix("data", kernel=None)
    age(roots, -86400)  # everything is from tomorrow
    scanned = SourceDiscovery(Source("image", f"{roots}/envs/*"))
    assert names(scanned.scan()) == [("data", State.NO_KERNEL)]
    shutil.rmtree(prefix)
    make_prefix("new")
    age(roots, -86400)
    assert names(scanned.scan()) == [("new", State.HEALTHY)]
    # Changed within one tick of a clock that has been there before: no time tells it.
    file = roots / "envs/new/share/jupyter/kernels/python3/kernel.json"
    seen = file.stat()
    file.write_bytes(b"x" * seen.st_size)
    os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert names(scanned.scan()) == [("new", State.BROKEN)]


def test_an_edited_kernel_is_seen_by_turns_where_there_are_many(make_prefix, roots) -> None:
    for index in range(70):
        make_prefix(f"e{index}")
    age(roots)
    scanned = SourceDiscovery(Source("image", f"{roots}/envs/*"))
    scanned.scan()
    (roots / "envs/e33/share/jupyter/kernels/python3/kernel.json").write_text("{")
    seen = [[e.state for e in scanned.scan()].count(State.BROKEN) for _ in range(8)]
    assert seen[-1] == 1


# What is kept for the next process -------------------------------------------------------------


def saved(sources: list[Source], file: Path) -> list[Environment]:
    listing = Listing(sources, str(file))
    found = listing.environments(5)
    deadline = time.monotonic() + 5
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_the_next_process_reads_no_kernel_again(sources, roots, tmp_path, monkeypatch) -> None:
    age(roots)
    file = tmp_path / "new/kernels.json"
    before = saved(sources, file)
    monkeypatch.setattr(discovery, "look", None)
    assert Listing(sources, str(file)).environments(5) == before
    assert (file.stat().st_mode & 0o077) == 0


def test_what_changed_while_no_process_ran_is_seen(sources, roots, tmp_path, make_prefix) -> None:
    age(roots)
    saved(sources, tmp_path / "kernels.json")
    shutil.rmtree(roots / "team/b")
    make_prefix("c", root="team")
    found = names(Listing(sources, str(tmp_path / "kernels.json")).environments(5))
    assert found == [("a", State.HEALTHY), ("c", State.HEALTHY)]


def damage(raw: bytes) -> list[bytes]:
    document = json.loads(raw)
    other_layout = json.dumps({**document, "layout": 0}).encode()
    mistyped = raw.replace(b'"healthy"', b'"unheard-of"')
    evil = raw.replace(b'"argv":["', b'"argv":["/bin/sh","')
    return [b"", b"{", b"[]", raw[: len(raw) // 2], other_layout, mistyped, b"\xff" * 100, evil]


def test_a_damaged_cache_costs_time_and_nothing_else(sources, tmp_path) -> None:
    file = tmp_path / "kernels.json"
    before = saved(sources, file)
    for index, raw in enumerate(damage(file.read_bytes())):
        damaged = tmp_path / f"{index}.json"
        damaged.write_bytes(raw)
        assert cache.load(str(damaged)) == {}
        assert Listing(sources, str(damaged)).environments(5) == before


def test_a_cache_of_an_earlier_version_is_read_and_its_sentences_found_out_anew(
    sources, roots, tmp_path, make_prefix
) -> None:
    make_prefix("bare", root="team", kernel=None)
    age(roots)
    file = tmp_path / "kernels.json"
    saved(sources, file)
    document = json.loads(file.read_bytes())
    for _, entries in document["sources"]:
        for item in entries:
            item[1][1] = "it has no {kernel}" if item[1][1] else ""
    file.write_text(json.dumps(document))
    [old] = [k for known in cache.load(str(file)).values() for k in known.values()
             if k.environment.reason]  # fmt: skip
    assert (str(old.environment.reason), old.settled) == ("it has no {kernel}", False)
    Listing(sources, str(file)).environments(5)
    found = {e.place.environment: e for e in Listing(sources, str(file)).environments(5)}
    assert found["a"].reason is None


def test_a_cache_that_cannot_be_written_stops_nothing(sources) -> None:
    listing = Listing(sources, "/proc/nowhere/kernels.json")
    assert len(listing.environments(5)) == 2
