"""Whether the site's mirror runs, is reached, has room, and finds somebody outside."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

from commons.i18n import N_
from commons.messages import Text
from commons.site.mirror import URL
from commons.units import amount
from environments.mirror import counts
from hub_ext.doctor.registry import Finding, Here, State, check

LIMIT = 3.0  # seconds
SILENT_AFTER = 3  # failures of an upstream, one after another
FULL = 0.95  # the share of mirror.size from which it is said

STOPPED = Text("health_mirror_stopped", N_("the mirror does not run"))
SEE_LOGS = Text(
    "health_mirror_logs", N_("see why: “docker compose logs mirror mirror-fetch”; then make up")
)
UNREACHED = Text("health_mirror_unreached", N_("the mirror is not reached: {error}"))
NO_UPSTREAM = Text(
    "health_mirror_no_upstream",
    N_("no upstream of the mirror answers: only what it keeps is given out"),
)
SILENT = Text("health_mirror_upstream", N_("does not answer as it should: {problem}"))
TRY = Text(
    "health_mirror_try",
    N_("labcommons mirror check tries all of them; put one that answers first (docs/mirror.md)"),
)
NARROW = Text(
    "health_mirror_narrow",
    N_("the mirror’s disk has {free} left, and {wanted} should stay free (mirror.free)"),
)
MAKE_ROOM = Text(
    "health_mirror_room", N_("make room on the disk, or set mirror.size lower, then make up")
)
FILLED = Text(
    "health_mirror_filled",
    N_("the mirror keeps {size} of {limit}: what was not asked for longest goes"),
)
WIDEN = Text("health_mirror_widen", N_("set mirror.size higher if there is room"))
WELL = Text(
    "health_mirror_well",
    N_("it keeps {size}; of requests, {rate} were answered from that, which saved {saved}"),
)


@check("mirror")
def mirror(here: Here) -> Iterator[Finding]:
    """By what the fetcher wrote down last, and by asking nginx; nothing for a site without one."""
    settings = here.site.mirror
    if settings is None:
        return
    known = counts.read(here.data / "health")
    if not known.runs(here.now.timestamp()):
        yield Finding(State.BROKEN, STOPPED(), SEE_LOGS())
        return
    error = _unreached()
    if error:
        yield Finding(State.BROKEN, UNREACHED(error=error), SEE_LOGS())
    silent = {
        host: one for host, one in known.places.items() if int(one.get("failed", 0)) >= SILENT_AFTER
    }
    if silent and len(silent) == len(known.places):
        yield Finding(State.WARNING, NO_UPSTREAM(), TRY())
    else:
        for host, one in silent.items():
            problem = str(one.get("problem", ""))[:300]
            yield Finding(State.WARNING, SILENT(problem=problem), TRY(), about=host)
    cache = known.cache
    if cache.free < settings.free_bytes:
        wanted = amount(settings.free_bytes)
        yield Finding(State.WARNING, NARROW(free=amount(cache.free), wanted=wanted), MAKE_ROOM())
    if cache.bytes > FULL * settings.size_bytes:
        said = FILLED(size=amount(cache.bytes), limit=amount(settings.size_bytes))
        yield Finding(State.ADVICE, said, WIDEN())
    if not error:
        rate = f"{known.rate:.0%}"
        said = WELL(size=amount(cache.bytes), rate=rate, saved=amount(known.saved))
        yield Finding(State.OK, said)


def _unreached() -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{URL}/health", timeout=LIMIT):
            return ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return str(reason)[:300] or type(error).__name__
