"""Handing in by page, and what comes of it: who sees it, and what a zip has."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy.orm import Session
from tornado.httpclient import HTTPResponse

from commons.store.models import Course, CoursePerson, HandedIn, utcnow
from courses import grading, handins, receipts
from courses.document import check_course, to_plain
from courses.handins import State

from . import conftest
from .conftest import ACCESS, Console
from .test_openapi import COURSE

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
FILES = {"report.md": b"# mine\n", "data/x.csv": b"1,2\n"}


def handed_in(console: Console, user: str = "dan", one: str = "0123456789ab", **more: Any) -> Path:
    """Something that was kept, and something that waits; where the first one is."""
    manifest = {
        "version": 1,
        "files": [
            {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in FILES.items()
        ],
        "folders": ["data"],
        "left_out": [{"path": "venv/bin/python", "why": "link"}],
    }
    digest = hashlib.sha256(receipts.canonical(manifest)).hexdigest()
    receipt = {"receipt": {"digest": digest}, "signature": "00" * 64, "key": "00" * 32}
    row = {
        "id": one, "kind": "handin", "course": "ml101", "handin": "hw1", "team": user,
        "username": user, "members": [user], "path": "hw1", "asked_at": utcnow(),
        "due_at": utcnow() + timedelta(days=1), "state": State.KEPT, "digest": digest,
        "files": len(FILES), "bytes": 11, "left_out": 1, "receipt": receipt,
    } | more  # fmt: skip
    waits = {"id": f"{one[::-1]}", "state": State.ASKED, "receipt": None, "files": 0, "digest": ""}

    def write(session: Session) -> str:
        for each in (row, row | waits):
            session.add(HandedIn(**each))
        session.flush()
        return handins.place(handins.get(session, "ml101", one, None))

    folder = console.data / "courses/ml101/handins" / console.store.transact(write)
    for path, data in FILES.items():
        (folder / "files" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "files" / path).write_bytes(data)
    (folder / "receipt.json").write_text(json.dumps({**receipt, "manifest": manifest}))
    return folder


@pytest.fixture
def ml(console: Console, monkeypatch: pytest.MonkeyPatch) -> Console:
    """With the course, two students, and an instructor of another course."""
    for name, group in (("s01", "course:ml101:students"), ("s02", "course:ml101:students"),
                        ("art", "course:art7:instructors"),
                        ("tim", "course:ml101:assistants")):  # fmt: skip
        model = {"name": name, "admin": False, "scopes": [ACCESS], "groups": [group]}
        monkeypatch.setitem(conftest.PEOPLE, f"{name}-token", model)

    def write(session: Session) -> None:
        spec = check_course(COURSE)
        session.add(Course(name="ml101", spec=to_plain(spec), changed_by="carol"))
        person = CoursePerson(course="ml101", username="s02", position="student", added_by="dan")
        session.add(person)

    console.store.transact(write)
    return console


async def post(console: Console, page: str, who: str, **fields: str) -> HTTPResponse:
    return await console.send("POST", page, f"{who}-token", urlencode(fields), **FORM)


async def test_a_student_hands_in_and_sees_that_alone(ml: Console) -> None:
    page = (await ml.get("courses/ml101/handins", "s01-token")).body.decode()
    assert 'value="hw1"' in page
    assert "An instructor can give you more time." in page  # of the old one
    answer = await post(ml, "courses/ml101/handins", "s01", handin="hw1", path="ml/hw1")
    assert (answer.code, answer.headers["Location"].endswith("/handins#handed-in")) == (302, True)
    [row] = (await ml.json("api/v1/courses/ml101/handins", "s01-token"))["handins"][0]["handed_in"]
    assert (row["path"], row["state"], row["username"]) == ("ml/hw1", "asked", "s01")
    assert row["id"] in (await ml.get("courses/ml101/handins", "s01-token")).body.decode()
    assert row["id"] not in (await ml.get("courses/ml101/handins", "s02-token")).body.decode()


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [({"handin": "hw1", "path": "../bob"}, 400, "../bob"), ({"handin": "old"}, 409, "more time"),
     ({"handin": "none"}, 404, "none")],
)  # fmt: skip
async def test_what_cannot_be_handed_in_is_said_on_the_page(
    ml: Console, fields: dict[str, str], code: int, said: str
) -> None:
    answer = await post(ml, "courses/ml101/handins", "s01", **fields)
    assert answer.code == code
    assert said in answer.body.decode()
    assert ml.store.transact(lambda s: handins.of_course(s, "ml101")) == []


WHO = {"s01": True, "s02": False, "dan": True, "tim": True, "carol": True, "art": False,
       "alice": False}  # fmt: skip


async def test_what_was_handed_in_is_its_own_peoples_and_who_grades(ml: Console) -> None:
    """Not another student's, nor another course's instructor's."""
    handed_in(ml, "s01")
    one = "courses/ml101/handed-in/0123456789ab"
    for path in (one, f"{one}/files.zip", f"{one}/receipt.json", f"api/v1/{one}"):
        seen = {who: (await ml.get(path, f"{who}-token")).code for who in WHO}
        assert seen == {who: 200 if may else 404 for who, may in WHO.items()}, path
    page = (await ml.get(one, "s01-token")).body.decode()
    assert all(word in page for word in ("report.md", "venv/bin/python", "a link", "0000"))
    for path in ("courses/ml101/handins/hw1", "courses/ml101/handins/hw1/files.zip",
                 "api/v1/courses/ml101/handins/hw1"):  # fmt: skip
        seen = {who: (await ml.get(path, f"{who}-token")).code for who in WHO}
        may = {"dan", "tim", "carol"}
        assert seen == {who: 200 if who in may else 403 for who in WHO}, path


