"""A course, from its instructor's page to a JupyterLab that was there before the click."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import handing_in
from conftest import NewPage
from deployment import Deployment, wait_for
from people import come_back, in_lab, log_in, picture
from playwright.sync_api import Page, expect

COURSES = "/services/labcommons/courses"
STUDENT, GUEST = "s05", "alice"  # whom the directory puts into it, and whom the roster does
BUSY = "bob"  # joins by a link, and has a server of his own


def document(begins: datetime) -> str:
    return f"""\
version: 1
course: ml101
title: {{en: Machine learning, zh: 机器学习}}
timezone: UTC
term: {{first: {begins.date()}, last: {begins.date() + timedelta(days=90)}}}
sessions:
  - {{weekdays: [{f"{begins:%a}".lower()}], starts: "{begins:%H:%M}", duration: 1h}}
environment: py313-data
size: small
warm: {{before: 3m, hold: 10m}}
handins: [{{name: hw1, title: {{en: Trees, zh: 树}}, due: {begins.date() + timedelta(days=2)}}}]
"""


def signed_in(page: Page, name: str) -> Page:
    log_in(page, name)
    page.wait_for_url(re.compile(r"/hub/(home|spawn)"))
    return page


def ready(site: Deployment, admin: str, user: str, server: str = "") -> bool:
    found = site.api("GET", f"users/{user}", admin)[1]["servers"].get(server, {})
    return bool(found.get("ready"))


def test_a_class_finds_its_servers_ready(
    clean: Deployment, admin: str, new_page: NewPage, pictures: Path
) -> None:
    hub = ("docker", "exec", clean.container("hub"))
    begins = (datetime.now(UTC) + timedelta(minutes=3)).replace(second=0, microsecond=0)
    student = signed_in(new_page(), STUDENT)
    guest, teacher = signed_in(new_page(), GUEST), signed_in(new_page(), "dan")
    joins = signed_in(new_page(), BUSY)
    clean.start_server(admin, BUSY, {"size": "small"})
    expect(guest.get_by_role("link", name="Courses")).to_have_count(0)
    try:
        teacher.get_by_role("link", name="Courses").click()
        teacher.get_by_role("link", name="ml101").click()
        editor = teacher.get_by_label("course.yaml")
        editor.fill("version: 1\ncourse: ml101\nsize: huge\n")
        teacher.get_by_role("button", name="Save").click()
        expect(teacher.get_by_role("alert")).to_contain_text("Nothing was changed")
        picture(teacher, pictures, "course-wrong")
        editor.fill(document(begins))
        teacher.get_by_role("button", name="See what would change").click()
        expect(teacher.get_by_role("status")).to_contain_text("+ title.en: Machine learning")
        teacher.get_by_role("button", name="Save").click()
        expect(teacher.get_by_role("heading", level=1)).to_have_text("Machine learning")

        teacher.get_by_role("link", name="Change the roster").click()
        lines = f"username;role\n{GUEST.upper()};student\nnobody-at-all;student\n"
        file = {"name": "class.csv", "mimeType": "text/csv", "buffer": lines.encode()}
        teacher.get_by_label("File", exact=True).set_input_files(files=[file])  # type: ignore[list-item]
        teacher.get_by_role("button", name="See what would change").click()
        seen = teacher.get_by_role("status", name="What would change")
        expect(seen).to_contain_text(f"{GUEST} – → student")
        expect(seen).to_contain_text("line 3: nobody-at-all is not in the directory")
        picture(teacher, pictures, "course-roster")
        teacher.get_by_role("button", name="Change the roster").click()
        expect(teacher.get_by_role("button", name=f"Take “{GUEST}” off the roster")).to_be_visible()

        teacher.get_by_role("button", name="Make a link").click()
        link = teacher.locator("code", has_text="/hub/course-join/")
        joins.goto(link.inner_text())  # waits for it
        joins.get_by_role("button", name="Join the course").click()
        joins.wait_for_url(f"**{COURSES}/ml101")
        expect(joins.get_by_role("heading", level=1)).to_have_text("Machine learning")

        wait_for(lambda: ready(clean, admin, STUDENT), "the student's server", 150)
        teacher.goto(f"{COURSES}/ml101")
        expect(teacher.get_by_text(re.compile(r"\d of \d+ servers are ready"))).to_be_visible()
        expect(teacher.get_by_text(GUEST, exact=True)).to_be_visible()
        picture(teacher, pictures, "course-teacher")
        student.goto(f"{COURSES}/ml101")
        student.get_by_role("link", name="Open the course").click()
        student.wait_for_url(f"**/user/{STUDENT}/lab**")
        in_lab(student)
        handing_in.hand_in(clean, student, STUDENT, pictures)
        handing_in.collect(teacher, STUDENT, pictures)
        handing_in.give_back(clean, teacher, student, STUDENT, pictures)

        # A server of his own runs: the course's starts beside it, and the link leads there.
        joins.goto("/hub/course/ml101")
        expect(joins.get_by_text("Your server runs with something else")).to_be_visible()
        picture(joins, pictures, "course-taken")
        joins.get_by_role("button", name="Start a server for the course").click()
        joins.get_by_role("button", name="Start", exact=True).click()
        joins.wait_for_url(f"**/user/{BUSY}/ml101/lab**", timeout=120_000)
        joins.goto("/hub/course/ml101")
        joins.wait_for_url(f"**/user/{BUSY}/ml101/lab**")
        assert ready(clean, admin, BUSY)
        assert ready(clean, admin, BUSY, "ml101")

        _in_the_room(teacher, pictures)
        student.goto("/hub/course/ml101")
        in_lab(student)  # a notebook is open: the message comes to it
        expect(student.get_by_text("Please open part two").first).to_be_visible(timeout=60_000)

        _a_look(clean, teacher, student, pictures)

        # Whom the roster puts into it: in half a minute at the most, without another login.
        wait_for(lambda: _sees_course(guest), "the course in the navigation", 60)
        guest.goto("/hub/course/ml101/lessons/first.ipynb")
        guest.wait_for_url(re.compile(f"/(user/{GUEST}/lab/tree|hub/spawn)"))
        chinese = {"name": "labcommons-lang", "value": "zh_CN", "url": clean.url}
        guest.context.add_cookies([chinese])  # type: ignore[list-item]
        guest.goto(f"{COURSES}/ml101")
        expect(guest.get_by_role("heading", level=1)).to_have_text("机器学习")
        expect(guest.get_by_label("course.yaml")).to_have_count(0)
        picture(guest, pictures, "course-student")
        guest.get_by_role("link", name="提交作业").click()
        expect(guest.get_by_role("heading", name="树")).to_be_visible()
        picture(guest, pictures, "handin-chinese")
        shown = clean.labcommons("course", "show", "ml101")
        assert shown["roster"] == {GUEST: "student", BUSY: "student"}
    finally:
        clean.api("DELETE", f"users/{BUSY}/servers/ml101", admin, {"remove": True})
        clean.run(*hub, "labcommons", "course", "remove", "ml101", "--yes")


def _in_the_room(teacher: Page, pictures: Path) -> None:
    """Who is there, a message to one, and a stop that is asked for and left."""
    teacher.goto(f"{COURSES}/ml101")
    teacher.get_by_role("link", name="Room: who is there").click()
    row = teacher.get_by_role("row", name=STUDENT)
    expect(row.get_by_text("Running")).to_be_visible()
    # Without a reload:
    expect(row.get_by_role("cell").nth(2)).to_contain_text("iB", timeout=30_000)
    picture(teacher, pictures, "course-room")
    teacher.get_by_label("Search").fill(STUDENT)
    expect(teacher.get_by_role("row")).to_have_count(2)  # with the headings
    row.get_by_role("checkbox").check()
    teacher.get_by_role("button", name="Message…").click()
    teacher.get_by_role("textbox", name="Message").fill("Please open part two")
    teacher.get_by_role("button", name="Send").click()
    expect(teacher.get_by_text(f"Message sent to: {STUDENT}")).to_be_visible()
    teacher.get_by_role("row", name=STUDENT).get_by_role("checkbox").check()
    teacher.get_by_role("button", name="Stop…").click()
    expect(teacher.get_by_text("Kernels and terminals in these servers end")).to_be_visible()
    picture(teacher, pictures, "course-room-stop")
    teacher.get_by_role("link", name="Cancel").click()
    expect(teacher.get_by_role("row", name=STUDENT).get_by_text("Running")).to_be_visible()


def _a_look(site: Deployment, teacher: Page, student: Page, pictures: Path) -> None:
    """Asked for in the room, allowed by the student, read, ended."""
    cell = {"cell_type": "markdown", "metadata": {}, "source": "# My answer <script>x</script>"}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    [container] = site.containers(STUDENT)
    write = 'printf %s "$1" > "$HOME/look.ipynb"'
    site.docker("exec", container, "sh", "-c", write, "sh", json.dumps(notebook))
    teacher.get_by_role("row", name=STUDENT).get_by_role("checkbox").check()
    teacher.get_by_role("button", name="Look at a notebook…").click()
    teacher.get_by_role("button", name="Ask", exact=True).click()
    # A server that was started ahead of time speaks as the directory says: Chinese.
    answer = student.get_by_role("button", name="答复或结束").first
    expect(answer).to_be_visible(timeout=60_000)
    student.goto("/hub/course-looks")
    student.get_by_label("path in your home").fill("look.ipynb")
    picture(student, pictures, "course-looks")
    student.get_by_role("button", name="Allow it").click()
    expect(student.get_by_text("may read a notebook of yours until")).to_be_visible()
    teacher.get_by_role("link", name=STUDENT, exact=True).click()
    shown = teacher.frame_locator("iframe")
    expect(shown.get_by_role("heading", name="My answer <script>x</script>")).to_be_visible()
    picture(teacher, pictures, "course-look")
    student.get_by_role("button", name="End it now").click()
    teacher.reload()
    expect(teacher.get_by_text("The look is over")).to_be_visible()


def _sees_course(page: Page) -> bool:
    page.goto("/hub/home")
    return page.get_by_role("link", name="Courses", exact=True).count() == 1


TODAY = datetime.now(UTC).date()
LAST = TODAY + timedelta(days=90)
PLAIN = f"""\
version: 1
course: ml101
title: {{en: Machine learning, zh: 机器学习}}
timezone: UTC
term: {{first: {TODAY}, last: {LAST}}}
environment: py313-data
size: small
materials: folder
"""
NOTEBOOK = {
    "cells": [
        {"cell_type": "code", "id": "a", "source": "1 + 1", "metadata": {}, "outputs": [],
         "execution_count": None}
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    "nbformat": 4, "nbformat_minor": 5,
}  # fmt: skip


def test_a_student_works_in_the_materials_and_every_update_leaves_that_work(
    clean: Deployment, admin: str, new_page: NewPage, pictures: Path
) -> None:
    hub = ("docker", "exec", "-i", clean.container("hub"), "labcommons", "course")
    course = clean.root / "data" / "courses" / "ml101"
    given, home = course / "staff" / "materials", clean.root / "data" / "homes" / STUDENT
    mine = home / "courses" / "ml101"
    shutil.rmtree(mine.parent, ignore_errors=True)
    for area in ("materials", "staff"):  # as on a site that had a course before it had materials
        shutil.rmtree(course / area, ignore_errors=True)

    def apply(document: str) -> None:
        subprocess.run([*hub, "apply", "-f", "-"], input=document, text=True, check=True)

    def fetch(fails: bool = False) -> str:
        done = subprocess.run(
            [*hub, "materials", "fetch", "ml101"], text=True, capture_output=True, check=False
        )
        assert done.returncode == int(fails), done.stdout + done.stderr
        return done.stdout

    try:
        apply(PLAIN)
        fetch()
        (given / "lessons").mkdir(parents=True)
        (given / "lessons" / "first.ipynb").write_text(json.dumps(NOTEBOOK))
        (given / "out").symlink_to("/etc/passwd")
        assert "left out: out: a link that leads out" in fetch()

        # By the link, through the spawn page, to the notebook in a copy of one's own.
        student, teacher = signed_in(new_page(), STUDENT), signed_in(new_page(), "dan")
        student.goto("/hub/course/ml101/lessons/first.ipynb")
        student.get_by_role("button", name="Start", exact=True).click()
        student.wait_for_url("**/lab/tree/courses/ml101/lessons/first.ipynb", timeout=120_000)
        cell = student.locator(".jp-CodeCell .cm-content").first
        cell.click()
        student.keyboard.press("Control+a")
        student.keyboard.insert_text("'my own work'")
        student.keyboard.press("Control+s")
        first = mine / "lessons" / "first.ipynb"
        wait_for(lambda: "my own work" in first.read_text(), "the notebook on disk")
        picture(student, pictures, "course-materials-lab")
        (mine / "second.ipynb").write_text("{}")  # of a name that the course has, too, before long
        shutil.chown(mine / "second.ipynb", home.stat().st_uid, home.stat().st_gid)

        # What students cannot: write what is given out, see what is not.
        [server] = clean.containers(STUDENT)
        there = "/opt/labcommons/courses/ml101"
        for tried in (
            f"touch {there}/materials/x", f"rm -r {there}/materials/repository.git/refs",
            f"ls {there}/staff", f"cat {there}/staff/materials/lessons/first.ipynb",
        ):  # fmt: skip
            done = subprocess.run(
                ["docker", "exec", server, "sh", "-c", tried], capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            assert done.returncode, tried
            assert "denied" in done.stderr, tried

        # The instructor takes the notebook away, and adds one; nobody waits a quarter of an hour.
        (given / "lessons" / "first.ipynb").unlink()
        (given / "second.ipynb").write_text(json.dumps(NOTEBOOK))
        teacher.goto(f"{COURSES}/ml101")
        before = clean.labcommons("course", "materials", "show", "ml101")["fetched_at"]
        teacher.get_by_role("button", name="Fetch now").click()

        def again() -> bool:
            told = clean.labcommons("course", "materials", "show", "ml101")
            return told["fetched_at"] != before and not told["waits"]

        wait_for(again, "the materials")
        teacher.goto(f"{COURSES}/ml101")
        expect(teacher.get_by_text("a link that leads out of the materials")).to_be_visible()
        picture(teacher, pictures, "course-materials-teacher")
        student.goto("/hub/course/ml101/second.ipynb")
        student.wait_for_url("**/lab/tree/courses/ml101/second.ipynb")
        kept = student.locator(".Toastify__toast", has_text="took the places of yours")
        expect(kept).to_be_visible()
        picture(student, pictures, "course-materials-kept")
        assert "my own work" in first.read_text()
        assert json.loads((mine / "second.ipynb").read_text()) == NOTEBOOK
        assert [path.read_text() for path in mine.glob("second__*.ipynb")] == ["{}"]

        # A history that is begun anew, as by a force-push, stops nothing.
        shutil.rmtree(course / "materials" / "repository.git")
        (given / "third.md").write_text("# Three")
        fetch()
        student.goto("/hub/course/ml101/third.md")
        student.wait_for_url("**/lab/tree/courses/ml101/third.md")
        assert "my own work" in first.read_text()

        # A repository that is not there: told, and what was fetched stays.
        apply(PLAIN.replace("folder", "{git: 'https://git.invalid/ml101.git'}"))
        assert "https://git.invalid/ml101.git" in fetch(fails=True)
        teacher.goto(f"{COURSES}/ml101")
        expect(teacher.get_by_text("The last time they could not be fetched")).to_be_visible()
        expect(teacher.get_by_text("What was fetched before is there")).to_be_visible()
        chinese = {"name": "labcommons-lang", "value": "zh_CN", "url": clean.url}
        teacher.context.add_cookies([chinese])  # type: ignore[list-item]
        teacher.reload()
        expect(teacher.get_by_role("heading", name="课程资料")).to_be_visible()
        picture(teacher, pictures, "course-materials-failed")
        student.goto("/hub/course/ml101/third.md")
        student.wait_for_url("**/lab/tree/courses/ml101/third.md")

        apply(PLAIN + f"handins: [{{name: hw1, due: {LAST}}}]\n")
        _a_folder_is_chosen(student, pictures)
        _the_end_of_the_term(clean, admin, teacher, student, pictures)
        apply(PLAIN)
    finally:
        clean.run(*hub, "remove", "ml101", "--yes")


def _a_folder_is_chosen(student: Page, pictures: Path) -> None:
    """From page to page of one's own files, and back to where it is handed in."""
    student.goto(f"{COURSES}/ml101/handins")
    student.get_by_role("link", name="Choose from your files").click()
    student.get_by_role("link", name="courses/", exact=True).click()
    student.get_by_role("link", name="ml101/", exact=True).click()
    expect(student.get_by_role("listitem").filter(has_text="third.md")).to_be_visible()
    picture(student, pictures, "course-files")
    student.get_by_role("link", name="Choose this folder").click()
    expect(student.get_by_label("File or folder of your home")).to_have_value("courses/ml101")


