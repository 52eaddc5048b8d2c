"""A person's copy of the materials: real git, real nbgitpuller, and whatever people do to it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spawner.runtime.docker.material_task import STORE, Fetch

sys.path.append(str(Path(__file__).parents[2] / "config/images/server/materials"))
worker: Any = importlib.import_module("labcommons_materials_update")

FIRST = "lessons/first.ipynb"


def notebook(*cells: str, count: int = 0) -> str:
    found = {"cells": [{"source": [cell], "count": count} for cell in cells], "nbformat": 4}
    return json.dumps(found, indent=1) + "\n"


class Class:
    """A course's materials, and one student."""

    def __init__(self, folder: Path) -> None:
        self.given, self.materials = folder / "given", folder / "materials"
        self.home = folder / "home"
        for one in (self.given, self.materials, self.home):
            one.mkdir()
        self.copy = self.home / "courses" / "ml101"

    @property
    def source(self) -> Path:
        return self.materials / STORE

    def give(self, files: dict[str, str | None]) -> None:
        """The instructors': None takes one away."""
        for name, text in files.items():
            self.put(self.given, name, text)
        fetch = Fetch(self.materials)
        fetch.folder(self.given)
        fetch.clear()

    def work(self, files: dict[str, str | None]) -> None:
        """The student's."""
        for name, text in files.items():
            self.put(self.copy, name, text)

    def put(self, folder: Path, name: str, text: str | None) -> None:
        place = folder / name
        if text is None:
            place.unlink()
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)

    def update(self) -> dict[str, Any]:
        told: dict[str, Any] = worker.update(self.source, self.copy)
        return told

    def good(self) -> list[tuple[str, str]]:
        """Update; what was kept."""
        told = self.update()
        assert (told["problem"], told["detail"]) == ("", "")
        kept: list[tuple[str, str]] = told["kept"]
        return kept

    def has(self, name: str) -> str:
        return (self.copy / name).read_text()

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.copy), *words], check=False, capture_output=True, text=True
        )
        return done.stdout


@pytest.fixture
def ml101(tmp_path: Path) -> Iterator[Class]:
    found = Class(tmp_path)
    with worker.plain_git():
        found.give({FIRST: notebook("a", "b"), "讲义.md": "one\n", "data/x.csv": "1\n"})
        yield found


def still_follows(ml101: Class) -> None:
    """What matters most: whatever was, the next update arrives."""
    ml101.give({"next.md": "next\n"})
    ml101.good()
    assert ml101.has("next.md") == "next\n"


def test_the_first_time_everything_is_there_and_then_what_is_new(ml101: Class) -> None:
    assert ml101.good() == []
    assert ml101.has("讲义.md") == "one\n"
    ml101.give({"讲义.md": "two\n", "data/x.csv": None, "new.md": "new\n"})
    assert ml101.good() == []
    assert ml101.has("讲义.md") == "two\n"
    assert ml101.has("new.md") == "new\n"
    assert not (ml101.copy / "data/x.csv").exists()
    assert sorted(os.listdir(ml101.copy.parent)) == [".ml101.lock", "ml101"]


def test_what_both_changed_stays_the_students_and_the_rest_arrives(ml101: Class) -> None:
    ml101.good()
    ml101.work({"讲义.md": "mine\n", "notes.md": "mine too\n"})
    ml101.give({"讲义.md": "two\n", "new.md": "new\n"})
    ml101.good()
    assert (ml101.has("讲义.md"), ml101.has("notes.md")) == ("mine\n", "mine too\n")
    assert ml101.has("new.md") == "new\n"
    still_follows(ml101)


def test_a_notebook_that_both_changed_is_never_broken(ml101: Class) -> None:
    ml101.good()
    ml101.work({FIRST: notebook("a", "b", "mine")})
    # One line that both ends have, where each puts something else: merged, it is no JSON.
    ml101.give({FIRST: notebook("a") + "\n"})
    ml101.good()
    json.loads(ml101.has(FIRST))
    assert "mine" in ml101.has(FIRST)
    still_follows(ml101)


def test_a_merge_that_makes_no_notebook_leaves_the_students_and_puts_the_courses_beside(
    ml101: Class,
) -> None:
    ml101.give({".gitattributes": "*.ipynb merge=union\n"})
    ml101.good()
    ml101.work({FIRST: notebook("a", "mine")})
    ml101.give({FIRST: notebook("a", "theirs")})
    [(theirs, mine)] = ml101.good()
    assert mine == FIRST
    assert ml101.has(FIRST) == notebook("a", "mine")
    assert ml101.has(theirs) == notebook("a", "theirs")
    still_follows(ml101)


