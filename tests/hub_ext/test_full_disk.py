"""A disk that somebody has filled, and a hub that cannot start: what goes on, and what is said."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.testing import bind_unused_port

from commons import reserve
from commons.store import Store, StoreError, room
from commons.store.trouble import Trouble
from hub_ext.app import LabCommonsHub
from hub_ext.waiting import Waiting

SIZE = 6 * 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", folder], check=True)
    (folder / "hub").mkdir()
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> None:
    """As somebody's runaway program does."""
    with suppress(OSError), (disk / "home").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def write(store: Store, count: int) -> None:
    for _ in range(count):
        store.transact(lambda s: s.execute(text("INSERT INTO t VALUES (:x)"), {"x": "x" * 1000}))


@pytest.fixture
def store(disk: Path) -> Iterator[Store]:  # type: ignore[override]
    store = Store(f"sqlite:///{disk}/store.sqlite")
    store.transact(lambda s: s.execute(text("CREATE TABLE t (x TEXT)")))
    yield store
    store.close()


def test_a_database_that_holds_room_goes_on_where_the_disk_is_full(
    disk: Path, store: Store
) -> None:
    assert room.hold(Path(disk, "store.sqlite"), SIZE)
    fill(disk)
    write(store, 1000)


def test_one_without_says_what_is_the_matter(disk: Path, store: Store) -> None:
    fill(disk)
    with pytest.raises(StoreError, match="free space") as caught:
        write(store, 1)
    assert caught.value.trouble is Trouble.FULL


def test_the_file_that_is_kept_lets_a_hub_start(disk: Path, store: Store) -> None:
    (disk / "store").mkdir()
    assert room.folders(disk) == [disk / "hub"]
    reserve.keep(disk / "hub", SIZE)
    reserve.keep(disk / "hub", SIZE)
    fill(disk)
    assert room.give_up(disk)
    assert not room.give_up(disk)
    write(store, 100)
    reserve.keep(disk / "hub", SIZE)  # not on a disk that is nearly full
    assert os.listdir(disk / "hub") == []


def test_databases_on_two_disks_have_a_file_each(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    assert room.folders(tmp_path) == [tmp_path / "store"]  # the hub's database may be PostgreSQL
    (tmp_path / "hub").symlink_to(disk)
    assert set(room.folders(tmp_path)) == {tmp_path / "store", tmp_path / "hub"}
    for folder in room.folders(tmp_path):
        reserve.keep(folder, SIZE)
    assert room.give_up(tmp_path)
    assert not list(tmp_path.rglob("reserve*"))


async def get(url: str, path: str, language: str = "en") -> HTTPResponse:
    headers = {"Accept-Language": language}
    return await AsyncHTTPClient().fetch(url + path, headers=headers, raise_error=False)


async def test_a_hub_that_cannot_start_explains_itself_until_it_can(
    disk: Path, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kind: a full disk, a damaged database; one word in the log for each, and no new process."""
    socket, port = bind_unused_port()
    socket.close()
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("LABCOMMONS_HUB_DATABASE_URL", f"sqlite:///{disk}/hub/none.sqlite")
    monkeypatch.setattr("hub_ext.app.PATIENCE", 0.02)
    fill(disk)
    hub: Any = SimpleNamespace(
        resources=SimpleNamespace(store=store, data=disk),
        log=logging.getLogger(),
        _waiting=Waiting(url),
    )

    async def answers(word: str) -> HTTPResponse:
        async with asyncio.timeout(20):
            while True:
                with suppress(OSError):  # nobody listens yet
                    answer = await get(url, "/hub/login")
                    if word in answer.body.decode():
                        return answer
                await asyncio.sleep(0.02)

    starting = asyncio.create_task(LabCommonsHub._wait_for_databases(hub))
    page = await answers("The disk of this site is full")
    assert (page.code, bool(page.headers["Retry-After"])) == (503, True)
    assert "磁盘" in (await get(url, "/user/alice/lab", "zh-CN")).body.decode()
    said = json.loads((await get(url, "/hub/api/users")).body)
    assert said["code"] == "disk_full"
    for name in ("store.sqlite-wal", "store.sqlite-shm"):
        (disk / name).unlink(missing_ok=True)
    (disk / "store.sqlite").write_bytes(b"damaged" * 500)
    store.engine.dispose()  # an open one would go on with what it has in its log
    (disk / "home").unlink()
    await answers("is damaged")
    for name in ("store.sqlite", "store.sqlite-wal", "store.sqlite-shm"):
        (disk / name).unlink(missing_ok=True)  # a backup's would come in its place
    await asyncio.wait_for(starting, 60)
    await hub._waiting.over()
    lines = [line for line in capsys.readouterr().err.splitlines() if "waiting for" in line]
    assert any("free space" in line for line in lines)
    assert any("backup" in line for line in lines)
    assert len(lines) == len(set(lines))


def test_a_damage_that_no_question_meets_is_found_before_the_hub_starts(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.sqlite")
    store.migrate()
    store.check()
    store.close()
    with (tmp_path / "store.sqlite").open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 3 * 4096)
    store = Store(f"sqlite:///{tmp_path}/store.sqlite")
    with pytest.raises(StoreError) as caught:
        store.check()
    assert caught.value.trouble is Trouble.DAMAGED
    store.close()
