"""Homes and folders of scopes on a real Engine: made for their owners, never handed to another."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import docker
import pytest

from commons.errors import NotAllowed, RuntimeRefused
from commons.scopes import Scope, owners
from commons.site import Site
from rig import agent
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.spec import CloseExam, ExamPlace, MakeExam, MakeFolder, MakeHome

ALICE = MakeHome(user="alice", uid=20003, gid=20000)
ML101, VISION = MakeFolder(scope="course-ml101"), MakeFolder(scope="team-vision")
TEAM, COURSE = ("team", "vision"), ("course", "ml101")


@pytest.fixture
def course_site(site: Site) -> Site:
    document = site.model_dump(mode="json", exclude_defaults=True)
    document["directory"]["courses"] = {"ml101": {"students": ["ml101"]}}
    document["directory"]["teams"] = {"vision": {"members": ["vision"]}}
    return Site.model_validate(document)


@pytest.fixture
async def runtime(
    course_site: Site, base_image: str, tmp_path: Path
) -> AsyncIterator[DockerRuntime]:
    settings = agent.settings(course_site, tmp_path, "bridge", "lctest/tiny-server:latest")
    runtime = DockerRuntime(settings)
    yield runtime
    await runtime.close()


def left(runtime: DockerRuntime) -> list[str]:
    """Names of this site's containers that are still there."""
    client = docker.from_env(timeout=30)
    label = f"labcommons.site={runtime.settings.site_id}"
    found = [c.name for c in client.containers.list(all=True, filters={"label": label})]
    client.close()
    return found


def numbers(path: Path) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


@pytest.mark.docker
async def test_a_home_is_made_once_for_its_owner_alone(
    runtime: DockerRuntime, tmp_path: Path
) -> None:
    await runtime.run_task(ALICE)
    home = tmp_path / "homes" / "alice"
    assert numbers(home) == (20003, 20000, 0o700)
    (home / "work.txt").write_text("mine")
    await runtime.run_task(ALICE)
    assert (home / "work.txt").read_text() == "mine"
    assert left(runtime) == []


@pytest.mark.docker
async def test_a_home_left_half_made_is_finished(runtime: DockerRuntime, tmp_path: Path) -> None:
    (tmp_path / "homes" / "alice").mkdir()
    await runtime.run_task(ALICE)
    assert numbers(tmp_path / "homes" / "alice")[0] == 20003


@pytest.mark.docker
async def test_one_persons_home_is_made_once_however_many_ask_and_others_beside_it(
    runtime: DockerRuntime, tmp_path: Path
) -> None:
    people = [MakeHome(user=f"s{n:02}", uid=21000 + n, gid=20000) for n in range(5)]
    await asyncio.gather(*(runtime.run_task(one) for one in people * 4))
    for one in people:
        assert numbers(tmp_path / "homes" / one.user) == (one.uid, 20000, 0o700)
    assert left(runtime) == []


@pytest.mark.docker
async def test_twenty_students_of_a_course_get_its_folder_on_a_fresh_site(
    runtime: DockerRuntime, course_site: Site, tmp_path: Path
) -> None:
    await asyncio.gather(*(runtime.run_task(ML101) for _ in range(20)))
    pair = owners(course_site)[Scope("course", "ml101")]
    assert numbers(tmp_path / "courses" / "ml101") == (990, pair.members, 0o2750)
    assert numbers(tmp_path / "courses" / "ml101" / "envs") == (990, pair.leads, 0o2775)
    assert left(runtime) == []


@pytest.mark.docker
async def test_a_folder_with_other_numbers_is_mended(
    runtime: DockerRuntime, course_site: Site, tmp_path: Path
) -> None:
    (tmp_path / "courses" / "ml101").mkdir(mode=0o777)
    await runtime.run_task(ML101)
    pair = owners(course_site)[Scope("course", "ml101")]
    assert numbers(tmp_path / "courses" / "ml101") == (990, pair.members, 0o2750)


async def test_an_account_made_anew_does_not_get_the_old_ones_home(
    runtime: DockerRuntime, tmp_path: Path
) -> None:
    (tmp_path / "homes" / "alice").mkdir()
    os.chown(tmp_path / "homes" / "alice", 19999, 20000)
    with pytest.raises(NotAllowed, match="19999"):
        await runtime.run_task(ALICE)


async def test_a_link_is_not_followed(runtime: DockerRuntime, tmp_path: Path) -> None:
    (tmp_path / "homes" / "alice").symlink_to("/etc")
    with pytest.raises(NotAllowed, match="not a folder"):
        await runtime.run_task(ALICE)


