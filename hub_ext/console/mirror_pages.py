"""The page Mirror, for administrators: what the cache of packages keeps and saved; the numbers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from commons.rights import Action
from commons.units import amount
from environments.mirror import counts
from hub_ext.console.handlers import Page


class MirrorPage(Page):
    """``GET mirror``."""

    def initialize(self, data: Path, **shared: Any) -> None:  # type: ignore[override]
        """Called by tornado with what ``make_app`` gives."""
        super().initialize(**shared)
        self.health = data / "health"

    async def prepare(self) -> None:
        """Nobody else has anything to see here."""
        await super().prepare()
        self.need(Action.ADMINISTER)

    async def get(self) -> None:
        """What was written down last."""
        known, settings = await asyncio.to_thread(counts.read, self.health), self.site.mirror
        upstreams = [
            {
                "host": host,
                "problem": str(one.get("problem", "")) if one.get("failed") else "",
                "at": _moment(max(float(one.get(at, 0)) for at in ("failed_at", "answered_at"))),
                "milliseconds": round(float(one.get("took", 0)) * 1000),
                "bytes": int(one.get("bytes", 0)),
            }
            for host, one in sorted(known.places.items())
        ]
        self.render_page(
            "mirror.html",
            wanted=settings is not None,
            images=bool(settings and settings.images),
            known=known,
            runs=known.runs(time.time()),
            at=_moment(known.at),
            since=_moment(known.since),
            upstreams=upstreams,
            bytes_words=amount,
        )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else ""


def metrics(health: Path) -> Iterator[Metric]:
    """For Prometheus; nothing where the mirror has never run. Reads one small file."""
    known = counts.read(health)
    if not known.at:
        return
    up = GaugeMetricFamily("labcommons_mirror_up", "Whether the site's mirror runs: 0 or 1.")
    up.add_metric([], float(known.runs(time.time())))
    yield up
    asked = CounterMetricFamily(
        "labcommons_mirror_requests", "Requests to the mirror.", labels=["packages", "answer"]
    )
    size = CounterMetricFamily(
        "labcommons_mirror_bytes", "Bytes given out.", labels=["packages", "source"]
    )
    for kind, count in known.kinds.items():
        for name in ("hits", "stale", "misses", "failed"):
            asked.add_metric([kind, name], getattr(count, name))
        size.add_metric([kind, "cache"], count.from_cache)
        size.add_metric([kind, "outside"], count.from_outside)
    yield asked
    yield size
    for name, words, value in (
        ("cache", "Bytes of packages that are kept.", known.cache.bytes),
        ("cache_limit", "Bytes of packages that may be kept.", known.cache.limit),
        ("images", "Bytes of images that are kept.", known.images),
        ("free", "Bytes that are free on the mirror's disk.", known.cache.free),
    ):
        gauge = GaugeMetricFamily(f"labcommons_mirror_{name}_bytes", words)
        gauge.add_metric([], value)
        yield gauge
    failing = GaugeMetricFamily(
        "labcommons_mirror_upstream_failures",
        "How often an upstream has failed, one time after another.",
        labels=["upstream"],
    )
    for host, one in sorted(known.places.items()):
        failing.add_metric([host], float(one.get("failed", 0)))
    yield failing
