"""Grading by a program, with the real nbgrader: what a hostile notebook gets, and cannot do.

Each step is a process of its own, as its container is; an assignment has a notebook for each kind
of student, so that all of them are graded at once.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from spawner.runtime.docker import grade_task
from spawner.runtime.docker.grade_task import failure, limited
from spawner.runtime.spec import Graded

SOLUTION = "### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
HIDDEN = "### BEGIN HIDDEN TESTS\nassert double(-3) == -6\n### END HIDDEN TESTS"
RIGHT = "def double(x):\n    return 2 * x"
# What a student's code may try against the process that tells what came of it.
SAID = json.dumps({"notebook": "attack.ipynb", "cells": {"2": [], "3": []}, "problem": ""})
ATTACK = f"""
import os, signal
def double(x):
    return None
said = open("/proc/self/stat").read().split()
above = int(said[3])
tried = []
for path in ("mem", "fd/1", "fd/5", "environ"):
    try:
        open(f"/proc/{{above}}/{{path}}", "r+b" if path == "mem" else "wb").write(b'{{"x": 1}}')
        tried.append(path)
    except OSError:
        pass
os.write(1, b'{SAID}\\n')
print("reached:", tried)
"""


def cell(kind: str, source: str, **nbgrader: Any) -> Any:
    found = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False}
    made = new_markdown_cell(source) if kind == "markdown" else new_code_cell(source)
    if nbgrader:
        made.metadata["nbgrader"] = {**found, **nbgrader}
    return made


def source() -> Any:
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return new_notebook(
        metadata={"kernelspec": kernel},
        cells=[
            cell("markdown", "# Doubling"),
            cell("code", f"def double(x):\n    {SOLUTION}", grade_id="double", solution=True),
            cell("code", f"assert double(2) == 4\n{HIDDEN}", grade_id="numbers", grade=True,
                 locked=True, points=3),
            cell("code", "assert double('a') == 'aa'", grade_id="texts", grade=True, locked=True,
                 points=2),
        ],
    )  # fmt: skip


def student(code: str = RIGHT) -> Any:
    found = source()
    found.cells[1].source = code
    found.cells[2].source = "assert double(2) == 4"
    return found


def edited() -> Any:
    """Tests that say nothing, points that are many, cells that are not run, one test twice."""
    found = student("def double(x):\n    return 0")
    found.cells[2].source = "pass"
    found.cells[2].metadata["nbgrader"] |= {"points": 1000, "locked": False, "checksum": "0"}
    found.cells[2].metadata["tags"] = ["skip-execution", "raises-exception"]
    found.cells[3].metadata["nbgrader"] |= {"grade": False, "solution": True, "locked": False}
    found.cells.append(cell("code", "pass", grade_id="texts", grade=True, locked=True, points=99))
    found.cells.append(cell("code", "1000.0", grade_id="mine", grade=True, locked=True, points=99))
    found.cells.append(cell("markdown", "<script>alert(1)</script><img src=x onerror=alert(2)>"))
    return found


def prints() -> Any:
    """More than anybody reads, HTML, and a picture that is none."""
    return student(
        f"{RIGHT}\nfrom IPython.display import HTML, display\n"
        "display(HTML('<script>alert(3)</script>'), "
        "{'image/png': '\\\"><script>alert(4)</script>'}, raw=False)\n"
        "for n in range(10_000): print('x' * 1000)"
    )


STUDENTS = {
    "attack": student(ATTACK),
    "dies": student("import os\nos._exit(0)"),
    "edited": edited(),
    "half": student("def double(x):\n    return 2 * x if x != -3 else 0"),
    "prints": prints(),
    "right": student(),
}
EVERY = (*STUDENTS, "broken", "gone")


@dataclass
class World:
    """What is between the steps of one grading."""

    folder: Path

    def step(self, call: str, words: dict[str, Any]) -> list[dict[str, Any]]:
        """Do one as its container does, with folders of ours; what it said."""
        shown = (
            "import json, sys\nfrom pathlib import Path\n"
            "from spawner.runtime.docker import grade_task as g\n"
            "say = g._mouth()\nwords, at = json.loads(sys.argv[1]), Path(sys.argv[2])\n"
            f"found = {call}\n"
            "for one in [found] if isinstance(found, dict) else found: say(one)\n"
        )
        done = subprocess.run(
            # A container has no capability; root's could look into any process.
            ["setpriv", "--bounding-set=-all", sys.executable, "-c", shown, json.dumps(words),
             str(self.folder)],
            capture_output=True,
            check=True,
            timeout=300,
        )  # fmt: skip
        return [json.loads(line) for line in done.stdout.splitlines()]

    def prepare(self) -> dict[str, Any]:
        [said] = self.step(
            "g.prepare(words, at / 'staff', at / 'handed', at / 'run', at / 'book')",
            {"handin": "hw1"},
        )
        return said

    def run(self, seconds: int, work: str = "work") -> list[dict[str, Any]]:
        return self.step(f"g.run(words, at / 'run', at / '{work}')", {"seconds": seconds})

    def mark(self, ran: list[Any]) -> Graded:
        text = "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in ran)
        (self.folder / "ran" / "outputs").write_text(text)
        [said] = self.step(
            "g.mark(words, at / 'book', at / 'ran', at / 'out', at / 'marked')", {"handin": "hw1"}
        )
        return Graded.model_validate_json(json.dumps(said))

    def pages(self) -> dict[str, str]:
        listed = json.loads((self.folder / "out" / "manifest.json").read_bytes())["files"]
        found, data = {}, (self.folder / "out" / "data").read_bytes()
        for one in listed:
            found[one["path"]], data = data[: one["bytes"]].decode(), data[one["bytes"] :]
        return found


def world(folder: Path, every: tuple[str, ...]) -> World:
    for name in ("staff/source/hw1/data", "handed", "run", "book", "ran", "out"):
        (folder / name).mkdir(parents=True)
    for name in every:
        (folder / "staff/source/hw1" / f"{name}.ipynb").write_text(json.dumps(source()))
    (folder / "staff/source/hw1/data/x.csv").write_text("theirs")
    (folder / "staff/source/hw1/out").symlink_to("/etc")
    (folder / "handed/data").mkdir()
    (folder / "handed/data/x.csv").write_text("mine")
    (folder / "handed/helper.py").write_text("ONE = 1")
    return World(folder)


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, dict[str, Any], Graded]:
    """All of them, graded once; what running said by notebook."""
    made = world(tmp_path_factory.mktemp("grade"), EVERY)
    for name, notebook in STUDENTS.items():
        (made.folder / "handed" / f"{name}.ipynb").write_text(json.dumps(notebook))
    (made.folder / "handed/broken.ipynb").write_text('{"cells": [[]]}')
    assert made.prepare() == {"notebooks": len(EVERY), "run": len(STUDENTS)}
    ran = made.run(600)
    return made, {one["notebook"]: one for one in ran}, made.mark(ran)


def points(graded: tuple[World, dict[str, Any], Graded]) -> dict[str, tuple[float, float]]:
    return {one.name.removesuffix(".ipynb"): (one.score, one.most) for one in graded[2].notebooks}


def test_each_gets_what_their_code_does_by_the_instructors_tests(graded: Any) -> None:
    assert points(graded) == {
        "attack": (0, 5),
        "broken": (0, 5),
        "dies": (0, 5),
        "edited": (0, 5),
        "gone": (0, 5),
        "half": (2, 5),
        "prints": (5, 5),
        "right": (5, 5),
    }
    said = {one.name: one.problem for one in graded[2].notebooks if one.problem}
    assert said.pop("broken.ipynb").startswith("invalid: ")
    assert said == {"dies.ipynb": "died", "gone.ipynb": "missing"}


def test_a_students_code_cannot_speak_for_who_runs_it(graded: Any) -> None:
    """Nor look into it: its memory and descriptors are shut."""
    _, ran, _ = graded
    assert set(ran) == {f"{name}.ipynb" for name in STUDENTS}
    printed = "".join(one.get("text", "") for one in ran["attack.ipynb"]["cells"]["1"])
    assert printed == "reached: []\n"


def test_feedback_has_points_and_nothing_that_runs(graded: Any) -> None:
    world, _, told = graded
    pages = world.pages()
    assert set(pages) == {f"{name}.html" for name in STUDENTS}
    text = (world.folder / "out/manifest.json").read_bytes()
    assert hashlib.sha256(text).hexdigest() == told.digest
    assert told.bytes == sum(len(page.encode()) for page in pages.values())
    for name in ("edited", "prints"):
        assert "<script>alert" not in pages[f"{name}.html"]
        assert "<img src=x onerror" not in pages[f"{name}.html"]
    assert "AssertionError" in pages["half.html"]
    assert len(pages["prints.html"]) < 2**20


def test_what_is_run_has_the_instructors_files_and_no_more_of_theirs(graded: Any) -> None:
    """Data of theirs takes the place of the student's; nothing comes by a link."""
    with tarfile.open(graded[0].folder / "run" / grade_task.TREE) as archive:
        names = archive.getnames()
        data = archive.extractfile("data/x.csv")
        assert data is not None
        assert data.read() == b"theirs"
    assert sorted(names) == sorted(
        ["data/x.csv", "helper.py", *(f"{name}.ipynb" for name in STUDENTS)]
    )