# -- what stops nbgitpuller alone: its issues 196, 254, 265, and their kin ------------------------


def test_196_a_file_that_was_worked_on_is_taken_away_and_comes_back(ml101: Class) -> None:
    ml101.good()
    ml101.work({FIRST: notebook("mine")})
    ml101.give({FIRST: None, "other.md": "other\n"})
    ml101.good()
    assert ml101.has(FIRST) == notebook("mine")
    assert ml101.has("other.md") == "other\n"
    ml101.give({FIRST: notebook("again")})
    ml101.good()
    assert any("mine" in path.read_text() for path in (ml101.copy / "lessons").iterdir())
    still_follows(ml101)


def test_254_a_file_that_was_changed_and_then_deleted_comes_back(ml101: Class) -> None:
    ml101.good()
    ml101.work({"讲义.md": "mine\n"})
    ml101.give({"new.md": "new\n"})
    ml101.good()
    ml101.work({"讲义.md": None})
    ml101.give({"讲义.md": "three\n"})
    ml101.good()
    assert ml101.has("讲义.md") == "three\n"
    still_follows(ml101)


def test_265_a_file_that_was_changed_here_is_deleted_there(ml101: Class) -> None:
    ml101.good()
    ml101.work({"data/x.csv": "mine\n"})
    ml101.give({"data/x.csv": None})
    ml101.good()
    assert ml101.has("data/x.csv") == "mine\n"
    still_follows(ml101)


def test_a_file_that_is_deleted_here_and_there(ml101: Class) -> None:
    ml101.good()
    ml101.work({"data/x.csv": None})
    ml101.give({"data/x.csv": None})
    ml101.good()
    still_follows(ml101)


def test_materials_that_are_begun_anew_keep_the_students_work(ml101: Class, tmp_path: Path) -> None:
    """Kind: a force-pushed history; here only where the course's own repository is lost."""
    ml101.good()
    ml101.work({"讲义.md": "mine\n", "notes.md": "mine too\n"})
    (ml101.materials / "state.json").unlink()
    ml101.source.rename(tmp_path / "lost")
    ml101.give({"讲义.md": "anew\n", "data/x.csv": "2\n"})
    [(name, kept)] = ml101.good()
    assert name == "讲义.md"
    assert ml101.has("讲义.md") == "anew\n"
    assert ml101.has(kept) == "mine\n"
    assert ml101.has("notes.md") == "mine too\n"
    assert ml101.has("data/x.csv") == "2\n"
    still_follows(ml101)


@pytest.mark.parametrize("names", [("a", "a/b.md"), ("a/b.md", "a")])
def test_a_file_where_a_folder_comes_and_the_other_way_round(
    ml101: Class, names: tuple[str, str]
) -> None:
    mine, theirs = names
    ml101.good()
    ml101.work({mine: "mine\n"})
    ml101.give({theirs: "theirs\n"})
    [(name, kept)] = ml101.good()
    assert name == "a"
    assert ml101.has(theirs) == "theirs\n"
    assert ml101.has(mine.replace("a", kept, 1)) == "mine\n"
    still_follows(ml101)


def test_a_new_file_of_a_name_that_the_student_has(ml101: Class) -> None:
    ml101.good()
    ml101.work({"second.md": "mine\n"})
    ml101.give({"second.md": "theirs\n"})
    [(name, kept)] = ml101.good()
    assert name == "second.md"
    assert (ml101.has("second.md"), ml101.has(kept)) == ("theirs\n", "mine\n")
    still_follows(ml101)


def test_a_link_of_the_students_in_place_of_a_folder_is_not_written_through(ml101: Class) -> None:
    ml101.good()
    elsewhere = ml101.home / "elsewhere"
    (ml101.copy / "lessons").rename(elsewhere)
    (ml101.copy / "lessons").symlink_to(elsewhere)
    ml101.give({FIRST: notebook("new")})
    ml101.good()
    assert (elsewhere / "first.ipynb").read_text() == notebook("a", "b")
    assert ml101.has(FIRST) == notebook("new")
    still_follows(ml101)


