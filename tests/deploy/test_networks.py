"""The networks of servers and builders: which ones are asked for, and what they are called."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from deploy import networks
from deploy.shell import Failure


def test_an_administrator_may_choose_a_subnet(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setattr(networks, "ROOT", tmp_path)
    assert networks._wanted("users") is None
    (tmp_path / ".env").write_text("LABCOMMONS_USERS_SUBNET=10.99.0.0/20\n")
    assert networks._wanted("users") == IPv4Network("10.99.0.0/20")
    assert networks._wanted("builders") is None
    environment.setenv("LABCOMMONS_USERS_SUBNET", "10.98.0.0/24")
    assert networks._wanted("users") == IPv4Network("10.98.0.0/24")


@pytest.mark.parametrize("text", ["10.99.0.1/20", "10.99.0.0/28", "fd00::/64", "somewhere"])
def test_a_subnet_that_cannot_be_is_refused_with_what_can(
    environment: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    environment.setattr(networks, "ROOT", tmp_path)
    environment.setenv("LABCOMMONS_BUILDERS_SUBNET", text)
    with pytest.raises(Failure, match="LABCOMMONS_BUILDERS_SUBNET") as caught:
        networks._wanted("builders")
    assert "/27" in caught.value.remedy


def test_a_bridge_is_called_the_same_for_ever_and_other_than_another_sites() -> None:
    names = {
        networks.interface_of(project, what)
        for project in ("labcommons", "labcommons-test")
        for what in ("users", "builders")
    }
    assert len(names) == 4
    assert networks.interface_of("labcommons", "users") == "lc0963ac5fu"
    assert all(len(name) <= 15 for name in names)
