"""When a backup is due, what is known of the last one, and which paths are a person's own."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError
from tornado.web import HTTPError

from commons.site import Site
from commons.site.backup import Backup
from hub_ext.backup import making, service
from hub_ext.backup.making import State
from hub_ext.backup.places import DATA, Room
from hub_ext.backup.repository import _words
from hub_ext.backup.service import Schedule, inside, is_due, next_at
from hub_ext.backup.trouble import BackupError


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}").replace(tzinfo=UTC)


def test_one_is_due_each_night_and_a_failed_one_again_within_the_hour() -> None:
    assert next_at("02:30", at("28T01:00")) == at("28T02:30")
    assert next_at("02:30", at("28T02:30")) == at("29T02:30")
    tried = State(tried=at("27T02:30").timestamp())
    assert not is_due("02:30", tried, at("28T02:29"))
    assert is_due("02:30", tried, at("28T02:31"))
    # Also where the machine was off at night, and where there never was one.
    assert is_due("02:30", tried, at("28T09:00"))
    assert is_due("02:30", State(), at("28T09:00"))
    failed = State(tried=at("28T02:30").timestamp(), problem="full")
    assert not is_due("02:30", failed, at("28T03:00"))
    assert is_due("02:30", failed, at("28T03:31"))


@pytest.mark.parametrize("said", ["", "x", "[]", '"x"', "{}", '{"made": 1, "of a newer": 2}'])
def test_whatever_was_written_is_read(tmp_path: Path, said: str) -> None:
    file = tmp_path / "backup.json"
    file.write_text(said)
    assert State.read(file).problem == ""
    State(made=time.time(), problem="x").write(file)
    assert State.read(file).problem == "x"


@pytest.mark.parametrize(
    "path", ["", "a/b", "/a/b", "a//b", "./a/b", "a b/ü.txt", "-rf", "*", "a/", "$(id)"]
)
def test_a_path_is_within_the_home(path: str) -> None:
    for folder in ("homes/alice", "teams/vision/files"):
        assert Path(inside(folder, path)).is_relative_to(DATA / folder)


@pytest.mark.parametrize(
    ("folder", "path"),
    [*((f"homes/{name}", path) for name, path in [
        ("alice", "../bob"), ("alice", "a/../../bob"), ("..", "x"), ("a/b", "x"), ("", "x"),
        (".", ""), ("alice", "a\0b"), ("alice", "x" * 5000), ("a\0", "")]),
     *((folder, "x") for folder in (
        "", "homes", "secrets/x", "hub/x", "teams/vision", "teams/vision/envs", "teams/../files",
        "teams/vision/files/..", "teams//files", "/homes/alice", "homes/alice/files")),
     ("teams/vision/files", "../envs/x")],
)  # fmt: skip
def test_what_leads_out_of_it_is_refused(folder: str, path: str) -> None:
    with pytest.raises(HTTPError):
        inside(folder, path)


@pytest.mark.parametrize(
    "target",
    ["/srv/backup", "sftp:lab@backup.example.org:/srv/lab",
     "sftp://lab@backup.example.org:2222//srv/lab", "s3:https://s3.example.org/lab",
     "rest:https://backup.example.org/lab", ""],
)  # fmt: skip
def test_targets_that_are_known(target: str) -> None:
    assert Backup(target=target).is_folder == target.startswith("/")


@pytest.mark.parametrize(
    "target",
    ["backup", "sftp:host", "s3:lab", "rest:https://me:secret@host/", "/srv/a b", "-o x",
     "rclone:x:y", "sftp:-oProxyCommand=x@host:/x", "sftp:-v@host:/x", "sftp:-v:/x",
     "sftp://-v/x", "sftp://host:port/x", "sftp://host"],
)  # fmt: skip
def test_targets_that_are_none(target: str) -> None:
    with pytest.raises(ValidationError, match="must be a folder"):
        Backup(target=target)


@pytest.mark.parametrize("wrong", [{"at": "25:00"}, {"warn_after": "soon"}, {"keep": {"daily": 0}}])
def test_settings_that_are_wrong(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Backup.model_validate(wrong)


async def test_what_fails_is_not_tried_again_at_once(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target is full, say: the log and the audit trail get one line of it."""
    tried = []

    def fail(*_arguments: object) -> None:
        tried.append(1)
        raise BackupError("no space left")

    monkeypatch.setattr(service.making, "create", fail)
    recorded: list[str] = []
    monkeypatch.setattr(service, "record_command", lambda *said, **_: recorded.append(said[1]))
    room = Room(tmp_path)
    room.folder.mkdir()
    room.password.write_text("x")
    schedule = Schedule(site.model_copy(update={"backup": Backup(target="/srv/b")}), room)
    for _ in range(5):
        await schedule.look()
        if schedule._work is not None:
            await schedule._work
    assert (len(tried), recorded) == (1, ["failure"])


async def test_who_comes_second_is_told_and_waits(tmp_path: Path) -> None:
    """`backup create` beside the nightly one, or right after `backup init`."""
    room = Room(tmp_path)
    room.folder.mkdir()
    told: list[str] = []
    first, second = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def by_hand() -> None:
        def say(step: str, _share: float | None) -> None:
            told.append(step)
            loop.call_soon_threadsafe(first.set)

        with making.alone(room, say):
            loop.call_soon_threadsafe(second.set)

    with making.alone(room, lambda *_: pytest.fail("nobody else is there")):
        waiting = asyncio.ensure_future(asyncio.to_thread(by_hand))
        await asyncio.wait_for(first.wait(), 30)
        assert not second.is_set()
    await waiting
    assert told == ["another backup is at work; waiting for its end"]


def test_the_cause_is_sshs_own_where_there_is_one() -> None:
    said = (
        "subprocess ssh: No ED25519 host key is known for [10.1.0.9]:2222\n"
        "subprocess ssh: Host key verification failed.\n"
        '{"message_type":"exit_error","code":1,"message":"Fatal: … unexpected EOF"}'
    )
    assert _words(said) == "Host key verification failed."
    assert _words('{"message_type":"exit_error","code":1,"message":"Fatal: disk full"}') == (
        "Fatal: disk full"
    )
    again = "Stat(<config/>) returned error, retrying after 1.7s: Stat: The bucket does not exist\n"
    assert _words(again * 3) == "Stat: The bucket does not exist"
