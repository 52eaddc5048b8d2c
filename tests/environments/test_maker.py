"""From a spec to a finished prefix, on a real channel, with real wheels and a real Python."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from commons.site import Environments
from environments import export, offline, sbom
from environments.errors import BuildError, LockError, NoKernel, PolicyError
from environments.files import FILE_NAMES, FOLDER
from environments.inventory import doubles, inventory
from environments.lock import read_lock
from environments.maker import Locked, Maker
from environments.offline.index import write_index
from environments.offline.names import _table
from environments.offline.note import Note
from environments.pip_section import canonical_url as wheel_url
from environments.pip_section import check, fetch, markers, resolve
from environments.progress import Progress
from environments.solve import solve
from environments.spec import EnvironmentSpec, parse_spec
from environments.stamp import read_stamp
from rig.web import web
from spawner.runtime.docker import layers
from spawner.runtime.packing import pack

# Kept between runs: the first one fetches some 30 MB.
CACHE = Path(__file__).parents[2] / ".cache" / "tests" / "maker"
pytestmark = pytest.mark.channel

SPEC = """\
name: mixed
channels: [conda-forge]
dependencies:
  - python 3.11.*
  - ipykernel
  - six
  - pip:
      - tomli ==2.0.1
      - "docutils >=0.20 ; python_version >= '3.9'"
variables:
  GREETING: "good day"
