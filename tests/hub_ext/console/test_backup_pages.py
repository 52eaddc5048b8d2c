"""“Earlier files”: the console's page and the service that it asks, in one process.

The repository is a folder here, a stand-in for restic's (that: tests/e2e/test_wiped_machine.py).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.simple_httpclient import HTTPStreamClosedError
from tornado.testing import bind_unused_port

from commons.site import Site
from commons.site.backup import Backup
from hub_ext.backup import service
from hub_ext.backup.places import DATA, Room
from hub_ext.backup.repository import Snapshot
from hub_ext.backup.trouble import BackupError
from hub_ext.console import backup_pages

from .conftest import PEOPLE, Console

AT = datetime(2026, 11, 27, 2, 30, tzinfo=UTC)
GROUP = 20017  # of the team
HOSTILE = "<img src=x onerror=alert(1)>.txt"


class Folder:
    """What a repository of restic's answers, out of a folder with homes."""

    def __init__(self, root: Path) -> None:
        self.root, self.broken, self.breaks = root, "", False

    def snapshots(self) -> list[Snapshot]:
        if self.broken:
            raise BackupError(self.broken)
        areas = tuple(str(DATA / area) for area in ("homes", "teams", "courses"))
        return [Snapshot("a" * 64, AT, 1, 1, areas), Snapshot("b" * 64, AT, 1, 1, ())]

    def _place(self, path: str) -> Path:
        return self.root / Path(path).relative_to(DATA)

    def _node(self, one: Path) -> dict[str, Any]:
        return {
            "name": one.name,
            "path": str(DATA / one.relative_to(self.root)),
            "type": "dir" if one.is_dir() else "file",
            "mode": one.stat().st_mode & 0o777,
            "gid": one.stat().st_gid,
            "size": one.stat().st_size,
            "mtime": "2026-11-20T10:00:00.123456789Z",
        }

    def list(self, _snapshot: str, path: str) -> list[dict[str, Any]]:
        return [self._node(one) for one in self._place(path).iterdir()]

    def nodes(self, _snapshot: str, *paths: str) -> list[dict[str, Any]]:
        places = [self._place(path) for path in paths]
        found = {one for place in places if place.is_dir() for one in (place, *place.iterdir())}
        return [self._node(one) for one in found]

    def dump(self, _snapshot: str, path: str) -> Generator[bytes]:
        if not self._place(path).is_file():
            raise BackupError(f"no such file {path}")
        with self._place(path).open("rb") as file:
            while chunk := file.read(4096):
                yield chunk
                if self.breaks and file.tell() > 600_000:
                    raise BackupError("the target went away")


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    for name in ("alice", "bob"):
        (tmp_path / "homes" / name / "work").mkdir(parents=True)
        (tmp_path / "homes" / name / "mine.txt").write_text(f"of {name}")
    (tmp_path / "homes" / "alice" / HOSTILE).write_text("x")
    (tmp_path / "homes" / "alice" / "large").write_bytes(b"0123456789" * 100_000)
    return tmp_path / "homes"


@pytest.fixture
def folder(homes: Path) -> Folder:
    return Folder(homes.parent)


@pytest.fixture
def lab_site(lab_site: Site, request: pytest.FixtureRequest) -> Site:
    """With backups, but for the test that is about a site without."""
    target = "" if "without" in request.node.name else "/srv/backup"
    return lab_site.model_copy(update={"backup": Backup(target=target)})


