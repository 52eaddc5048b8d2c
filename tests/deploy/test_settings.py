"""`.env`: written once, completed, never overwritten, and checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from deploy import settings
from deploy.shell import Failure
from deploy.up import CHECKED


def test_a_new_env_file_is_complete_and_only_its_owners(checkout: Path) -> None:
    settings.prepare(checkout)
    assert settings.parse_env((checkout / ".env").read_text()).keys() == settings.DEFAULTS.keys()
    assert (checkout / ".env").stat().st_mode & 0o777 == 0o600


def test_the_demo_listens_only_on_this_machine(checkout: Path) -> None:
    site = settings.prepare(checkout)
    assert (site.bind, site.profiles, site.https_port) == ("127.0.0.1", ("demo",), 8443)


def test_what_an_administrator_has_set_stays_and_what_is_missing_is_added(checkout: Path) -> None:
    mine = "# ports of ours\nLABCOMMONS_HTTPS_PORT=443\nMY_OWN='a b'\n"
    (checkout / ".env").write_text(mine)
    site = settings.prepare(checkout)
    text = (checkout / ".env").read_text()
    assert text.startswith(mine)
    assert site.https_port == 443
    assert "COMPOSE_PROJECT_NAME=labcommons" in text


def test_a_second_run_writes_nothing(checkout: Path) -> None:
    settings.prepare(checkout)
    settings.record({"LABCOMMONS_DOCKER_GID": "999"}, checkout)
    before = (checkout / ".env").stat()
    settings.prepare(checkout)
    settings.record({"LABCOMMONS_DOCKER_GID": "999"}, checkout)
    assert (checkout / ".env").stat().st_ino == before.st_ino


def test_what_was_found_out_is_replaced_and_nothing_else(checkout: Path) -> None:
    settings.prepare(checkout)
    settings.record({"LABCOMMONS_DOCKER_GID": "999"}, checkout)
    settings.record({"LABCOMMONS_DOCKER_GID": "106"}, checkout)
    text = (checkout / ".env").read_text()
    assert text.count("LABCOMMONS_DOCKER_GID=") == 1
    assert settings.parse_env(text)["LABCOMMONS_DOCKER_GID"] == "106"
    assert settings.parse_env(text)["COMPOSE_PROFILES"] == "demo"


def test_the_shells_variables_win_as_they_do_for_compose(
    checkout: Path, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("COMPOSE_PROJECT_NAME", "other")
    assert settings.prepare(checkout).users_network == "other-users"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LABCOMMONS_HTTPS_PORT", "0"),
        ("LABCOMMONS_HTTPS_PORT", "8443 "),
        ("LABCOMMONS_HTTP_PORT", "port"),
        ("LABCOMMONS_BIND", "everywhere"),
        ("LABCOMMONS_SITE_FILE", "../../etc/passwd"),
        ("LABCOMMONS_SITE_FILE", "missing.yaml"),
        ("LABCOMMONS_DATA", "/"),
        ("LABCOMMONS_DATA", "."),
        ("LABCOMMONS_DATA", "/srv/a:b"),
        ("COMPOSE_PROJECT_NAME", "Lab Commons"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_what_fits(
    checkout: Path, environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(Failure) as caught:
        settings.load(checkout)
    assert name in caught.value.cause
    assert caught.value.remedy


def test_an_env_file_that_is_no_text_is_refused_in_words(checkout: Path) -> None:
    (checkout / ".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Failure, match="cannot be read"):
        settings.load(checkout)


def test_the_groups_that_the_service_of_kernels_needs_are_in_a_file_for_compose(tmp_path) -> None:
    assert settings.compose_files(tmp_path) == ["docker-compose.yml"]
    settings.write_groups([21002, 21001, 21001], tmp_path)
    (tmp_path / "docker-compose.override.yml").touch()
    # A site's own additions come last and win.
    assert settings.compose_files(tmp_path) == [
        "docker-compose.yml",
        settings.GROUPS_FILE,
        "docker-compose.override.yml",
    ]
    written = json.loads((tmp_path / settings.GROUPS_FILE).read_text())
    assert written["services"]["kernels"]["group_add"] == ["21001", "21002"]


def test_services_that_are_well_are_looked_at_seldom_where_the_engine_can(tmp_path) -> None:
    services = yaml.safe_load((settings.ROOT / "docker-compose.yml").read_text())["services"]
    assert {name for name, one in services.items() if "healthcheck" in one} == set(CHECKED)
    settings.write_health(CHECKED, (28, 5, 2), tmp_path)
    assert settings.compose_files(tmp_path)[-1] == settings.HEALTH_FILE
    written = json.loads((tmp_path / settings.HEALTH_FILE).read_text())["services"]
    assert written["chp"]["healthcheck"] == {"interval": "20s", "start_interval": "1s"}
    # docker compose refuses start_interval with an older one.
    settings.write_health(CHECKED, (20, 10, 24), tmp_path)
    assert settings.compose_files(tmp_path) == ["docker-compose.yml"]
