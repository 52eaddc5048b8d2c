"""Keeps the rules in place: looks every few seconds, and puts back whatever has gone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from perimeter import nft, rules
from perimeter.names import Names
from perimeter.plan import Plan

INTERVAL = 2.0  # seconds between two looks
STALE = 30.0  # seconds after which the keeper counts as stuck
FIRST_NAMES = 5.0  # seconds that the first rules wait for host names
INTERFACES = Path("/sys/class/net")
# Docker's own bridges, and those of sites (deploy/networks.py).
BRIDGE = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}|lc[0-9a-f]{8}[bu]")

REMEDY = (
    "this needs a kernel with nftables in the families bridge and inet (`modprobe nf_tables`), "
    "with fib and ct, and NET_ADMIN in the perimeter's container. To run without, which leaves "
    "people's servers open to each other: `servers: {perimeter: off}` in the site file "
    "(docs/perimeter.md), and make up"
)


def bridges() -> list[str]:
    """The machine's Docker bridges."""
    return [name for name in os.listdir(INTERFACES) if BRIDGE.fullmatch(name)]


class Keeper:
    """The rules of one plan.

    Args:
        state: a file that says how it is, for ``check``.
        say: gets a line for everything that happens.
    """

    def __init__(self, plan: Plan, state: Path, say: Callable[[str], None]) -> None:
        self.plan, self.state, self.say = plan, state, say
        self.names = Names()
        self.text = ""
        self.listing: str | None = None
        self.restored = 0
        self._said = ""
        self._unknown: dict[str, str] = {}

    def run(self, stop: Event) -> None:
        """Until told to stop. The rules stay then: servers may outlive this program."""
        self.names.refresh(self.plan.hosts, time.monotonic(), wait=FIRST_NAMES)
        while True:
            self.once(time.monotonic())
            if stop.wait(INTERVAL):
                return

    def once(self, now: float) -> None:
        """Look, put in order, and write down how it is. Never raises for what nft says."""
        problem = ""
        try:
            self._keep(now)
        except nft.NftError as error:
            problem = f"the rules that keep people's servers apart cannot be put in place: {error}"
        if problem != self._said:
            self._said = problem
            if problem:
                self.say(f"Error: {problem}\nRemedy: {REMEDY}")
        self._write(problem)

    def _keep(self, now: float) -> None:
        if not self.plan.enabled:
            if not self.text:
                self.text = rules.removal(self.plan.table)
                nft.apply(self.text)
                self.say(
                    "servers.perimeter is off: people's servers reach each other, this machine and "
                    "cloud metadata (docs/perimeter.md)"
                )
            return
        hosts = self.plan.hosts
        self.names.refresh(hosts, now)
        text = rules.ruleset(self.plan, self.names.addresses(hosts), bridges())
        listing = nft.listing(self.plan.table) if self.text else None
        if text == self.text and listing == self.listing and listing is not None:
            return
        nft.apply(text)
        if self.text and listing != self.listing:
            self.restored += 1
            self.say("the rules were changed by somebody else: put back")
        elif self.text:
            self.say("the rules follow a change of addresses or of the machine's networks")
        else:
            self.say(f"the rules are in place: tables bridge and inet {self.plan.table}")
        self.text, self.listing = text, nft.listing(self.plan.table)

    def _write(self, problem: str) -> None:
        unknown = self.names.unknown(self.plan.hosts)
        if unknown != self._unknown:
            self._unknown = unknown
            for host, why in unknown.items():
                self.say(f"{host} has no address, and is closed until it has one: {why}")
        state = {
            "at": time.monotonic(),
            "problem": problem,
            "off": not self.plan.enabled,
            "listing": digest(self.listing),
            "restored": self.restored,
            "unknown": unknown,
        }
        partial = self.state.with_suffix(".part")
        partial.write_text(json.dumps(state), "utf-8")
        partial.replace(self.state)


def digest(listing: str | None) -> str:
    """What makes two listings the same."""
    return hashlib.sha256((listing or "").encode()).hexdigest()


def problem_of(plan: Plan, state: Path) -> str:
    """What is wrong now, as the kernel and the running keeper say; "" when nothing is."""
    try:
        found: dict[str, Any] = json.loads(state.read_text("utf-8"))
    except (OSError, ValueError):
        return "the perimeter has not begun; see: docker compose logs perimeter"
    if found["problem"]:
        return f"{found['problem']}; {REMEDY}"
    if time.monotonic() - found["at"] > STALE:
        return f"nobody has looked for {STALE:.0f} s; run: docker compose restart perimeter"
    if plan.enabled and digest(nft.listing(plan.table)) != found["listing"]:
        return "the rules were changed by somebody else, and are being put back; look again"
    return ""