async def test_a_zip_has_the_newest_of_each(ml: Console) -> None:
    folder = handed_in(ml, "s01")
    (folder / "files" / "link").symlink_to("/etc/passwd")  # that no code of ours has laid there
    handed_in(ml, "s01", "00aa00bb00cc", asked_at=utcnow() - timedelta(hours=1))
    handed_in(ml, "s02", "11aa00bb00cc")
    answer = await ml.get("courses/ml101/handins/hw1/files.zip", "tim-token")
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == [
            f"hw1/{who}/{path}" for who in ("s01", "s02") for path in sorted(FILES)
        ]
        assert archive.read("hw1/s01/report.md") == FILES["report.md"]
    one = await ml.get("courses/ml101/handed-in/0123456789ab/files.zip", "s01-token")
    with zipfile.ZipFile(io.BytesIO(one.body)) as archive:
        assert sorted(archive.namelist()) == [f"hw1-s01/{path}" for path in sorted(FILES)]


async def test_who_has_not_handed_in_is_listed_too(ml: Console) -> None:
    """Of the roster and of the directory's groups."""
    handed_in(ml, "s01")
    found = await ml.json("api/v1/courses/ml101/handins/hw1", "tim-token")
    assert {one["team"]: len(one["handed_in"]) for one in found["teams"]} == {
        "alice": 0, "s01": 2, "s02": 0,
    }  # fmt: skip


