"""A part of the scene of a course: a student hands in, and its instructor collects it."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import zipfile
from pathlib import Path

from deployment import Deployment
from people import picture
from playwright.sync_api import Page, expect

PAGE = "/services/labcommons/courses/ml101"
FOLDER = "/opt/labcommons/courses/ml101/handins"


def lay(site: Deployment, user: str) -> None:
    """What somebody hands in, beside what is not taken along."""
    home = site.root / "data/homes" / user
    folder = home / "hw1"
    folder.mkdir()
    (folder / "report.md").write_text("# Mine\n")
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    owner = home.stat()
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def downloaded(page: Page, link: str) -> bytes:
    with page.expect_download() as waiting:
        page.get_by_role("link", name=link).click()
    return Path(waiting.value.path()).read_bytes()


def hand_in(site: Deployment, student: Page, user: str, pictures: Path) -> None:
    """By keyboard, to the receipt; which is true."""
    lay(site, user)
    student.goto(PAGE)
    student.get_by_role("link", name="Hand in").click()
    student.get_by_role("button", name="Hand in").focus()
    student.keyboard.press("Enter")
    mine = student.get_by_role("region", name="What you have handed in")
    expect(mine).to_contain_text("kept", timeout=60_000)
    picture(student, pictures, "handin-student")
    mine.get_by_role("link").first.click()
    left = student.get_by_role("region", name="Left out")
    expect(left).to_contain_text(re.compile("link a link.*pipe neither", re.S))
    picture(student, pictures, "handin-receipt")
    receipt = downloaded(student, "Download the receipt")
    assert json.loads(receipt)["receipt"]["asked_by"] == user
    hub, text = site.container("hub"), base64.b64encode(receipt).decode()
    check = f"echo {text} | base64 -d | labcommons course handin verify -"
    assert "in time" in site.run("docker", "exec", hub, "sh", "-c", check)
    # From where the student works: nothing of it is seen, let alone changed.
    (server,) = site.containers(user)
    tried = ("docker", "exec", server, "ls", FOLDER)
    done = subprocess.run(tried, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode != 0, "Permission denied" in done.stderr) == (True, True)


def give_back(site: Deployment, teacher: Page, student: Page, user: str, pictures: Path) -> None:
    """Feedback and a mark; what is not there is told first."""
    back = teacher.get_by_role("region", name="Feedback")
    for _ in range(2):
        back.get_by_label("Folder or zip of your home").fill("graded")
        back.get_by_role("button", name="Give feedback").click()
        given = teacher.get_by_role("region", name="Who has handed in").get_by_role("listitem")
        if not (home := site.root / "data/homes/dan" / "graded").exists():
            expect(given.first).to_contain_text("There is no “graded”", timeout=60_000)
            (home / user).mkdir(parents=True)
            (home / user / "note.txt").write_text("good")
            owner = home.parent.stat()
            for path in (home, home / user, home / user / "note.txt"):
                os.chown(path, owner.st_uid, owner.st_gid)
    expect(given.first).to_contain_text(f"· {user}", timeout=60_000)
    table = teacher.get_by_label("Marks, as CSV")
    table.fill(table.input_value().replace(f"{user},,", f"{user},A,well done"))
    teacher.get_by_role("button", name="See what would change").click()
    expect(teacher.get_by_role("status")).to_contain_text(f"{user}: – -> A (well done)")
    picture(teacher, pictures, "handin-marks")
    teacher.get_by_role("button", name="Save").click()
    student.goto(f"{PAGE}/handins")
    expect(student.get_by_text("Your mark: A")).to_be_visible()
    picture(student, pictures, "handin-marked")
    with zipfile.ZipFile(io.BytesIO(downloaded(student, "Download your feedback"))) as got:
        assert got.read("feedback-hw1/note.txt") == b"good"
    (server,) = site.containers(user)
    mine = f"/opt/labcommons/courses/ml101/feedback/{user}/hw1/files/note.txt"
    assert site.run("docker", "exec", server, "cat", mine) == "good"
    change = ("docker", "exec", server, "sh", "-c", f"echo mine > {mine}")
    done = subprocess.run(change, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0, done


def collect(teacher: Page, user: str, pictures: Path) -> None:
    """Who handed in and who did not, and all of it as a zip."""
    teacher.goto(f"{PAGE}/handins/hw1")
    row = teacher.get_by_role("row", name=re.compile(f"^{user} "))
    expect(row).to_contain_text("kept")
    picture(teacher, pictures, "handin-teacher")
    with zipfile.ZipFile(
        io.BytesIO(downloaded(teacher, "Download all, the newest of each"))
    ) as got:
        assert got.namelist() == [f"hw1/{user}/report.md"], got.namelist()
        assert got.read(f"hw1/{user}/report.md") == b"# Mine\n"
