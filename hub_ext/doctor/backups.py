"""Whether there are backups, how old the last one is, and whether it can be read back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from commons.i18n import N_
from commons.messages import Text
from commons.units import parse_duration
from hub_ext.backup.making import State as Known
from hub_ext.backup.places import Room
from hub_ext.doctor.registry import Finding, Here, State, check

VERIFIED = 21 * 86400  # seconds: three of the service's own rounds

NONE = Text("health_no_backups", N_("no backups are made"))
SET_TARGET = Text(
    "health_set_target", N_("set backup.target in the site file, then make up (docs/backup.md)")
)
NO_KEY = Text("health_no_recovery_key", N_("there is no recovery key yet, so none is made"))
INIT = Text(
    "health_backup_init", N_("run labcommons backup init, and keep what it prints elsewhere")
)
NEVER = Text("health_never_backed_up", N_("none was made yet"))
CREATE = Text("health_backup_create", N_("run labcommons backup create"))
FAILED = Text("health_backup_failed", N_("the last one failed: {problem}"))
MEND = Text("health_backup_mend", N_("mend that, then run labcommons backup create"))
OLD = Text("health_backup_old", N_("the last one is of {at}"))
SEE_SERVICE = Text(
    "health_see_backup_service",
    N_("see why: docker compose logs backup; labcommons backup schedule"),
)
UNREADABLE = Text("health_backup_unreadable", N_("the last one cannot be read back: {problem}"))
NEW_ONE = Text(
    "health_backup_new_one",
    N_("run labcommons backup create, then verify; if it stays so, point backup.target elsewhere"),
)
UNREAD = Text(
    "health_backup_unread", N_("files that could not be read, and are not in it: {count}")
)
SEE_FILES = Text("health_backup_see_files", N_("labcommons backup create names them"))
FRESH = Text("health_backup_fresh", N_("the last one is of {at}, and took {seconds} s"))
ON_DISK = Text("health_backup_read", N_("it was read back on {day}"))


@check("backups")
def backups(here: Here) -> Iterator[Finding]:
    """By what the service wrote down last."""
    settings = here.site.backup
    if not settings.target:
        yield Finding(State.ADVICE, NONE(), SET_TARGET())
        return
    room = Room(here.data)
    known, now = Known.read(room.state), here.now.timestamp()
    if not known.ready:
        yield Finding(State.BROKEN, NO_KEY(), INIT())
        return
    at = f"{datetime.fromtimestamp(known.moment, UTC):%Y-%m-%d}"
    if known.problem:
        yield Finding(State.BROKEN, FAILED(problem=known.problem[:300]), MEND())
    if not known.made:
        if not known.problem:
            yield Finding(State.WARNING, NEVER(), CREATE())
        return
    if now - known.moment > parse_duration(settings.warn_after):
        yield Finding(State.BROKEN, OLD(at=at), SEE_SERVICE())
    elif not known.problem:
        yield Finding(State.OK, FRESH(at=at, seconds=f"{known.took:.0f}"))
    if known.unread:
        yield Finding(State.ADVICE, UNREAD(count=known.unread), SEE_FILES())
    if known.verify_problem:
        problem = known.verify_problem[:300]
        yield Finding(State.BROKEN, UNREADABLE(problem=problem), NEW_ONE())
    elif known.verified:
        day = f"{datetime.fromtimestamp(known.verified, UTC):%Y-%m-%d}"
        yield Finding(State.OK, ON_DISK(day=day))
