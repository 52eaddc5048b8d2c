"""What is given out of a repository or a folder: with real git, whatever is in it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from rig.certificates import Authority
from rig.git_server import git_server
from spawner.runtime.docker import material_task
from spawner.runtime.docker.material_task import FailedError, Fetch


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=T", "-c", "user.email=t@x", "-c", "protocol.file.allow=always")
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(folder: Path, words: str = "x") -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", words)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """An instructor's repository."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "lessons").mkdir()
    (folder / "lessons" / "first.ipynb").write_text("{}")
    (folder / "讲义.md").write_text("one")
    commit(folder)
    return folder


@pytest.fixture
def materials(tmp_path: Path) -> Path:
    (tmp_path / "materials").mkdir()
    return tmp_path / "materials"


def fetch(
    materials: Path, theirs: Path, branch: str = "main", **given: object
) -> dict[str, object]:
    one = Fetch(materials, protocols="file", **given)  # type: ignore[arg-type]
    try:
        return one.repository(f"file://{theirs}", branch)
    finally:
        one.clear()


def given(materials: Path) -> list[str]:
    store = materials / material_task.STORE
    return git(
        store, "-c", "core.quotePath=false", "ls-tree", "-r", "--name-only", "main"
    ).splitlines()


def history(materials: Path) -> int:
    return len(git(materials / material_task.STORE, "rev-list", "main").splitlines())


def test_a_repository_is_given_out_and_what_is_the_same_adds_nothing(
    materials: Path, theirs: Path
) -> None:
    first = fetch(materials, theirs)
    assert given(materials) == ["lessons/first.ipynb", "讲义.md"]
    assert (first["files"], first["left_out"]) == (2, [])
    assert fetch(materials, theirs) == first
    assert fetch(materials, theirs, branch="")["revision"] == first["revision"]
    commit(theirs, "nothing new")
    assert fetch(materials, theirs)["revision"] == first["revision"]
    assert sorted(os.listdir(materials)) == ["repository.git", "state.json"]
    assert git(materials / material_task.STORE, "fsck", "--full") == ""


def test_what_they_force_push_is_one_more_step_of_ours(materials: Path, theirs: Path) -> None:
    before = str(fetch(materials, theirs)["revision"])
    (theirs / "讲义.md").unlink()
    (theirs / "second.ipynb").write_text("{}")
    git(theirs, "checkout", "--quiet", "--orphan", "other")
    commit(theirs)
    git(theirs, "branch", "-M", "other", "main")
    fetch(materials, theirs)
    assert given(materials) == ["lessons/first.ipynb", "second.ipynb"]
    assert history(materials) == 2
    assert git(materials / material_task.STORE, "rev-parse", "main^") == before


def test_their_history_is_not_given_out(materials: Path, theirs: Path) -> None:
    (theirs / "solution.ipynb").write_text("42")
    commit(theirs)
    secret = git(theirs, "hash-object", "solution.ipynb")
    (theirs / "solution.ipynb").unlink()
    commit(theirs)
    fetch(materials, theirs)
    with pytest.raises(subprocess.CalledProcessError):
        git(materials / material_task.STORE, "cat-file", "-e", secret)


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("first.ipynb", True),
        ("../讲义.md", True),
        ("./first.ipynb", True),
        ("../../etc", False),
        ("/etc/passwd", False),
        ("nowhere/../../../etc", False),
        ("..", True),
        ("../..", False),
    ],
)
def test_a_link_that_leads_out_is_left_out(
    materials: Path, theirs: Path, target: str, kept: bool
) -> None:
    (theirs / "lessons" / "link").symlink_to(target)
    commit(theirs)
    told = fetch(materials, theirs)
    assert ("lessons/link" in given(materials)) is kept
    assert told["left_out"] == ([] if kept else [["lessons/link", "link"]])


def test_what_is_too_large_or_a_repository_of_its_own_is_left_out_and_told(
    materials: Path, theirs: Path
) -> None:
    (theirs / "large.bin").write_bytes(os.urandom(5000))
    git(theirs, "submodule", "--quiet", "add", f"file://{theirs}", "sub")
    commit(theirs)
    told = fetch(materials, theirs, limits=(100, 10_000, 4000))
    assert told["left_out"] == [["large.bin", "large"], ["sub", "repository"]]
    assert "large.bin" not in given(materials)


@pytest.mark.parametrize(
    ("limits", "why"), [((1, 2**20, 2**20), "files"), ((100, 2, 2**20), "bytes")]
)
def test_too_much_is_refused_and_what_was_there_stays(
    materials: Path, theirs: Path, limits: tuple[int, int, int], why: str
) -> None:
    before = fetch(materials, theirs)
    (theirs / "more.txt").write_text("more")
    commit(theirs)
    with pytest.raises(FailedError, match=why):
        fetch(materials, theirs, limits=limits)
    assert git(materials / material_task.STORE, "rev-parse", "main") == before["revision"]


