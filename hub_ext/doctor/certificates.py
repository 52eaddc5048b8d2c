"""When certificates end, and why one is not renewed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from commons.i18n import N_
from commons.messages import Text, verbatim
from hub_ext import tls
from hub_ext.doctor.registry import Finding, Here, State, check
from hub_ext.tls_served import STATE

SOON = timedelta(days=30)  # people are told
LATE = timedelta(days=29)  # what renews itself should have been renewed
LONG_AGO = timedelta(hours=3)  # of the keeper's last look
MAX_STATE = 100_000  # bytes

VALID = Text("health_valid", N_("valid until {day}"))
ENDS = Text("health_cert_ends", N_("ends on {day}, in {days} days"))
ENDED = Text("health_cert_ended", N_("ended on {day}: browsers and programs refuse it"))
SEE_KEEPER = Text(
    "health_see_keeper",
    N_("see what keeps it from being renewed (docker compose logs certificates), then make up"),
)
GET_ANOTHER = Text(
    "health_get_another",
    N_(
        "it is the site’s own: get a new one and put it, with its key, into data/tls/server.crt "
        "and server.key; it is taken up within a minute"
    ),
)
NEW_CA = Text("health_new_ca", N_("NEW_CA=yes make up makes a new one; everyone has to import it"))
NO_KEEPER = Text("health_no_keeper", N_("nobody has looked at the certificates since {at}"))
NO_STATE = Text("health_no_cert_state", N_("nobody has looked at the certificates yet"))
START_KEEPER = Text("health_start_keeper", N_("run docker compose up --detach certificates"))


@check("certificates")
def certificates(here: Here) -> Iterator[Finding]:
    """What the proxy serves, the CA, and those towards the agent."""
    yield from _kept(here)
    folder = Path(here.environ.get("LABCOMMONS_AGENT_TLS", "/run/labcommons/agent"))
    for name in ("ca.crt", "client.crt"):
        if (folder / name).exists():
            end = tls.read_certificate(folder / name).not_valid_after_utc
            yield _of(f"agent {name}", end, here.now, SEE_KEEPER)


def _kept(here: Here) -> Iterator[Finding]:
    """What the service that renews has written down."""
    place = here.data / "health" / STATE
    if not place.exists():
        yield Finding(State.WARNING, NO_STATE(), START_KEEPER(), "keeper")
        return
    said: dict[str, Any] = json.loads(place.read_bytes()[:MAX_STATE])
    looked = datetime.fromisoformat(said["at"])
    if here.now - looked > LONG_AGO:
        at = f"{looked:%Y-%m-%d}"
        yield Finding(State.WARNING, NO_KEEPER(at=at), START_KEEPER(), "keeper")
    if said["problem"]:
        yield Finding(State.WARNING, verbatim(str(said["problem"])), SEE_KEEPER(), "keeper")
    for one in said["certificates"]:
        remedy = GET_ANOTHER if one["own"] else NEW_CA if one["name"] == "ca.crt" else SEE_KEEPER
        end = datetime.fromisoformat(one["not_after"])
        # What lives for days only is renewed when a third of them is left.
        soon = SOON if one["own"] else min(LATE, timedelta(days=one.get("days", 365)) / 4)
        yield _of(one["name"], end, here.now, remedy, soon)


def _of(name: str, end: datetime, now: datetime, remedy: Text, soon: timedelta = SOON) -> Finding:
    day = f"{end:%Y-%m-%d}"
    if end <= now:
        return Finding(State.BROKEN, ENDED(day=day), remedy(), name)
    if end <= now + soon:
        return Finding(State.WARNING, ENDS(day=day, days=(end - now).days), remedy(), name)
    return Finding(State.OK, VALID(day=day), about=name)