async def test_more_time_and_groups_are_instructors(ml: Console) -> None:
    path = "courses/ml101/handins/hw1"
    more = {"do": "extend", "team": "s01", "until": "2031-01-25T12:00"}
    for who, code in (("tim", 403), ("s01", 403), ("art", 403), ("dan", 302)):
        assert (await post(ml, path, who, **more)).code == code
    groups = {"do": "groups", "groups": "p1: s01, s02\r\n\r\n"}
    assert (await post(ml, path, "tim", **groups)).code == 403
    assert (await post(ml, path, "dan", **groups)).code == 302
    found = await ml.json(f"api/v1/{path}", "dan-token")
    assert found["groups"] == {"s01": "p1", "s02": "p1"}
    assert found["extensions"] == {"s01": "2031-01-25T12:00:00Z"}
    [pair] = [one for one in found["teams"] if one["team"] == "@p1"]
    assert (pair["due"], pair["members"]) == ("2031-01-25T12:00:00Z", ["s01", "s02"])
    assert "p1: s01, s02" in (await ml.get(path, "dan-token")).body.decode()
    assert (await post(ml, path, "dan", do="nothing")).code == 400
    assert len((await ml.json(f"api/v1/{path}", "dan-token"))["extensions"]) == 1
    for wrong in ({"do": "extend", "until": "2030-01-01T12:00"}, {"do": "groups", "groups": "x"}):
        answer = await post(ml, path, "dan", **wrong)
        assert (answer.code, "Nothing was changed" in answer.body.decode()) == (400, True)


async def test_marks_are_looked_at_and_saved_and_each_student_sees_their_own(ml: Console) -> None:
    path = "courses/ml101/handins/hw1"
    table = "username;mark;comment\r\nS01;1,3;=HYPERLINK(1)\r\n"
    looked = await post(ml, path, "tim", do="look", marks=table)
    assert (looked.code, "s01: – -&gt; 1,3" in looked.body.decode()) == (200, True)
    assert (await ml.json(f"api/v1/{path}/marks", "tim-token"))["marks"] == {}
    assert (await post(ml, path, "tim", do="save", marks=table)).code == 302
    out = (await ml.get(f"{path}/marks.csv", "tim-token")).body.decode("utf-8-sig")
    assert out.splitlines() == [
        "username,mark,comment", "alice,,", 's01,"1,3",\'=HYPERLINK(1)', "s02,,",
    ]  # fmt: skip
    again = await post(ml, path, "tim", do="look", marks=out)
    assert "Nothing would change." in again.body.decode()
    assert "1,3" in (await ml.get("courses/ml101/handins", "s01-token")).body.decode()
    assert "1,3" not in (await ml.get("courses/ml101/handins", "s02-token")).body.decode()
    for wrong in ("username,mark\nzoe,1\n", "a,b\n", "", "username,mark\ns01,1\ns01,2\n"):
        answer = await post(ml, path, "tim", do="save", marks=wrong)
        assert (answer.code, "Nothing was changed" in answer.body.decode()) == (400, True)
    for who in ("s01", "art"):
        assert (await post(ml, path, who, do="save", marks=table)).code == 403
        assert (await ml.get(f"{path}/marks.csv", f"{who}-token")).code == 403


async def test_feedback_is_downloaded_by_whose_it_is_alone(ml: Console) -> None:
    path = "courses/ml101/handins/hw1"
    assert (await post(ml, path, "tim", do="feedback", path="graded/hw1")).code == 302
    assert (await post(ml, path, "s01", do="feedback", path="graded/hw1")).code == 403

    def keep(session: Session) -> list[str]:
        [row] = handins.given_back(session, "ml101")
        may = list(row.members)
        row.state, row.members, row.ended_at = State.KEPT, ["s01"], utcnow()
        return may

    assert ml.store.transact(keep) == ["alice", "s01", "s02"]
    folder = ml.data / "courses/ml101/feedback/s01/hw1/files"
    folder.mkdir(parents=True)
    (folder / "note.txt").write_text("good")
    assert (
        "Download your feedback"
        in (await ml.get("courses/ml101/handins", "s01-token")).body.decode()
    )
    seen = {who: (await ml.get(f"{path}/feedback.zip", f"{who}-token")) for who in WHO}
    assert {who for who, answer in seen.items() if answer.code == 200} == {"s01"}
    with zipfile.ZipFile(io.BytesIO(seen["s01"].body)) as archive:
        assert archive.read("feedback-hw1/note.txt") == b"good"


