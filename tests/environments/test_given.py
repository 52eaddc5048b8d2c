"""Locks that people bring along are built as they are: the same packages, the same hashes."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from commons.site import Environments
from commons.store.environments import ScopeEnvironment
from environments import policy
from environments.builds import repository
from environments.channel import OFFLINE_URL, canonical_url
from environments.edit import Change, changed
from environments.errors import LockError, PolicyError, SpecError
from environments.export import export
from environments.install import install
from environments.inventory import inventory
from environments.maker import Locked, Maker
from environments.spec import load_spec, parse_spec
from rig.channel import TinyChannel

HOST = "https://conda.example.org/lab"
SHA, MD5 = "a1" * 32, "b2" * 16


class Lab:
    """A maker at a site with one channel, reached by its name."""

    def __init__(self, folder: Path, channel: TinyChannel, **settings: Any) -> None:
        self.folder, self.words = folder, [""]
        mirrors = {"lab": [str(channel.folder)]}
        found = Environments.model_validate({"mirrors": mirrors, "channels": ["lab"], **settings})
        self.maker = Maker(found, folder / "offline", folder / "cache", self.report)

    def report(self, progress: Any) -> None:
        self.words.append(progress.message)

    def lock(self, text: str) -> Locked:
        spec = parse_spec(text, name="tiny", defaults=("lab",))
        return self.maker.lock(spec, self.folder / "pixi.lock")


@pytest.fixture
def lab(channel: TinyChannel, tmp_path: Path) -> Lab:
    return Lab(tmp_path, channel)


SPEC = "name: tiny\nchannels: [lab]\ndependencies: [beta]\n"


@pytest.mark.parametrize("format", ["explicit", "conda-lock", "pixi.lock"])
def test_a_lock_is_built_of_exactly_its_packages(format: str, lab: Lab, tmp_path: Path) -> None:
    """The kind: conda-lock.yml, an @EXPLICIT list or a pixi.lock in place of environment.yml.

    Alpha 1.0 is in it, though the channel has a newer one.
    """
    first = lab.lock(SPEC)
    spec = parse_spec(SPEC, name="tiny")
    text = export(spec, first.lock, format)
    again = lab.lock(text)
    assert again.lock.digest == first.lock.digest
    assert [(item.name, item.version) for item in again.lock.packages] == [
        ("alpha", "1.0"),
        ("beta", "1.0"),
    ]
    assert again.lock.packages == first.lock.packages  # all that the index knows of them
    given = parse_spec(text, name="tiny")
    assert given.all_channels in (("lab",), (canonical_url("lab").rstrip("/"),))
    install(
        given, again.lock, again.sources, str(tmp_path / "p"), tmp_path / "p", tmp_path / "cache"
    )
    assert {item.name for item in inventory(tmp_path / "p")} == {"alpha", "beta"}
    # The lock is kept, and answers the same text again.
    assert lab.lock(text).lock.locked == again.lock.locked
    assert any("using the lock" in str(words) for words in lab.words)


def test_an_environments_folder_may_have_a_lock_as_its_spec(lab: Lab, tmp_path: Path) -> None:
    text = export(parse_spec(SPEC, name="tiny"), lab.lock(SPEC).lock, "explicit")
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "environment.yml").write_bytes(text.encode("utf-16"))
    assert [item.name for item in load_spec(tmp_path / "envs").dependencies] == ["alpha", "beta"]


def test_what_is_exported_of_a_lock_can_be_built_again(lab: Lab) -> None:
    text = export(parse_spec(SPEC, name="tiny"), lab.lock(SPEC).lock, "conda-lock")
    lock = lab.lock(text).lock
    again = parse_spec(export(parse_spec(text, name="tiny"), lock, "environment.yml"), name=None)
    assert [str(item) for item in again.dependencies] == ["alpha ==1.0 0", "beta ==1.0 0"]


def test_what_was_built_from_a_lock_is_changed_as_an_environment_yml(lab: Lab) -> None:
    lock = lab.lock(SPEC).lock
    spec = parse_spec(SPEC, name="tiny")
    text, exported = export(spec, lock, "conda-lock"), export(spec, lock, "environment.yml")
    row = ScopeEnvironment(spec=text, exports={"environment.yml": exported})
    after = changed(repository.editable(row), Change(add=("gamma >=2",)))
    assert "- gamma >=2\n" in after
    assert [item.name for item in parse_spec(after, name="x").dependencies][:2] == ["alpha", "beta"]
    assert repository.editable(ScopeEnvironment(spec=SPEC, exports={})) == SPEC


def explicit(lab: Lab) -> list[str]:
    """The lines of an explicit list, a package each."""
    text = export(parse_spec(SPEC, name="tiny"), lab.lock(SPEC).lock, "explicit")
    return [line for line in text.splitlines() if "://" in line]


def test_another_hash_than_the_channels_is_refused(lab: Lab) -> None:
    alpha, beta = explicit(lab)
    changed = f"{alpha.partition('#')[0]}#sha256:{SHA}"
    with pytest.raises(LockError, match=r"the hashes of alpha-1\.0-0\.conda differ"):
        lab.lock(f"@EXPLICIT\n{changed}\n{beta}\n")


def test_an_old_hash_or_none_is_completed_from_the_channel(lab: Lab) -> None:
    """The kind: ``conda list --explicit``, with MD5 or without any hash."""
    locked = lab.lock(SPEC).lock
    lines = [f"{item.url}#{item.md5}" if item.md5 else item.url for item in locked.packages]
    again = lab.lock("\n".join(["@EXPLICIT", lines[0], lines[1].partition("#")[0]])).lock
    assert again.digest == locked.digest


def test_a_package_that_the_channel_lost_needs_a_hash_of_its_own(lab: Lab) -> None:
    alpha, _ = explicit(lab)
    gone = alpha.partition("#")[0].replace("alpha-1.0-0", "gone-3.0-1")
    with pytest.raises(LockError, match=r"does not have gone-3\.0-1\.conda any more"):
        lab.lock(f"@EXPLICIT\n{alpha}\n{gone}#{MD5}\n")
    lock = lab.lock(f"@EXPLICIT\n{alpha}\n{gone}#sha256:{SHA}\n").lock
    assert [(item.name, item.sha256) for item in lock.packages][1] == ("gone", SHA)


def test_the_sites_rules_hold_for_a_lock(channel: TinyChannel, tmp_path: Path) -> None:
    text = "\n".join(["@EXPLICIT", *explicit(Lab(tmp_path, channel))])
    rules: list[dict[str, Any]] = [
        {"channels": ["other"]},
        {"denied_packages": {"alpha": "broken"}},
        {"allowed_packages": ["beta"]},
    ]
    for number, rule in enumerate(rules):
        lab = Lab(tmp_path / str(number), channel, policy=rule)
        with pytest.raises(PolicyError):
            lab.lock(text)
    wheel = CONDA_LOCK + WHEEL
    spec = parse_spec(wheel, name="tiny")
    found = policy.check(
        spec, None, Environments.model_validate({"policy": {"pip": "refuse"}}), date(2026, 1, 1)
    )
    assert [item.code for item in found] == ["pip"]


def test_a_channel_that_another_one_stands_in_for_has_other_files(
    channel: TinyChannel, tmp_path: Path
) -> None:
    text = "\n".join(["@EXPLICIT", *explicit(Lab(tmp_path, channel))])
    lab = Lab(tmp_path, channel, offline_channel="always")
    with pytest.raises(LockError, match=r"come from .*lab, which cannot be asked here"):
        lab.lock(text)


def test_an_export_of_the_offline_channel_is_built_from_it(
    channel: TinyChannel, tmp_path: Path
) -> None:
    lab = Lab(tmp_path, channel, offline_channel="auto")
    lab.maker.channel = channel.folder
    line = f"{OFFLINE_URL}noarch/alpha-1.0-0.conda"
    lock = lab.lock(f"@EXPLICIT\n{line}\n").lock
    assert [item.url for item in lock.packages] == [line]


CONDA_LOCK = f"""\
version: 1
metadata:
  content_hash: {{linux-64: aa, osx-64: bb}}
  channels: [{{url: lab, used_env_vars: []}}]
  platforms: [linux-64, osx-64]
  sources: [environment.yml]
