"""Rosters as schools have them, and as nobody should."""

from __future__ import annotations

import io
import unicodedata
import zipfile
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courses import one_roster
from courses.roster_files import MAX_BYTES, Entry, RosterFileError, read

TODAY = date(2026, 11, 28)
MOODLE = """\
username,firstname,lastname,email,idnumber,course1,role1,course2,role2
ada,Ada,Lovelace,ada@example.org,4711,ml101,student,art7,editingteacher
alan,Alan,Turing,alan@example.org,4712,art7,student,ML101,editingteacher
eve,Eve,Adams,eve@example.org,4713,art7,student,,
"""
USERS = """\
sourcedId,status,enabledUser,username,givenName,familyName,identifier,email
u1,active,true,ada,Ada,Lovelace,4711,ada@example.org
u2,active,true,alan,Alan,Turing,4712,alan@example.org
u3,active,false,gone,Gone,Person,4713,gone@example.org
u4,active,true,late,Late,Person,4714,late@example.org
u5,active,true,mum,A,Guardian,,mum@example.org
u6,,TRUE,Tim,Tim,Aide,4716,tim@example.org
u7,tobedeleted,true,left,Left,Person,4717,left@example.org
"""
CLASSES = """\
sourcedId,status,title,classCode,courseSourcedId
c1,active,Machine learning,ml101,k1
c2,active,Painting,art7,k2
"""
COURSES = """\
sourcedId,status,title,courseCode
k1,active,Learning of machines,INF-4
k2,active,Painting for all,ART
"""
ENROLLMENTS = """\
sourcedId,status,classSourcedId,userSourcedId,role,beginDate,endDate
e1,active,c1,u1,student,2026-10-01,2027-02-28
e2,active,c1,u2,teacher,,
e3,active,c1,u3,student,,
e4,active,c1,u4,student,2027-01-01,
e5,active,c2,u1,teacher,,
e6,active,c1,u5,guardian,,
e8,active,c1,u6,aide,,
e9,active,c1,u6,student,,
e7,tobedeleted,c1,u2,student,,
e10,active,c1,u7,student,,
"""


def zipped(packing: int = zipfile.ZIP_DEFLATED, /, **files: str | bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, text in files.items():
            archive.writestr(f"{name}.csv", text)
    return out.getvalue()


FILES = {
    "manifest": "propertyName,value\nmanifest.version,1.0\nfile.users,bulk\nfile.orgs,absent\n",
    "users": USERS,
    "classes": CLASSES,
    "courses": COURSES,
    "enrollments": ENROLLMENTS,
}
ONE_ROSTER = zipped(**FILES)


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
        ("username;name, first\nada;Ada\n", [("ada", "student")]),
        ('User Name?,login, "E-Mail"\nx, ada, "a@b"\n', [("ada", "student")]),
        ("用户名\t角色\n爱达\t老师\n", [("爱达", "instructor")]),
        ("ada\r\rAlan\r", [("ada", "student"), ("Alan", "student")]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_plain_lists_are_read(text: str, expected: list[tuple[str, str]], encoding: str) -> None:
    assert who(text.encode(encoding)) == expected


def test_what_western_windows_writes_is_read_as_that() -> None:
    (one,) = read("login;name\ngdel;Gödel, Kurt – Öl\n".encode("cp1252")).people
    assert one == Entry(2, "gdel", "", "", "Gödel, Kurt – Öl", "student")


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("Müller", "cp1252"),
        ("Größe", "cp1252"),
        ("José Núñez", "cp1252"),
        ("Jürgen Weiß", "utf-8"),
        ("买买提·艾力", "gb18030"),
        ("李䶮", "gb18030"),
        ("欧阳·é", "gb18030"),
        ("陈翊", "utf-16"),
    ],
)
def test_names_keep_their_letters_whoever_wrote_them(name: str, encoding: str) -> None:
    (one,) = read(f"login,name\nm,{name}\n".encode(encoding)).people
    assert one.name == name


def test_a_name_of_two_parts_is_put_together_as_its_language_has_it() -> None:
    text = "login,firstname,lastname\na,Ada,Lovelace\nz,三,张\n"
    assert [one.name for one in read(text.encode()).people] == ["Ada Lovelace", "张三"]


def test_lines_are_counted_where_they_begin() -> None:
    found = read(b'login,name\n\nada,"Love\nlace"\n\nalan,Alan\n').people
    assert [(one.line, one.username) for one in found] == [(3, "ada"), (6, "alan")]


