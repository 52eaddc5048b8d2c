"""Passes: what is built or lies in a folder is in the registry, on disk and in the table."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shutil
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from commons.scopes import Scope
from commons.store import EnvironmentVersion, RegisteredEnvironment, Store
from commons.store.models import utcnow
from kernels import files
from kernels.messages import verbatim
from kernels.service import entries, source_poller
from kernels.service import registrar as registrar_module
from kernels.service.entries import Look, State
from kernels.service.registrar import Registrar
from kernels.service.roots import RootScanner, find_roots
from tests.kernels.conftest import IPYKERNEL, write_kernel, write_program
from tests.kernels.service.conftest import add, listed, on_disk, remove

NOON = datetime(2026, 11, 21, 12)
DATA = "image/data/1/kernels/conda-image-data-python3"
TEAM = "team-vision/kernels/conda-team-vision-torch-python3"


def row_of(store: Store, environment: str) -> RegisteredEnvironment:
    return store.transact(
        lambda s: s.scalars(select(RegisteredEnvironment).filter_by(environment=environment)).one(),
        read=True,
    )


def spec(registrar: Registrar, path: str) -> dict[str, Any]:
    return json.loads((registrar.root / path / "kernel.json").read_text())


# Environments in images ------------------------------------------------------------------------


async def test_what_is_built_is_registered_on_disk_and_in_the_table(registrar, store) -> None:
    add(store)
    add(store, "old", "2", python="3.11.9")
    await registrar.refresh()
    assert listed(store) == [
        ("image", "data", "1", "healthy"),
        ("image", "old", "2", "healthy"),
    ]
    assert row_of(store, "old").kernels == [
        {
            "name": "conda-image-old-python3",
            "display_name": "old - Python 3.11",
            "language": "python",
        }
    ]
    assert on_disk(registrar) == [DATA, "image/old/2/kernels/conda-image-old-python3"]
    remove(store, "data")
    await registrar.refresh()
    assert [row[1] for row in listed(store)] == ["old"]
    assert len(on_disk(registrar)) == 1


async def test_a_row_that_did_not_change_keeps_its_identity(registrar, store) -> None:
    add(store)
    await registrar.refresh()
    before = row_of(store, "data")
    add(store, "another")
    await registrar.refresh()
    after = row_of(store, "data")
    assert (before.id, before.first_seen) == (after.id, after.first_seen)


async def test_a_hostile_row_of_the_catalog_is_told_and_stops_no_other(registrar, store) -> None:
    add(store, "evil", prefix="/opt/../etc/evil")
    add(store, "../..")
    add(store, "sh", kernelspecs={"x": {"argv": ["/bin/sh"]}})
    add(store)
    await registrar.refresh()
    assert [(row[1], row[3]) for row in listed(store)] == [("data", "healthy"), ("sh", "broken")]
    assert on_disk(registrar) == [DATA]
    assert len(registrar.problems) == 3
    assert registrar.health()["status"] == "ok"


async def test_kernels_whose_names_could_be_one_are_told_apart(registrar, store):
    add(store, "a", kernelspecs={"b-c": IPYKERNEL})
    add(store, "a-b", kernelspecs={"c": IPYKERNEL})
    await registrar.refresh()
    one, other = on_disk(registrar)
    assert one == "image/a-b/1/kernels/conda-image-a-b-c"
    assert re.fullmatch("image/a/1/kernels/conda-image-a-b-c-[0-9a-f]{8}", other)


async def test_a_kernel_that_cannot_be_written_is_told_and_tried_again(registrar, store) -> None:
    add(store)
    add(store, "fine")
    (registrar.root / "image").mkdir(parents=True)
    (registrar.root / "image/data").symlink_to("/")
    await registrar.refresh()
    assert [(row[1], row[3]) for row in listed(store)] == [
        ("data", "unwritten"),
        ("fine", "healthy"),
    ]
    assert row_of(store, "data").kernels == []
    assert registrar.health()["status"] == "error"
    (registrar.root / "image/data").unlink()
    await registrar.refresh()
    assert {row[3] for row in listed(store)} == {"healthy"}
    assert registrar.health()["status"] == "ok"


async def test_a_withdrawn_version_is_told_of_and_stays_for_servers_that_have_it(
    registrar, store
) -> None:
    add(store, "data", "1", withdrawn_at=NOON, withdrawn_reason="wrong BLAS")
    add(store, "data", "2", deprecated_at=NOON)
    await registrar.refresh()
    assert [row[2:] for row in listed(store)] == [("1", "withdrawn"), ("2", "healthy")]
    first, second = (registrar.entries["image", "data", version] for version in "12")
    assert str(first.reason) == "wrong BLAS; choose another version"
    assert second.facts["deprecated"] == "2026-11-21"
    assert len(on_disk(registrar)) == 2


async def test_a_version_that_is_withdrawn_later_is_noticed(registrar, store) -> None:
    add(store)
    await registrar._run(full=True)

    def withdraw(session: Any) -> None:
        session.scalars(select(EnvironmentVersion)).one().withdrawn_at = NOON

    store.transact(withdraw)
    await registrar._run(full=False)
    assert [row[3] for row in listed(store)] == ["withdrawn"]


# Environments on disk --------------------------------------------------------------------------


async def test_the_scopes_are_registered_each_on_its_own_shelf(registrar, store, make_prefix):
    make_prefix("stats", root="shared/envs", python="3.12.1")
    make_prefix("torch", root="teams/vision/envs")
    make_prefix("intro", root="courses/ml101/envs")
    await registrar.refresh()
    assert listed(store) == [
        ("course-ml101", "intro", "live", "healthy"),
        ("shared", "stats", "live", "healthy"),
        ("team-vision", "torch", "live", "healthy"),
    ]
    assert on_disk(registrar) == [
        "course-ml101/kernels/conda-course-ml101-intro-python3",
        "shared/kernels/conda-shared-stats-python3",
        TEAM,
    ]
    assert spec(registrar, TEAM)["display_name"] == "torch (team: vision) - Python 3.13"


async def test_a_shelf_is_there_before_its_first_kernel_for_servers_to_mount(registrar) -> None:
    await registrar.refresh()
    assert (registrar.root / "team-vision/kernels").is_dir()
    mounted = os.stat(registrar.root / "team-vision").st_ino
    await registrar.refresh()
    assert os.stat(registrar.root / "team-vision").st_ino == mounted


async def test_a_new_version_takes_the_place_of_the_old_under_the_same_kernel_name(
    registrar, store, make_version
) -> None:
    make_version("torch", "20261101-aa", "teams/vision", {"title": {"en": "Torch", "zh_CN": "火"}})
    await registrar.refresh()
    inode = os.stat(registrar.root / "team-vision/kernels").st_ino
    make_version("torch", "20261102-bb", "teams/vision", python="3.14.0")
    await registrar.refresh()
    assert listed(store) == [("team-vision", "torch", "20261102-bb", "healthy")]
    assert spec(registrar, TEAM)["metadata"]["labcommons"]["version"] == "20261102-bb"
    assert spec(registrar, TEAM)["display_name"].endswith("Python 3.14")
    assert os.stat(registrar.root / "team-vision/kernels").st_ino == inode


async def test_a_plain_kernelspec_has_the_variables_that_activation_sets(
    registrar, make_prefix
) -> None:
    prefix = make_prefix("torch", root="teams/vision/envs")
    (prefix / "etc/conda/env_vars.d").mkdir(parents=True)
    (prefix / "etc/conda/env_vars.d/a.json").write_text(json.dumps({"DATA": "/d", "PATH": "/x"}))
    (prefix / "conda-meta/state").write_text(
        json.dumps({"env_vars": {"PRICE": "$HOME and $(id)", "GONE": "***unset***"}})
    )
    await registrar.refresh()
    env = spec(registrar, TEAM)["env"]
    # string.Template, through which jupyter_client passes values, makes of $$ a plain $.
    assert env["PRICE"] == "$$HOME and $$(id)"
    assert env["DATA"] == "/d"
    assert env["CONDA_PREFIX"] == str(prefix)
    assert env["PATH"] == f"{prefix}/bin:${{PATH}}"
    assert "GONE" not in env
    (prefix / "conda-meta/state").write_text(json.dumps({"env_vars": {"PRICE": "2"}}))
    await registrar.refresh()
    assert spec(registrar, TEAM)["env"]["PRICE"] == "2"


async def test_what_cannot_be_used_is_listed_with_its_reason(registrar, store, make_prefix, roots):
    make_prefix("no-kernel", root="shared/envs", kernel=None)
    write_kernel(make_prefix("cut", root="shared/envs"), b'{"argv": [')
    write_kernel(make_prefix("huge", root="shared/envs"), b" " * 70_000)
    write_kernel(make_prefix("away", root="shared/envs"), {**IPYKERNEL, "argv": ["/bin/sh"]})
    make_prefix("fine", root="shared/envs")
    await registrar.refresh()
    states = {row[1]: row[3] for row in listed(store)}
    assert states == {
        "away": "broken",
        "cut": "broken",
        "fine": "healthy",
        "huge": "broken",
        "no-kernel": "no_kernel",
    }
    assert "ipykernel" in str(row_of(store, "no-kernel").reason)
    assert "not valid JSON" in str(row_of(store, "cut").reason)
    assert "larger than" in str(row_of(store, "huge").reason)
    assert "outside the environment" in str(row_of(store, "away").reason)
    assert on_disk(registrar) == ["shared/kernels/conda-shared-fine-python3"]


async def test_names_with_tricks_become_harmless_kernels(registrar, store, make_prefix) -> None:
    for name in ("with space", "quote'\"", "$(id)", "..two", "ünï-码", "x" * 200, "A", "a"):
        make_prefix(name, root="shared/envs")
    for hidden in (".hidden",):
        make_prefix(hidden, root="shared/envs")
    await registrar.refresh()
    names = [path.rpartition("/")[2] for path in on_disk(registrar)]
    assert len(names) == len(set(names)) == 7  # not those that begin with a dot
    assert all(name.startswith("conda-shared-") and name.isascii() for name in names)
    # Of two that differ in capitals alone, the one whose name is kept as it is has no hash.
    assert len([n for n in names if n.startswith("conda-shared-a-python3")]) == 2
    assert "conda-shared-a-python3" in names


async def test_a_name_that_no_page_can_show_is_left_out_and_told(registrar, store, make_prefix):
    make_prefix("fine", root="shared/envs")
    made = make_prefix("strange", root="shared/envs")
    os.rename(made, os.fsencode(made.parent) + b"/\xff\xfe")
    await registrar.refresh()
    assert [row[1] for row in listed(store)] == ["fine"]
    assert "rename it" in str(registrar.problems[0])


async def test_an_environment_that_is_deleted_goes_at_once(registrar, store, make_prefix) -> None:
    prefix = make_prefix("torch", root="teams/vision/envs")
    await registrar.refresh()
    shutil.rmtree(prefix)
    await registrar.refresh()
    assert listed(store) == []
    assert on_disk(registrar) == []
    assert (registrar.root / "team-vision/kernels").is_dir()


# Out of sight ----------------------------------------------------------------------------------


async def test_what_is_unmounted_is_kept_marked_and_comes_back(
    registrar, store, make_prefix, unmount
) -> None:
    make_prefix("torch", root="teams/vision/envs")
    await registrar.refresh()
    remount = unmount("teams")
    await registrar.refresh()
    assert listed(store) == [("team-vision", "torch", "live", "unavailable")]
    assert "mounted" in str(row_of(store, "torch").reason)
    assert on_disk(registrar) == [TEAM]
    assert registrar.sources["team-vision"].state == "unavailable"
    assert registrar.health()["status"] == "ok"
    remount()
    await registrar.refresh()
    assert listed(store) == [("team-vision", "torch", "live", "healthy")]
    assert registrar.sources["team-vision"].state == "healthy"


async def test_a_restart_while_it_is_unmounted_loses_nothing(
    registrar, store, make_prefix, unmount, tmp_path, roots
) -> None:
    make_prefix("torch", root="teams/vision/envs")
    await registrar.refresh()
    remount = unmount("teams/vision")
    again = Registrar(store, tmp_path / "kernels", roots, [Scope("team", "vision")])
    await again.refresh()
    assert listed(store) == [("team-vision", "torch", "live", "unavailable")]
    assert on_disk(again) == [TEAM]
    remount()
    await again.refresh()
    assert listed(store) == [("team-vision", "torch", "live", "healthy")]


async def test_an_empty_folder_on_another_device_is_taken_for_an_unmounted_one(
    registrar, store, make_prefix
) -> None:
    prefix = make_prefix("torch", root="teams/vision/envs")
    await registrar.refresh()
    shutil.rmtree(prefix)
    known = registrar.sources["team-vision"]
    registrar.sources["team-vision"] = type(known)("another", *list(vars(known).values())[1:])
    await registrar.refresh()
    assert listed(store) == [("team-vision", "torch", "live", "unavailable")]


async def test_what_stays_away_is_forgotten_after_days(
    registrar, store, make_prefix, unmount, monkeypatch
) -> None:
    make_prefix("torch", root="teams/vision/envs")
    await registrar.refresh()
    unmount("teams/vision")
    soon, late = utcnow() + entries.KEEP / 2, utcnow() + entries.KEEP + timedelta(hours=1)
    monkeypatch.setattr(registrar_module, "utcnow", lambda: soon)
    await registrar.refresh()
    assert [row[3] for row in listed(store)] == ["unavailable"]
    monkeypatch.setattr(registrar_module, "utcnow", lambda: late)
    await registrar.refresh()
    assert listed(store) == []
    assert on_disk(registrar) == []


async def test_a_clock_that_was_set_back_forgets_nothing(
    registrar, store, make_prefix, unmount, monkeypatch
) -> None:
    make_prefix("torch", root="teams/vision/envs")
    await registrar.refresh()
    before = utcnow() - timedelta(days=400)
    monkeypatch.setattr(registrar_module, "utcnow", lambda: before)
    remount = unmount("teams")
    await registrar.refresh()
    assert [row[3] for row in listed(store)] == ["unavailable"]
    remount()
    make_prefix("more", root="teams/vision/envs")
    await registrar.refresh()
    assert [row[3] for row in listed(store)] == ["healthy", "healthy"]
    unmount("teams/vision")
    await registrar.refresh()
    assert [row[3] for row in listed(store)] == ["unavailable", "unavailable"]


def test_a_folder_that_may_not_be_read_says_which_group_is_needed(
    make_prefix, roots, as_nobody
) -> None:
    make_prefix("torch", root="teams/vision/envs")
    make_prefix("closed", root="shared/envs").chmod(0o700)
    os.chown(roots / "teams/vision", -1, 21001)
    os.chmod(roots / "teams/vision", 0o2750)
    shared, team = find_roots(roots, [])
    with as_nobody():
        look = RootScanner(team).look()
        assert look.state == "unreadable"
        assert "group 21001" in str(look.reason)
        assert look.found == ()
        (found,) = RootScanner(shared).look().found
    assert found.environment.state == "unreadable"


async def test_a_source_that_may_no_longer_be_read_keeps_its_kernels(
    registrar, store, make_prefix, monkeypatch
) -> None:
    make_prefix("torch", root="teams/vision/envs")
    await registrar.refresh()
    look = Look("team-vision", "team: vision", State.UNREADABLE, verbatim("no rights"), "1")
    monkeypatch.setattr(RootScanner, "look", lambda scope: look)
    await registrar.refresh()
    assert listed(store) == [("team-vision", "torch", "live", "unreadable")]
    assert on_disk(registrar) == [TEAM]


async def test_a_file_server_that_hangs_stops_nothing_else(
    registrar, store, make_prefix, monkeypatch
) -> None:
    make_prefix("torch", root="teams/vision/envs")
    make_prefix("stats", root="shared/envs")
    await registrar.refresh()
    before = threading.active_count()
    released = threading.Event()
    look = RootScanner.look

    def hanging(scope: Any) -> Any:
        if scope.root.source == "team-vision":
            released.wait(20)
        return look(scope)

    monkeypatch.setattr(RootScanner, "look", hanging)
    monkeypatch.setattr(source_poller, "LOOK_TIMEOUT", 0.2)
    make_prefix("more", root="shared/envs")
    await registrar.refresh()
    assert [(row[1], row[3]) for row in listed(store)] == [
        ("more", "healthy"),
        ("stats", "healthy"),
        ("torch", "unavailable"),
    ]
    assert "did not answer" in str(row_of(store, "torch").reason)
    # It is not asked a second time while the first question is open.
    await registrar.refresh()
    assert threading.active_count() < before + 10
    released.set()
    async with asyncio.timeout(30):
        while {row[3] for row in listed(store)} != {"healthy"}:
            await registrar.refresh()


@pytest.mark.parametrize("error", [errno.ESTALE, errno.EIO, errno.ENOTCONN])
async def test_a_folder_that_fails_keeps_its_kernels(
    registrar, store, make_prefix, monkeypatch, error
) -> None:
    make_prefix("torch", root="teams/vision/envs")
    await registrar.refresh()
    real = files.names

    def failing(path: Any) -> Any:
        if "vision/envs" in str(path):
            raise OSError(error, os.strerror(error))
        return real(path)

    monkeypatch.setattr(files, "names", failing)
    await registrar.refresh()
    assert listed(store) == [("team-vision", "torch", "live", "unavailable")]
    assert os.strerror(error) in str(row_of(store, "torch").reason)
    assert on_disk(registrar) == [TEAM]


# Faults ----------------------------------------------------------------------------------------


async def test_a_store_that_is_down_for_a_while_is_caught_up_with(
    registrar, store, make_prefix, tmp_path
) -> None:
    await registrar.refresh()
    make_prefix("torch", root="teams/vision/envs")
    registrar.store = Store(f"sqlite:///{tmp_path}/nowhere/labcommons.sqlite")
    assert await registrar.refresh() is None
    assert registrar.health()["status"] == "error"
    registrar.store = store
    await registrar.refresh()
    assert listed(store) == [("team-vision", "torch", "live", "healthy")]
    assert registrar.health()["status"] == "ok"


async def test_a_table_that_somebody_emptied_is_filled_again_at_the_next_start(
    registrar, store, make_prefix, tmp_path, roots
) -> None:
    add(store)
    make_prefix("torch", root="teams/vision/envs")
    await registrar.refresh()
    store.transact(
        lambda s: [s.delete(row) for row in s.scalars(select(RegisteredEnvironment))] and None
    )
    await Registrar(store, tmp_path / "kernels", roots, [Scope("team", "vision")]).refresh()
    assert len(listed(store)) == 2


async def test_a_full_disk_is_told_and_what_was_there_stays(
    registrar, store, make_prefix, monkeypatch
) -> None:
    make_prefix("torch", root="teams/vision/envs")
    await registrar.refresh()
    make_prefix("more", root="teams/vision/envs")
    real = os.open

    def full(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, flags, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        await registrar.refresh()
    assert "No space left" in str(registrar.error)
    assert on_disk(registrar) == [TEAM]
    assert [(row[1], row[3]) for row in listed(store)] == [
        ("more", "unwritten"),
        ("torch", "healthy"),
    ]
    await registrar.refresh()
    assert registrar.error is None
    assert len(on_disk(registrar)) == 2


async def test_a_registry_that_is_read_only_is_told_and_caught_up_with(
    registrar, store, make_prefix, mounted
) -> None:
    mount = mounted(registrar.root)
    make_prefix("torch", root="teams/vision/envs")
    await registrar.refresh()
    mount.unmount()
    mount.mount("ro")
    shutil.rmtree(make_prefix("more", root="teams/vision/envs").parent / "torch")
    await registrar.refresh()
    assert "Read-only file system" in str(registrar.error)
    assert registrar.health()["status"] == "error"
    assert on_disk(registrar) == [TEAM]  # what was there stays for those who have it mounted
    mount.unmount()
    mount.mount()
    await registrar.refresh()
    assert registrar.error is None
    assert on_disk(registrar) == [TEAM.replace("torch", "more")]


async def test_a_registry_that_is_a_file_is_an_error_that_names_it(registrar, store) -> None:
    add(store)
    registrar.root.touch()
    await registrar.refresh()
    assert str(registrar.root) in str(registrar.error)
    assert listed(store) == []


# By itself -------------------------------------------------------------------------------------


async def until(condition: Any, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_what_appears_in_a_folder_is_noticed_without_being_asked(
    registrar, make_prefix, make_version, roots, monkeypatch
) -> None:
    # Only inotify can be in time.
    monkeypatch.setattr(source_poller, "SLOW", 3600.0)
    (roots / "shared/envs").mkdir(parents=True)
    (roots / "teams").mkdir()
    running = asyncio.create_task(registrar.keep_in_step(3600))
    try:
        await until(lambda: registrar.last_pass)
        make_version("stats", "1")
        await until(lambda: ("shared", "stats", "1") in registrar.entries)
        make_version("stats", "2")
        await until(lambda: ("shared", "stats", "2") in registrar.entries)
        # A team that had no folder yet.
        (roots / "teams/vision").mkdir()
        await until(lambda: "team-vision" in registrar._lookout)
        (roots / "teams/vision/envs").mkdir()
        watched = registrar._lookout._watcher._names
        await until(lambda: list(watched.values()).count("team-vision") == 2)
        make_prefix("torch", root="teams/vision/envs")
        await until(lambda: ("team-vision", "torch", "live") in registrar.entries)
        shutil.rmtree(roots / "teams/vision/envs/torch")
        await until(lambda: ("team-vision", "torch", "live") not in registrar.entries)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_an_environment_made_by_hand_is_noticed_when_it_is_finished(
    registrar, roots, monkeypatch
) -> None:
    monkeypatch.setattr(source_poller, "SLOW", 3600.0)
    monkeypatch.setattr(source_poller, "FAST", 0.1)
    prefix = roots / "shared/envs/by-hand"
    prefix.parent.mkdir(parents=True)
    running = asyncio.create_task(registrar.keep_in_step(3600))
    try:
        await until(lambda: registrar.last_pass)
        (prefix / "conda-meta").mkdir(parents=True)
        await until(lambda: ("shared", "by-hand", "live") in registrar.entries)
        write_program(prefix)
        write_kernel(prefix)
        (prefix / "conda-meta/history").touch()
        await until(lambda: registrar.entries["shared", "by-hand", "live"].kernels)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_without_inotify_it_looks_now_and_then(registrar, make_prefix, monkeypatch, roots):
    def refused(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("kernels.service.watch.INotify", refused)
    monkeypatch.setattr(source_poller, "SLOW", 0.2)
    running = asyncio.create_task(registrar.keep_in_step(0.1))
    try:
        await until(lambda: registrar.last_pass)
        make_prefix("stats", root="shared/envs")
        await until(lambda: ("shared", "stats", "live") in registrar.entries)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_pass_that_finds_nothing_new_writes_nothing(
    registrar, store, make_prefix, tmp_path
):
    add(store)
    make_prefix("stats", root="shared/envs")
    await registrar.refresh()
    wrote: list[Any] = []
    run = registrar.store.run

    async def counted(work: Any) -> Any:
        wrote.append(work)
        return await run(work)

    registrar.store.run = counted  # type: ignore[method-assign]
    before = {p: p.stat().st_mtime_ns for p in Path(registrar.root).rglob("*")}
    await registrar.refresh()
    assert wrote == []
    after = {p: p.stat().st_mtime_ns for p in Path(registrar.root).rglob("*")}
    assert after == before
