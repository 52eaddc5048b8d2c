"""A real slapd for all tests of this folder, and the directory as the hub sees it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from hub_ext.authenticator import LDAPAuthenticator
from hub_ext.directory.client import Directory
from hub_ext.directory.settings import DirectorySettings, parse_server
from rig.slapd import Slapd

MakeSettings = Callable[..., DirectorySettings]
MakeDirectory = Callable[..., Directory]


@pytest.fixture(scope="session")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with Slapd(tmp_path_factory.mktemp("slapd")) as server:
        yield server


@pytest.fixture
def own_slapd(tmp_path: Path) -> Iterator[Slapd]:
    """One that a test may stop, kill and change."""
    with Slapd(tmp_path / "slapd") as server:
        yield server


@pytest.fixture
def settings(slapd: Slapd) -> MakeSettings:
    """Settings for the rig's slapd, with changes."""

    def make(server: Slapd = slapd, urls: list[str] | None = None, **changes: Any) -> Any:
        values = server.traits(*(urls or []))
        values["servers"] = tuple(parse_server(url) for url in values["servers"])
        values["ca_file"] = Path(values["ca_file"])
        values["bind_password_file"] = Path(values["bind_password_file"])
        return DirectorySettings(**{**values, **changes})

    return make


@pytest.fixture
def directory(settings: MakeSettings) -> MakeDirectory:
    """The directory as the hub sees it; arguments as for ``settings``."""

    def make(*args: Any, **changes: Any) -> Directory:
        return Directory(settings(*args, **changes), logging.getLogger("directory"))

    return make


@pytest.fixture
def authenticator(slapd, tmp_path):
    """Made anew with the same ``state_database``, it is the hub after a restart."""

    def make(server=slapd, **traits):
        state = {"state_database": f"sqlite:///{tmp_path / 'state.sqlite'}"}
        config = Config({"LDAPAuthenticator": {**server.traits(), **state, **traits}})
        made = LDAPAuthenticator(config=config)
        made.log = logging.getLogger("authenticator")
        return made

    return make
