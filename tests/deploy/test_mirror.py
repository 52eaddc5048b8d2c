"""What `make up` does with the section ``mirror`` of the site file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy import datadir, mirror, settings
from deploy.shell import Failure

WANTED = {
    "nginx": "a {}\n",
    "registry": "b: 1\n",
    "kept": "c: 1\n",
    "images": True,
    "images_port": 5080,
}


@pytest.fixture
def site(environment: pytest.MonkeyPatch) -> settings.Settings:
    return settings.load(settings.ROOT)


def test_its_configuration_lies_where_compose_mounts_it(
    site: settings.Settings, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    on = replace(site, profiles=("mirror",))
    mirror.record(WANTED, on, tmp_path)
    assert (tmp_path / ".mirror/nginx.conf").read_text() == WANTED["nginx"]
    first = settings.parse_env((tmp_path / ".env").read_text())
    assert first["LABCOMMONS_MIRROR_IMAGES"] == "1"
    mirror.record({**WANTED, "nginx": "c {}\n"}, on, tmp_path)
    second = settings.parse_env((tmp_path / ".env").read_text())
    assert first["LABCOMMONS_MIRROR_HASH"] != second["LABCOMMONS_MIRROR_HASH"]


def test_section_and_profile_go_together(site: settings.Settings, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="has mirror") as caught:
        mirror.record(None, replace(site, profiles=("mirror",)), tmp_path)
    assert "mirror: {}" in caught.value.remedy
    with pytest.raises(Failure, match="section mirror") as caught:
        mirror.record(WANTED, replace(site, profiles=("postgres",)), tmp_path)
    assert "COMPOSE_PROFILES=postgres,mirror" in caught.value.remedy
    mirror.record(None, replace(site, profiles=()), tmp_path)


def test_the_mirror_is_not_behind_the_machines_proxy(environment: pytest.MonkeyPatch) -> None:
    environment.setenv(datadir.BUILD_SETTINGS, "https_proxy no_proxy")
    environment.setenv("https_proxy", "http://proxy.example.org:3128")
    environment.setenv("no_proxy", "localhost")
    assert datadir._build_settings()["no_proxy"] == "localhost,mirror,mirror-control"
    environment.delenv("https_proxy")
    assert datadir._build_settings() == {"no_proxy": "localhost"}