def _the_end_of_the_term(
    site: Deployment, admin: str, teacher: Page, student: Page, pictures: Path
) -> None:
    """Frozen, archived, and removed with its files, which the archive alone has then."""
    english = {"name": "labcommons-lang", "value": "en", "url": site.url}
    teacher.context.add_cookies([english])  # type: ignore[list-item]
    teacher.goto(f"{COURSES}/ml101")
    teacher.get_by_role("button", name="Freeze the course").click()
    expect(teacher.get_by_text("This course is frozen")).to_be_visible()
    student.goto(f"{COURSES}/ml101")
    expect(student.get_by_text("This course is frozen")).to_be_visible()
    student.goto(f"{COURSES}/ml101/handins")
    expect(student.get_by_role("note")).to_contain_text("This course is frozen")
    expect(student.get_by_role("button", name="Hand in")).to_have_count(0)
    site.start_server(admin, "dan", {"size": "small"})
    [server] = site.containers("dan")
    tried = ("docker", "exec", server, "touch", "/opt/labcommons/courses/ml101/files/x")
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    assert "Read-only file system" in done.stderr

    teacher.get_by_role("button", name="Make an archive").click()
    command = str(site.root / "bin/labcommons")

    def kept() -> bool:
        [one] = site.labcommons("course", "archive", "list", "ml101")
        assert one["state"] != "failed", one
        return bool(one["state"] == "kept")

    wait_for(kept, "the archive", 120)
    teacher.goto(f"{COURSES}/ml101")
    expect(teacher.get_by_role("cell", name="whole")).to_be_visible()
    picture(teacher, pictures, "course-end")
    assert "Whole and true" in site.run(command, "course", "archive", "verify", "ml101")
    [one] = site.labcommons("course", "archive", "list", "ml101")
    made = site.root / "data/archives/ml101" / one["name"]
    with tarfile.open(made) as archive:
        names = {entry.name.partition("/")[2] for entry in archive}
    assert {"staff/materials/third.md", "records/course.yaml", "SHA256SUMS"} <= names
    assert any(name.endswith("environment.yml") for name in names)
    said = site.run(command, "course", "erase", "ml101", "--yes", "ml101")
    assert "Removed: ml101" in said
    assert not (site.root / "data/courses/ml101").exists()
    assert made.exists()


