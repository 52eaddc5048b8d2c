"""Packages that somebody sends: what is taken, and what is refused before anybody sees it."""

from __future__ import annotations

import bz2
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from environments.channels.inspect import Limits, NotTaken, inspect
from rig.packages import conda, index, member, tar, tar_bz2

LIMITS = Limits(entries=1000, unpacked=2**24)
NAME = "tool-1.0-0.conda"
METADATA = b"Metadata-Version: 2.1\nName: My_Tool\nVersion: 1.0\n\nName: not this\n"


def test_a_package_is_read_to_its_end(tmp_path: Path) -> None:
    path = conda(
        tmp_path / NAME,
        index(depends=["python >=3.9"]),
        [
            member("site-packages/tool-1.0.dist-info/METADATA", METADATA),
            member("bin", kind=tarfile.DIRTYPE, mode=0o755),
            member("bin/tool", b"#!x", mode=0o755),
            member("lib/libtool.so", kind=tarfile.SYMTYPE, link="../bin/tool"),
            member("bin/again", kind=tarfile.LNKTYPE, link="bin/tool"),
        ],
    )
    found = inspect(path, NAME, LIMITS)
    assert (found.index["name"], found.size) == ("tool", path.stat().st_size)
    assert found.distributions == (("my-tool", "1.0"),)


def test_the_older_format_is_taken(tmp_path: Path) -> None:
    path = tar_bz2(tmp_path / "tool-1.0-0.tar.bz2", members=[member("share/x", b"x")])
    assert inspect(path, path.name, LIMITS).index["version"] == "1.0"


LINK, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
HOSTILE: dict[str, list[Any]] = {
    "package_outside": [
        [member("../evil")],
        [member("a/../../evil")],
        [member("/etc/passwd")],
        [member("a\nb")],
        [member("a\\b")],
        [member("d", kind=LINK, link="lib"), member("d/x")],
        [member("d/x"), member("d", kind=LINK, link="lib")],
    ],
    "package_link_outside": [
        [member("d", kind=LINK, link="/etc")],
        [member("d", kind=LINK, link="../x")],
        [member("a/b/c/d", kind=LINK, link="s/../../../../x")],
        [member("d", kind=LINK, link="")],
        [member("d", kind=HARD, link="/etc/shadow")],
        [member("d", kind=HARD, link="not/there")],
    ],
    "package_device": [
        [member("null", kind=tarfile.CHRTYPE)],
        [member("disk", kind=tarfile.BLKTYPE)],
        [member("pipe", kind=tarfile.FIFOTYPE)],
    ],
    "package_setuid": [[member("bin/su", b"x", mode=0o4755)]],
    "package_twice": [[member("a", b"1"), member("a", b"2")]],
    "package_layout": [[member("info/other", b"{}")]],
    "package_too_much": [
        [member(f"f{number}") for number in range(1001)],
        [member("zeros", bytes(2**24))],
    ],
}


@pytest.mark.parametrize("code", HOSTILE)
def test_what_would_not_stay_within_an_environment_is_refused(code: str, tmp_path: Path) -> None:
    for number, members in enumerate(HOSTILE[code]):
        path = conda(tmp_path / str(number) / NAME, members=members)
        with pytest.raises(NotTaken) as refused:
            inspect(path, NAME, LIMITS)
        assert refused.value.code == code
        assert str(refused.value)


WRONG = [
    (index("other"), "package_other_name"),
    (index(version="2.0"), "package_other_name"),
    (index(build="1"), "package_other_name"),
    (index(subdir="linux-64"), "package_layout"),
    (index(subdir="linux-64/../noarch", noarch=...), "package_layout"),
    (index(noarch=True), "package_layout"),
    (index("../x"), "package_layout"),
    (index(build_number=-1), "package_layout"),
    (index(build_number=...), "package_layout"),
    (index(depends="python"), "package_layout"),
    (index(depends=["python >=>= 3"]), "package_layout"),
    (index(depends=["x"] * 2001), "package_layout"),
    (index(timestamp=1e300), "package_layout"),
    (b"", "package_layout"),
    (b"[]", "package_layout"),
    (b"{" * 100_000, "package_layout"),
    (b'{"name": "' + b"x" * 2**21, "package_layout"),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_it_says_of_itself_agrees_with_its_name(number: int, tmp_path: Path) -> None:
    about, code = WRONG[number]
    with pytest.raises(NotTaken) as refused:
        inspect(conda(tmp_path / NAME, about), NAME, LIMITS)  # type: ignore[arg-type]
    assert refused.value.code == code


def _twice(path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("pkg-tool-1.0-0.tar.zst", b"x")


def _hidden(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(b"PK\x03\x04" + bytes(200) + whole)


def _deflated(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {one: archive.read(one) for one in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _changed(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-400] ^= 0xFF
    path.write_bytes(raw)


def _html(path: Path) -> None:
    path.write_bytes(b"<html>please log in</html>")


def _more(path: Path) -> None:
    conda(path, parts={"evil.sh": b"x"})


def _other(path: Path) -> None:
    conda(path, stem="other-1.0-0")


def _bad_info(path: Path) -> None:
    conda(path, info=[member("bin/sh", b"x")])


BROKEN: tuple[Callable[[Path], None], ...] = (
    _twice, _hidden, _deflated, _truncated, _changed, _html, _more, _other, _bad_info,
)  # fmt: skip


@pytest.mark.parametrize("spoil", BROKEN)
def test_an_archive_that_could_be_read_otherwise_is_refused(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    path = conda(tmp_path / NAME, members=[member("share/x", bytes(range(256)) * 8)])
    inspect(path, NAME, LIMITS)
    spoil(path)
    with pytest.raises(NotTaken) as refused:
        inspect(path, NAME, LIMITS)
    assert refused.value.code in ("package_layout", "package_no_archive")


@pytest.mark.parametrize(
    "name", ["tool.zip", "../tool-1.0-0.conda", ".tool-1.0-0.conda", "a b-1-0.conda", "x" * 300]
)
def test_a_name_that_is_no_packages_is_refused(name: str, tmp_path: Path) -> None:
    path = conda(tmp_path / NAME)
    with pytest.raises(NotTaken) as refused:
        inspect(path, name, LIMITS)
    assert refused.value.code == "package_file_name"


def test_the_end_of_an_archive_is_looked_at_too(tmp_path: Path) -> None:
    raw = json.dumps(index()).encode()
    path = tmp_path / "tool-1.0-0.tar.bz2"
    path.write_bytes(bz2.compress(tar([member("info/index.json", raw)]) + bytes(2**25)))
    with pytest.raises(NotTaken) as refused:
        inspect(path, path.name, LIMITS)
    assert refused.value.code == "package_too_much"
