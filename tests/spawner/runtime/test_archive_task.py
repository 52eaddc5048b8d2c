"""An archive is whole, true and readable elsewhere, whatever is in a course's folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from spawner.runtime.docker import archive_task
from spawner.runtime.docker.archive_task import CannotError, check, pack, seal
from spawner.runtime.spec import CourseStep, MakeFolder

from .conftest import DockerWorld

KEY = Ed25519PrivateKey.generate()
NAME = "ml101.tar.gz"


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course's folder, with what people leave in one."""
    for name in ("course", "versions", "archives"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(archive_task, name.upper(), tmp_path / name)
    monkeypatch.setattr(archive_task, "RESERVE", 0)
    folder = tmp_path / "course"
    (folder / "files" / "empty").mkdir(parents=True)
    (folder / "files" / "讲义 “1”.txt").write_text("一")
    (folder / "files" / "back\\slash\nline").write_bytes(b"x")
    (folder / "files" / ("long" * 60)).write_bytes(b"y" * 1000)
    (folder / "staff").mkdir()
    (folder / "staff" / "large").write_bytes(os.urandom(3 * 2**20 + 7))
    (folder / "staff" / "away").symlink_to("/etc/passwd")
    (folder / "staff" / "folder").symlink_to("/etc")
    os.mkfifo(folder / "staff" / "pipe")
    (folder / "staff" / os.fsdecode(b"\xff")).write_bytes(b"z")
    (folder / "envs" / "big").mkdir(parents=True)
    (folder / "envs" / "big" / "library").write_bytes(b"not taken")
    version = tmp_path / "versions" / "data" / "3"
    version.mkdir(parents=True)
    (version / "environment.yml").write_text("name: data")
    return folder


def words(**more: Any) -> dict[str, Any]:
    return {
        "id": "a1",
        "course": "ml101",
        "top": "ml101-a1",
        "name": NAME,
        "texts": {"records/course.yaml": "version: 1\n"},
        "environments": [["data", "3"]],
        **more,
    }


def sealed(packed: dict[str, Any], **more: Any) -> dict[str, Any]:
    statement = json.dumps({"kind": "course-archive", "sums": packed["sums"]})
    return words(
        packed=packed["packed"],
        statement=statement,
        signature=KEY.sign(statement.encode()).hex(),
        **more,
    )


def quiet(_: dict[str, Any]) -> None:
    pass


def test_an_archive_has_everything_and_tells_what_it_left_out(course: Path, tmp_path: Path) -> None:
    packed = pack(words(), quiet)
    made = tmp_path / "archives" / "ml101" / NAME
    assert not made.exists()
    seal(sealed(packed), quiet)
    assert [one.name for one in made.parent.iterdir()] == [NAME]
    with made.open("rb") as file:
        assert check(file).wrong == []
    with tarfile.open(made) as archive:
        names = {one.name.removeprefix("ml101-a1/") for one in archive}
        left = archive.extractfile("ml101-a1/records/left-out.csv")
        assert left is not None
        told = left.read().decode()
    assert {"files/empty", "files/讲义 “1”.txt", "staff/large", "records/course.yaml"} <= names
    assert "records/environments/data-3/environment.yml" in names
    assert not any(name.startswith(("envs", "staff/away", "staff/folder")) for name in names)
    assert 'link,"staff/away"' in told
    assert 'link,"staff/folder"' in told
    assert "special" in told
    assert "name," in told


def test_tools_that_every_machine_has_can_verify_it(course: Path, tmp_path: Path) -> None:
    seal(sealed(pack(words(), quiet)), quiet)
    pem = tmp_path / "key.pem"
    pem.write_bytes(
        KEY.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    away = tmp_path / "away"
    away.mkdir()
    script = (
        f"set -e; tar -xzf {tmp_path}/archives/ml101/{NAME}; cd ml101-a1; "
        f"openssl pkeyutl -verify -pubin -inkey {pem} -rawin -in STATEMENT.json "
        "-sigfile STATEMENT.sig >&2; sha256sum --quiet -c SHA256SUMS; sha256sum SHA256SUMS"
    )
    ran = subprocess.run(["sh", "-c", script], cwd=away, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    said = json.loads((away / "ml101-a1" / "STATEMENT.json").read_text())
    assert ran.stdout.split()[0] == said["sums"]


def test_what_is_done_again_after_a_kill_is_whole(course: Path, tmp_path: Path) -> None:
    part = tmp_path / "archives" / "ml101" / ".a1.part"
    part.parent.mkdir()
    part.write_bytes(b"half of an earlier one")
    packed = pack(words(), quiet)
    with part.open("ab") as file:
        file.write(b"half of a signature")
    first = seal(sealed(packed), quiet)
    assert seal(sealed(packed), quiet) == first
    with (tmp_path / "archives" / "ml101" / NAME).open("rb") as file:
        assert check(file).wrong == []


def test_a_part_that_a_disk_has_spoiled_never_gets_the_name(course: Path, tmp_path: Path) -> None:
    packed = pack(words(), quiet)
    part = tmp_path / "archives" / "ml101" / ".a1.part"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(CannotError, match="changed"):
        seal(sealed(packed), quiet)
    assert not (tmp_path / "archives" / "ml101" / NAME).exists()


def test_a_full_disk_is_told_before_anything_is_written(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_task, "RESERVE", 2**62)
    with pytest.raises(CannotError, match="disk"):
        pack(words(), quiet)
    assert not list((tmp_path / "archives" / "ml101").iterdir())


def forged(change: str) -> bytes:
    """An archive by hand, with one thing wrong."""
    out = io.BytesIO()
    digest = hashlib.sha256(b"1").hexdigest()
    sums = f"{digest}  a\n"
    statement = json.dumps({"sums": hashlib.sha256(sums.encode()).hexdigest()})
    with tarfile.open(fileobj=out, mode="w") as archive:

        def add(name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> None:
            entry = tarfile.TarInfo(f"t/{name}")
            entry.size, entry.type, entry.linkname = len(data), kind, "/etc/passwd"
            archive.addfile(entry, io.BytesIO(data))

        if change != "missing":
            add("a", b"2" if change == "other" else b"1")
        if change == "twice":
            add("a", b"1")
        if change == "more":
            add("b", b"1")
        if change == "link":
            add("c", b"", tarfile.SYMTYPE)
        add("SHA256SUMS", (sums + ("x" if change == "sums" else "")).encode())
        if change != "unsigned":
            add("STATEMENT.json", statement.encode())
    data = gzip.compress(out.getvalue())
    return data[:-300] if change == "cut" else data


@pytest.mark.parametrize(
    "change", ["missing", "other", "twice", "more", "link", "sums", "unsigned", "cut"]
)
def test_whatever_is_changed_is_found(change: str) -> None:
    assert check(io.BytesIO(forged("none"))).wrong == []
    assert check(io.BytesIO(forged(change))).wrong


def test_a_folder_that_is_shut_is_told_by_its_whole_path(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root, which tests are, is never kept out: the kernel's answer is put in its place."""
    (course / "staff" / "dans" / "shut").mkdir(parents=True)
    (course / "staff" / "dans" / "shut" / "x").write_text("x")
    real = os.open

    def opened(path: Any, *words: Any, **more: Any) -> int:
        if path == "shut":
            raise PermissionError(13, "Permission denied", path)
        return real(path, *words, **more)

    monkeypatch.setattr(os, "open", opened)
    seal(sealed(pack(words(), quiet)), quiet)
    with tarfile.open(tmp_path / "archives" / "ml101" / NAME) as archive:
        left = archive.extractfile("ml101-a1/records/left-out.csv")
        assert left is not None
        assert 'denied,"staff/dans/shut"' in left.read().decode()
        assert not any("shut" in one for one in archive.getnames())


def test_what_grows_less_while_it_is_read_is_told(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstat
    large = course / "staff" / "large"

    def cut(fd: int) -> os.stat_result:
        found = real(fd)
        if found.st_size == 3 * 2**20 + 7:
            os.truncate(large, 10)
        return found

    monkeypatch.setattr(os, "fstat", cut)
    packed = pack(words(), quiet)
    monkeypatch.undo()
    assert packed["left_out"] >= 1


@pytest.mark.docker
async def test_containers_of_a_moment_make_it_and_remove_the_course(
    docker_world: DockerWorld,
) -> None:
    """As our services' user: what instructors have shut is left out; no other course is touched."""
    runtime, data = docker_world.docker, docker_world.docker.settings.data
    await runtime.run_task(MakeFolder(scope="course-ml101"))
    files = data / "courses" / "ml101" / "files"
    (files / "first.ipynb").write_text("{}")
    shut = files / "shut"
    shut.write_text("x")
    shut.chmod(0o600)

    async def step(name: Literal["pack", "seal", "remove"], said: dict[str, Any]) -> dict[str, Any]:
        task = CourseStep(job_id="a1", step=name, scope="course-ml101", job=json.dumps(said))
        handle = await runtime.begin(task)
        assert await runtime.begin(task) == handle
        assert await runtime.tasks() == {}  # builds alone are there
        lines = [json.loads(line) async for line in runtime.follow(handle)]
        end = await runtime.task_end(handle)
        assert end is not None
        assert end.exit_code == 0, end.output
        await runtime.remove(handle)
        return dict(lines[-1]["done"]) if lines else {}

    packed = await step("pack", words(do="pack", environments=[]))
    assert (packed["files"], packed["left_out"]) == (1, 1)
    await step("seal", sealed(packed, do="seal"))
    made = data / "archives" / "ml101" / NAME
    assert (made.stat().st_uid, made.stat().st_mode & 0o777) == (990, 0o440)
    with made.open("rb") as file:
        assert check(file).wrong == []
    (data / "courses" / "other").mkdir()
    await step("remove", {})
    assert [one.name for one in (data / "courses").iterdir()] == ["other"]
    assert made.exists()