def test_what_is_said_of_a_run_can_be_anything(graded: Any, tmp_path: Path) -> None:
    """Nothing of it gives more points than there are; what is not said was not run."""
    made = World(tmp_path)
    for name in ("ran", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "book").symlink_to(graded[0].folder / "book")
    much = {"output_type": "execute_result", "data": {"text/plain": "1e9"}, "metadata": {}}
    less = {"output_type": "execute_result", "data": {"text/plain": "-50"}, "metadata": {}}
    told = made.mark(
        [
            "[" * 100_000,
            "nothing",
            {"notebook": "right.ipynb", "cells": {"2": [much], "3": [less]}, "problem": ""},
            {"notebook": "half.ipynb", "cells": {"2": [7, {}, None], "x": []}, "problem": ""},
            {"notebook": "../up.ipynb", "cells": {}, "problem": ""},
        ]
    )
    found = {one.name: (one.score, one.most) for one in told.notebooks}
    assert found["right.ipynb"] == (0, 5)
    assert found["half.ipynb"] == (0, 5)
    assert all(most == 5 for _, most in found.values())


def test_one_that_does_not_end_is_ended(tmp_path: Path) -> None:
    """Of the cell that did not end nothing is told, nor of those behind it: they have failed."""
    (tmp_path / "run").mkdir()
    slow = tmp_path / "slow.ipynb"
    slow.write_text(json.dumps(student(f"{RIGHT}\nimport time\ntime.sleep(600)")))
    with tarfile.open(tmp_path / "run" / grade_task.TREE, "w") as archive:
        archive.add(slow, slow.name)
    [told] = World(tmp_path).run(1)
    assert told == {"notebook": "slow.ipynb", "cells": {}, "problem": "time"}