def test_moodles_rows_of_the_course_are_read() -> None:
    found = read(MOODLE.encode(), course="ml101")
    assert found.format == "moodle"
    assert found.people == (
        Entry(2, "ada", "ada@example.org", "4711", "Ada Lovelace", "student"),
        Entry(3, "alan", "alan@example.org", "4712", "Alan Turing", "instructor"),
    )


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("student,,", "student"),
        ("teacher,,", "assistant"),  # Moodle's short name of its non-editing teacher
        ("Non-editing teacher,,", "assistant"),
        ("Teaching Assistant,,", "assistant"),
        ("editingteacher,,", "instructor"),
        (",,", "student"),
        (",2,", "instructor"),
        (",3,", "assistant"),
        ("student,,1", None),  # suspended in the course
    ],
)
def test_moodles_roles_are_what_moodle_means(end: str, expected: str | None) -> None:
    text = f"username,course1,role1,type1,enrolstatus1\nada,ml101,{end}\nz,ml101,,,\n"
    assert dict(who(text.encode())).get("ada") == expected


def test_moodles_users_who_go_are_left_out_and_one_course_needs_no_name() -> None:
    text = b"username,deleted,suspended,course1\na,1,0,ml101\nb,0,1,ml101\nc,0,0,ml101\nd,,,\n"
    assert who(text) == who(text, "") == [("c", "student")]


CLASS = [("ada", "student"), ("alan", "instructor"), ("Tim", "assistant")]


@pytest.mark.parametrize(
    "course", ["ml101", "c1", "machine learning", "k1", "inf-4", "Learning of machines"]
)
def test_one_rosters_enrollments_of_the_class_are_read(course: str) -> None:
    found = read(ONE_ROSTER, course=course, today=TODAY)
    assert found.format == "oneroster"
    assert [(one.username, one.position) for one in found.people] == CLASS
    assert found.people[0] == Entry(2, "ada", "ada@example.org", "4711", "Ada Lovelace", "student")


def test_one_class_needs_no_name_nor_do_folders_matter() -> None:
    alone = {**FILES, "classes": "\n".join(CLASSES.splitlines()[:2])}
    assert who(zipped(**alone), "whatever") == CLASS
    outside = {f"../../etc/{name}": text for name, text in FILES.items()}
    assert who(zipped(**outside)) == CLASS


def test_enrollments_count_from_their_first_day_to_the_one_before_their_end() -> None:
    def there(day: date) -> set[str]:
        return {one.username for one in read(ONE_ROSTER, course="ml101", today=day).people}

    assert there(date(2026, 9, 30)) == {"alan", "Tim"}
    assert there(date(2026, 10, 1)) == {"alan", "Tim", "ada"}
    assert there(date(2027, 1, 1)) == {"alan", "Tim", "ada", "late"}
    end = date(2027, 2, 28)
    assert "ada" in there(end - timedelta(days=1))
    assert "ada" not in there(end)


def said(data: bytes, course: str = "ml101") -> str:
    with pytest.raises(RosterFileError) as error:
        read(data, "roster", course, TODAY)
    return str(error.value)


def test_all_that_is_wrong_is_said_at_once_with_its_line() -> None:
    text = said(b"username,mail,role\nada,,student\n,,student\neve,,boss\nb,,,,x\nc\0,,\n")
    assert "line 3: this line names nobody" in text
    assert "line 4: \u201cboss\u201d is no role" in text
    assert "line 5: this line has more cells" in text
    assert "line 6: a cell has control characters" in text
    with pytest.raises(RosterFileError) as error:
        read(b"login,role\n" + b"a,boss\n" * 30)
    assert [one.line for one in error.value.problems] == list(range(2, 22))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "needs a first line"),
        ("a,b\nc,d\n", "needs a first line"),
        ("姓名\n张三\n", "needs a first line"),  # nobody is found by a name
        ("Dear all,\nplease find the list\n", "needs a first line"),
        ("login,role\n", "names nobody"),
        ('login,name\nada,"Love\nalan,Alan\neve,Eve\n', "line 2: from this line on"),
        ('login,name\nada,A\nalan,"Al"an\n', "line 3: from this line on"),
        ("id,login,idnumber\n1,ada,4711\n", "line 1: several columns mean the same: id, idnumber"),
        (f"login,name\nada,{'a' * 501}\n", "line 2: a cell is longer than 500"),
        ("login,email\nada,a@x\nADA,b@x\n", "line 3: \u201cADA\u201d is in line 2 too"),
        (MOODLE, "no class \u201cbio2\u201d. It has: ml101, art7"),
        ("username,course1\na,\n", "no class \u201cbio2\u201d. It has: –"),
        ("username,course1,role1\na,bio2,boss\n", "line 2: \u201cboss\u201d is no role"),
    ],
)
def test_what_is_no_roster_says_why(text: str, expected: str) -> None:
    assert expected in said(text.encode(), "bio2")


