"""The commands of the perimeter's container: run, check, show, remove."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from threading import Event

from perimeter import nft, rules
from perimeter.keeper import Keeper, problem_of
from perimeter.plan import Plan, PlanError, read

PLAN = Path("/etc/labcommons/perimeter.json")
STATE = Path("/run/perimeter.json")


def main() -> int:
    """Exit 0: done, or right; 1: not."""
    parser = argparse.ArgumentParser(prog="labcommons perimeter", description=__doc__)
    parser.add_argument(
        "verb",
        choices=["run", "check", "show", "remove"],
        help="keep the rules in place; whether they are; what they are; take them away",
    )
    parser.add_argument("--json", action="store_true", help="with check and show")
    arguments = parser.parse_args()
    try:
        plan = read(PLAN)
        if arguments.verb == "run":
            return _run(plan)
        if arguments.verb == "remove":
            nft.apply(rules.removal(plan.table))
            return 0
        if arguments.verb == "show":
            return _show(plan, arguments.json)
        return _check(plan, arguments.json)
    except (PlanError, nft.NftError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def _run(plan: Plan) -> int:
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Keeper(plan, STATE, lambda line: print(line, flush=True)).run(stop)
    return 0


def _check(plan: Plan, as_json: bool) -> int:
    problem = problem_of(plan, STATE)
    if as_json:
        state = json.loads(STATE.read_text("utf-8")) if STATE.exists() else {}
        answer = {
            "right": not problem,
            "problem": problem,
            "off": not plan.enabled,
            "restored": state.get("restored", 0),
            "without_address": state.get("unknown", {}),
        }
        print(json.dumps(answer, ensure_ascii=False))
    elif problem:
        print(f"Error: {problem}", file=sys.stderr)
    else:
        print("off: servers.perimeter" if not plan.enabled else "The rules are in place.")
    return 1 if problem else 0


def _show(plan: Plan, as_json: bool) -> int:
    listing = nft.listing(plan.table) or ""
    if as_json:
        answer = {
            "site": plan.site,
            "off": not plan.enabled,
            "users": str(plan.users.subnet),
            "builders": str(plan.builders.subnet),
            "gate": str(plan.users.gate),
            "clients": [str(one) for one in plan.users.clients],
            "resolvers": [str(one) for one in plan.resolvers],
            "egress": plan.egress.mode,
            "places": list(plan.egress.places),
            "mirrors": [f"{host}:{port}" for host, port in plan.mirrors],
            "rules": listing,
        }
        print(json.dumps(answer, ensure_ascii=False))
    else:
        print(listing or "There are no rules.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