package:
- name: alpha
  version: '1.0'
  manager: conda
  platform: linux-64
  dependencies: {{}}
  url: {HOST}/noarch/alpha-1.0-0.conda
  hash: {{md5: {MD5}, sha256: {SHA}}}
  category: main
  optional: false
- name: alpha
  version: '1.0'
  manager: conda
  platform: osx-64
  dependencies: {{}}
  url: {HOST}/osx-64/alpha-1.0-0.conda
  hash: {{md5: {MD5}}}
  category: main
  optional: false
"""
WHEEL = f"""\
- name: rich
  version: 13.0.0
  manager: pip
  platform: linux-64
  dependencies: {{}}
  url: https://files.example.org/rich-13.0.0-py3-none-any.whl
  hash: {{sha256: {SHA}}}
  category: main
  optional: false
"""
PIXI_LOCK = f"""\
version: 6
environments:
  one:
    channels: [{{url: {HOST}/}}]
    packages: {{linux-64: [{{conda: {HOST}/noarch/alpha-1.0-0.conda}}]}}
packages:
- conda: {HOST}/noarch/alpha-1.0-0.conda
  sha256: {SHA}
  depends: []
"""


def test_of_a_lock_for_several_platforms_ours_counts() -> None:
    spec = parse_spec(CONDA_LOCK + WHEEL, name="x")
    assert spec.given
    assert [(item.file, item.sha256) for item in spec.given.packages] == [
        ("alpha-1.0-0.conda", SHA)
    ]
    assert spec.pip == ("rich==13.0.0",)
    assert spec.digest != parse_spec(CONDA_LOCK, name="x").digest


def test_a_pixi_lock_with_one_environment_is_that_one() -> None:
    assert parse_spec(PIXI_LOCK, name="x").channels == (HOST,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"@EXPLICIT\n\n{HOST}/osx-64/a-1-0.conda\n", "line 3: a package for osx-64; servers here"),
        ("@EXPLICIT\nnumpy=1.26\n", "line 2: 'numpy=1.26' is not the URL of a conda package"),
        (f"@EXPLICIT\n{HOST}/noarch/../a-1-0.conda\n", "line 2: .*is not the URL"),
        ("@EXPLICIT\nhttps://a:b@x.example/c/noarch/a-1-0.conda\n", "line 2: .*password or token"),
        (f"@EXPLICIT\n{HOST}/t/tk-1/noarch/a-1-0.conda\n", "line 2: .*password or token"),
        (f"@EXPLICIT\n{HOST}/noarch/a-1-0.conda\n{HOST}/noarch/a-2-0.conda\n", "'a' is in it twic"),
        ("@EXPLICIT\n", "no conda package for linux-64 is in it"),
        (CONDA_LOCK.replace("linux-64", "osx-arm64"), "is for .*; servers here run linux-64"),
        (CONDA_LOCK.replace("sha256: a1", "sha256: zz"), "this lock cannot be read"),
        (CONDA_LOCK + WHEEL.replace(f"sha256: {SHA}", f"md5: {MD5}"), "'rich' has no SHA-256"),
        (CONDA_LOCK + WHEEL.replace("none-any.whl", "x.tar.gz"), "is no wheel of a package index"),
        (CONDA_LOCK + WHEEL.replace("https://f", "git+https://f"), "is no wheel|cannot be read"),
        (
            PIXI_LOCK.replace("  one:", "  b: {channels: [], packages: {}}\n  one:"),
            "environments",
        ),
        ("version: 1\nmetadata: 3\npackage: []\n", "this lock cannot be read"),
        ("version: 99\nenvironments: {}\n", "this lock cannot be read"),
        ("version: 6\nenvironments: &a {b: *a}\n", "this lock cannot be read"),
    ],
)
def test_a_lock_that_cannot_be_built_says_why(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_spec(text, name="x")