def test_bytes_that_are_no_text_are_not_guessed_at() -> None:
    assert "no text" in said(b"login\n\x81\x20\n")
    assert "no text" in said("login\nada\n".encode("utf-16") + b"x")
    assert "control characters" in said("login\nada\n".encode("utf-16-le"))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"classes": CLASSES.replace("ml101", "ml102")},
            "no class \u201cml101\u201d. It has: ml102",
        ),
        ({"classes": CLASSES.replace("art7", "ml101")}, "Several classes of the file fit: c1, c2"),
        (
            {"users": USERS.replace("u2,", "u9,")},
            "line 3: enrollments.csv: \u201cu2\u201d is not in",
        ),
        (
            {"users": USERS.replace("u2,", "u1,")},
            "line 3: users.csv: \u201cu1\u201d is in line 2 too",
        ),
        ({"users": USERS.replace("sourcedId", "id")}, "column \u201csourcedId\u201d is missing"),
        ({"enrollments": ENROLLMENTS.replace("aide", "aid")}, "\u201caid\u201d is no role"),
        (
            {"enrollments": ENROLLMENTS.replace("2026-10-01", "1.10.26")},
            "\u201c1.10.26\u201d is not",
        ),
        ({"manifest": "propertyName,value\nfile.enrollments,delta\n"}, "line 2: manifest.csv: the"),
        ({"old/users": USERS}, "several files users.csv"),
        ({"users": b"PK"}, "column \u201csourcedId\u201d is missing"),
    ],
)
def test_what_is_wrong_with_a_zip_is_said(changed: dict[str, str | bytes], expected: str) -> None:
    assert expected in said(zipped(**{**FILES, **changed}))


def test_a_zip_of_something_else_is_not_read() -> None:
    text = said(zipped(**{"xl/workbook": "", "classes": CLASSES}))
    assert "no users.csv" in text
    assert "no enrollments.csv" in text
    assert "damaged" in said(b"PK\x03\x04 is no zip")
    assert "damaged" in said(zipped(**{f"{n}": "" for n in range(101)}))


def test_what_is_too_large_is_not_read() -> None:
    assert "larger than 2 MB" in said(b"a\n" * (MAX_BYTES // 2 + 1))
    # Lines filled up to the width of the first would be ten thousand million cells.
    assert "more than 500 columns" in said(b"login" + b"," * 1_000_000 + b"\n" + b"a\n" * 10_000)


def test_a_zip_that_grows_is_left_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zipped(**{**FILES, "users": b"username\n" + bytes(20 * 2**20)})
    assert len(bomb) < 30_000
    assert "users.csv: The file is larger than 2 MB" in said(bomb)
    # The directory's own word for its size is not what is believed.
    at = bomb.rindex(b"users.csv") - 46 + 24
    assert "damaged" in said(bomb[:at] + (10).to_bytes(4, "little") + bomb[at + 4 :])
    monkeypatch.setattr(one_roster, "MAX_UNPACKED", sum(map(len, FILES.values())) - 1)
    assert "The file is larger than" in said(ONE_ROSTER)


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_zipfile_unpacks_all_at_once_is_not_unpacked(
    packing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = zipped(packing, **FILES)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it was opened"))
    assert "packed unusually" in said(bomb)


def test_five_thousand_lines_are_read_and_more_than_the_most_are_not() -> None:
    lines = [f"s{number},s{number}@example.org" for number in range(10_001)]
    assert len(read("\n".join(["login,mail", *lines[:5000]]).encode()).people) == 5000
    assert len(read("\n".join(["login,mail", *lines[:10_000]]).encode()).people) == 10_000
    assert "more than 10000 lines" in said("\n".join(["login,mail", *lines]).encode())
    assert "more than 10000 lines" in said(b"login\n" + b"\n" * 200_000 + b"ada\n")


@given(
    st.binary(max_size=400)
    | st.text('username,;\t\n"@学号 ada=', max_size=200).map(lambda text: text.encode("utf-16"))
    | st.tuples(st.integers(0, len(ONE_ROSTER)), st.binary(max_size=9)).map(
        lambda at: ONE_ROSTER[: at[0]] + at[1] + ONE_ROSTER[at[0] + len(at[1]) :]
    )
    | st.fixed_dictionaries({}, optional=dict.fromkeys(FILES, st.text(max_size=60))).map(
        lambda changed: zipped(**{**FILES, **changed})
    )
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
                assert not {"Cc", "Cf", "Cs"} & set(map(unicodedata.category, text))
    assert len(problems) <= 20