def test_an_assignment_that_is_not_there_is_told(tmp_path: Path) -> None:
    made = world(tmp_path, ())
    with pytest.raises(grade_task.CannotError) as caught:
        grade_task.prepare(
            {"handin": "hw1"}, tmp_path / "staff", tmp_path / "handed", tmp_path, tmp_path
        )
    assert (caught.value.why, caught.value.detail) == ("source", "hw1")
    assert not (made.folder / "run" / grade_task.TREE).exists()


def test_outputs_are_texts_and_pictures_and_a_failure_is_never_lost() -> None:
    many = [{"output_type": "stream", "name": "stdout", "text": "x"}] * 5000
    png = base64.b64encode(b"\x89PNG").decode()
    found = limited(
        [
            {"output_type": "display_data", "data": {"text/html": "<b>", "image/png": png}},
            {"output_type": "display_data", "data": {"image/png": '"><script>'}},
            {"output_type": "display_data", "data": {"application/javascript": "alert(1)"}},
            *many,
            {"output_type": "stream", "name": "stderr", "text": ["a", "b"]},
            failure("Broken", "x" * 10_000),
            17,
        ]
    )
    assert found[0] == {"output_type": "display_data", "data": {"image/png": png}, "metadata": {}}
    assert found[-2]["text"] == "ab"
    assert (found[-1]["ename"], len(found[-1]["evalue"])) == ("Broken", 2000)
    assert len(found) == grade_task.MOST_OUTPUTS + 2
