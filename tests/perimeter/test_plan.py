"""What the perimeter takes from `make up`, and what it refuses."""

from __future__ import annotations

import json
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.site import Site
from deploy import networks, perimeter
from deploy.networks import Network
from hub_ext.admin_cli import perimeter_of
from perimeter.plan import PlanError, parse, read


def test_a_plan_is_read(document: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(document))
    plan = read(tmp_path / "plan.json")
    assert plan.table == "labcommons-lab"
    assert plan.users.clients == (IPv4Address("10.1.0.3"), IPv4Address("10.1.0.4"))
    assert plan.hosts == ("mirror.example.org", "proxy.example.org")


def test_a_missing_plan_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="run make up"):
        read(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("version",), 2),
        (("site",), "lab }; flush ruleset"),
        (("site",), "Lab"),
        (("enabled",), "yes"),
        (("users", "interface"), 'x" accept'),
        (("users", "interface"), "sixteen-letters-"),
        (("users", "subnet"), "fd00::/64"),
        (("users", "subnet"), "10.1.0.7/24"),
        (("users", "gate"), "10.7.0.2"),
        (("users", "clients"), []),
        (("users", "closed"), "10.1.1.0/26"),
        (("users", "closed"), "10.1.0.0/26"),
        (("users", "closed"), "10.1.0.64/26 accept"),
        (("builders", "subnet"), "10.1.0.128/25"),
        (("resolvers",), ["name"]),
        (("resolvers",), [1]),
        (("egress",), {"mode": "some"}),
        (("egress",), {"mode": "list", "places": ["a b"]}),
        (("mirrors",), [["host", 0]]),
        (("mirrors",), [["host", True]]),
        (("mirrors",), [["host", "443; drop"]]),
        (("mirrors",), [["ho\nst", 443]]),
        (("builder_places",), None),
        (("audiences",), [{"sources": ["all"], "egress": {"mode": "all"}}]),
    ],
)
def test_what_is_not_as_it_should_be_is_refused(
    document: dict[str, Any], place: tuple[str, ...], value: object
) -> None:
    part = document
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    with pytest.raises(PlanError):
        parse(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.data())
def test_nothing_else_than_a_refusal_comes_of_nonsense(data: st.DataObject) -> None:
    document: dict[str, Any] = {
        "version": 1, "site": "lab", "enabled": True,
        "users": {"interface": "u", "subnet": "10.1.0.0/24", "gate": "10.1.0.2",
                  "clients": ["10.1.0.3"]},
        "builders": {"interface": "b", "subnet": "10.1.1.0/24"},
        "resolvers": [], "egress": {"mode": "all"}, "mirrors": [], "builder_places": [],
    }  # fmt: skip
    parse(document)
    document[data.draw(st.sampled_from(sorted(document)))] = data.draw(json_values)
    with suppress(PlanError):
        parse(document)


def _site(site: Site, **changes: Any) -> Site:
    return Site.model_validate(site.model_dump(exclude_unset=True) | changes)


def test_the_site_file_decides(site: Site) -> None:
    assert perimeter_of(site) == {"enabled": True, "egress": {"mode": "all"}, "mirrors": []}
    changed = _site(
        site,
        servers={"egress": ["10.2.0.0/16", "Data.example.org"], "perimeter": "off"},
        environments={
            "mirrors": {
                "conda-forge": ["https://mirror.example.org/conda", "/srv/a/folder"],
                "http://other.example.org:8080/x": [],
            },
            "pip_index": "http://index.example.org/simple",
        },
    )
    assert perimeter_of(changed) == {
        "enabled": False,
        "egress": {"mode": "list", "places": ["10.2.0.0/16", "data.example.org"]},
        "mirrors": [
            ("index.example.org", 80),
            ("mirror.example.org", 443),
            ("other.example.org", 8080),
        ],
    }


@pytest.mark.parametrize(
    "place",
    ["https://data.example.org", "data.example.org:443", "10.2.3.4/16", "10.2.3", "fd00::/64",
     "a b", "", "-x", "10.2.3.4/33"],
)  # fmt: skip
def test_the_site_file_takes_networks_and_hosts_alone(site: Site, place: str) -> None:
    with pytest.raises(ValueError, match=r"egress"):
        _site(site, servers={"egress": [place]})


def test_mirrors_that_nobody_named_are_refused(site: Site) -> None:
    with pytest.raises(ValueError, match="environments names none"):
        _site(site, servers={"egress": "mirrors"})


def test_the_plan_of_make_up_is_one_that_the_perimeter_takes(site: Site) -> None:
    users = Network("lab-users", networks.interface_of("lab", "users"), IPv4Network("10.1.0.0/20"))
    builders = Network(
        "lab-builders", networks.interface_of("lab", "builders"), IPv4Network("10.1.16.0/24")
    )
    environment = {
        "https_proxy": "http://somebody:secret@proxy.example.org:3128",
        "no_proxy": "localhost,.example.org",
        "PIP_EXTRA_INDEX_URL": "https://one.example.org/simple http://two.example.org:81/simple",
        "NPM_CONFIG_REGISTRY": "http://[fd00::1]/npm",
        "HTTP_PROXY": "http://host:99999",
    }
    made = perimeter.plan(perimeter_of(site), "lab", users, builders, ["10.9.9.53"], environment)
    assert "secret" not in json.dumps(made)
    plan = parse(json.loads(json.dumps(made)))
    assert plan.builder_places == (
        ("one.example.org", 443), ("proxy.example.org", 3128), ("two.example.org", 81),
    )  # fmt: skip
    assert plan.users.gate == IPv4Address("10.1.0.2")
    assert plan.users.clients == (IPv4Address("10.1.0.3"), IPv4Address("10.1.0.4"))
    # Nobody else is ever given one of these by Docker.
    assert not any(one in users.given_out for one in (users.gateway, *users.services.values()))
    assert users.interface != builders.interface
    assert len(users.interface) < 16
