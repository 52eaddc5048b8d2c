"""The index of the offline channel, as the solver reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from environments import worker
from environments.channel import OFFLINE_URL, Source
from environments.errors import BuildError, LockError
from environments.install import install
from environments.lock import read_lock
from environments.offline.index import write_index
from environments.offline.note import Kept, Note
from environments.offline.package import Metadata, write_package
from environments.spec import parse_spec


class Channel:
    """A channel that grows by empty packages of PyPI's versions."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.note = folder, Note()

    def add(self, name: str, version: str, *requires: str, prerelease: bool = False) -> None:
        metadata = Metadata(
            name, version, "0", requires=requires, noarch="generic", prerelease=prerelease
        )
        path = write_package(self.folder, metadata, ())
        self.note.packages[metadata.path] = Kept.of(path, metadata)
        write_index(self.folder, self.note.packages)

    def solve(self, *specs: str) -> dict[str, str]:
        """The chosen versions, by name. Raises LockError."""
        target = self.folder / "pixi.lock"
        request = {
            "sources": {OFFLINE_URL: str(self.folder)},
            "specs": specs,
            "cache": str(self.folder / "cache"),
            "lock": str(target),
            "timeout": 60,
            "platforms": ["linux-64"],
            "cuda": None,
        }
        worker.call("solve", request, 120)
        return {item.name: item.version for item in read_lock(target).packages}


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    return Channel(tmp_path / "channel")


def test_a_version_before_a_release_is_found_by_who_needs_it(channel: Channel) -> None:
    channel.add("furo", "2025.9", "sphinx-basic-ng>=1.0.0.beta2")
    channel.add("sphinx-basic-ng", "1.0.0b2", prerelease=True)
    assert channel.solve("furo") == {"furo": "2025.9", "sphinx-basic-ng": "1.0.0b2"}


def test_a_release_is_taken_before_a_newer_one_that_is_not_out(channel: Channel) -> None:
    channel.add("alpha", "1.0")
    channel.add("alpha", "2.0rc1", prerelease=True)
    channel.add("beta", "1.0", "alpha>=1")
    assert channel.solve("beta") == {"alpha": "1.0", "beta": "1.0"}
    assert channel.solve("alpha ==2.0rc1", "beta") == {"alpha": "2.0rc1", "beta": "1.0"}


def test_what_a_package_needs_is_read_anew_when_a_version_comes(channel: Channel) -> None:
    channel.add("beta", "1.0", "alpha==1.0")
    with pytest.raises(LockError):
        channel.solve("beta")
    digest = (channel.folder / "noarch/beta-1.0-0.conda").read_bytes()
    channel.add("alpha", "1.0+cu121")
    assert channel.solve("beta") == {"alpha": "1.0+cu121", "beta": "1.0"}
    assert (channel.folder / "noarch/beta-1.0-0.conda").read_bytes() == digest


def test_post_releases_and_epochs(channel: Channel) -> None:
    for version in ("1.0", "1.0.post1", "1!0.5"):
        channel.add("alpha", version)
    channel.add("exactly", "1", "alpha==1.0-1")
    channel.add("above", "1", "alpha>1.0,<1!0")
    channel.add("epoch", "1", "alpha>=1!0")
    assert channel.solve("exactly")["alpha"] == "1.0.post1"
    assert channel.solve("epoch")["alpha"] == "1!0.5"
    with pytest.raises(LockError):
        channel.solve("above")


def test_an_index_of_before_is_replaced_in_all_its_forms(channel: Channel) -> None:
    (channel.folder / "noarch").mkdir(parents=True)
    (channel.folder / "noarch/repodata.json.zst").write_bytes(b"old")
    channel.add("alpha", "1.0")
    assert [path.name for path in sorted((channel.folder / "noarch").glob("repodata*"))] == [
        "repodata.json"
    ]
    record = json.loads((channel.folder / "noarch/repodata.json").read_bytes())["packages.conda"]
    package = channel.folder / "noarch/alpha-1.0-0.conda"
    assert record[package.name]["size"] == package.stat().st_size


def test_a_note_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    for text in (
        "",
        "{",
        "[]",
        '{"format": 1}',
        '{"format": 2, "asked": {}, "packages": {"x": 1}}',
    ):
        (tmp_path / "made.json").write_text(text)
        assert Note.read(tmp_path) == Note()


def test_a_lock_that_names_what_went_says_so_and_what_to_do(
    channel: Channel, tmp_path: Path
) -> None:
    channel.add("alpha", "1.0")
    channel.solve("alpha")
    lock = read_lock(channel.folder / "pixi.lock")
    (channel.folder / "noarch/alpha-1.0-0.conda").unlink()
    spec = parse_spec("name: data\nchannels: [x]\ndependencies: [alpha]\n", name=None)
    sources = [Source("x", OFFLINE_URL, str(channel.folder))]
    with pytest.raises(BuildError, match=r"no more alpha-1\.0-0\.conda; .* --update data"):
        install(spec, lock, sources, "/x", tmp_path / "staging", tmp_path / "cache")
