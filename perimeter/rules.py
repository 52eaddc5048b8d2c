"""From a plan to the text of an nftables ruleset: a pure function.

Only numbers, networks and names of interfaces and sites that were checked get into the text.
Families and matches are those that every kernel with nftables has: in the family bridge no
connection tracking, no reject, no name of a bridge. So frames between two servers are matched by
addresses, and an answer is a TCP segment that does not only say SYN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from perimeter.plan import INTERFACE, Builders, Egress, Place, Plan, Users, network_of

GATE_PORT = 8000
MIRROR_PORT = 8000
Resolved = Mapping[str, Sequence[IPv4Address]]

# Nobody's business, whatever the egress: this host, link-local with the metadata services of
# clouds (RFC 3927, RFC 5735), and the addresses of those that have theirs elsewhere (Azure,
# Alibaba Cloud).
NEVER = tuple(
    IPv4Network(net)
    for net in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "168.63.129.16", "100.100.100.200")
)
ANSWER = "tcp flags & (fin | syn | rst | ack) != syn"


def removal(table: str) -> str:
    """Takes a site's tables away, also where there are none."""
    return "".join(
        f"table {family} {table} {{ }}\ndelete table {family} {table}\n"
        for family in ("bridge", "inet")
    )


def ruleset(plan: Plan, resolved: Resolved, bridges: Iterable[str]) -> str:
    """The whole text for ``nft -f -``, which replaces what is there in one step.

    Args:
        resolved: addresses of ``plan.hosts``; a host without any opens nothing.
        bridges: interfaces of the machine's other Docker networks, which nobody of ours reaches.
    """
    others = sorted(set(bridges) - {plan.users.interface, plan.builders.interface})
    return "\n".join([removal(plan.table) + _bridge(plan), *_inet(plan, resolved, others), ""])


def _bridge(plan: Plan) -> str:
    """Between two ports of one network: what never comes to the machine's own IP."""
    users, builders = plan.users.subnet, plan.builders.subnet
    ours, theirs = _set(plan.users.ours), ""
    mirror = plan.builders.mirror
    if mirror is not None:
        theirs = f" arp saddr ip != {mirror} arp daddr ip != {mirror}"
    reached = "".join(f"\t\t{line}\n" for line in _mirror(plan.builders))
    return f"""\
table bridge {plan.table} {{
	chain inside {{
{_inside(plan)}
	}}

	chain between {{
		type filter hook forward priority -200; policy accept;
		ip saddr {users} ip daddr {users} goto inside
		ip saddr {users} drop
		ip daddr {users} drop
{reached}		ip saddr {builders} drop
		ip daddr {builders} drop
		arp operation reply arp saddr ip {users} arp saddr ip != {ours} \
arp daddr ip {users} arp daddr ip != {ours} drop
		arp operation reply arp saddr ip {builders} arp daddr ip {builders}{theirs} drop
	}}
}}
"""


def _inside(plan: Plan) -> str:
    """Within the network of users' servers."""
    gate, clients = plan.users.gate, _set(plan.users.clients)
    ours = _set(plan.users.ours)
    exams = ""
    if plan.users.mirror and plan.users.closed:
        exams = f"\t\tip saddr {plan.users.closed} ip daddr {plan.users.mirror} drop\n"
    reached = "".join(f"\t\t{line}\n" for line in _mirror(plan.users))
    return f"""\
		ip saddr {ours} ip daddr {ours} accept
		ip daddr {gate} tcp dport {GATE_PORT} accept
		ip saddr {gate} tcp sport {GATE_PORT} {ANSWER} accept
{exams}{reached}		ip saddr {clients} meta l4proto tcp accept
		ip daddr {clients} {ANSWER} accept
		drop"""


def _mirror(network: Users | Builders) -> list[str]:
    """The site's cache of packages, which answers, and asks nobody here."""
    if network.mirror is None:
        return []
    to, back = f"ip daddr {network.mirror} tcp dport", f"ip saddr {network.mirror} tcp sport"
    return [
        f"ip saddr {network.subnet} {to} {MIRROR_PORT} accept",
        f"{back} {MIRROR_PORT} ip daddr {network.subnet} {ANSWER} accept",
        f"ip saddr {network.mirror} drop",
    ]


