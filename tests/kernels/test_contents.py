"""What a person is told whose file finds no room."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.web import HTTPError

from kernels.contents import FULL, Contents


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """On a disk of 256 kB."""
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", home], check=True)
    yield home
    subprocess.run(["umount", home], check=True)


def text(content: str) -> dict[str, str]:
    return {"type": "file", "format": "text", "content": content}


@pytest.mark.parametrize(
    ("language", "words"), [("en", "No space left on device"), ("zh_CN", "设备上没有剩余空间")]
)
async def test_a_full_disk_is_told_and_what_was_there_stays(
    home: Path, monkeypatch: pytest.MonkeyPatch, language: str, words: str
) -> None:
    monkeypatch.setenv("LABCOMMONS_LANGUAGE", language)
    files = Contents(root_dir=str(home))
    await files.save(text("before"), "100 %.txt")
    for path in ("100 %.txt", "new.txt"):
        with pytest.raises(HTTPError) as caught:
            await files.save(text("x" * 2**20), path)
        assert caught.value.status_code == FULL
        told = str(caught.value.log_message) % caught.value.args
        assert told.startswith(path)
        assert words in told
    assert (home / "100 %.txt").read_text() == "before"


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC, errno.EIO])
def test_a_limit_of_the_file_systems_is_told_as_one(tmp_path: Path, number: int) -> None:
    """A stand-in: a file system with project quotas is not to be had here."""
    files = Contents(root_dir=str(tmp_path))
    for one in (files, files.checkpoints):
        with pytest.raises((HTTPError, OSError)) as caught, one.perm_to_403(f"{tmp_path}/a.ipynb"):
            raise OSError(number, os.strerror(number), f"{tmp_path}/a.ipynb")
        if number == errno.EIO:
            assert isinstance(caught.value, OSError)
        else:
            assert isinstance(caught.value, HTTPError)
            assert f"a.ipynb is not saved: {os.strerror(number)}" in str(caught.value.log_message)