async def test_grading_is_asked_for_and_what_it_gave_is_read_by_who_grades(ml: Console) -> None:
    path = "courses/ml101/handins/hw1"
    handed_in(ml, "s01")
    handed_in(ml, "s02", "11aa00bb00cc")

    def with_environment(session: Session) -> None:
        row = session.get(Course, "ml101")
        assert row is not None
        row.spec = {**row.spec, "environment": "py313-data"}

    assert "no environment" in (await post(ml, path, "tim", do="autograde")).body.decode()
    ml.store.transact(with_environment)
    for who in ("s01", "art"):
        assert (await post(ml, path, who, do="autograde")).code == 403
    assert (await post(ml, path, "tim", do="autograde")).code == 302

    def end(session: Session) -> None:
        rows = grading.newest(session, "ml101", "hw1")
        rows["s01"].state = State.KEPT
        notebook = {"name": "a.ipynb", "score": 7.5, "most": 10.0, "manual": True, "problem": ""}
        rows["s01"].receipt = {
            "score": 7.5, "most": 10.0, "manual": True, "kept": [], "notebooks": [notebook],
        }  # fmt: skip
        rows["s02"].state, rows["s02"].message = (
            State.REFUSED,
            grading.NO_ENVIRONMENT(course="ml101").as_json(),
        )

    ml.store.transact(end)
    page = (await ml.get(path, "tim-token")).body.decode()
    said = ("7.5/10", "for a person to mark", "not graded", "no environment", "2 of 2 are graded")
    assert [one for one in said if one not in page] == []
    told = (await ml.json(f"api/v1/{path}/autograde", "tim-token"))["gradings"]
    assert [(one["team"], one["state"], one["score"]) for one in told] == [
        ("s01", "kept", 7.5), ("s02", "refused", None),
    ]  # fmt: skip
    answer = await ml.send("POST", f"api/v1/{path}/autograde", "tim-token", {"team": "s02"})
    assert answer.code == 202
    [again] = json.loads(answer.body)["gradings"]
    assert (again["team"], again["state"], again["asked_by"]) == ("s02", "asked", "tim")


async def test_a_server_hands_in_for_its_owner_and_does_nothing_else(
    ml: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the courses of its owner, by what hub and roster say; the trail says so."""
    for name in ("alice", "s02", "dan", "art"):
        scopes = [ACCESS, f"access:servers!server={name}/", f"read:users!user={name}"]
        model = {"name": name, "admin": False, "scopes": scopes, "groups": []}
        monkeypatch.setitem(conftest.PEOPLE, f"{name}-server", model)
    handed_in(ml, "s01")
    api = "api/v1/courses/ml101"
    for name, code in (("alice", 202), ("s02", 202), ("dan", 202), ("art", 404)):
        answer = await ml.send("POST", f"{api}/handins/hw1", f"{name}-server", {"path": "hw1"})
        assert answer.code == code, (name, answer.body)
        assert (await ml.get(f"{api}/handins", f"{name}-server")).code == (
            200 if code == 202 else 404
        )
        if code == 202:
            one = json.loads(answer.body)
            assert (one["username"], one["state"]) == (name, "asked")
            mine = await ml.get(f"{api}/handed-in/{one['id']}", f"{name}-server")
            assert mine.code == 200
        # Nobody else's, and nothing that its owner may do beside it.
        assert (await ml.get(f"{api}/handed-in/0123456789ab", f"{name}-server")).code == 404
        for verb, path in (("GET", "handins/hw1"), ("GET", "handins/hw1/marks"),
                           ("POST", "handins/hw1/autograde"), ("POST", "handins/hw1/feedback"),
                           ("PUT", "handins/hw1/extensions")):  # fmt: skip
            body = None if verb == "GET" else {}
            refused = await ml.send(verb, f"{api}/{path}", f"{name}-server", body)
            assert refused.code == 403, (name, path)
        assert (await ml.get("courses/ml101/handins", f"{name}-server")).code == 403
    unknown = await ml.send("POST", "api/v1/courses/zoo/handins/hw1", "alice-server", {})
    assert unknown.code == 404