def _inet(plan: Plan, resolved: Resolved, bridges: Sequence[str]) -> list[str]:
    """What comes to the machine, to stay or to go on."""
    users, builders = plan.users, plan.builders
    names = _names([builders.interface, users.interface])
    site = [
        *(f"ip saddr {_set(one.sources)} goto egress_{number}"
          for number, one in enumerate(plan.audiences, 1) if one.sources),
        "goto egress_0",
    ]  # fmt: skip
    egresses = [plan.egress, *(one.egress for one in plan.audiences)]
    chains = [
        ("inside", [line.strip() for line in _inside(plan).splitlines()]),
        *(
            (f"egress_{number}", _egress(plan, resolved, one))
            for number, one in enumerate(egresses)
        ),
        ("egress_builders", _egress(plan, resolved, plan.egress, builder=True)),
        (
            "from_users",
            [
                "meta nfproto != ipv4 drop",
                f"ip saddr != {users.subnet} drop",
                f"ip saddr {_set([users.gate, *users.clients])} accept",
                # It answers, and reaches nothing outside.
                *([f"ip saddr {users.mirror} goto inside"] if users.mirror else []),
                # Not even the name servers: what is asked of them leaves the machine.
                *(
                    [f"ip saddr {users.closed} ip daddr != {users.subnet} drop"]
                    if users.closed
                    else []
                ),
                *_resolvers(plan),
                f"ip daddr {users.subnet} goto inside",
                *site,
            ],
        ),
        (
            "from_builders",
            [
                "meta nfproto != ipv4 drop",
                f"ip saddr != {builders.subnet} drop",
                *_mirror(builders),
                *_resolvers(plan),
                f"ip daddr {builders.subnet} drop",
                "goto egress_builders",
            ],
        ),
        (
            # Before anything is redirected (DNAT): the machine's published ports count as its own.
            "arrive",
            [
                "type filter hook prerouting priority -300; policy accept;",
                f'iifname "{users.interface}" goto from_users',
                f'iifname "{builders.interface}" goto from_builders',
            ],
        ),
        (
            "pass",
            [
                "type filter hook forward priority -10; policy accept;",
                f'iifname "{users.interface}" oifname "{users.interface}" accept',
                # Who of them asks whom was said where it arrived.
                *(
                    [f'iifname "{builders.interface}" oifname "{builders.interface}" accept']
                    if builders.mirror
                    else []
                ),
                *([f"iifname {names} oifname {_names(bridges)} drop"] if bridges else []),
                f"oifname {names} ct state new drop",
            ],
        ),
        (
            "send",
            [
                "type filter hook output priority -10; policy accept;",
                f"oifname {names} ct state new drop",
            ],
        ),
    ]
    text = [f"table inet {plan.table} {{"]
    for name, lines in chains:
        text += [f"\tchain {name} {{", *(f"\t\t{line}" for line in lines), "\t}", ""]
    return [*text[:-1], "}"]


def _resolvers(plan: Plan) -> list[str]:
    """Docker asks them for a container, from within its network; clouds have them at 169.254."""
    if not plan.resolvers:
        return []
    to = f"ip daddr {_set(plan.resolvers)}"
    return [f"{to} udp dport 53 accept", f"{to} tcp dport 53 accept"]


def _egress(plan: Plan, resolved: Resolved, egress: Egress, builder: bool = False) -> list[str]:
    """Where one audience may go."""
    places: list[Place] = []
    if builder or egress.mode == "mirrors":
        places += plan.mirrors
    if builder:
        places += plan.builder_places
    lines = []
    # They may be on the machine itself: whoever writes the site file says so, with the port.
    for port in sorted({port for _host, port in places}):
        nets = [net for host, at in places if at == port for net in _of(host, resolved)]
        if nets:
            lines.append(f"ip daddr {_set(nets)} tcp dport {port} accept")
    # What is the machine's own, or for more than one.
    lines += ["fib daddr type != unicast drop", f"ip daddr {_set(NEVER)} drop"]
    if egress.mode == "all":
        return [*lines, "accept"]
    listed = [net for place in egress.places for net in _of(place, resolved)]
    if egress.mode == "list" and listed:
        lines.append(f"ip daddr {_set(listed)} accept")
    return [*lines, "drop"]


def _of(place: str, resolved: Resolved) -> list[IPv4Network]:
    network = network_of(place)
    if network is not None:
        return [network]
    return [IPv4Network(address) for address in resolved.get(place, ())]


def _set(nets: Iterable[IPv4Address | IPv4Network]) -> str:
    """Each network once, and none within another, which nft would refuse."""
    wanted = {IPv4Network(net) for net in nets}
    if any(net.prefixlen < 32 for net in wanted):
        wanted = set(collapse_addresses(wanted))
    shown = (str(net.network_address if net.prefixlen == 32 else net) for net in sorted(wanted))
    return "{ " + ", ".join(shown) + " }"


def _names(names: Iterable[str]) -> str:
    for name in names:
        if not INTERFACE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an interface")
    return "{ " + ", ".join(f'"{name}"' for name in sorted(names)) + " }"
