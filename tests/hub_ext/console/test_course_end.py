"""The end of a term on the course's page: frozen, archived, downloaded, removed."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy.orm import Session
from tornado.httpclient import HTTPResponse

from commons import frozen
from commons.store.models import Course, CourseWork
from courses import archives
from courses.archives import State
from courses.document import check_course, to_plain

from .conftest import Console
from .test_openapi import COURSE

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def ml(console: Console) -> Console:
    """With the course."""

    def write(session: Session) -> None:
        spec = check_course(COURSE)
        session.add(Course(name="ml101", spec=to_plain(spec), reservations={}, changed_by="carol"))

    console.store.transact(write)
    return console


async def do(console: Console, token: str, **sent: Any) -> HTTPResponse:
    return await console.send("POST", "courses/ml101/end", token, urlencode(sent), **FORM)


def kept(console: Console) -> CourseWork:
    def write(session: Session) -> CourseWork:
        row = archives.ask(session, "ml101", "dan")
        archives.end(session, row.id, State.KEPT, size=7, files=1)
        return row

    row = console.store.transact(write)
    path = archives.path(console.data, row)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"archive")
    return row


async def test_an_instructor_freezes_and_thaws_and_the_page_says_so(ml: Console) -> None:
    answer = await do(ml, "dan-token", do="freeze")
    assert (answer.code, answer.headers["Location"].endswith("courses/ml101#end")) == (302, True)
    assert ml.store.transact(lambda s: frozen.is_frozen(s, "ml101"))
    page = (await ml.get("courses/ml101", "dan-token")).body.decode()
    assert "This course is frozen" in page
    assert "Open the course" not in page
    assert "Remove for ever" not in page
    page = (await ml.get("courses/ml101/handins", "dan-token")).body.decode()
    assert "This course is frozen" in page
    assert 'name="path"' not in page
    asked = await ml.send(
        "PUT", "api/v1/courses/ml101/handins/hw1/marks", "dan-token", {"marks": {}}
    )
    assert asked.code == 409
    answer = await do(ml, "dan-token", do="thaw")
    assert answer.code == 302, answer.body.decode()
    assert not ml.store.transact(lambda s: frozen.is_frozen(s, "ml101"))
    assert (await do(ml, "dan-token", do="explode")).code == 400
    assert (await do(ml, "alice-token", do="freeze")).code == 403


async def test_an_archive_is_downloaded_by_who_teaches(ml: Console) -> None:
    row = kept(ml)
    page = (await ml.get("courses/ml101", "dan-token")).body.decode()
    assert f"courses/ml101/archives/{row.id}" in page
    answer = await ml.get(f"courses/ml101/archives/{row.id}", "dan-token")
    assert (answer.code, answer.body) == (200, b"archive")
    assert archives.file_name(row) in answer.headers["Content-Disposition"]
    assert (await ml.get(f"courses/ml101/archives/{row.id}", "alice-token")).code == 403
    assert (await ml.get("courses/ml101/archives/0123456789ab", "dan-token")).code == 404
    archives.path(ml.data, row).unlink()
    assert (await ml.get(f"courses/ml101/archives/{row.id}", "dan-token")).code == 404


async def test_an_administrator_removes_it_by_typing_its_name(ml: Console) -> None:
    page = (await ml.get("courses/ml101", "carol-token")).body.decode()
    assert "Remove for ever" not in page  # before it is frozen
    await do(ml, "carol-token", do="freeze")
    page = (await ml.get("courses/ml101", "carol-token")).body.decode()
    assert "Remove for ever" in page
    assert "data/courses/ml101" in page
    assert (await do(ml, "dan-token", do="erase", confirm="ml101")).code == 403
    wrong = await do(ml, "carol-token", do="erase", confirm="ml10")
    assert (wrong.code, "type its name: ml101" in wrong.body.decode()) == (400, True)
    early = await do(ml, "carol-token", do="erase", confirm="ml101")
    assert (early.code, "There is no archive" in early.body.decode()) == (409, True)
    kept(ml)
    assert (await do(ml, "carol-token", do="erase", confirm="ml101")).code == 302
    found = await ml.json("api/v1/courses/ml101/end", "carol-token")
    assert [one["kind"] for one in found["archives"]] == ["remove", "archive"]
    assert found["removed"]["folder"] == "courses/ml101"
    hidden = await ml.json("api/v1/courses/ml101/end", "dan-token")
    assert hidden["removed"] is None