"""
WORDS = """\
title: {en: Mixed, zh_CN: 混合}
imports: [six, docutils.core]
tag: 1.2.0
"""


class Workshop:
    """A maker in a folder of its own, and what it said."""

    def __init__(self, folder: Path, settings: Environments | None = None) -> None:
        self.folder, self.said = folder, list[Progress]()
        settings = settings or Environments(offline_channel="always")
        self.maker = Maker(settings, CACHE / "channel", CACHE / "cache", self.said.append)

    def spec(self, text: str = SPEC, words: str | None = WORDS) -> EnvironmentSpec:
        return parse_spec(text, name=None, words=words)

    def lock(self, spec: EnvironmentSpec) -> Locked:
        return self.maker.lock(spec, self.folder / "pixi.lock")

    def prefix(self, name: str = "v1") -> Path:
        return self.folder / "envs" / ".versions" / "mixed" / name


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    CACHE.mkdir(parents=True, exist_ok=True)
    return Workshop(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workshop, EnvironmentSpec, Locked, Any]:
    """One environment for all tests that only look at it: making it takes seconds."""
    CACHE.mkdir(parents=True, exist_ok=True)
    shop = Workshop(tmp_path_factory.mktemp("made"))
    spec = shop.spec()
    locked = shop.lock(spec)
    return (
        shop,
        spec,
        locked,
        shop.maker.make_prefix(spec, locked, shop.prefix(), source="personal"),
    )


def run(prefix: Path, *command: str) -> str:
    done = subprocess.run(
        [prefix / "bin" / command[0], *command[1:]],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    return done.stdout.strip()


def test_conda_and_pip_packages_work_together_where_they_are(made: Any) -> None:
    shop, _, _, result = made
    prefix = shop.prefix()
    assert run(prefix, "python", "-c", "import six, tomli, docutils; print(tomli.__file__)") == str(
        prefix / "lib/python3.11/site-packages/tomli/__init__.py"
    )
    assert (prefix / "bin" / "docutils").read_text().startswith(f"#!{prefix}/bin/python\n")
    assert "python3" in result.staged.kernelspecs
    assert json.loads((prefix / "conda-meta/state").read_text())["env_vars"] == {
        "GREETING": "good day"
    }
    assert (prefix / "conda-meta/history").is_file()
    assert not list(prefix.parent.glob(".making-*"))


def test_it_says_what_it_is_without_breaking_conda(made: Any) -> None:
    shop, spec, locked, _ = made
    stamp = read_stamp(shop.prefix())
    assert stamp is not None
    assert (stamp.name, stamp.tag, stamp.source) == ("mixed", "1.2.0", "personal")
    assert stamp.version == shop.maker.version(spec, locked.lock)
    assert stamp.lock_digest == locked.lock.digest
    # Each of these is read as a package by conda, mamba and py-rattler.
    for record in (shop.prefix() / "conda-meta").glob("*.json"):
        assert {"name", "version", "build", "channel"} <= json.loads(record.read_bytes()).keys()


def test_the_lock_has_hashes_of_wheels_that_others_can_read(made: Any) -> None:
    _, _, locked, _ = made
    lock = read_lock(locked.lock.path)
    wheels = {item.name: item for item in lock.pip}
    assert set(wheels) == {"docutils", "tomli"}
    assert all(len(item.sha256) == 64 for item in lock.pip)
    assert wheels["tomli"].version == "2.0.1"
    assert wheels["tomli"].requires_python == ">=3.7"
    text = lock.path.read_text()
    assert "@" not in text.split("environments:")[1].split("packages:")[0], "no login in a URL"


def test_locking_again_changes_nothing(made: Any) -> None:
    shop, spec, locked, _ = made
    text = locked.lock.path.read_text()
    cache, index = CACHE / "cache", locked.lock.index_digest
    again = solve(spec, locked.sources, locked.lock.path, cache, index, shop.maker.settings)
    assert again.path.read_text() == text


def test_making_it_again_takes_no_time_and_changes_nothing(made: Any) -> None:
    shop, spec, locked, _ = made
    before = shop.prefix().stat().st_ino
    shop.said.clear()
    shop.maker.make_prefix(spec, locked, shop.prefix(), source="personal")
    assert shop.prefix().stat().st_ino == before
    assert [progress.percent for progress in shop.said] == [100]


def test_what_the_offline_channel_knows_is_not_fetched_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wants(*packages: str) -> EnvironmentSpec:
        listed = ", ".join(packages)
        text = f"name: x\nchannels: [x]\ndependencies: [python 3.11.*, {listed}]\n"
        return workshop.spec(text, None)

    for name in ("six", "typing-extensions"):
        workshop.lock(wants(name))
    with monkeypatch.context() as patch:
        patch.setattr(offline, "update", None)
        locked = workshop.lock(wants("six", "typing-extensions"))
    assert {"six", "typing-extensions"} <= {item.name for item in locked.lock.packages}
    # Known to PyPI by that name, but not yet to the channel: seen only when it is solved.
    channel, packages = CACHE / "channel", Note.read(CACHE / "channel").packages
    there = {path: kept for path, kept in packages.items() if "typing_extensions" not in path}
    for path in packages.keys() - there.keys():
        (channel / path).unlink(missing_ok=True)
    write_index(channel, there)
    locked = workshop.lock(wants("six", "typing_extensions"))
    assert "typing_extensions" in {item.name for item in locked.lock.packages}
    assert not any("Debian" in str(progress) for progress in workshop.said[-8:])


def test_that_no_kernel_is_among_the_packages_is_said_before_anything_is_installed(
    workshop: Workshop,
) -> None:
    for packages, missing in (("six", "ipykernel"), ("six, ipykernel", None)):
        text = f"name: x\nchannels: [x]\ndependencies: [python 3.11.*, {packages}]\n"
        spec = workshop.spec(text, None)
        locked = workshop.lock(spec)
        assert locked.lock.missing_kernel == missing
        if missing:
            with pytest.raises(NoKernel, match="Add “ipykernel”"):
                workshop.maker.check_kernel(spec, locked.lock)


def test_what_the_offline_channel_takes_without_knowing_it_is_said_each_time(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_table(), "six", None)
    spec = workshop.spec("name: x\nchannels: [x]\ndependencies: [python 3.11.*, six]\n", None)
    for _ in range(2):
        workshop.said.clear()
        workshop.lock(spec)
        assert any("six taken from PyPI under the same name" in str(p) for p in workshop.said)


def test_a_channel_that_is_too_large_says_so_when_it_grows(tmp_path: Path) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    settings = Environments.model_validate({"offline_channel": "always", "offline_size": "1K"})
    shop = Workshop(tmp_path, settings)
    spec = shop.spec("name: x\nchannels: [x]\ndependencies: [python 3.11.*, six]\n", None)
    shop.maker.lock(spec, tmp_path / "pixi.lock", update=True)
    assert any("more than environments.offline_size" in str(progress) for progress in shop.said)


def test_other_software_is_refused_before_anything_is_fetched(workshop: Workshop) -> None:
    text = "name: x\nchannels: [x]\ndependencies: [python 3.11.*, graphviz]\n"
    with pytest.raises(BuildError, match="'graphviz' is no Python package in conda's channels"):
        workshop.lock(workshop.spec(text, None))
    assert not any("fetching" in str(progress) for progress in workshop.said)


def test_progress_counts_up_to_a_hundred(workshop: Workshop) -> None:
    spec = workshop.spec(SPEC.split("  - pip:", maxsplit=1)[0], None)
    meter = workshop.maker.meter(spec)
    locked = workshop.maker.lock(spec, workshop.folder / "pixi.lock", meter=meter)
    workshop.maker.make_prefix(spec, locked, workshop.prefix(), source="shared", meter=meter)
    percents = [progress.percent for progress in workshop.said]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert len(set(percents)) >= 6
    assert {progress.step for progress in workshop.said} >= {1, 2, 3, 4, 5, 6}


def layer(folder: Path) -> str:
    digest = hashlib.sha256()
    prefix = PurePosixPath("/opt/conda/envs/mixed")
    with (
        layers.piped(partial(pack, folder)) as sent,
        layers.piped(partial(layers.rewrite, sent, prefix)) as stream,
    ):
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def test_the_same_lock_makes_the_same_layer(made: Any, tmp_path: Path) -> None:
    shop, spec, locked, _ = made
    digests = []
    for name in ("one", "another/place"):
        staging = tmp_path / name
        stamp = shop.maker.stamp(spec, locked.lock, "image", "sha256:base")
        meter = shop.maker.meter(spec)
        shop.maker.install(spec, locked, "/opt/conda/envs/mixed", staging, stamp, meter)
        digests.append(layer(staging))
        assert str(tmp_path) not in (staging / "bin" / "docutils").read_text()
    assert digests[0] == digests[1]


def test_the_bill_of_materials_lists_conda_and_pip(made: Any) -> None:
    shop, _, locked, _ = made
    document = json.loads((shop.prefix() / FOLDER / "sbom.cdx.json").read_bytes())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    parts = {item["purl"].split("?")[0]: item for item in document["components"]}
    wheels = {item.name: item for item in locked.lock.pip}
    assert parts["pkg:pypi/tomli@2.0.1"]["hashes"][0]["content"] == wheels["tomli"].sha256
    assert "pkg:pypi/six@" in str(parts.keys()), "what scanners know of a conda package"
    assert any(purl.startswith("pkg:conda/python@3.11") for purl in parts)
    again = sbom.of_prefix(
        shop.prefix(),
        "mixed",
        document["metadata"]["component"]["version"],
        locked.lock.locked,
        locked.lock.pip,
    )
    assert json.loads(again) == document


def test_pip_may_not_replace_what_conda_brought(workshop: Workshop) -> None:
    text = SPEC.replace("tomli ==2.0.1", "python-dateutil <2.9").replace(
        "  - six\n", "  - six\n  - python-dateutil >=2.9\n"
    )
    with pytest.raises(LockError, match=r"pip would replace python-dateutil .* of conda"):
        workshop.lock(workshop.spec(text, None))
    text = SPEC.replace("tomli ==2.0.1", "mock ==4.0.3\n      - tornado <6.5")
    with pytest.raises(LockError, match=r"pip would replace tornado .* of conda by 6\.4"):
        workshop.lock(workshop.spec(text, None))


def test_a_package_that_pip_cannot_have_is_explained(workshop: Workshop) -> None:
    text = SPEC.replace("tomli ==2.0.1", "tomli ==99.0")
    with pytest.raises(LockError, match="has no such version of “tomli”") as caught:
        workshop.lock(workshop.spec(text))
    assert "tomli==99.0" in str(caught.value)
    assert "PIP_INDEX_URL" not in str(caught.value)


@pytest.fixture
def index(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A package index with one wheel, for those who log in; gives its URL and the wheel."""
    _, _, locked, _ = made
    item = next(item for item in locked.lock.pip if item.name == "tomli")
    root = tmp_path / "index"
    (root / "simple" / "tomli").mkdir(parents=True)
    shutil.copy(CACHE / "cache" / "wheels" / item.sha256 / item.filename, root)
    digest = f"#sha256={item.sha256}"
    page = f'<a href="../../{item.filename}{digest}">{item.filename}</a>'
    (root / "simple" / "tomli" / "index.html").write_text(page)
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("THE_SECRET", "s3cret-of-the-index")
    login = "Basic " + b64encode(b"builder:s3cret-of-the-index").decode()
    with web(root, login=login) as url:
        yield f"{url}/simple", root / item.filename