# From inside of an exam's server: what answers, of targets that are asked all at once; a name that
# is looked up; what is mounted; and what the console says to the server's own token.
LOOK = """
import json, os, socket, sys, threading, urllib.error, urllib.request
found = {"reached": []}
def connect(name, host, port):
    try:
        socket.create_connection((host, int(port)), 4).close()
        found["reached"].append(name)
    except OSError:
        pass
def resolve():
    try:
        found["name"] = socket.gethostbyname("somewhere.example.org")
    except OSError:
        found["name"] = ""
def ask(path):
    request = urllib.request.Request(os.environ["LABCOMMONS_CONSOLE_URL"] + "api/v1/" + path,
        headers={"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]})
    try:
        found[path] = urllib.request.urlopen(request, timeout=20).status
    except urllib.error.HTTPError as error:
        found[path] = error.code
threads = [threading.Thread(target=connect, args=word.split("=")) for word in sys.argv[1:]]
threads += [threading.Thread(target=resolve)]
threads += [threading.Thread(target=ask, args=(path,)) for path in ("notices", "inbox/1")]
for one in threads: one.start()
for one in threads: one.join()
lines = [line.split() for line in open("/proc/self/mountinfo")]
found["folders"] = sorted(part[4] for part in lines if part[4].startswith(("/home", "/opt")))
found["home"] = sorted(os.listdir(os.environ["HOME"]))
found["groups"] = os.getgroups()
print(json.dumps(found))
"""