async def test_a_course_that_the_site_has_not_gets_no_folder(
    runtime: DockerRuntime, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeRefused, match="course-chem"):
        await runtime.run_task(MakeFolder(scope="course-chem"))
    assert list((tmp_path / "courses").iterdir()) == []


@pytest.mark.docker
async def test_what_members_share_stays_theirs_whatever_the_makers_umask(
    runtime: DockerRuntime, tmp_path: Path, course_site: Site
) -> None:
    """Kind: files of a group, written by one, changed or only read by the others."""
    await asyncio.gather(*(runtime.run_task(one) for one in (ML101, VISION)))
    pair, course = (owners(course_site)[Scope(*one)] for one in (TEAM, COURSE))
    for folder, group in (("teams/vision", pair.members), ("courses/ml101", course.leads)):
        files = tmp_path / folder / "files"
        assert numbers(files) == (990, group, 0o2770)

    def as_person(uid: int, gids: list[int], words: str) -> int:
        """As a process of theirs in a server, with its umask of 027."""
        return subprocess.run(
            ["sh", "-c", f"umask 027; {words}"], cwd=tmp_path, user=uid, group=20000,
            extra_groups=gids, check=False, capture_output=True,
        ).returncode  # fmt: skip

    tmp_path.chmod(0o755)
    for above in tmp_path.parents[:2]:
        above.chmod(0o755)
    team, lesson = "teams/vision/files", "courses/ml101/files"
    assert as_person(20003, [pair.members], f"mkdir {team}/d && echo 1 > {team}/d/x") == 0
    assert as_person(20004, [pair.members], f"echo 2 >> {team}/d/x && rm {team}/d/x") == 0
    assert as_person(20005, [], f"ls {team}") != 0
    assert as_person(20010, [course.leads, course.members], f"echo 1 > {lesson}/task") == 0
    assert as_person(20011, [course.members], f"cat {lesson}/task") == 0
    assert as_person(20011, [course.members], f"echo 2 >> {lesson}/task") != 0
    assert as_person(20011, [course.members], f"touch {lesson}/mine") != 0
    # Nothing is made anew, and what is in it stays.
    await runtime.run_task(VISION)
    assert (tmp_path / team / "d").is_dir()


def exam(kind: str, user: str = "alice") -> MakeExam | CloseExam:
    place = ExamPlace(course="course-ml101", exam="midterm")
    if kind == "make":
        return MakeExam(place=place, user=user, uid=20003, gid=20000)
    return CloseExam(place=place, user=user)


@pytest.mark.docker
async def test_an_exams_folder_is_its_persons_and_then_the_instructors(
    runtime: DockerRuntime, course_site: Site, tmp_path: Path
) -> None:
    pair = owners(course_site)[Scope("course", "ml101")]
    await runtime.run_task(ML101)
    await asyncio.gather(*(runtime.run_task(exam("make", f"s{n}")) for n in range(3)))
    await runtime.run_task(exam("make"))
    above = tmp_path / "courses" / "ml101" / "exams"
    home = above / "midterm" / "alice"
    assert sorted(one.name for one in home.parent.iterdir()) == ["alice", "s0", "s1", "s2"]
    for folder in (above, home.parent):  # no student comes to it by the course's folder
        assert numbers(folder) == (990, pair.leads, 0o2750)
    assert numbers(home) == (20003, 20000, 0o700)
    [settings] = home.rglob("plugin.jupyterlab-settings")
    assert numbers(settings)[0] == 20003
    # What a student may leave there: a link out, a program with its owner's rights.
    outside = tmp_path / "homes" / "bob"
    outside.mkdir()
    (home / "answer.ipynb").write_text("42")
    (home / "way-out").symlink_to(outside)
    (home / "tool").write_text("x")
    (home / "tool").chmod(0o4777)
    for one in home.iterdir():
        os.chown(one, 20003, 20000, follow_symlinks=False)
    before = numbers(outside)
    await runtime.run_task(exam("close"))
    assert numbers(home / "answer.ipynb") == (990, pair.leads, 0o640)
    assert numbers(home / "tool") == (990, pair.leads, 0o750)
    assert numbers(home)[:2] == (990, pair.leads)
    assert numbers(outside) == before
    assert numbers(home.parent / "s0")[0] == 20003, "others go on"
    with pytest.raises(RuntimeRefused, match="not open"):
        runtime.exams.home(exam("make").place, "alice", 20003)
    await runtime.run_task(exam("close"))
    # More time for whom it has ended: what they had is theirs again.
    await runtime.run_task(exam("make"))
    assert numbers(home / "answer.ipynb")[0] == 20003
    assert runtime.exams.home(exam("make").place, "alice", 20003) == str(home)
    assert left(runtime) == []