def test_what_is_gone_or_has_no_such_branch_is_told_apart(materials: Path, theirs: Path) -> None:
    before = fetch(materials, theirs)
    with pytest.raises(FailedError, match="branch"):
        fetch(materials, theirs, branch="nope")
    theirs.rename(theirs.with_name("elsewhere"))
    with pytest.raises(FailedError, match="gone"):
        fetch(materials, theirs)
    assert git(materials / material_task.STORE, "rev-parse", "main") == before["revision"]


@pytest.mark.parametrize(
    "url", ["file:///etc", "ext::sh -c id", "ssh://host/x", "/etc", "git://x/y"]
)
def test_no_way_but_https_leads_to_a_repository(materials: Path, url: str) -> None:
    with pytest.raises(FailedError) as caught:
        Fetch(materials).repository(url, "")
    assert "not allowed" in caught.value.detail


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("theirs/.git", ""),
        ("nowhere.git", "gone"),
        ("private/x.git", "login"),
        ("forbidden/x.git", "login"),
        ("moved/x.git", "unreachable"),  # a way that is not https leads nowhere
    ],
)
def test_over_https_and_what_a_host_may_answer(
    materials: Path, theirs: Path, tmp_path: Path, path: str, why: str
) -> None:
    authority = Authority(tmp_path)
    with git_server(tmp_path, authority) as url:
        fetch = Fetch(materials)
        fetch.git.env |= {"GIT_SSL_CAINFO": str(authority.ca_file), "no_proxy": "127.0.0.1"}
        if not why:
            assert fetch.repository(url + path, "main")["files"] == 2
            return
        with pytest.raises(FailedError) as caught:
            fetch.repository(url + path, "")
        assert caught.value.why == why, caught.value.detail


def test_a_host_whose_certificate_nobody_knows_is_not_believed(
    materials: Path, theirs: Path, tmp_path: Path
) -> None:
    with git_server(tmp_path, Authority(tmp_path)) as url:
        fetch = Fetch(materials)
        fetch.git.env["no_proxy"] = "127.0.0.1"
        with pytest.raises(FailedError) as caught:
            fetch.repository(f"{url}theirs/.git", "main")
    assert "certificate" in caught.value.detail


def test_what_a_killed_fetch_leaves_is_in_nobodys_way(materials: Path, theirs: Path) -> None:
    fetch(materials, theirs)
    store = materials / material_task.STORE
    for left in (
        "HEAD.lock",
        "packed-refs.lock",
        "refs/heads/main.lock",
        "objects/pack/tmp_pack_x",
    ):
        (store / left).parent.mkdir(exist_ok=True)
        (store / left).write_text("")
    (materials / ".scratch.git").mkdir()
    (materials / ".new-repository.git").mkdir()
    (theirs / "new.txt").write_text("new")
    commit(theirs)
    fetch(materials, theirs)
    assert "new.txt" in given(materials)


def test_a_folder_is_given_out_without_what_is_nobodys_to_see(
    materials: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "staff"
    (folder / "lessons" / ".ipynb_checkpoints").mkdir(parents=True)
    (folder / "lessons" / "first.ipynb").write_text("{}")
    (folder / "lessons" / ".ipynb_checkpoints" / "first.ipynb").write_text("{}")
    (folder / ".gitignore").write_text("*.csv\n")
    (folder / "data.csv").write_text("1,2\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "out").symlink_to("/etc/passwd")
    (folder / "in").symlink_to("lessons/first.ipynb")
    os.mkfifo(folder / "fifo")
    with open(folder / "sparse", "wb") as sparse:
        sparse.truncate(2**40)
    git(folder, "init", "--quiet")
    (folder / "inner").mkdir()
    git(folder / "inner", "init", "--quiet")
    (folder / "inner" / "a.txt").write_text("a")
    told = Fetch(materials).folder(folder)
    files = [".gitignore", "data.csv", "in", "inner/a.txt", "lessons/first.ipynb", "run.sh"]
    assert given(materials) == files
    assert sorted(told["left_out"]) == [["fifo", "special"], ["out", "link"], ["sparse", "large"]]
    (folder / "run.sh").unlink()
    Fetch(materials).folder(folder)
    assert "run.sh" not in given(materials)
    assert history(materials) == 2


def test_a_folder_that_is_a_link_gives_nothing_out(materials: Path, tmp_path: Path) -> None:
    (tmp_path / "staff").symlink_to("/etc")
    Fetch(materials).folder(tmp_path / "staff")
    assert given(materials) == []


def test_the_program_says_what_failed(materials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material_task, "MATERIALS", materials)
    monkeypatch.setattr(material_task.resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(os, "umask", lambda _: 0)
    said = material_task.main(json.dumps({"git": "https://127.0.0.1:9/x.git", "branch": ""}))
    assert said["failure"] == "unreachable"