WHEEL_ONLY = SPEC.replace("      - \"docutils >=0.20 ; python_version >= '3.9'\"\n", "")


def private(url: str) -> Environments:
    credential = {"username": "builder", "password_variable": "THE_SECRET"}
    host = url.removeprefix("http://").partition("/")[0]
    return Environments.model_validate(
        {
            "offline_channel": "always",
            "pip_index": url,
            "credentials": {host: credential},
        }
    )


def test_wheels_come_from_the_sites_own_index_with_its_login(
    index: tuple[str, Path], tmp_path: Path
) -> None:
    url, wheel = index
    shop = Workshop(tmp_path / "shop", private(url))
    locked = shop.lock(shop.spec(WHEEL_ONLY, None))
    [item] = locked.lock.pip
    assert item.url == url.removesuffix("simple") + wheel.name
    assert "s3cret" not in locked.lock.path.read_text()
    without = Workshop(tmp_path / "other", Environments(offline_channel="always", pip_index=url))
    with pytest.raises(LockError) as caught:
        without.lock(without.spec(WHEEL_ONLY, None))
    assert "s3cret" not in str(caught.value)


def test_a_wheel_with_other_contents_than_locked_is_refused(
    index: tuple[str, Path], tmp_path: Path
) -> None:
    url, wheel = index
    shop = Workshop(tmp_path / "shop", private(url))
    spec = shop.spec(WHEEL_ONLY, None)
    locked = shop.lock(spec)
    cache = tmp_path / "empty-cache"
    wheel.write_bytes(wheel.read_bytes() + b"x")
    page = wheel.parent / "simple" / "tomli" / "index.html"
    page.write_text(page.read_text().partition("#sha256")[0] + f'">{wheel.name}</a>')
    maker = shop.maker
    with pytest.raises(BuildError, match="tomli"):
        fetch("mixed", locked.lock, cache, maker.settings, maker.credentials)
    assert not list(cache.glob("wheels/*/*.whl"))


