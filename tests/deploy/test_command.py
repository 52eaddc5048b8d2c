"""The command on the machine's PATH."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABCOMMONS_BIN", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_after_make_up_it_is_a_command_and_after_make_clean_it_is_none(folder: Path) -> None:
    assert command.offer() == "labcommons"
    assert command.offer() == "labcommons"
    assert (folder / "labcommons").resolve() == command.OURS.resolve()
    command.take_back()
    assert not (folder / "labcommons").is_symlink()


def test_a_link_to_nowhere_is_made_anew(folder: Path) -> None:
    (folder / "labcommons").symlink_to(folder / "gone")
    assert command.offer() == "labcommons"


def test_what_is_another_programs_stays(folder: Path) -> None:
    other = folder / "labcommons"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    assert command.offer() == str(command.OURS)
    command.take_back()
    assert other.read_text() == "#!/bin/sh\n"


def test_a_site_may_have_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABCOMMONS_BIN", "")
    assert command.offer() == str(command.OURS)
    assert not list(folder.iterdir())
