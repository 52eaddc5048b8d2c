"""``labcommons doctor`` on the machine itself: what Docker, disks and ports say, and, when the hub
runs, what it sees too; when it does not, why.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from deploy import engine, host_checks, settings
from deploy.host_checks import Row, Site, row
from deploy.shell import Failure

LIMIT = 5.0  # seconds for one check
HUB_LIMIT = 30.0  # seconds for all of the hub's, with the start of a Python
ABOUT = """Check that all is well: services, Engine, disks, clock, certificates, directory,
databases, leases, GPUs, images, ports; each finding with its cause and what to do."""
ENDS = """exit code: 0 all well, 1 a warning or something unknown, 2 something is broken

examples:
  labcommons doctor
  labcommons doctor --json
  labcommons doctor databases disk"""


def doctor(words: Sequence[str]) -> int:
    """Print what was found; the exit code."""
    parser = argparse.ArgumentParser(
        prog="labcommons doctor",
        description=ABOUT,
        epilog=ENDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", metavar="CHECK", nargs="*", help="these alone; all without")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    asked = parser.parse_args(words)
    chosen = {
        name: one for name, one in host_checks.CHECKS.items() if name in (asked.names or [name])
    }
    try:
        env = engine.find().env
    except Failure:
        env = {}  # the check of the Engine says it; disks and ports can be looked at
    site = Site(env, settings.load())
    rows = examine(site, chosen)
    elsewhere = [name for name in asked.names if name not in host_checks.CHECKS]
    if not asked.names or elsewhere:
        rows = ask_hub(site, rows, elsewhere)
    if asked.json:
        print(json.dumps({"checks": rows}, ensure_ascii=False))
    else:
        show(rows)
    return exit_code(rows)


def examine(
    site: Site, checks: Mapping[str, Callable[[Site], Iterable[Row]]], limit: float = LIMIT
) -> list[Row]:
    """Run all of them side by side; what they found, in their order."""
    found: dict[str, list[Row]] = {}

    def run(name: str, function: Callable[[Site], Iterable[Row]]) -> None:
        try:
            found[name] = list(function(site))
        except Exception as error:  # whatever it was: the others go on
            said = (f"could not be looked at: {error}", f"无法检查：{error}")
            found[name] = [row(name, "unknown", said)]

    threads = [
        threading.Thread(target=run, args=item, daemon=True, name=item[0])
        for item in checks.items()
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + limit
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    silent = (f"no answer after {limit:g} s", f"{limit:g} 秒内没有应答")
    known = dict(found)
    return [one for name in checks for one in known.get(name) or [row(name, "unknown", silent)]]


def ask_hub(site: Site, rows: list[Row], names: Sequence[str]) -> list[Row]:
    """These rows and the hub's own; without a hub, why there is none."""
    hub = site.container("hub")
    if hub is None:
        return [*rows, *host_checks.why_no_hub(site)]
    said = json.dumps({"checks": rows, "facts": site.facts()}, ensure_ascii=False)
    command = ["docker", "exec", "--interactive", hub, "labcommons", "doctor", "--json", "--host"]
    command.append("--keep")
    try:
        done = subprocess.run(
            [*command, *names],
            input=said,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=HUB_LIMIT,
            env={**os.environ, **site.env},
            check=False,
        )
        joined: list[Row] = json.loads(done.stdout)["checks"]
    except subprocess.TimeoutExpired:
        why = f"no answer after {HUB_LIMIT:g} s", f"{HUB_LIMIT:g} 秒内没有应答"
    except (OSError, ValueError, KeyError, TypeError):
        last = next(iter(done.stderr.strip().splitlines()[-1:]), "")[:500] or "?"
        why = f"its checks do not run: {last}", f"无法运行检查：{last}"
    else:
        return joined
    return [*rows, row("hub", "unknown", why, host_checks.MAKE_UP), *host_checks.why_no_hub(site)]


def exit_code(rows: Iterable[Row]) -> int:
    """0: all well; 1: a warning, or something unknown; 2: something is broken."""
    states = {one["state"] for one in rows}
    return 2 if "broken" in states else 1 if states & {"warning", "unknown"} else 0


def show(rows: Iterable[Row], environ: Mapping[str, str] = os.environ) -> None:
    """In the terminal's language: a line for each, and one for what to do."""
    locales = (environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    lang = "zh_CN" if next(filter(None, locales), "").startswith("zh") else "en"
    for one in rows:
        about = f" {one['about']}" if one["about"] else ""
        print(f"{one['state']:8} {one['check']}{about}: {_in(one['cause'], lang)}")
        if remedy := _in(one["remedy"], lang):
            print(f"         -> {remedy}")


def _in(words: Mapping[str, Any], lang: str) -> str:
    return str(words.get(lang) or words.get("en") or "")