@pytest.mark.parametrize(
    "harm",
    [
        "rm -rf .git/objects",
        "rm .git/HEAD",
        "echo rubbish > .git/index",
        "rm -rf .git",
        "rm -rf .git; echo gitdir: /nowhere > .git",
        "git checkout -q --orphan own; git rm -rfq --cached .",
        "git checkout -q -b own; echo mine > own.md; git add own.md; git commit -qm own",
        "git checkout -q HEAD^0; mkdir .git/rebase-merge",
        "cd .git; touch MERGE_HEAD; echo 'exit 1' > hooks/pre-commit; chmod +x hooks/pre-commit",
        "git config commit.gpgSign true; git config user.signingKey none",
        "git stash -q; echo x > .git/CHERRY_PICK_HEAD",
        "touch -d '1 hour ago' .git/index.lock",
        "git rm -qf 讲义.md",
        "rm -rf lessons data",
    ],
)
def test_whatever_is_done_to_the_copy_the_next_update_arrives_and_work_stays(
    ml101: Class, harm: str
) -> None:
    ml101.good()
    ml101.work({"讲义.md": "mine\n", "notes.md": "mine too\n"})
    subprocess.run(["sh", "-c", harm], cwd=ml101.copy, check=True)
    ml101.give({FIRST: notebook("new"), "讲义.md": "two\n"})
    ml101.good()
    assert ml101.has(FIRST) == notebook("new")
    texts = [p.read_text() for p in ml101.copy.glob("*.md")] + [ml101.git("stash", "show", "-p")]
    gone = "git rm" in harm and "讲义.md" in harm
    assert gone or any("mine" in text and "mine too" not in text for text in texts)
    assert "mine too\n" in texts
    still_follows(ml101)


def test_a_conflict_that_nobody_resolved_is_in_nobodys_way(ml101: Class) -> None:
    ml101.good()
    ml101.work({"讲义.md": "mine\n"})
    ml101.git("commit", "-qam", "mine")
    ml101.give({"讲义.md": "two\n"})
    ml101.git("pull", "-q", "--no-rebase")
    assert "<<<<<<<" in ml101.has("讲义.md")
    ml101.work({"讲义.md": None})
    still_follows(ml101)


def test_a_repository_of_the_students_own_is_not_touched(ml101: Class) -> None:
    ml101.copy.mkdir(parents=True)
    ml101.git("init", "-q")
    ml101.git("remote", "add", "origin", "https://example.org/own.git")
    ml101.git("commit", "-q", "--allow-empty", "-m", "own")
    assert ml101.update()["problem"] == "other_repository"
    assert os.listdir(ml101.copy) == [".git"]


def test_a_folder_that_is_there_already_keeps_what_is_in_it(ml101: Class) -> None:
    ml101.copy.mkdir(parents=True)
    ml101.work({"讲义.md": "mine\n", "notes.md": "mine too\n"})
    [(name, kept)] = ml101.good()
    assert (name, ml101.has(kept), ml101.has("notes.md")) == ("讲义.md", "mine\n", "mine too\n")
    still_follows(ml101)


@pytest.mark.parametrize("there", ["file", "link", "above"])
def test_what_is_no_folder_is_told_and_left_alone(ml101: Class, there: str) -> None:
    if there == "above":
        ml101.copy.parent.symlink_to("/etc")
    else:
        ml101.copy.parent.mkdir()
        ml101.copy.write_text("") if there == "file" else ml101.copy.symlink_to("/etc")
    assert ml101.update()["problem"] == "in_the_way"


def test_a_lock_in_use_is_waited_for(ml101: Class) -> None:
    ml101.good()
    (ml101.copy / ".git" / "index.lock").touch()
    assert ml101.update()["problem"] == "busy"
    (ml101.copy / ".git" / "index.lock").unlink()
    still_follows(ml101)


def test_a_first_copy_that_was_killed_is_made_anew(ml101: Class) -> None:
    (ml101.copy.parent / ".ml101.new" / ".git").mkdir(parents=True)
    ml101.good()
    assert sorted(os.listdir(ml101.copy.parent)) == [".ml101.lock", "ml101"]


def test_it_is_a_program_that_says_one_thing(ml101: Class) -> None:
    program = worker.__file__
    done = subprocess.run(
        [sys.executable, program, str(ml101.source), str(ml101.copy)],
        check=True,
        capture_output=True,
        env={**os.environ, "LC_ALL": "zh_CN.UTF-8", "GIT_DIR": "/nowhere"},
    )
    assert json.loads(done.stdout) == {"kept": [], "problem": "", "detail": ""}
    assert ml101.has("讲义.md") == "one\n"
