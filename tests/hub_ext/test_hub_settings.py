"""The hub's process ends before it starts with a setting that would not do what it says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from traitlets.config import Config

from commons.site import Site, load_site
from hub_ext.app import LabCommonsHub
from hub_ext.hub_settings import problems

CONFIG = Path(__file__).parents[2] / "config"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The hub as `make up` configures it, before its configuration is read."""
    for name in ("cookie-secret", "crypt-key", "proxy-token", "console-token", "kernels-token"):
        (tmp_path / name).write_text("ab" * 32)
    monkeypatch.setenv("LABCOMMONS_SECRETS", str(tmp_path))
    monkeypatch.setenv("LABCOMMONS_SITE_FILE", str(CONFIG / "site.yaml"))
    hub = LabCommonsHub()
    hub.resources = SimpleNamespace(site=load_site())
    yield hub
    LabCommonsHub.clear_instance()


def read(hub: Any, folder: Path, more: str = "") -> None:
    file = folder / "jupyterhub_config.py"
    shutil.copy(CONFIG / "jupyterhub_config.py", file)
    with file.open("a") as text:
        text.write(f"\n{more}\n")
    hub.load_config_file(str(file))


def test_the_configuration_that_comes_with_labcommons_is_right(hub: Any, tmp_path: Path) -> None:
    read(hub, tmp_path)


def test_variables_of_a_site_drop_none_of_ours(hub: Any, tmp_path: Path) -> None:
    read(hub, tmp_path, "c.Spawner.environment = {'FOO': '1'}")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("c.DockerSpawner.post_start_cmd = 'true'", "c.DockerSpawner.post_start_cmd: has no"),
        ("c.DockerSpawner.volumes = {'/etc': '/x'}", "servers.mounts"),
        ("c.Spawner.environment = {'HOME': '/x'}", "HOME is LabCommons' own"),
        ("c.SystemUserSpawner.run_as_root = True", "no server runs as root"),
        ("c.JupyterHub.spawner_class = 'simple'", "must be labcommons-docker"),
        ("c.JupyterHub.internal_ssl = True", "c.JupyterHub.internal_ssl"),
        ("c.JupyterHub.ssl_cert = '/x.crt'", "data/tls/server.crt"),
        ("c.JupyterHub.port = 443", "site.public_url"),
        ("c.JupyterHub.base_url = '/lab/'", "site.public_url"),
        (
            "c.LDAPAuthenticator.allow_all = True; c.Authenticator.allowed_users = {'fry'}",
            "c.Authenticator.allowed_users: has no effect beside allow_all",
        ),
        ("c.LDAPAuthenticator.teams = {'x': {'members': ['y']}}", "`directory.teams`"),
    ],
)
def test_it_says_what_to_use(
    line: str, words: str, hub: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read(hub, tmp_path, line)
    assert words in capsys.readouterr().err


def test_who_may_log_in_is_said_once(site: Site) -> None:
    config = Config({"LDAPAuthenticator": {"allowed_users": {"fry"}}})
    assert problems(config, site) == []
