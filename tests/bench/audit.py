"""The audit trail at 500 events a second, over 100 days' files and 20 outages of its target.

Run by ``make bench``; writes tests/bench/results/audit.md. The days pass quickly; the events, the
files, the conversations and rsyslog are real; Elasticsearch and Splunk are stand-ins by their
documented APIs (tests/rig/siem.py).
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from commons.audit import Chain, chain, make_event, reading
from commons.site import AuditTarget
from hub_ext.audit import shipper as shipping
from hub_ext.audit import targets
from hub_ext.audit.shipper import Shipper
from rig.certificates import Authority
from rig.siem import Rsyslog, Siem, answering

RESULTS = Path(__file__).parent / "results" / "audit.md"
DAYS, EACH, RATE, OUTAGES = 100, 100, 500, 20
EVERY_WAY = ["503", "close", "half", "kept", "429"] * (OUTAGES // 5)


class Clock(datetime):
    """A day for each file."""

    day = 0

    @classmethod
    def now(cls, tz: Any = None) -> Clock:
        return cls(2026, 1 + cls.day // 28, 1 + cls.day % 28, tzinfo=tz)


def write(root: Path) -> float:
    """Write at RATE; the processor seconds that it took."""
    hub, begun = Chain(root / "hub", "hub"), time.monotonic()
    busy = time.thread_time()
    for number in range(DAYS * EACH):
        Clock.day = number // EACH
        hub.append([make_event("login", "success", user=f"p{number}", address="192.0.2.7")])
        time.sleep(max(0.0, begun + (number + 1) / RATE - time.monotonic()))
    return time.thread_time() - busy


def measure(
    root: Path,
    target: targets.Target,
    received: Callable[[], list[int]],
    trouble: Callable[[], None],
) -> tuple[int, int, float, float]:
    """Lost, doubled, seconds until all had arrived after the last was written, CPU of writing."""
    stop, busy = threading.Event(), [0.0]
    shipper = Shipper(root, target, lambda *_: None)
    threads = [
        threading.Thread(target=shipper.run, args=(stop,)),
        threading.Thread(target=lambda: busy.append(write(root))),
        threading.Thread(target=trouble),
    ]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    begun = time.monotonic()
    while shipper.behind() and time.monotonic() - begun < 300:
        time.sleep(0.05)
    took = time.monotonic() - begun
    time.sleep(1.0)
    stop.set()
    threads[0].join()
    counts = Counter(received())
    lost = DAYS * EACH - len(counts)
    return lost, sum(counts.values()) - len(counts), took, busy[-1]


def main() -> None:
    chain.datetime = Clock  # type: ignore[misc]
    shipping.LONGEST = 2.0
    rows = []
    for kind in ("elasticsearch", "splunk", "syslog"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            secrets = folder / "shipping"
            secrets.mkdir()
            (secrets / "siem.token").write_text("t")
            if kind == "syslog":
                authority = Authority(folder)
                server = Rsyslog(
                    folder / "rsyslog", authority.ca_file, *authority.issue("localhost")
                )
                (secrets / "siem.ca.crt").write_bytes(authority.ca_file.read_bytes())
                server.start()

                def restarts(server: Rsyslog = server) -> None:
                    for _ in range(OUTAGES):
                        time.sleep(0.9)
                        server.stop()
                        server.start()

                def seen(server: Rsyslog = server) -> list[int]:
                    time.sleep(2)
                    server.stop()
                    return [event["event"]["sequence"] for event in server.events()]

                url = f"tls://localhost:{server.port}"
                settings = AuditTarget(name="siem", kind="syslog", url=url)
                found = measure(folder / "audit", targets.make(settings, secrets), seen, restarts)
            else:
                with answering(Siem(*EVERY_WAY)) as siem:
                    settings = AuditTarget.model_validate(
                        {"name": "siem", "kind": kind, "url": siem.url}
                    )

                    def had(siem: Siem = siem) -> list[int]:
                        events = [*siem.events.values(), *siem.order]
                        return [event["event"]["sequence"] for event in events]

                    found = measure(
                        folder / "audit", targets.make(settings, secrets), had, lambda: None
                    )
            files = len(chain.files(folder / "audit" / "hub"))
            whole = "yes" if reading.verify(folder / "audit").whole else "NO"
        lost, doubled, took, busy = found
        rows.append(
            f"| {kind} | {files} | {OUTAGES} | {lost} | {doubled} | {took:.1f} "
            f"| {1e6 * busy / (DAYS * EACH):.0f} | {whole} |"
        )
        print(rows[-1], flush=True)
    RESULTS.write_text(
        f"""# The audit trail, sent on

{DAYS * EACH} events at {RATE} a second, one file for each {EACH}, while they are sent; {OUTAGES}
outages each: Elasticsearch and Splunk (with acknowledgement) are stand-ins by their documented
APIs, and answer 503, 429, nothing, half, or have the events and lose the answer; rsyslog is real,
stopped and started. Doubled: what a target has twice. Splunk can't tell what it has already: each
batch whose answer was lost is there again, to be known by writer and event.sequence.

{datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} of other work.
"Had all": seconds after the last event. "Write": microseconds of CPU for one, fdatasync included.

| target | files | outages | lost | doubled | had all | write | chain whole |
|---|---|---|---|---|---|---|---|
"""
        + "\n".join(rows)
        + "\n"
    )


if __name__ == "__main__":
    main()