def exam_document(begins: datetime, minutes: int, version: str) -> str:
    return f"""\
version: 1
course: ml101
title: {{en: Machine learning, zh: 机器学习}}
timezone: UTC
term: {{first: {begins.date()}, last: {begins.date() + timedelta(days=90)}}}
exams:
  - name: midterm
    title: {{en: The midterm, zh: 期中考试}}
    day: {begins.date()}
    starts: "{begins:%H:%M}"
    duration: {minutes}m
    environment: py313-data:{version}
    size: small
"""


def test_an_exam_is_closed_to_all_sides_and_ends_by_the_clock(
    clean: Deployment, admin: str, new_page: NewPage, pictures: Path
) -> None:
    hub = ("docker", "exec", "-i", clean.container("hub"))
    begins = datetime.now(UTC).replace(second=0, microsecond=0)
    versions = clean.docker("images", "--format", "{{.Tag}}", "labcommons/env-py313-data")
    version = versions.split()[0]

    def say(minutes: int) -> None:
        text = exam_document(begins, minutes, version)
        clean.run(
            *hub, "sh", "-c", f"cat > /tmp/ml101.yaml <<'END'\n{text}END\n"
            "labcommons course apply -f /tmp/ml101.yaml",
        )  # fmt: skip

    student, teacher = signed_in(new_page(), STUDENT), signed_in(new_page(), "dan")
    clean.start_server(admin, STUDENT, {"size": "small"})
    clean.login_once("s10")
    clean.start_server(admin, "s10", {"size": "small"})
    try:
        say(60)
        student.goto(f"{COURSES}/ml101")
        student.get_by_role("link", name="The midterm").click()
        expect(student.get_by_text("are stopped when you begin")).to_be_visible()
        picture(student, pictures, "exam-open")
        student.get_by_role("button", name="Begin the exam").click()
        student.wait_for_url(f"**/user/{STUDENT}/exam-midterm/lab**", timeout=180_000)
        expect(student.locator(".jp-Launcher")).to_be_visible(timeout=60_000)
        told = come_back(student, "The exam “midterm” ends for you at")
        expect(told).to_be_visible()
        picture(student, pictures, "exam-lab")

        [exam] = clean.containers(STUDENT)
        assert not ready(clean, admin, STUDENT), "the other server was stopped"
        [other] = clean.containers("s10")
        plan = json.loads((clean.root / ".perimeter.json").read_text())
        address = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        targets = {
            "gate": f"{plan['users']['gate']}=8000",
            "other": f"{clean.docker('inspect', '-f', address, other).strip()}=8888",
            "machine": f"{plan['users']['subnet'].partition('/')[0].rpartition('.')[0]}.1=8443",
            "chp": f"{plan['users']['clients'][0]}=8000",
            "hub": f"{plan['users']['clients'][1]}=8081",
            "outside": "198.51.100.7=80",
            **{f"names {one}": f"{one}=53" for one in plan["resolvers"]},
        }
        for service in ("agent", "chp", "hub", "directory"):
            for number, one in enumerate(
                clean.docker("inspect", "-f", address, clean.container(service)).split()
            ):
                for port in (8081, 8001, 8444, 1389):
                    targets[f"{service} {number} {port}"] = f"{one}={port}"
        words = [f"{name}={to}" for name, to in targets.items()]
        python = "/opt/labcommons/server/bin/python"
        found = json.loads(clean.docker("exec", exam, python, "-c", LOOK, *words))
        assert found["reached"] == ["gate"]
        assert found["name"] == ""
        assert (found["notices"], found["inbox/1"]) == (200, 403)
        home = f"/home/{STUDENT}"
        assert found["folders"] == [home, "/opt/labcommons/registry/image"]
        assert "shared" not in found["home"]
        assert len(found["groups"]) <= 1
        control = json.loads(clean.docker("exec", other, python, "-c", LOOK, *words[:1]))
        assert control["inbox/1"] == 404

        student.goto("/hub/spawn")
        student.get_by_role("button", name="Start", exact=True).click()
        expect(student.get_by_text("You are in the exam “midterm”")).to_be_visible()
        teacher.goto(f"{COURSES}/ml101")
        expect(teacher.get_by_role("row", name=STUDENT)).to_contain_text("in it")
        picture(teacher, pictures, "exam-teacher")

        # The browser is closed, the end is moved to the next minute, and the hub is killed before.
        clean.docker("exec", exam, "sh", "-c", f"echo 42 > {home}/answer.txt")
        student.context.close()
        now = datetime.now(UTC)
        minutes = int((now - begins).total_seconds() // 60) + 1
        say(minutes)
        clean.kill("hub")
        wait_for(lambda: not clean.containers(STUDENT), "the end by the clock", 150)
        assert datetime.now(UTC) >= begins + timedelta(minutes=minutes)
        answer = clean.root / "data/courses/ml101/exams/midterm" / STUDENT / "answer.txt"
        wait_for(lambda: answer.stat().st_uid == 990, "the folder to be the instructors'", 60)
        assert answer.stat().st_mode & 0o777 == 0o640
        assert answer.read_text() == "42\n"
        wait_for(lambda: clean.healthy("hub"), "the hub", 60)
        teacher.goto(f"{COURSES}/ml101")
        expect(teacher.get_by_role("row", name=STUDENT)).to_contain_text("ended")
        clean.start_server(admin, STUDENT, {"size": "small"})
        command = str(clean.root / "bin/labcommons")
        for action in ("exam-begin", "exam-end"):
            said = clean.run(command, "audit", "show", "--action", action, "--json")
            [*_, last] = json.loads(said)
            assert last["user"]["name"] == STUDENT
    finally:
        clean.run(*hub, "labcommons", "course", "remove", "ml101", "--yes")
