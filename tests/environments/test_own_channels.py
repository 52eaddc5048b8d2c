"""The site's own channels in environments: by name, for those whose they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commons.errors import BadRequest
from commons.principal import Principal
from commons.scopes import SHARED, SITE, Scope, personal
from commons.site import Channels, Environments, Site
from environments import own_channels as names
from environments.channel import Source, canonical_url, choose
from environments.channels import child
from environments.channels.build import build
from environments.channels.shelf import Shelf
from environments.condarc import condarc
from environments.errors import ChannelError
from rig.packages import conda, here_is_installed, index

from .builds.test_inside import Bench, bench  # noqa: F401

pytestmark = here_is_installed

VISION, ML = Scope("team", "vision"), Scope("course", "ml101")
ALICE = Principal("alice", positions={VISION: "member"})


def put(data: Path, channel: str, path: Path) -> None:
    one = Shelf(data, channel, child.index, Channels())
    with one.incoming() as file:
        file.write(path.read_bytes())
        file.flush()
        found = child.check(Path(file.name), path.name, Channels(), Environments())
        one.add(Path(file.name), path.name, found, "alice")


@pytest.fixture
def site() -> Site:
    directory = {
        "servers": ["ldaps://ldap.example.org"], "users": {"base_dn": "dc=example,dc=org"},
        "teams": {"vision": {}, "speech": {}}, "courses": {"ml101": {}},
    }  # fmt: skip
    return Site.model_validate(
        {"version": 1, "directory": directory, "sizes": {"s": {"cpu": 1, "memory": "1G"}}}
    )


def test_a_name_means_the_sites_own_channel_wherever_it_is_written() -> None:
    for text, name in {
        "site": "site", "team-vision": "team-vision", "course-ml101": "course-ml101",
        "https://channels.labcommons.invalid/team-vision": "team-vision",
        "https://channels.labcommons.invalid/site/": "site",
        "team-": None, "Team-vision": None, "conda-forge": None, "site/label/x": None,
        "https://conda.anaconda.org/site": None, "teams-x": None,
    }.items():  # fmt: skip
        assert names.called(text) == name, text
    assert canonical_url("team-vision") == "https://channels.labcommons.invalid/team-vision/"
    assert canonical_url("conda-forge").startswith("https://conda.anaconda.org/")


def test_whoever_has_an_environment_may_read_the_channels_of_its_packages(site: Site) -> None:
    assert names.usable(SITE, ALICE, site) == ["site"]
    assert names.usable(SHARED, ALICE, site) == ["site"]
    assert names.usable(VISION, ALICE, site) == ["site", "team-vision"]
    assert names.usable(ML, ALICE, site) == ["site", "course-ml101"]
    assert names.usable(personal("alice"), ALICE, site) == ["site", "team-vision"]
    assert names.problem(["conda-forge", "site"], ["site"]) is None
    assert names.problem(["conda-forge", "team-speech"], ["site"]) is not None
    assert names.problem([names.url_of("team-speech")], ["site", "team-vision"]) is not None
    with pytest.raises(BadRequest):
        names.known("team-none", site)
    with pytest.raises(BadRequest):
        names.known("../x", site)


def test_its_place_is_a_folder_and_nothing_stands_in_for_it(tmp_path: Path) -> None:
    offline = tmp_path / "channel"
    for mode in ("never", "auto", "always"):
        settings = Environments.model_validate({"offline_channel": mode})
        with pytest.raises(ChannelError, match="no packages yet"):
            choose(["team-vision"], settings, offline, lambda _: None)
    put(tmp_path, "team-vision", conda(tmp_path / "tool-1.0-0.conda"))
    place = str(tmp_path / "channels/team-vision/current")
    for mode in ("never", "auto", "always"):
        settings = Environments.model_validate({"offline_channel": mode})
        [found] = choose(["team-vision"], settings, offline, lambda _: None)
        assert found == Source("team-vision", names.url_of("team-vision"), place)


def test_a_default_channel_without_packages_is_left_out(tmp_path: Path) -> None:
    settings = Environments.model_validate({"offline_channel": "always"})
    found = choose(
        ["conda-forge", "site"], settings, tmp_path / "channel", lambda _: None, optional=["site"]
    )
    assert [source.channel for source in found] == ["conda-forge"]


def test_an_environment_is_built_from_a_channel_by_name(bench: Bench) -> None:  # noqa: F811
    put(bench.folder, "team-vision", conda(bench.folder / "made/tool-1.0-0.conda"))
    spec = f"channels: [team-vision, {bench.tiny.folder}]\ndependencies: [sh-kernel, tool]\n"
    own = {"own_channels": ["site", "team-vision"], "private": str(bench.folder / "private")}
    code, said = bench.run("lock", spec=spec, **own)
    assert code == 0, said
    locked = said[-1]["result"]
    assert f"{names.url_of('team-vision')}noarch/tool-1.0-0.conda" in locked["lock"]
    assert str(bench.folder / "channels") not in locked["lock"]
    # The next step has what was chosen, and no channel.
    (bench.folder / "channels").rename(bench.folder / "away")
    code, said = bench.run("install", spec=spec, **locked, **own)
    assert code == 0, said
    exported = said and locked["chosen"]["exports"]["environment.yml"]
    assert "- team-vision" in exported


def test_a_channel_of_others_is_refused_in_a_spec_and_in_a_lock(bench: Bench) -> None:  # noqa: F811
    put(bench.folder, "team-vision", conda(bench.folder / "made/tool-1.0-0.conda"))
    spec = f"channels: [team-vision, {bench.tiny.folder}]\ndependencies: [sh-kernel, tool]\n"
    theirs = {"own_channels": ["site"], "private": str(bench.folder / "private")}
    code, said = bench.run("lock", spec=spec, **theirs)
    assert (code, said[-1]["message"]["code"]) == (1, "channel_not_here")
    mine = theirs | {"own_channels": ["site", "team-vision"]}
    _, said = bench.run("lock", spec=spec, **mine)
    lock = said[-1]["result"]["lock"]
    code, said = bench.run("lock", spec=lock, **theirs)
    assert (code, said[-1]["message"]["code"]) == (1, "channel_not_here")
    code, said = bench.run("lock", spec=spec, lock=lock, **theirs)
    assert (code, said[-1]["message"]["code"]) == (1, "channel_not_here")


def test_servers_are_not_sent_to_condas_channel_of_that_name() -> None:
    text = condarc(Environments.model_validate({"channels": ["site", "conda-forge"]}), [])
    assert 'channels: ["conda-forge"]' in text


def test_a_project_becomes_a_package_in_one_step(tmp_path: Path) -> None:
    folder = tmp_path / "sdk"
    (folder / "sdk").mkdir(parents=True)
    (folder / "sdk/__init__.py").write_text("def main(): print('hi')\n")
    (folder / "pyproject.toml").write_text(
        """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "lab-sdk"
