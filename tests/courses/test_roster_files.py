"""Rosters as schools have them, and as nobody should."""

from __future__ import annotations

import io
import zipfile
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courses.roster_files import MAX_BYTES, Entry, RosterFileError, read

TODAY = date(2026, 11, 28)
MOODLE = """\
username,firstname,lastname,email,idnumber,course1,role1,course2,role2
ada,Ada,Lovelace,ada@example.org,4711,ml101,student,art7,editingteacher
alan,Alan,Turing,alan@example.org,4712,art7,student,ML101,teacher
eve,Eve,Adams,eve@example.org,4713,art7,student,,
"""
USERS = """\
sourcedId,status,enabledUser,username,givenName,familyName,identifier,email
u1,active,true,ada,Ada,Lovelace,4711,ada@example.org
u2,active,true,alan,Alan,Turing,4712,alan@example.org
u3,active,false,gone,Gone,Person,4713,gone@example.org
u4,active,true,late,Late,Person,4714,late@example.org
u5,active,true,mum,A,Guardian,,mum@example.org
"""
CLASSES = """\
sourcedId,status,title,classCode,courseSourcedId
c1,active,Machine learning,ml101,k1
c2,active,Painting,art7,k2
"""
ENROLLMENTS = """\
sourcedId,status,classSourcedId,userSourcedId,role,beginDate,endDate
e1,active,c1,u1,student,2026-10-01,2027-02-28
e2,active,c1,u2,teacher,,
e3,active,c1,u3,student,,
e4,active,c1,u4,student,2027-01-01,
e5,active,c2,u1,teacher,,
e6,active,c1,u5,guardian,,
e7,tobedeleted,c1,u2,student,,
"""


def zipped(**files: str | bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(f"{name}.csv", text)
    return out.getvalue()


ONE_ROSTER = zipped(manifest="", users=USERS, classes=CLASSES, enrollments=ENROLLMENTS)


def who(data: bytes, course: str = "ml101") -> list[tuple[str, str]]:
    found = read(data, "roster", course, TODAY).people
    return [(one.username or one.mail or one.number, one.position) for one in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "username,role\nada,student\nAL,Teacher\n",
            [("ada", "student"), ("AL", "instructor")],
        ),
        ("Email;Position\r\nada@example.org;TA\r\n", [("ada@example.org", "assistant")]),
        ("student_id\tName\n4711\tAda Lovelace\n", [("4711", "student")]),
        ("学号,姓名,角色\n4711,爱达,助教\n", [("4711", "assistant")]),
        ("ada\n\nalan\n", [("ada", "student"), ("alan", "student")]),
        ("ada@example.org\n", [("ada@example.org", "student")]),
        ("user,role\nada,student\nAda,teacher\n", [("Ada", "instructor")]),
        ('username,name\nada,"Love\nlace"\nalan,=1+1\n', [("ada", "student"), ("alan", "student")]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_plain_lists_are_read(text: str, expected: list[tuple[str, str]], encoding: str) -> None:
    assert who(text.encode(encoding)) == expected


def test_what_western_windows_writes_is_read_as_that() -> None:
    (one,) = read("login;name\ngdel;Gödel, Kurt – Öl\n".encode("cp1252")).people
    assert one == Entry(2, "gdel", "", "", "Gödel, Kurt – Öl", "student")


def test_moodles_rows_of_the_course_are_read() -> None:
    found = read(MOODLE.encode(), course="ml101")
    assert found.format == "moodle"
    assert found.people == (
        Entry(2, "ada", "ada@example.org", "4711", "Ada Lovelace", "student"),
        Entry(3, "alan", "alan@example.org", "4712", "Alan Turing", "instructor"),
    )


@pytest.mark.parametrize("course", ["ml101", "c1", "machine learning", "k1"])
def test_one_rosters_enrollments_of_the_class_are_read(course: str) -> None:
    assert who(ONE_ROSTER, course) == [("ada", "student"), ("alan", "instructor")]


def test_who_is_enrolled_later_comes_later() -> None:
    found = read(ONE_ROSTER, course="ml101", today=date(2027, 1, 10)).people
    assert [one.username for one in found] == ["ada", "alan", "late"]


def said(data: bytes, course: str = "ml101") -> str:
    with pytest.raises(RosterFileError) as error:
        read(data, "roster", course, TODAY)
    return str(error.value)


def test_all_that_is_wrong_is_said_at_once_with_its_line() -> None:
    text = said(b"username,mail,role\nada,,student\n,,student\neve,,boss\n")
    assert "line 3: this line names nobody" in text
    assert "line 4: \u201cboss\u201d is no role" in text
    assert said(b"a,b\nc,d\n").count("needs a first line")
    assert "no class \u201cml102\u201d. It has: ml101, art7" in said(ONE_ROSTER, "ml102")
    assert "names nobody in the course" in said(MOODLE.encode(), "bio2")
    assert "no enrollments.csv" in said(zipped(users=USERS, classes=CLASSES))
    assert said(b"PK\x03\x04 is no zip").count("damaged")
    assert "MB" in said(b"a\n" * (MAX_BYTES // 2 + 1))


def test_a_zip_that_grows_is_left_at_its_limit() -> None:
    bomb = zipped(
        users=b"username\n" + bytes(200 * 2**20), classes=CLASSES, enrollments=ENROLLMENTS
    )
    assert len(bomb) < 300_000
    assert "larger than 2 MB" in said(bomb)


def test_five_thousand_lines_are_read_and_more_than_the_most_are_not() -> None:
    lines = [f"s{number},s{number}@example.org" for number in range(5000)]
    assert len(read("\n".join(["login,mail", *lines]).encode()).people) == 5000
    assert "more than 10000 lines" in said("\n".join(f"s{n}" for n in range(10_002)).encode())


@given(
    st.binary(max_size=400)
    | st.text('username,;\t\n"@学号 ada=', max_size=200).map(lambda text: text.encode("utf-16"))
    | st.binary(max_size=200).map(lambda data: ONE_ROSTER[:200] + data + ONE_ROSTER[200:])
)
def test_whatever_it_is_it_is_a_roster_or_an_error(data: bytes) -> None:
    try:
        found = read(data, course="ml101", today=TODAY)
    except RosterFileError as error:
        problems = error.problems
    else:
        problems = ()
        assert found.people
        for one in found.people:
            for text in (one.username, one.mail, one.number, one.name):
                assert len(text) <= 500
                assert text.isprintable() or not text
    assert len(problems) <= 20
