"""Which host is whose: the hub's, and people's servers'."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.site import Site, SiteInfo
from commons.web import origins


def with_info(site: Site, **values: object) -> Site:
    info = SiteInfo.model_validate({"public_url": "https://lab.example.org:9443", **values})
    return site.model_copy(update={"site": info})


@pytest.mark.parametrize(
    ("values", "names", "host"),
    [
        ({}, ["lab.example.org", "*.lab.example.org"], "alice.lab.example.org"),
        (
            {"servers_host": "servers.example.org"},
            ["lab.example.org", "servers.example.org"],
            "servers.example.org",
        ),
        ({"subdomains": False}, ["lab.example.org"], None),
    ],
)
def test_services_have_the_hubs_host_and_servers_another_where_there_is_one(
    site: Site, values: dict[str, object], names: list[str], host: str | None
) -> None:
    site = with_info(site, **values)
    assert origins.server_names(site) == names
    assert origins.apart(site) is (host is not None)
    hook = origins.subdomain_hook(site)
    assert hook("labcommons", "lab.example.org", "service") == "lab.example.org"
    if host:
        assert hook("alice", "lab.example.org", "user") == host
    # A cookie of the path "/" goes to all servers of a host.
    assert origins.own_hosts(site) is (host == "alice.lab.example.org")


NAMES = ("alice", "Alice", "j.smith", "j_smith", "j-smith", "-x", "12345", "a" * 80, "m\u00fcller",
         "u-x--1", "xn--mller-kva", "\u674e\u96f7", "services", "a@b.c", "a b", "j--smith",
         ".")  # fmt: skip


def test_each_name_has_a_label_of_its_own() -> None:
    labels = [origins.label(name) for name in NAMES]
    assert len(set(labels)) == len(NAMES)
    assert labels[0] == "alice"


@given(st.text(min_size=1, max_size=90))
def test_a_label_is_one_that_dns_certificates_and_routes_take(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", origins.label(name))