version = "1.2"
"""
    )
    # A backend of its own: no index is asked in a test.
    (folder / "backend.py").write_text(
        """
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "lab_sdk-1.2-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("sdk/__init__.py", "def main(): pass")
        info = "lab_sdk-1.2.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: lab-sdk\\nVersion: 1.2\\n"
            "Requires-Python: >=3.9\\nRequires-Dist: torch>=2\\n"
            "Requires-Dist: tomli; python_version < '3.11'\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\\nlabsdk = sdk:main\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""
    )
    made = build(folder, tmp_path / "out", "3.13.0")
    assert made.name == "lab-sdk-1.2-pyh0_0.conda"
    found = child.check(made, made.name, Channels(), Environments())
    assert found.index["depends"] == ["python >=3.9", "pytorch >=2"]
    assert found.distributions == (("lab-sdk", "1.2"),)
    assert sorted(path.name for path in folder.iterdir()) == ["backend.py", "pyproject.toml", "sdk"]


def test_a_package_says_what_it_is_in_json_that_can_be_read(tmp_path: Path) -> None:
    """The kind: a record that the index has as the package says it."""
    made = conda(tmp_path / "tool-1.0-0.conda", index(depends=["python >=3.9"], license="MIT"))
    put(tmp_path, "site", made)
    document = json.loads((tmp_path / "channels/site/current/noarch/repodata.json").read_bytes())
    record = document["packages.conda"][made.name]
    assert (record["depends"], record["license"]) == (["python >=3.9"], "MIT")
