"""Tells the service which kernels were started here: best effort, never in the way.

Used in a user's server by whoever starts kernels; does nothing where the spawner has not set
LABCOMMONS_KERNELS_URL. The report carries the server's own token, so that the hub says whose
it is. Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

# Seconds: what is started within them goes into one report; until a report counts as failed.
GATHER, TIMEOUT = 2.0, 5.0
# Kernels in one report, starts of each, and reports that are tried again.
MAX_ITEMS, MAX_STARTS = 50, 100

_Start = tuple[str, str, str, str]


class Reporter:
    """Gathers starts and sends them from a thread of its own."""

    def __init__(self, url: str, token: str, gather: float | None = None) -> None:
        self._url = url.rstrip("/") + "/api/v1/usage"
        self._token = token
        self._gather = GATHER if gather is None else gather
        self._starts: Counter[_Start] = Counter()
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    def started(self, kernel: str, place: Mapping[str, Any]) -> None:
        """Count one start, and send it soon."""
        self.count(kernel, place)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
                self._thread.start()
        self._some.set()

    def count(self, kernel: str, place: Mapping[str, Any]) -> None:
        """Count one start; ``place`` is ``metadata.labcommons`` of the kernelspec."""
        source, environment, version = (
            str(place.get(name) or "") for name in ("source", "environment", "version")
        )
        start = (kernel, source, environment, version)
        with self._lock:
            # What does not fit is not counted: these are statistics.
            if start in self._starts or len(self._starts) < MAX_ITEMS:
                self._starts[start] = min(MAX_STARTS, self._starts[start] + 1)

    def _run(self) -> None:
        while True:
            self._some.wait()
            time.sleep(self._gather)
            self.send()

    def send(self) -> bool:
        """Send what was gathered; what cannot be sent now is kept for the next time."""
        with self._lock:
            starts, self._starts = self._starts, Counter()
            self._some.clear()
        if not starts:
            return True
        items = [
            {
                "kernel": kernel,
                "source": source,
                "environment": environment,
                "version": version,
                "count": count,
            }
            for (kernel, source, environment, version), count in starts.items()
        ]
        request = urllib.request.Request(  # noqa: S310 - the spawner gives the address
            self._url,
            json.dumps({"starts": items}).encode(),
            {"Authorization": f"token {self._token}", "Content-Type": "application/json"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
                answer.read(1024)
        except (OSError, ValueError):
            with self._lock:
                for start, count in starts.items():
                    if start in self._starts or len(self._starts) < MAX_ITEMS:
                        self._starts[start] = min(MAX_STARTS, self._starts[start] + count)
            return False
        return True


_reporter: Reporter | None = None


def report_apart(kernel: str, place: Mapping[str, Any]) -> None:
    """Report the start of a kernel from a process of its own, for who is about to become it."""
    if place.get("source") in (None, "personal") or _from_environment() is None:
        return
    # By way of a shell that ends at once, so that nobody has to wait for it.
    words = [sys.executable, "-I", __file__, kernel, json.dumps(place)]
    with suppress(OSError):
        subprocess.run(
            ["/bin/sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", *words], check=False
        )


def started(kernel: str, place: Mapping[str, Any] | None) -> None:
    """Report the start of a kernel of an environment. Never raises, never waits.

    ``place`` is ``metadata.labcommons`` of its kernelspec; None, as that of a kernel that is
    no environment's, is not reported, and neither is a personal one.
    """
    global _reporter  # noqa: PLW0603 - one thread and one address for the process
    if not isinstance(place, Mapping) or place.get("source") in (None, "personal"):
        return
    _reporter = _reporter or _from_environment()
    if _reporter is not None:
        _reporter.started(kernel, place)


def _from_environment() -> Reporter | None:
    url, token = (os.environ.get(n) for n in ("LABCOMMONS_KERNELS_URL", "JUPYTERHUB_API_TOKEN"))
    if not url or not token or not url.startswith(("http://", "https://")):
        return None
    return Reporter(url, token)


if __name__ == "__main__":  # from ``report_apart``
    reporter = _from_environment()
    if reporter is not None:
        reporter.count(sys.argv[1], json.loads(sys.argv[2]))
        reporter.send()