def test_pip_chooses_for_a_python_of_which_it_runs_nothing(made: Any, tmp_path: Path) -> None:
    shop, spec, locked, _ = made
    copy, witness = tmp_path / "copy", tmp_path / "witness"
    shutil.copytree(shop.prefix(), copy, symlinks=True)
    for item in ("tomli", "docutils"):
        for folder in copy.glob(f"lib/python3.11/site-packages/{item}*"):
            shutil.rmtree(folder)
    code = f"import os; open({str(witness)!r}, 'a').write('ran')\n"
    for name in ("evil.pth", "sitecustomize.py", "keyring.py"):
        (copy / "lib/python3.11/site-packages" / name).write_text(code)
    assert run(copy, "python", "-c", "print(1)") == "1"
    assert witness.read_text().startswith("ran"), "it does, where it is run"
    witness.unlink()
    maker = shop.maker
    found = resolve(spec, locked.lock, copy, maker.settings, maker.credentials)
    assert found == list(locked.lock.pip)
    assert check(locked.lock, copy) == []
    fetch("mixed", locked.lock, tmp_path / "cache", maker.settings, maker.credentials)
    assert not witness.exists()


@pytest.mark.parametrize("version", ["3.11.2", "3.13.0"])
def test_a_described_python_is_as_pip_sees_it(version: str) -> None:
    from packaging.markers import default_environment

    told, real = markers(version), dict(default_environment())
    assert told.keys() == real.keys()
    versions = {"implementation_version", "python_full_version", "python_version"}
    assert {key for key in real if told[key] != real[key]} <= versions
    assert (told["python_version"], told["python_full_version"]) == (version[:4], version)


def test_what_does_not_import_is_not_made(workshop: Workshop) -> None:
    words = "imports: [six, no_such_module.at_all]\n"
    spec = workshop.spec(SPEC.split("  - pip:", maxsplit=1)[0], words)
    locked = workshop.lock(spec)
    with pytest.raises(BuildError, match="no_such_module") as caught:
        workshop.maker.make_prefix(spec, locked, workshop.prefix(), source="personal")
    assert "  six:" not in str(caught.value)
    assert {path.name for path in workshop.prefix().parent.iterdir()} == {".v1.lock"}


