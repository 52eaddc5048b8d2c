"""Homes: made for their owner by real containers, never handed to another."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spawner.container import Identity
from spawner.engine import Engine
from spawner.errors import NotAllowed
from spawner.homes import Homes

ALICE = Identity("alice", 20003, 20000)


@pytest.fixture
async def homes(tmp_path: Path) -> AsyncIterator[Homes]:
    os.chown(tmp_path, 990, 990)  # as in a deployment
    engine = Engine(timeout=20)
    yield Homes(engine, "lctest", tmp_path, tmp_path, "labcommons/base:latest")
    engine.close()


@pytest.mark.docker
async def test_a_home_is_made_once_for_its_owner_alone(homes: Homes, tmp_path: Path) -> None:
    assert await homes.ensure(ALICE) == str(tmp_path / "alice")
    found = os.stat(tmp_path / "alice")
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (20003, 20000, 0o700)
    (tmp_path / "alice" / "work.txt").write_text("mine")
    await homes.ensure(ALICE)
    assert (tmp_path / "alice" / "work.txt").read_text() == "mine"
    assert await homes.engine.list("labcommons.site=lctest") == []


@pytest.mark.docker
async def test_a_home_left_half_made_is_finished(homes: Homes, tmp_path: Path) -> None:
    (tmp_path / "alice").mkdir()
    await homes.ensure(ALICE)
    assert os.stat(tmp_path / "alice").st_uid == 20003


async def test_an_account_made_anew_does_not_get_the_old_ones_home(
    homes: Homes, tmp_path: Path
) -> None:
    (tmp_path / "alice").mkdir()
    os.chown(tmp_path / "alice", 19999, 20000)
    with pytest.raises(NotAllowed, match="19999"):
        await homes.ensure(ALICE)


async def test_a_link_is_not_followed(homes: Homes, tmp_path: Path) -> None:
    (tmp_path / "alice").symlink_to("/etc")
    with pytest.raises(NotAllowed, match="not a folder"):
        await homes.ensure(ALICE)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x"])
async def test_a_name_that_leads_elsewhere_is_refused(homes: Homes, name: str) -> None:
    with pytest.raises(ValueError, match="folder name"):
        await homes.ensure(Identity(name, 20003, 20000))
