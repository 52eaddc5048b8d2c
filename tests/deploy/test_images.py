"""An image is built again when what it is made of has changed, and only then."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from deploy import images

DOCKERFILE = """\
ARG BASE
FROM ${BASE} AS first
COPY package/ \\
     single.txt /there/
FROM ${BASE}
COPY --from=first /there /here
ADD --chown=1:1 *.toml /
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "package" / "inner" / "code.py").write_text("print(1)")
    (tmp_path / "single.txt").write_text("one")
    (tmp_path / "a.toml").write_text("[a]")
    (tmp_path / "unrelated.txt").write_text("nobody copies this")
    return tmp_path


def digest(context: Path, **arguments: str) -> str:
    return images.digest(context / "Dockerfile", context, arguments)


def test_the_dockerfile_says_what_counts() -> None:
    assert images.copied(DOCKERFILE) == ["package/", "single.txt", "*.toml"]


def test_the_same_inputs_have_the_same_hash(context: Path) -> None:
    assert digest(context, BASE="sha256:1") == digest(context, BASE="sha256:1")


def test_a_file_that_is_not_copied_changes_nothing(context: Path) -> None:
    before = digest(context)
    (context / "unrelated.txt").write_text("changed")
    (context / "package" / "__pycache__").mkdir()
    (context / "package" / "__pycache__" / "code.pyc").write_bytes(b"1")
    assert digest(context) == before


def test_a_content_a_name_a_mode_and_an_argument_each_change_it(context: Path) -> None:
    seen = {digest(context, BASE="sha256:1"), digest(context, BASE="sha256:2")}
    code = context / "package" / "inner" / "code.py"
    code.write_text("print(2)")
    seen.add(digest(context))
    code.chmod(0o755)
    seen.add(digest(context))
    code.rename(code.with_name("other.py"))
    seen.add(digest(context))
    (context / "b.toml").touch()
    seen.add(digest(context))
    assert len(seen) == 6


def test_content_does_not_move_between_files_unnoticed(context: Path) -> None:
    (context / "a.toml").write_text("ab")
    (context / "b.toml").write_text("c")
    before = digest(context)
    (context / "a.toml").write_text("a")
    (context / "b.toml").write_text("bc")
    assert digest(context) != before


def test_every_dockerfile_copies_only_what_is_there() -> None:
    for image in (images.BASE, *images.IMAGES):
        text = (images.ROOT / "config" / "images" / image.name / "Dockerfile").read_text()
        if image is images.BASE:
            continue  # its context is put together at run time
        for source in images.copied(text):
            assert list((images.ROOT / image.context).glob(source.strip("/"))), (image, source)


def test_an_index_with_a_password_is_in_no_images_history() -> None:
    """``docker history`` shows the arguments of an image's last stage."""
    for image in images.IMAGES:
        text = (images.ROOT / "config" / "images" / image.name / "Dockerfile").read_text()
        last = text.rpartition("\nFROM ")[2]
        assert "ARG PIP_" not in last, image.name


def test_demo_and_postgres_are_built_only_where_they_are_wanted() -> None:
    names = {image.name for image in images.needed(())}
    assert "directory" not in names
    assert "postgres" not in names
    assert "directory" in {image.name for image in images.needed(("demo",))}


class Labels:
    """An Engine of which only labels are asked."""

    def __init__(self, **days: str) -> None:
        self.days = days

    def docker(self, *words: str, timeout: float = 60) -> str | None:
        assert images.UPDATED in words[3]
        return self.days.get(words[-1].removeprefix("labcommons/"))


def test_make_up_says_how_old_the_oldest_updates_are_and_when_newer_ones_are_due() -> None:
    engine: Any = Labels(
        base="2026-11-20T10:00:00+00:00", hub="2026-11-20", server="2026-11-01", chp="<no value>"
    )
    [said] = images.updates(engine, date(2026, 11, 10))
    assert said == "Debian's updates in the images are of 2026-11-01 (9 days ago)"
    [said] = images.updates(engine, date(2026, 11, 26))
    assert said.endswith("(25 days ago); get newer ones: REFRESH=yes make up")
    assert images.updates(Labels(), date(2026, 11, 26)) == []  # type: ignore[arg-type]
