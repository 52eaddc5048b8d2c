"""Locks and installation, with real channels over HTTP and in folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from environments.channel import Source
from environments.errors import BuildError, LockError
from environments.install import install
from environments.lock import Lock, committed_lock, read_lock
from environments.loopback import serve
from environments.solve import solve
from environments.spec import EnvironmentSpec
from rig.channel import TinyChannel

WriteSpec = Callable[..., EnvironmentSpec]
URL = "https://channel.invalid/main/"


@pytest.fixture
def source(channel: TinyChannel) -> Source:
    """The tiny channel, in a folder, known by a URL that exists nowhere."""
    return Source("conda-forge", URL, str(channel.folder))


def solved(spec: EnvironmentSpec, source: Source, tmp_path: Path) -> Lock:
    return solve(spec, [source], tmp_path / "locks" / "pixi.lock", tmp_path / "cache")


def installed(spec: EnvironmentSpec, lock: Lock, source: Source, tmp_path: Path) -> Path:
    staging = tmp_path / "staging"
    install(spec, lock, [source], "/opt/conda/envs/tiny", staging, tmp_path / "cache")
    return staging


def test_a_lock_names_every_package_with_its_hash_and_canonical_url(
    write_spec: WriteSpec, source: Source, tmp_path: Path
) -> None:
    spec = write_spec("beta")
    lock = solved(spec, source, tmp_path)
    assert [(item.name, item.version) for item in lock.packages] == [
        ("alpha", "1.0"),
        ("beta", "1.0"),
    ]
    assert all(item.url.startswith(URL) for item in lock.packages)
    assert lock.channels == (URL,)
    assert lock.spec_digest == spec.digest
    text = lock.path.read_text()
    assert str(tmp_path) not in text, "a lock must hold on other machines"
    assert "127.0.0.1" not in text


def test_solving_again_gives_the_same_lock(
    write_spec: WriteSpec, source: Source, tmp_path: Path
) -> None:
    first = solved(write_spec("beta", "alpha"), source, tmp_path)
    text = first.path.read_text()
    second = solved(write_spec("alpha", "beta"), source, tmp_path)
    assert second.path.read_text() == text
    assert second.digest == first.digest


def test_a_mirror_leaves_the_lock_as_it_was(
    write_spec: WriteSpec, channel: TinyChannel, source: Source, tmp_path: Path
) -> None:
    direct = solved(write_spec("beta"), source, tmp_path).path.read_text()
    with serve([channel.folder]) as [url]:
        mirrored = Source("conda-forge", URL, url)
        assert solved(write_spec("beta"), mirrored, tmp_path).path.read_text() == direct


def test_a_package_can_be_asked_of_one_channel(
    write_spec: WriteSpec, source: Source, tmp_path: Path
) -> None:
    other = TinyChannel(tmp_path / "other")
    other.add("alpha", "7.0")
    second = Source("lab", "https://lab.invalid/", str(other.index().folder))
    spec = write_spec("beta", "lab::alpha", channels="conda-forge")
    with pytest.raises(LockError, match="these packages conflict"):
        solve(spec, [source, second], tmp_path / "locks" / "x.lock", tmp_path / "cache")
    spec = write_spec("lab::alpha")
    lock = solve(spec, [source, second], tmp_path / "locks" / "x.lock", tmp_path / "cache")
    assert [(item.version, item.channel) for item in lock.packages] == [
        ("7.0", "https://lab.invalid/")
    ]


def test_what_cannot_be_had_is_explained(
    write_spec: WriteSpec, source: Source, tmp_path: Path
) -> None:
    with pytest.raises(LockError) as caught:
        solved(write_spec("beta", "alpha >=2"), source, tmp_path)
    words = str(caught.value)
    assert "alpha" in words
    assert "environment.yml" in words
    with pytest.raises(LockError, match="gamma"):
        solved(write_spec("gamma"), source, tmp_path)


def test_a_failed_solve_leaves_the_old_lock(
    write_spec: WriteSpec, source: Source, tmp_path: Path
) -> None:
    text = solved(write_spec("beta"), source, tmp_path).path.read_text()
    with pytest.raises(LockError):
        solved(write_spec("gamma"), source, tmp_path)
    assert (tmp_path / "locks" / "pixi.lock").read_text() == text


def test_packages_are_installed_for_the_place_they_will_have(
    write_spec: WriteSpec, source: Source, tmp_path: Path
) -> None:
    spec = write_spec("beta")
    staging = installed(spec, solved(spec, source, tmp_path), source, tmp_path)
    assert (staging / "share/alpha").read_text() == "1.0"
    assert {path.name for path in (staging / "conda-meta").glob("*.json")} == {
        "alpha-1.0-0.json",
        "beta-1.0-0.json",
    }


@pytest.mark.parametrize("over_http", [True, False])
def test_a_package_with_other_contents_than_locked_is_refused(
    write_spec: WriteSpec, channel: TinyChannel, source: Source, tmp_path: Path, over_http: bool
) -> None:
    spec = write_spec("beta")
    lock = solved(spec, source, tmp_path)
    channel.add("alpha", "1.0", files={"share/alpha": b"something else"})
    with serve([channel.folder]) as [url]:
        tampered = Source("conda-forge", URL, url if over_http else str(channel.folder))
        with pytest.raises(BuildError, match=r"alpha"):
            installed(spec, lock, tampered, tmp_path)
    assert not (tmp_path / "staging/share/alpha").exists()


def test_a_truncated_package_is_refused(
    write_spec: WriteSpec, channel: TinyChannel, source: Source, tmp_path: Path
) -> None:
    spec = write_spec("beta")
    lock = solved(spec, source, tmp_path)
    package = channel.folder / "noarch/alpha-1.0-0.conda"
    package.write_bytes(package.read_bytes()[:100])
    with pytest.raises(BuildError):
        installed(spec, lock, source, tmp_path)


def test_a_committed_lock_counts_only_for_its_own_spec(
    write_spec: WriteSpec, source: Source, tmp_path: Path
) -> None:
    spec = write_spec("beta")
    assert committed_lock(spec) is None
    solve(spec, [source], spec.folder / "pixi.lock", tmp_path / "cache")
    assert committed_lock(spec) is not None
    assert committed_lock(write_spec("alpha")) is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version: ", "version: 99#", "cannot be read"),
        (f"conda: {URL}", "conda: https://elsewhere.invalid/", "in none of its channels"),
        ("sha256: ", "x-sha256: ", "."),
    ],
)
def test_a_lock_that_was_tampered_with_is_refused(
    write_spec: WriteSpec, source: Source, tmp_path: Path, old: str, new: str, words: str
) -> None:
    lock = solved(write_spec("beta"), source, tmp_path)
    text = lock.path.read_text()
    assert old in text
    lock.path.write_text(text.replace(old, new))
    with pytest.raises(LockError, match=words):
        read_lock(lock.path)


def test_the_index_lists_what_was_written(channel: TinyChannel) -> None:
    packages = channel.repodata()["packages.conda"]
    assert sorted(packages) == ["alpha-1.0-0.conda", "alpha-2.0-0.conda", "beta-1.0-0.conda"]
    assert json.dumps(packages["beta-1.0-0.conda"]["depends"]) == '["alpha <2"]'