@pytest.fixture
async def backed_up(
    console: Console,
    lab_site: Site,
    folder: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Console]:
    """The console, and the service that it asks."""
    monkeypatch.setattr(service.Files, "repository", lambda _self: folder)
    server = HTTPServer(service.application(lab_site, Room(tmp_path), "the-token"))
    socket, port = bind_unused_port()
    server.add_socket(socket)
    (tmp_path / "token").write_text("the-token\n")
    monkeypatch.setattr(backup_pages, "SERVICE", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(backup_pages, "TOKEN", tmp_path / "token")
    yield console
    server.stop()


async def test_everybody_has_their_own_home_and_no_other(backed_up: Console) -> None:
    page = (await backed_up.get("files", "alice-token")).body.decode()
    assert "mine.txt" in page
    assert "work/" in page
    assert "<img" not in page
    assert "b" * 64 not in page, "a backup without homes"
    one = f"files/download?backup={'a' * 64}&path="
    answer = await backed_up.get(f"{one}mine.txt", "alice-token")
    assert (answer.code, answer.body) == (200, b"of alice")
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''mine.txt"
    large = await backed_up.get(f"{one}large", "alice-token")
    assert large.body == b"0123456789" * 100_000
    for path in ("../bob/mine.txt", "/../bob/mine.txt", "work/../../bob/mine.txt", "a%00"):
        refused = await backed_up.get(f"{one}{path}", "alice-token")
        assert refused.code == 404, path
    # A name in the address changes nothing.
    answer = await backed_up.get(f"{one}mine.txt&person=bob", "alice-token")
    assert answer.body == b"of alice"
    page = (await backed_up.get("files?path=../bob", "alice-token")).body.decode()
    assert "of bob" not in page


async def test_a_backup_that_is_not_theirs_to_see_is_none(backed_up: Console) -> None:
    for backup in ("b" * 64, "c" * 64, "latest", "--help"):
        answer = await backed_up.get(f"files/download?backup={backup}&path=mine.txt", "alice-token")
        assert answer.code == 404


async def test_the_service_answers_the_console_alone(backed_up: Console, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("another")
    page = (await backed_up.get("files", "alice-token")).body.decode()
    assert "cannot be read just now" in page
    assert "mine.txt" not in page


async def test_what_is_the_matter_is_said(backed_up: Console, folder: Folder) -> None:
    folder.broken = "/srv/backup: there is no repository"
    page = (await backed_up.get("files", "alice-token")).body.decode()
    assert "there is no repository" in page
    answer = await backed_up.get(f"files/download?backup={'a' * 64}&path=x", "alice-token")
    assert answer.code == 503


async def test_what_breaks_off_is_no_whole_file(backed_up: Console, folder: Folder) -> None:
    folder.breaks = True
    with pytest.raises(HTTPStreamClosedError):
        await backed_up.get(f"files/download?backup={'a' * 64}&path=large", "alice-token")


async def test_a_site_without_backups_says_so(console: Console) -> None:
    page = (await console.get("files", "alice-token")).body.decode()
    assert "keeps no backups of homes" in page


@pytest.fixture
def vision(homes: Path) -> Path:
    """What the team vision shares, in a group of its own."""
    files = homes.parent / "teams" / "vision" / "files"
    for name, mode in (("open", 0o2770), ("closed", 0o2700)):
        (files / name).mkdir(parents=True)
        (files / name / "in.txt").write_text(f"in {name}")
        (files / name).chmod(mode)
    (files.parent / "envs").mkdir()
    (files.parent / "envs" / "secret").write_text("x")
    for name, mode in (("ours", 0o660), ("mine-alone", 0o600), ("of-another-group", 0o640)):
        (files / name).write_text(name)
        (files / name).chmod(mode)
    files.chmod(0o2770)
    for one in (files, *files.rglob("*")):
        os.chown(one, -1, 0 if one.name == "of-another-group" else GROUP)
    return files


async def test_a_teams_people_have_what_the_whole_team_could_read(
    backed_up: Console, vision: Path
) -> None:
    page = (await backed_up.get("files?of=team-vision", "alice-token")).body.decode()
    assert [name for name in ("ours", "open/", "mine-alone", "of-another-group", "closed")
            if f">{name}<" in page] == ["ours", "open/"]  # fmt: skip

    async def get(path: str, token: str = "alice-token", of: str = "team-vision") -> int | bytes:
        address = f"files/download?backup={'a' * 64}&of={of}&path={path}"
        answer = await backed_up.get(address, token)
        return answer.body if answer.code == 200 else answer.code

    assert await get("ours") == b"ours"
    assert await get("open/in.txt", "bob-token") == b"in open"
    for path in (
        "mine-alone", "of-another-group", "closed/in.txt", "open", "open/../mine-alone", "",
        "../envs/secret", "..", "open/nothing",
    ):  # fmt: skip
        assert await get(path) == 404, path
    for token in ("dan-token", "carol-token"):
        assert await get("ours", token) == 404
        assert (await backed_up.get("files?of=team-vision", token)).code == 404
    for of in ("team-nlp", "team-..", "team-vision/../nlp", "shared", "personal", "image"):
        assert await get("ours", of=of) == 404, of
    page = (await backed_up.get("files?of=team-vision&path=closed", "alice-token")).body.decode()
    assert "in.txt" not in page
    vision.rename(vision.with_name("later"))
    page = (await backed_up.get("files?of=team-vision", "alice-token")).body.decode()
    assert "not there yet" in page


async def test_of_a_course_only_who_looks_after_it(
    backed_up: Console, vision: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its students read is by other rights than a mode's."""
    vision.parents[1].rename(vision.parents[2] / "courses")
    (vision.parents[2] / "courses" / "vision").rename(vision.parents[2] / "courses" / "ml101")
    page = (await backed_up.get("files?of=course-ml101", "dan-token")).body.decode()
    assert ">ours<" in page
    student = PEOPLE["alice-token"] | {"groups": ["course:ml101:students"]}
    monkeypatch.setitem(PEOPLE, "alice-token", student)
    assert (await backed_up.get("files?of=course-ml101", "alice-token")).code == 404
