"""The rules' text, to the last line, and that nothing gets into it that is not meant to."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perimeter.plan import PlanError, parse
from perimeter.rules import removal, ruleset

ADDRESSES = {
    "mirror.example.org": (IPv4Address("203.0.113.9"), IPv4Address("203.0.113.8")),
    "proxy.example.org": (IPv4Address("10.2.0.1"),),
}
NEVER = "{ 0.0.0.0/8, 100.100.100.200, 127.0.0.0/8, 168.63.129.16, 169.254.0.0/16 }"
OURS = "{ 10.1.0.2, 10.1.0.3, 10.1.0.4 }"
WHOLE = f"""\
table bridge labcommons-lab {{ }}
delete table bridge labcommons-lab
table inet labcommons-lab {{ }}
delete table inet labcommons-lab
table bridge labcommons-lab {{
	chain inside {{
		ip saddr {OURS} ip daddr {OURS} accept
		ip daddr 10.1.0.2 tcp dport 8000 accept
		ip saddr 10.1.0.2 tcp sport 8000 tcp flags & (fin | syn | rst | ack) != syn accept
		ip saddr {{ 10.1.0.3, 10.1.0.4 }} meta l4proto tcp accept
		ip daddr {{ 10.1.0.3, 10.1.0.4 }} tcp flags & (fin | syn | rst | ack) != syn accept
		drop
	}}

	chain between {{
		type filter hook forward priority -200; policy accept;
		ip saddr 10.1.0.0/24 ip daddr 10.1.0.0/24 goto inside
		ip saddr 10.1.0.0/24 drop
		ip daddr 10.1.0.0/24 drop
		ip saddr 10.1.1.0/24 drop
		ip daddr 10.1.1.0/24 drop
		arp operation reply arp saddr ip 10.1.0.0/24 arp saddr ip != {OURS} \
arp daddr ip 10.1.0.0/24 arp daddr ip != {OURS} drop
		arp operation reply arp saddr ip 10.1.1.0/24 arp daddr ip 10.1.1.0/24 drop
	}}
}}

