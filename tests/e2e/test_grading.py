"""An assignment with nbgrader, from its making to its marks, in browsers and by commands."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

from conftest import NewPage
from deployment import Deployment
from handing_in import downloaded
from people import in_lab, log_in, open_notebook, picture, run_cell
from playwright.sync_api import Page, expect

COURSE = "/services/labcommons/courses/ml101"
STUDENT = "s05"
KERNEL = "Course work - Python 3.13"
TODAY = datetime.now(UTC).date()
DOCUMENT = f"""\
version: 1
course: ml101
title: {{en: Machine learning, zh: 机器学习}}
timezone: UTC
term: {{first: {TODAY}, last: {TODAY + timedelta(days=90)}}}
environment: course-work
size: small
handins: [{{name: hw1, title: {{en: Doubling, zh: 加倍}}, due: {TODAY + timedelta(days=2)}}}]
"""
ENVIRONMENT = """\
name: course-work
channels: [conda-forge]
dependencies: [python 3.13.*, ipykernel, pip, pip: ["nbgrader>=0.9"]]
"""
# The instructor's notebook, written in a notebook.
SOURCE = """
import nbformat.v4 as v4, pathlib
def cell(source, grade_id, **more):
    one = v4.new_code_cell(source)
    one.metadata["nbgrader"] = dict(schema_version=3, grade=False, solution=False, locked=False,
                                    task=False, grade_id=grade_id) | more
    return one
hidden = "### BEGIN HIDDEN TESTS\\nassert double(-3) == -6\\n### END HIDDEN TESTS"
solution = "### BEGIN SOLUTION\\n    return 2 * x\\n    ### END SOLUTION"
book = v4.new_notebook(cells=[
    cell("def double(x):\\n    " + solution, "double", solution=True),
    cell("assert double(2) == 4\\n" + hidden, "numbers", grade=True, locked=True, points=3),
    cell("assert double('a') == 'aa'", "texts", grade=True, locked=True, points=2),
], metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}})
place = pathlib.Path.home() / "shared/course-ml101-staff/source/hw1"
place.mkdir(parents=True)
import nbformat; nbformat.write(book, place / "doubling.ipynb"); print("written")
"""
# What the student makes of it: right for numbers, not for texts.
ANSWER = """
import nbformat, pathlib
mine = pathlib.Path.home() / "hw1/doubling.ipynb"
book = nbformat.read(mine, 4)
print("SOLUTION" in str(book), "HIDDEN" in str(book))
book.cells[0].source = "def double(x):\\n    return 2 * x if x != 'a' else x"
nbformat.write(book, mine)
"""


def built(site: Deployment) -> None:
    """An environment with nbgrader, as an administrator adds one."""
    folder = site.root / "config" / "environments" / "course-work"
    folder.mkdir(exist_ok=True)
    (folder / "environment.yml").write_text(ENVIRONMENT)
    (folder / "labcommons.yml").write_text("title: {en: Course work, zh_CN: 课程作业}\n")
    done = subprocess.run(
        [str(site.root / "bin/labcommons"), "env", "build", "course-work"],
        cwd=site.root, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def in_notebook(page: Page, name: str) -> Page:
    """JupyterLab in the course's environment, with a new notebook."""
    log_in(page, name)
    page.wait_for_url(re.compile(r"/hub/(home|spawn)"))
    page.goto("/hub/course/ml101")
    page.get_by_role("button", name="Start", exact=True).click()
    in_lab(page)
    open_notebook(page, KERNEL)
    return page


def test_an_assignment_goes_from_its_making_to_its_marks(
    clean: Deployment, new_page: NewPage, pictures: Path
) -> None:
    course = ("docker", "exec", "-i", clean.container("hub"), "labcommons", "course")
    shutil.rmtree(clean.root / "data" / "homes" / STUDENT / "hw1", ignore_errors=True)
    built(clean)
    try:
        subprocess.run([*course, "apply", "-f", "-"], input=DOCUMENT, text=True, check=True)
        teacher = in_notebook(new_page(), "dan")
        said(teacher, SOURCE, "written")
        # Of nbgrader's own, what works without the packages of an environment in the server.
        expect(teacher.get_by_role("tab", name="Create Assignment")).to_be_visible()
        expect(teacher.get_by_role("menuitem", name="Nbgrader")).to_have_count(0)
        expect(teacher.get_by_role("button", name="Validate")).to_have_count(0)
        made = "nbgrader generate_assignment hw1 && nbgrader release_assignment hw1 --course ml101"
        said(teacher, f"!cd ~/shared/course-ml101-staff && {made} 2>&1", "Released as:")
        picture(teacher, pictures, "grading-released")

        student = in_notebook(new_page(), STUDENT)
        said(student, "!nbgrader list --course ml101 2>&1", "ml101 hw1")
        said(student, "!cd ~ && nbgrader fetch_assignment hw1 --course ml101 2>&1", "Fetched as:")
        said(student, ANSWER, "False False")
        kept = re.compile(r"Handed in as: ml101 hw1 .*1 files, sha256")
        said(student, "!cd ~ && nbgrader submit hw1 --course ml101 2>&1", kept)
        picture(student, pictures, "grading-submitted")

        teacher.goto(f"{COURSE}/handins/hw1")
        teacher.get_by_role("button", name="Grade with nbgrader").click()
        row = teacher.get_by_role("row", name=re.compile(f"^{STUDENT} "))
        expect(row).to_contain_text("3/5", timeout=180_000)
        picture(teacher, pictures, "grading-graded")

        student.goto(f"{COURSE}/handins")
        expect(student.get_by_text("Your mark: 3/5")).to_be_visible()
        picture(student, pictures, "grading-marked")
        with zipfile.ZipFile(BytesIO(downloaded(student, "Download your feedback"))) as got:
            [page] = got.namelist()
            assert b"AssertionError" in got.read(page)

        # And the rest by command: collected, graded again, one's own feedback.
        [server] = clean.containers("dan")
        [own] = clean.containers(STUDENT)
        collected = "cd ~/shared/course-ml101-staff && nbgrader collect hw1"
        assert f"Collected: {STUDENT} hw1" in in_terminal(server, collected)
        [one] = clean.labcommons("course", "handin", "autograde", "ml101", "hw1")["gradings"]
        assert (one["team"], one["state"], one["score"], one["most"]) == (STUDENT, "kept", 3, 5)
        back = in_terminal(own, "cd ~ && nbgrader fetch_feedback hw1 --course ml101")
        assert "Feedback:" in back, back
        home = clean.root / "data" / "homes" / STUDENT
        assert "AssertionError" in (home / "hw1/feedback/doubling.html").read_text()
        assert json.loads((home / "hw1/doubling.ipynb").read_text())["cells"]
    finally:
        clean.run(*course, "freeze", "ml101")
        clean.run(*course, "erase", "ml101", "--without-archive", "--yes", "ml101")


def said(page: Page, code: str, words: str | re.Pattern[str]) -> None:
    """Run code in the notebook, until it has said so."""
    run_cell(page, code)
    output = page.locator(".jp-Notebook .jp-OutputArea-output")
    expect(output.filter(has_text=words).last).to_be_visible()


def in_terminal(server: str, command: str) -> str:
    """What a terminal says in which the course's environment is active."""
    said = subprocess.run(
        ["docker", "exec", server, "bash", "-lic", f"conda activate course-work; {command}"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return said.stdout + said.stderr
