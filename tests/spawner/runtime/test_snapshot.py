"""What the containers of a snapshot do with a hostile home: the program itself, on real folders."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import tempfile
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawner.runtime.docker import snapshot
from spawner.runtime.docker.snapshot import GoneError, RefusedError, canonical, keep, listing, take

LEADS = os.getegid()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    (tmp_path / "course").mkdir()
    (tmp_path / "home" / "hw1").mkdir(parents=True)
    return tmp_path / "home"


def taken(home: Path, path: str = "hw1", files: int = 100, size: int = 2**20) -> dict[str, Any]:
    words = {"path": path, "most_files": files, "most_bytes": size}
    return take(words, home, home.parent / "spool")


def manifest(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home.parent / "spool" / "manifest.json").read_bytes())
    return found


def kept(home: Path, digest: str, **changed: Any) -> Path:
    words = {"id": "h1", "area": "handins", "place": "hw1/alice/now", "digest": digest}
    words |= {"leads": LEADS, "receipt": {"receipt": {}}} | changed
    keep(words, home.parent / "spool", home.parent / "course")
    return home.parent.joinpath("course", words["area"], words["place"])


def test_what_is_in_a_folder_is_listed_and_no_link_is_followed(home: Path) -> None:
    (home / "hw1" / "data").mkdir()
    (home / "hw1" / "报告 1.ipynb").write_text("{}")
    (home / "hw1" / ".hidden").write_text("x")
    (home / "hw1" / "away").symlink_to("/etc")
    (home / "hw1" / "file").symlink_to("/etc/passwd")
    (home / "hw1" / os.fsdecode(b"\xff")).write_text("x")
    (home / "hw1" / "line\nbreak").write_text("x")
    os.mkfifo(home / "hw1" / "pipe")
    said = listing({"path": "hw1"}, home)
    assert said == {
        "files": [{"name": "data", "bytes": None}, {"name": "报告 1.ipynb", "bytes": 2}],
        "left_out": 5,
    }
    assert [one["name"] for one in listing({"path": ""}, home)["files"]] == ["hw1"]
    wrong = {"hw1/away": "link", "hw1/none": "absent", "hw1/../..": "absent"}
    wrong |= {"hw1/报告 1.ipynb": "absent", "hw1/pipe": "absent"}
    for path, why in wrong.items():
        with pytest.raises(RefusedError) as caught:
            listing({"path": path}, home)
        assert caught.value.why == why, path


def test_of_a_large_folder_a_thousand_are_listed(home: Path) -> None:
    for number in range(1003):
        (home / "hw1" / f"{number:04}").touch()
    said = listing({"path": "hw1"}, home)
    assert (len(said["files"]), said["left_out"]) == (1000, 3)


def test_what_is_taken_is_kept_byte_by_byte(home: Path) -> None:
    (home / "hw1" / "a b.txt").write_text("one")
    (home / "hw1" / "深").mkdir()
    (home / "hw1" / "深" / "x.bin").write_bytes(os.urandom(300_000))
    (home / "hw1" / "empty").mkdir()
    said = taken(home)
    assert (said["files"], said["bytes"], said["left_out"]) == (2, 300_003, 0)
    place = kept(home, said["digest"])
    for name in ("a b.txt", "深/x.bin"):
        assert (place / "files" / name).read_bytes() == (home / "hw1" / name).read_bytes()
        assert (place / "files" / name).stat().st_mode & 0o777 == 0o440
    assert (place / "files" / "empty").is_dir()
    assert (place.stat().st_mode & 0o7777, place.parent.stat().st_mode & 0o7777) == (0o2750, 0o2750)
    noted = json.loads((place / "receipt.json").read_bytes())
    assert hashlib.sha256(canonical(noted["manifest"])).hexdigest() == said["digest"]


def test_one_file_is_taken_by_its_name(home: Path) -> None:
    (home / "hw1" / "n.ipynb").write_text("{}")
    said = taken(home, "hw1/n.ipynb")
    assert [one["path"] for one in manifest(home)["files"]] == ["n.ipynb"]
    assert (kept(home, said["digest"]) / "files" / "n.ipynb").read_text() == "{}"


def test_links_pipes_and_sockets_are_left_out_and_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they lead to: nothing is read through them, and nobody is waited for."""
    (home.parent / "secret").write_text("another's")
    (home / "hw1" / "mine.txt").write_text("mine")
    (home / "hw1" / "up").symlink_to("../../secret")
    (home / "hw1" / "root").symlink_to("/")
    os.mkfifo(home / "hw1" / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.chdir(home / "hw1")  # a socket's path may have 107 characters
        bound.bind("sock")
        said = taken(home)
    assert said["files"] == 1
    left = {one["path"]: one["why"] for one in manifest(home)["left_out"]}
    assert left == {"up": "link", "root": "link", "pipe": "special", "sock": "special"}
    assert b"another's" not in (home.parent / "spool" / "data").read_bytes()


@pytest.mark.parametrize(
    ("path", "why"),
    [("gone", "absent"), ("hw1/f/x", "absent"), ("link", "link"), ("link/inner", "link"),
     ("pipe", "special"), ("../secret", "absent"), ("hw1/../hw1", "absent"), ("hw1//f", "absent"),
     ("empty", "empty"), ("only-links", "special")],
)  # fmt: skip
def test_a_path_that_is_none_is_refused(home: Path, path: str, why: str) -> None:
    (home.parent / "secret").write_text("another's")
    (home / "hw1" / "f").write_text("f")
    (home / "link").symlink_to("hw1")
    (home / "empty").mkdir()
    (home / "only-links").mkdir()
    (home / "only-links" / "x").symlink_to("/etc/passwd")
    os.mkfifo(home / "pipe")
    with pytest.raises(RefusedError) as caught:
        taken(home, path)
    assert caught.value.why == why


def test_a_sparse_file_counts_as_what_it_claims(home: Path) -> None:
    with (home / "hw1" / "huge").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(RefusedError) as caught:
        taken(home)
    assert (caught.value.why, caught.value.path) == ("bytes", "huge")
    assert (home.parent / "spool" / "data").stat().st_size == 0


def test_a_crowd_of_files_is_given_up_at_the_limit(home: Path) -> None:
    for number in range(30):
        (home / "hw1" / f"{number}").symlink_to("x")
    with pytest.raises(RefusedError) as caught:
        taken(home, files=29)
    assert caught.value.why == "files"


def test_what_is_too_deep_or_has_no_readable_name_is_refused(home: Path) -> None:
    deep = home / "hw1" / "/".join(["d"] * 40)
    deep.mkdir(parents=True)
    with pytest.raises(RefusedError) as caught:
        taken(home)
    assert caught.value.why == "depth"
    for name in (b"\xff\xfe", b"a\nb", "\u202etxt.exe".encode()):
        other = home / "other"
        other.mkdir(exist_ok=True)
        path = os.path.join(os.fsencode(other), name)
        with open(path, "wb"):
            pass
        with pytest.raises(RefusedError) as caught:
            taken(home, "other")
        assert caught.value.why == "name"
        os.unlink(path)


def test_a_file_that_grows_is_taken_as_it_was_when_it_was_opened(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "hw1" / "log").write_bytes(b"x" * 10)
    real = os.read

    def growing(fd: int, count: int) -> bytes:
        with (home / "hw1" / "log").open("ab") as file:
            file.write(b"y" * 1000)
        return real(fd, count)

    monkeypatch.setattr(os, "read", growing)
    assert taken(home)["bytes"] == 10


def test_laying_it_down_twice_is_once_and_something_else_is_never_replaced(home: Path) -> None:
    (home / "hw1" / "f").write_text("first")
    first = taken(home)["digest"]
    place = kept(home, first)
    inode = (place / "files" / "f").stat().st_ino
    kept(home, first)
    assert (place / "files" / "f").stat().st_ino == inode
    (home / "hw1" / "f").write_text("second")
    with pytest.raises(ValueError, match="something else"):
        kept(home, taken(home)["digest"])
    assert (place / "files" / "f").read_text() == "first"


def test_what_is_damaged_in_between_is_not_kept(home: Path) -> None:
    (home / "hw1" / "f").write_text("first")
    digest = taken(home)["digest"]
    data = home.parent / "spool" / "data"
    for broken in (b"fIrst", b"fir"):
        data.write_bytes(broken)
        with pytest.raises(GoneError):
            kept(home, digest)
    (home.parent / "spool" / "manifest.json").unlink()
    with pytest.raises(GoneError):
        kept(home, digest)
    assert not (home.parent / "course" / "handins" / "hw1" / "alice" / "now").exists()


class _KilledError(BaseException):
    pass


@pytest.mark.parametrize("call", ["rename", "chmod", "mkdir", "open"])
def test_killed_at_any_step_it_is_whole_the_next_time(
    home: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Nothing is at the place before all of it is, and what is left does not stand in the way."""
    (home / "hw1" / "in").mkdir()
    for name in ("f", "in/g"):
        (home / "hw1" / name).write_text(name)
    digest = taken(home)["digest"]
    place = home.parent / "course" / "handins" / "hw1" / "alice" / "now"
    real = getattr(Path, call)
    for steps in range(50):
        left = [steps]

        def dying(*args: Any, _left: list[int] = left, **kwargs: Any) -> Any:
            if not _left[0]:
                raise _KilledError
            _left[0] -= 1
            return real(*args, **kwargs)

        monkeypatch.setattr(Path, call, dying)
        try:
            kept(home, digest)
            break
        except _KilledError:
            assert not place.exists()
        finally:
            monkeypatch.setattr(Path, call, real)
    else:
        pytest.fail("never whole")
    assert steps > 0
    assert (place / "files" / "in" / "g").read_text() == "in/g"
    assert sorted(path.name for path in place.parent.iterdir()) == ["now"]


def test_feedback_is_one_persons_part_and_replaces_the_earlier(home: Path) -> None:
    for name in ("alice", "bob"):
        (home / "hw1" / name).mkdir()
        (home / "hw1" / name / "note.txt").write_text(f"for {name}")
    feedback = {"area": "feedback", "place": "alice/hw1", "only": "alice", "reader": 20003}
    place = kept(home, taken(home)["digest"], **feedback)
    assert [path.name for path in (place / "files").iterdir()] == ["note.txt"]
    (home / "hw1" / "alice" / "note.txt").write_text("better")
    kept(home, taken(home)["digest"], **feedback)
    assert (place / "files" / "note.txt").read_text() == "better"
    assert sorted(path.name for path in place.parent.iterdir()) == ["hw1"]
    area = home.parent / "course" / "feedback"
    assert area.stat().st_mode & 0o7777 == 0o2751


def as_person(uid: int, gid: int, groups: str, *command: str) -> subprocess.CompletedProcess[str]:
    """With somebody's numbers, as their container has them."""
    numbers = ["--reuid", str(uid), "--regid", str(gid)]
    numbers += ["--groups", groups] if groups else ["--clear-groups"]
    return subprocess.run(
        ["setpriv", *numbers, *command], capture_output=True, text=True, timeout=60, check=False
    )


def test_who_reads_and_who_changes_what_was_handed_in(tmp_path: Path) -> None:
    """With the numbers that containers have: a student, another, an instructor, the services."""
    members, leads = 1_950_000_000, 1_960_000_000
    people = {
        "alice": (20003, f"{members}"), "bob": (20002, f"{members}"),
        "ida": (20009, f"{members},{leads}"), "stranger": (20010, ""),
    }  # fmt: skip
    tmp_path.chmod(0o755)
    for above in tmp_path.parents[:3]:
        above.chmod(above.stat().st_mode | 0o011)
    shutil.copy(snapshot.__file__, tmp_path)
    home, spool, course = (tmp_path / name for name in ("home", "spool", "course"))
    (home / "hw1").mkdir(parents=True)
    (home / "hw1" / "a.txt").write_text("alice's")
    (home / "hw1" / "shut").write_text("")
    (home / "back" / "alice").mkdir(parents=True)
    (home / "back" / "alice" / "note").write_text("good")
    for path in (home, *home.rglob("*")):
        os.chown(path, 20003, 20000)
    home.chmod(0o700)
    (home / "hw1" / "shut").chmod(0)
    spool.mkdir()
    spool.chmod(0o777)
    course.mkdir()
    os.chown(course, 990, members)
    course.chmod(0o2750)

    def program(uid: int, gid: int, **words: Any) -> dict[str, Any]:
        text = (
            "import json, sys, snapshot as s; w = json.loads(sys.argv[1]); "
            "p = [s.Path(x) for x in sys.argv[2:]]; do = w['do']; "
            "print(json.dumps(s.take(w, p[0], p[1]) if do == 'take' else s.keep(w, p[1], p[2])))"
        )
        folders = map(str, (home, spool, course))
        done = as_person(
            uid, gid, "", "env", f"PYTHONPATH={tmp_path}", "PYTHONDONTWRITEBYTECODE=1",
            "/usr/bin/python3", "-c", text, json.dumps(words), *folders,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def may(who: str, *command: str) -> bool:
        uid, groups = people[who]
        return as_person(uid, 20000, groups, *command).returncode == 0

    limits = {"most_files": 9, "most_bytes": 99}
    taken = program(20003, 20000, do="take", path="hw1", **limits)
    assert (taken["files"], taken["left_out"]) == (1, 1)
    keep = {"do": "keep", "leads": leads, "reader": None, "receipt": {"receipt": 1}}
    program(990, leads, **keep, id="h", area="handins", place="hw1/alice/1", digest=taken["digest"])
    file = course / "handins/hw1/alice/1/files/a.txt"
    assert {who for who in people if may(who, "cat", str(file))} == {"ida"}
    assert not any(may(who, "ls", str(course / "handins")) for who in ("alice", "bob", "stranger"))
    for who in people:
        assert not may(who, "rm", "-f", str(file))
        assert not may(who, "sh", "-c", f"echo x >> {file}")
        assert not may(who, "touch", str(file.parent / "new"))
        assert not may(who, "mv", str(file.parents[1]), str(file.parents[2] / "2"))
    assert file.read_text() == "alice's"

    taken = program(20003, 20000, do="take", path="back", **limits)
    back = {"area": "feedback", "place": "alice/hw1", "only": "alice", "reader": 20003}
    said = program(990, leads, **keep | back, id="f", digest=taken["digest"])
    note = course / "feedback/alice/hw1/files/note"
    assert said == {"readable": True}
    assert {who for who in people if may(who, "cat", str(note))} == {"alice", "ida"}
    assert {who for who in people if may(who, "ls", str(course / "feedback"))} == {"ida"}
    assert not any(may(who, "sh", "-c", f"echo x > {note}") for who in people)


@given(st.lists(st.sampled_from(["..", ".", "", "a", "/etc", "a\0b"]), min_size=1, max_size=4))
def test_no_manifest_leads_out_of_its_place(parts: list[str]) -> None:
    path = "/".join(parts)
    try:
        found = snapshot._below(Path("/course/new"), path)
    except ValueError:
        return
    assert os.path.normpath(found).startswith("/course/new/")


# -- zips of feedback ------------------------------------------------------------------------------


def zip_of(home: Path, entries: dict[Any, bytes], name: str = "hw1.zip", **how: Any) -> None:
    with zipfile.ZipFile(home / name, "w", **how) as archive:
        for one, data in entries.items():
            archive.writestr(one, data)


def unzipped(home: Path, name: str = "hw1.zip", **most: int) -> dict[str, Any]:
    words = {"path": name, "most_files": 100, "most_bytes": 2**20, "unzip": "hw1", **most}
    return take(words, home, home.parent / "spool")


def why(home: Path, **most: int) -> str:
    with pytest.raises(RefusedError) as caught:
        unzipped(home, **most)
    return caught.value.why


def test_a_zip_is_taken_as_the_folder_that_it_has(home: Path) -> None:
    entries = {"hw1/alice/a.txt": b"well done", "hw1/@p1/深/b.txt": b"", "hw1/bob/": b""}
    zip_of(home, entries, compression=zipfile.ZIP_DEFLATED)
    said = unzipped(home)
    assert (said["files"], said["bytes"], said["top"]) == (2, 9, ["@p1", "alice", "bob"])
    place = kept(home, said["digest"], area="feedback", place="alice/hw1", only="alice",
                 reader=os.getuid())  # fmt: skip
    assert (place / "files" / "a.txt").read_bytes() == b"well done"
    # A folder around all is left away where it is the hand-in or the zip, and else is one's own.
    zip_of(home, {"alice/a.txt": b"1"})
    assert unzipped(home)["top"] == ["alice"]
    zip_of(home, {"marked/alice/a.txt": b"1"}, "marked.zip")
    assert unzipped(home, "marked.zip")["top"] == ["alice"]
    # What is handed in as a zip stays one.
    assert taken(home, "hw1.zip")["files"] == 1


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_names_are_read_as_a_mac_and_chinas_windows_write_them(home: Path, encoding: str) -> None:
    zip_of(home, {"alice\\x.txt": b"1"})
    data = (home / "hw1.zip").read_bytes()
    name, raw = "alice\\作.txt".encode(encoding), b"alice\\x.txt"
    more = len(name) - len(raw)
    data = data.replace(raw, name)
    for sign, at in ((b"PK\3\4", 26), (b"PK\1\2", 28)):
        where = data.index(sign) + at
        data = data[:where] + struct.pack("<H", len(name)) + data[where + 2 :]
    end = data.index(b"PK\5\6")
    listed, begins = struct.unpack_from("<II", data, end + 12)
    data = data[: end + 12] + struct.pack("<II", listed + more, begins + more) + data[end + 20 :]
    (home / "hw1.zip").write_bytes(data)
    unzipped(home)
    assert [one["path"] for one in manifest(home)["files"]] == ["alice/作.txt"]


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("../x", "name"), ("/etc/x", "name"), ("a//b", "name"), ("a/./b", "name"),
        ("a\x1bb", "name"), ("..\\..\\x", "name"), ("/".join("d" * 40), "depth"),
    ],
)  # fmt: skip
def test_a_zip_leads_nowhere_else(home: Path, name: str, refusal: str) -> None:
    zip_of(home, {"alice/a": b"1", name: b"2"})
    assert why(home) == refusal


def test_a_zip_within_limits_and_no_larger_than_it_says(home: Path) -> None:
    zip_of(home, {"a/0": bytes(2**20 + 1)}, compression=zipfile.ZIP_DEFLATED)
    assert why(home) == "bytes"
    data = (home / "hw1.zip").read_bytes().replace(struct.pack("<I", 2**20 + 1), b"\5\0\0\0")
    (home / "hw1.zip").write_bytes(data)  # a bomb that says that it is none
    assert why(home) == "zip"
    zip_of(home, {f"a/{n}": b"" for n in range(200)})
    assert why(home) == "files"
    zip_of(home, {"a/0": b"1"})
    data = bytearray((home / "hw1.zip").read_bytes())
    at = data.index(b"PK\5\6") + 12
    data[at : at + 4] = struct.pack("<I", 2**31)
    (home / "hw1.zip").write_bytes(data)
    assert why(home) == "files"


def test_what_is_no_whole_zip_is_told(home: Path) -> None:
    (home / "hw1.zip").write_bytes(b"no zip at all")
    assert why(home) == "zip"
    zip_of(home, {"alice/a": b"0123456789" * 50})
    whole = (home / "hw1.zip").read_bytes()
    (home / "hw1.zip").write_bytes(whole.replace(b"0123456789", b"0123456788", 1))
    assert why(home) == "zip"
    (home / "hw1.zip").write_bytes(whole[:-30])
    assert why(home) == "zip"
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(home / "hw1.zip", "w") as twice:
        twice.writestr("alice/a", b"1")
        twice.writestr("alice/a", b"2")
    assert why(home) == "zip"
    zip_of(home, {"alice": b"1", "alice/a": b"2"})
    assert why(home) == "zip"
    zip_of(home, {"alice/a": b"1"})
    data = (home / "hw1.zip").read_bytes()
    for sign, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        where = data.index(sign) + at
        data = data[:where] + b"\1" + data[where + 1 :]
    (home / "hw1.zip").write_bytes(data)  # locked with a password
    assert why(home) == "zip"


def test_a_link_in_a_zip_is_left_out(home: Path) -> None:
    link = zipfile.ZipInfo("alice/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    zip_of(home, {link: b"/etc/passwd", "alice/a": b"1"})
    assert unzipped(home)["left_out"] == 1
    assert manifest(home)["left_out"] == [{"path": "alice/link", "why": "link"}]


@given(st.binary(max_size=400), st.integers(0, 300))
def test_no_zip_does_anything_but_be_refused(noise: bytes, at: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (Path(folder) / "spool").mkdir()
        zip_of(home, {"alice/a": b"1" * 50, "bob/b": b"2"})
        data = (home / "hw1.zip").read_bytes()
        (home / "hw1.zip").write_bytes(data[:at] + noise + data[at + len(noise) :])
        with suppress(RefusedError):
            unzipped(home)