table inet labcommons-lab {{
	chain inside {{
		ip saddr {OURS} ip daddr {OURS} accept
		ip daddr 10.1.0.2 tcp dport 8000 accept
		ip saddr 10.1.0.2 tcp sport 8000 tcp flags & (fin | syn | rst | ack) != syn accept
		ip saddr {{ 10.1.0.3, 10.1.0.4 }} meta l4proto tcp accept
		ip daddr {{ 10.1.0.3, 10.1.0.4 }} tcp flags & (fin | syn | rst | ack) != syn accept
		drop
	}}

	chain egress_0 {{
		fib daddr type != unicast drop
		ip daddr {NEVER} drop
		accept
	}}

	chain egress_builders {{
		ip daddr {{ 203.0.113.8, 203.0.113.9 }} tcp dport 443 accept
		ip daddr {{ 10.2.0.1 }} tcp dport 3128 accept
		ip daddr {{ 10.2.0.9 }} tcp dport 8081 accept
		fib daddr type != unicast drop
		ip daddr {NEVER} drop
		accept
	}}

	chain from_users {{
		meta nfproto != ipv4 drop
		ip saddr != 10.1.0.0/24 drop
		ip saddr {OURS} accept
		ip saddr 10.1.0.64/26 ip daddr != 10.1.0.0/24 drop
		ip daddr {{ 10.9.9.53 }} udp dport 53 accept
		ip daddr {{ 10.9.9.53 }} tcp dport 53 accept
		ip daddr 10.1.0.0/24 goto inside
		goto egress_0
	}}

	chain from_builders {{
		meta nfproto != ipv4 drop
		ip saddr != 10.1.1.0/24 drop
		ip daddr {{ 10.9.9.53 }} udp dport 53 accept
		ip daddr {{ 10.9.9.53 }} tcp dport 53 accept
		ip daddr 10.1.1.0/24 drop
		goto egress_builders
	}}

	chain arrive {{
		type filter hook prerouting priority -300; policy accept;
		iifname "lc01234567u" goto from_users
		iifname "lc01234567b" goto from_builders
	}}

	chain pass {{
		type filter hook forward priority -10; policy accept;
		iifname "lc01234567u" oifname "lc01234567u" accept
		iifname {{ "lc01234567b", "lc01234567u" }} oifname {{ "br-0123456789ab", "docker0" }} drop
		oifname {{ "lc01234567b", "lc01234567u" }} ct state new drop
	}}

	chain send {{
		type filter hook output priority -10; policy accept;
		oifname {{ "lc01234567b", "lc01234567u" }} ct state new drop
	}}
}}
"""


def _chain(text: str, name: str) -> list[str]:
    """The rules of a chain of the family inet."""
    body = text.partition("table inet labcommons-lab {\n")[2].partition(f"chain {name} {{\n")[2]
    return [line.strip() for line in body.partition("\t}")[0].splitlines()]


def test_the_whole_text(document: dict[str, Any]) -> None:
    bridges = ["docker0", "br-0123456789ab", "lc01234567u", "lc01234567b"]
    assert ruleset(parse(document), ADDRESSES, bridges) == WHOLE


def test_a_machine_without_other_networks_has_no_rule_for_them(document: dict[str, Any]) -> None:
    assert not any(
        'oifname { "d' in one for one in _chain(ruleset(parse(document), {}, []), "pass")
    )


@pytest.mark.parametrize(
    ("egress", "servers", "builders"),
    [
        ({"mode": "all"}, ["accept"], ["mirrors", "accept"]),
        ({"mode": "none"}, ["drop"], ["mirrors", "drop"]),
        ({"mode": "mirrors"}, ["mirrors", "drop"], ["mirrors", "drop"]),
        (
            {"mode": "list", "places": ["10.3.0.0/16", "10.3.1.0/24", "mirror.example.org", "x"]},
            ["ip daddr { 10.3.0.0/16, 203.0.113.8/31 } accept", "drop"],
            ["mirrors", "ip daddr { 10.3.0.0/16, 203.0.113.8/31 } accept", "drop"],
        ),
        ({"mode": "list", "places": ["gone"]}, ["drop"], ["mirrors", "drop"]),
    ],
)  # fmt: skip
def test_egress(
    document: dict[str, Any], egress: dict[str, Any], servers: list[str], builders: list[str]
) -> None:
    document["egress"] = egress
    text = ruleset(parse(document), ADDRESSES, [])
    own = ["fib daddr type != unicast drop", f"ip daddr {NEVER} drop"]
    sites = [
        "ip daddr { 203.0.113.8, 203.0.113.9 } tcp dport 443 accept",
        "ip daddr { 10.2.0.9 } tcp dport 8081 accept",
    ]
    more = "ip daddr { 10.2.0.1 } tcp dport 3128 accept"
    for chain, wanted, opened in (
        ("egress_0", servers, sites),
        ("egress_builders", builders, [sites[0], more, sites[1]]),
    ):
        first = opened if "mirrors" in wanted else []
        assert _chain(text, chain) == first + own + [line for line in wanted if line != "mirrors"]


def test_an_audience_has_its_own_egress_and_the_others_the_sites(document: dict[str, Any]) -> None:
    document["audiences"] = [
        {"sources": ["10.1.0.200", "10.1.0.201"], "egress": {"mode": "none"}},
        {"sources": [], "egress": {"mode": "all"}},
    ]
    text = ruleset(parse(document), ADDRESSES, [])
    assert _chain(text, "from_users")[-2:] == [
        "ip saddr { 10.1.0.200, 10.1.0.201 } goto egress_1",
        "goto egress_0",
    ]
    assert _chain(text, "egress_1")[-1] == "drop"


def test_removal_is_what_a_ruleset_begins_with(document: dict[str, Any]) -> None:
    assert WHOLE.startswith(removal("labcommons-lab"))


# All that may ever be in the text: our own words, numbers, and names of interfaces.
WORDS = re.compile(
    r"(table|delete|bridge|inet|chain|type|filter|hook|forward|prerouting|output|priority|policy|"
    r"accept|drop|goto|ip|saddr|daddr|tcp|udp|dport|sport|flags|fin|syn|rst|ack|meta|l4proto|"
    r"nfproto|ipv4|fib|unicast|iifname|oifname|ct|state|new|arp|operation|reply|inside|between|"
    r"arrive|pass|send|from_users|from_builders|egress_(\d+|builders)|labcommons-[a-z0-9_-]+|"
    r"\"[a-z][a-z0-9-]*\"|[0-9.]+(/\d+)?|-\d+|!=|[{}&();,|])"
)
words = st.text(max_size=15) | st.sampled_from(
    ["lab", "a.example.org", "10.3.0.0/16", "10.1.0.9", '"', "; flush ruleset", "}\n", "lo", "$(x)"]
)
places = st.lists(st.tuples(words, st.integers(1, 65535) | words), max_size=3)


def test_the_sites_mirror_answers_servers_and_builders_and_nobody_else(
    document: dict[str, Any],
) -> None:
    document["users"]["mirror"], document["builders"]["mirror"] = "10.1.0.5", "10.1.1.5"
    text = ruleset(parse(document), ADDRESSES, [])
    inside = _chain(text, "inside")
    to = "ip saddr 10.1.0.0/24 ip daddr 10.1.0.5 tcp dport 8000 accept"
    exam = "ip saddr 10.1.0.64/26 ip daddr 10.1.0.5 drop"
    assert inside.index(exam) < inside.index(to) < inside.index("ip saddr 10.1.0.5 drop")
    from_users, from_builders = _chain(text, "from_users"), _chain(text, "from_builders")
    assert "ip saddr 10.1.0.5 goto inside" in from_users
    assert "10.1.0.5" not in next(line for line in from_users if line.endswith("} accept"))
    to = "ip saddr 10.1.1.0/24 ip daddr 10.1.1.5 tcp dport 8000 accept"
    out = "ip saddr 10.1.1.5 drop"
    assert from_builders.index(to) < from_builders.index(out) < len(from_builders) - 1
    between = text.partition("chain between {")[2].partition("}")[0]
    assert between.index(to) < between.index("ip saddr 10.1.1.0/24 drop")


def test_a_mirror_elsewhere_is_no_plan(document: dict[str, Any]) -> None:
    document["builders"]["mirror"] = "10.9.9.9"
    with pytest.raises(PlanError, match=r"10\.9\.9\.9"):
        parse(document)


@given(st.data())
def test_no_name_gets_a_word_of_its_own_into_the_text(data: st.DataObject) -> None:
    draw = data.draw
    document = {
        "version": 1,
        "site": draw(words),
        "enabled": True,
        "users": {
            "interface": draw(words), "subnet": "10.1.0.0/24", "gate": "10.1.0.2",
            "clients": ["10.1.0.3"],
        },
        "builders": {"interface": draw(words), "subnet": "10.1.1.0/24"},
        "resolvers": draw(st.lists(words, max_size=2)),
        "egress": {"mode": "list", "places": draw(st.lists(words, max_size=3))},
        "mirrors": draw(places),
        "builder_places": draw(places),
        "audiences": [{"sources": draw(st.lists(words, max_size=2)), "egress": {"mode": "none"}}],
    }  # fmt: skip
    # Each part that is refused is put right, so that the others are tried as well.
    right = {
        "site": "lab",
        "users": {**document["users"], "interface": "u"},  # type: ignore[dict-item]
        "builders": {**document["builders"], "interface": "b"},  # type: ignore[dict-item]
        "resolvers": [], "egress": {"mode": "all"}, "mirrors": [], "builder_places": [],
        "audiences": [],
    }  # fmt: skip
    for key, value in right.items():
        try:
            parse({**document, **{k: v for k, v in right.items() if k != key}})
        except PlanError:
            document[key] = value
    try:
        plan = parse(document)
    except PlanError:  # two parts that do not go together
        return
    address = st.lists(st.ip_addresses(v=4, network=IPv4Network("203.0.113.0/24")), max_size=3)
    resolved = {host: draw(address) for host in plan.hosts}
    text = ruleset(plan, resolved, ["docker0"])
    for word in re.sub(r"([;(),])", r" \1 ", text).split():
        assert WORDS.fullmatch(word), word
    assert set(re.findall(r"labcommons-\S+", text)) == {plan.table}


@given(st.text(max_size=12))
def test_a_strange_interface_of_the_machine_is_never_in_the_text(name: str) -> None:
    plan = parse(
        {
            "version": 1, "site": "lab", "enabled": True,
            "users": {"interface": "u", "subnet": "10.1.0.0/24", "gate": "10.1.0.2",
                      "clients": ["10.1.0.3"]},
            "builders": {"interface": "b", "subnet": "10.1.1.0/24"},
            "resolvers": [], "egress": {"mode": "all"}, "mirrors": [], "builder_places": [],
        }
    )  # fmt: skip
    try:
        text = ruleset(plan, {}, [name])
    except ValueError:
        return
    assert re.fullmatch(r"[a-z][a-z0-9-]*", name)
    assert f'"{name}"' in text