def test_a_python_past_its_end_is_refused_before_it_is_installed(
    made: Any, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import date

    from environments import maker

    shop, spec, locked, _ = made
    monkeypatch.setattr(maker, "_today", lambda: date(2027, 12, 1))
    with pytest.raises(PolicyError, match=r"Python 3\.11.* no security fixes any more since 2027"):
        shop.maker.make_prefix(spec, locked, workshop.prefix(), source="personal")
    assert not workshop.prefix().exists()


@pytest.mark.parametrize("format", export.FORMATS)
def test_every_export_is_read_by_who_it_is_for(made: Any, tmp_path: Path, format: str) -> None:
    import rattler
    from rattler.explicit_environment import ExplicitEnvironmentSpec

    shop, spec, locked, _ = made
    text = export.export_prefix(shop.prefix(), format)
    assert text == export.export(spec, locked.lock, format)
    urls = {item.url for item in locked.lock.packages}
    path = tmp_path / FILE_NAMES[format]
    path.write_text(text)
    if format in ("pixi.lock", "conda-lock"):
        found = rattler.LockFile.from_path(path).environment("default")
        platform = found.platforms()[0]
        records = found.conda_repodata_records_for_platform(platform)
        assert {str(record.url) for record in records} == urls
        assert all(record.sha256 for record in records)
        wheels = found.pypi_packages_for_platform(platform)
        assert {(w.name, w.hashes.sha256.hex()) for w in wheels} == {
            (item.name, item.sha256) for item in locked.lock.pip
        }
    elif format == "explicit":
        listed = ExplicitEnvironmentSpec.from_path(path)
        assert {package.url.partition("#")[0] for package in listed.packages} == urls
        assert str(listed.platform) == "linux-64"
    elif format == "environment.yml":
        again = parse_spec(text, name=None)
        assert again.variables == {"GREETING": "good day"}
        assert set(again.pip) == {"docutils==" + locked.lock.pip[0].version, "tomli==2.0.1"}
        assert len(again.dependencies) == len(urls) + 1, (
            "pip itself, which conda wants to be asked for"
        )
    elif format == "requirements":
        assert text.count("--hash=sha256:") == 2
    else:
        lines = export.export(spec, locked.lock, "explicit").splitlines()
        channel = locked.lock.channels[0]
        for line in (line for line in lines if line.startswith(channel)):
            assert f"  \"${{CHANNEL_1}}/\"'{line.removeprefix(channel)}' \\\n" in text
        assert 'ENV GREETING="good day"\n' in text


def test_an_environment_that_conda_made_is_exported_too(made: Any, tmp_path: Path) -> None:
    shop, _, locked, _ = made
    copy = tmp_path / "Plain Env"
    shutil.copytree(shop.prefix(), copy, symlinks=True)
    shutil.rmtree(copy / FOLDER)
    assert export.export_prefix(copy, "explicit").count(".conda#sha256:") == len(
        locked.lock.packages
    )
    assert "tomli==2.0.1" in export.export_prefix(copy, "requirements")
    assert doubles(inventory(copy)) == []
    assert check(locked.lock, copy) == []
    [metadata] = copy.glob("lib/python3.11/site-packages/tornado-*.dist-info")
    shutil.copytree(metadata, metadata.with_name("tornado-1.0.dist-info"))
    assert "tornado was installed twice" in doubles(inventory(copy))[0]
    for folder in metadata.parent.glob("tornado-*.dist-info"):
        shutil.rmtree(folder)
    assert any(
        "requires tornado, which is not installed" in line for line in check(locked.lock, copy)
    )
    assert "name: plain-env" in export.export_prefix(copy, "environment.yml")
    with pytest.raises(BuildError, match="not made from a lock"):
        export.export_prefix(copy, "pixi.lock")


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (
            f"https://me:secret@mirror.example/pypi/packages/ab/cd/{'e' * 60}/a-1-py3-none-any.whl",
            f"https://files.example/packages/ab/cd/{'e' * 60}/a-1-py3-none-any.whl",
        ),
        (
            "https://me:secret@own.example/a-1-py3-none-any.whl?token=x#y",
            "https://own.example/a-1-py3-none-any.whl",
        ),
        (
            "file:///srv/wheels/a%201-py3-none-any.whl",
            "https://local.labcommons.invalid/srv/wheels/a%201-py3-none-any.whl",
        ),
    ],
)
def test_a_lock_keeps_the_originals_url_and_no_secret(url: str, kept: str) -> None:
    assert wheel_url(url, "https://files.example/") == kept
