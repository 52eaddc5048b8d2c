"""REST about GPUs: devices, leases, the queue, use, and what holds for whom."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from commons.errors import BadRequest, NotAvailable, WrongValue
from commons.i18n import N_
from commons.leases import LeaseState
from commons.messages import Text
from commons.principal import Principal
from commons.rights import NO_LEASE, Action, Resource, can, check
from commons.scopes import SITE, of_account, own_account
from commons.store.models import Lease
from commons.units import parse_duration
from commons.web.operations import Part, Route, operation
from commons.web.refused import Refused
from hub_ext.console import gpu_schemas as schemas
from hub_ext.console import gpu_views
from hub_ext.console.handlers import Api
from spawner import stops
from spawner.gpu import views
from spawner.gpu.devices import health
from spawner.gpu.ledger import transitions
from spawner.gpu.policy.reasons import duration
from spawner.gpu.watch import monitor

NOT_EXTENDED = Text("not_extended", N_("The end stays as it is. {reasons}"))
EXTENDED_LESS = Text(
    "extended_less",
    N_("Extended by {added}, the most that is allowed now. {reasons}"),
    shown={"added": lambda seconds, locale: duration(seconds, locale.gettext)},
)
DURATION_WRONG = Text("duration_wrong", N_("“by” {reason}"))
LEASE_OVER = Text("lease_over", N_("This lease is over already."))


class GpusApi(Api):
    """``GET api/v1/gpus``."""

    def check_xsrf_cookie(self) -> None:
        """Not needed: every account sees the same counts, so a page that somebody else's
        server shows learns nothing by them. The spawn page, which is the hub's and cannot
        know this service's XSRF token, keeps its counts fresh from here.
        """

    @operation(
        "GPUs: models, how many there are, how many are free, how many people wait", schemas.Gpus
    )
    async def get(self) -> None:
        """Counts of GPUs and of who waits."""
        self.reply(await self.read(gpu_views.gpus))


class DevicesApi(Api):
    """``GET api/v1/gpus/devices``."""

    @operation("Every GPU and its state", schemas.Devices)
    async def get(self) -> None:
        """Every device with its state."""
        viewer = self.viewer
        self.reply(await self.read(lambda session: gpu_views.devices(session, viewer)))


class DrainApi(Api):
    """``POST api/v1/gpus/drain``."""

    @operation(
        "Offer a GPU, or all of a machine, to nobody new",
        schemas.Drained,
        body=schemas.Drain,
        admins=True,
    )
    async def post(self, body: schemas.Drain) -> None:
        """What runs there goes on."""
        by = self.viewer.name
        done = await self.change(lambda s: health.drain(s, body.target, by, body.reason))
        self.answer("drain", done)

    def answer(self, action: str, done: health.Drained) -> None:
        """Write it down, and say what was done."""
        self.record("gpu-drain", done=action, target=done.target)
        self.reply(
            {
                "kind": done.kind,
                "target": done.target,
                "devices": list(done.devices),
                "running": done.running,
                "unkept": list(done.unkept),
            }
        )


class UndrainApi(DrainApi):
    """``POST api/v1/gpus/undrain``."""

    @operation("Offer it again", schemas.Drained, body=schemas.Drain, admins=True)
    async def post(self, body: schemas.Drain) -> None:
        """A device, or all of a machine."""
        self.answer("undrain", await self.change(lambda s: health.undrain(s, body.target)))


class LeasesApi(Api):
    """``GET api/v1/leases``."""

    @operation(
        "Who holds GPUs: oneself, one's team for leads, everybody for administrators",
        schemas.Leases,
    )
    async def get(self) -> None:
        """Leases that the viewer may see."""
        viewer, say = self.viewer, self.say
        self.reply(await self.read(lambda session: gpu_views.leases(session, viewer, say)))


class QueueApi(Api):
    """``GET api/v1/queue``."""

    @operation("Who waits, in order, and why", schemas.Queue)
    async def get(self) -> None:
        """Who waits, where, and why."""
        viewer, say = self.viewer, self.say
        self.reply(await self.read(lambda session: gpu_views.queue(session, viewer, say)))


class PlaceApi(Api):
    """``POST api/v1/queue/ID``."""

    @operation(
        "Move a request in the queue, hold it, or release it, with a reason that its person reads",
        schemas.Lease,
        body=schemas.PlaceWanted,
        admins=True,
        refusals={
            400: "a reason is wanted",
            404: "no such lease",
            409: "it does not wait any more",
        },
    )
    async def post(self, lease: str, body: schemas.PlaceWanted) -> None:
        """The next decision, within seconds, minds it."""
        say, viewer, to = self.say, self.viewer, transitions.Place(body.to)

        def work(session: Session) -> dict[str, Any]:
            _lease(session, viewer, lease, Action.END_LEASE)
            row = transitions.place(session, lease, to, viewer.name, body.reason)
            session.flush()
            return views.lease(row, views.known(session), say)

        found = await self.change(work)
        reason = (found["moved"] or {}).get("reason", "")
        self.record(
            "lease-change", done=f"queue-{to}", lease=lease, holder=found["user"], reason=reason
        )
        self.reply(found)


def _lease(session: Session, viewer: Principal, lease: str, action: Action) -> Lease:
    """The lease. Raises NotAllowed, as if it did not exist, where it is not theirs."""
    row = session.get(Lease, lease)
    if row is None:
        raise NO_LEASE.error()
    check(viewer, action, Resource.charged(row.account, row.username, row.server_name))
    return row


class LeaseApi(Api):
    """``GET api/v1/leases/ID``."""

    @operation("One lease", schemas.Lease)
    async def get(self, lease: str) -> None:
        """404 also for one that is not the viewer's to see."""
        say, viewer = self.say, self.viewer

        def work(session: Session) -> dict[str, Any]:
            row = _lease(session, viewer, lease, Action.SEE_LEASE)
            return views.lease(row, views.known(session), say)

        self.reply(await self.read(work))


class _LeaseAction(Api):
    """What the holder of a lease, the lead or instructor of its account and administrators do."""

    async def act(
        self, lease: str, action: Action, move: Callable[[Session], dict[str, Any] | None]
    ) -> None:
        """Do it; the answer is the lease afterwards, with what ``move`` says of it."""
        say, viewer = self.say, self.viewer

        def work(session: Session) -> dict[str, Any]:
            row = _lease(session, viewer, lease, action)
            if row.state is LeaseState.ENDED:
                raise NotAvailable(LEASE_OVER())
            more = move(session) or {}
            session.flush()
            session.expire(row)
            return views.lease(row, views.known(session), say) | more

        found = await self.change(work)
        done = action.removesuffix("-lease")
        self.record("lease-change", done=done, lease=lease, holder=found["user"])
        self.reply(found)


_BY = "by its holder, by who leads its team or course, or by an administrator"


class CancelLeaseApi(_LeaseAction):
    """``POST api/v1/leases/ID/cancel``."""

    @operation(f"Leave the queue, or stop the server, {_BY}", schemas.Lease, body=schemas.Cancel)
    async def post(self, lease: str, body: schemas.Cancel) -> None:
        """End it; the owner reads who did it, and why."""
        viewer, message = self.viewer, " ".join(body.message.split())

        def cancel(session: Session) -> None:
            row = session.get_one(Lease, lease)
            if row.username != viewer.name and row.state in views.HOLDING:
                stops.announce(session, row.username, row.server_name, viewer.name, message)
            transitions.cancel(session, lease)

        await self.act(lease, Action.END_LEASE, cancel)


class ExtendLeaseApi(_LeaseAction):
    """``POST api/v1/leases/ID/extend``."""

    @operation(
        f"Let it run longer, or by as much of that as is allowed, {_BY}",
        schemas.Extended,
        body=schemas.Extend,
        refusals={409: "it may not run longer at all: the reasons"},
        servers=True,
    )
    async def post(self, lease: str, body: schemas.Extend) -> None:
        """Extend its time limit."""
        try:
            seconds = parse_duration(body.by)
        except WrongValue as error:
            wrong = DURATION_WRONG(reason=error.message)
            raise Refused(BadRequest(wrong), self._) from error

        say, viewer = self.say, self.viewer
        groups = (self.current_user or {}).get("groups") or ()
        holder = None if viewer.admin else Principal.from_groups(viewer.name, False, groups)

        def extend(session: Session) -> dict[str, Any]:
            row = session.get_one(Lease, lease)
            if holder is not None and row.username == holder.name:
                # Who left a team, or a course, goes on no longer than was granted.
                check(holder, Action.CHARGE, of_account(row.account) or SITE)
            added, reasons = transitions.extend(session, lease, seconds)
            if not added:
                error = NotAvailable(NOT_EXTENDED(reasons=reasons), *reasons)
                raise Refused(error, self.reading)
            less = EXTENDED_LESS(added=added, reasons=reasons) if reasons else None
            return {
                "extended_by": added,
                "message": less.in_words(self.reading) if less else "",
                "reasons": views.reasons(reasons, say),
            }

        await self.act(lease, Action.EXTEND_LEASE, extend)


class KeepLeaseApi(_LeaseAction):
    """``POST api/v1/leases/ID/keep``."""

    @operation(f"Do not stop it for idle GPUs, for a while, {_BY}", schemas.Lease, servers=True)
    async def post(self, lease: str) -> None:
        """Keep its server."""
        now = time.time()

        def keep(session: Session) -> None:
            monitor.keep(session, lease, now)

        await self.act(lease, Action.KEEP_LEASE, keep)


class UsageApi(Api):
    """``GET api/v1/usage``."""

    @operation(
        "GPU-hours used (decayed, as fair share counts them) and budgets", schemas.UsageFound
    )
    async def get(self) -> None:
        """GPU-hours used, and budgets, of whom the viewer may see."""
        viewer, now = self.viewer, time.time()
        self.reply(await self.read(lambda session: gpu_views.usage(session, viewer, now)))


class MeApi(Api):
    """``GET api/v1/me``."""

    @operation("What one may use, holds and waits for", schemas.Me)
    async def get(self) -> None:
        """What the viewer may use, holds and waits for."""
        viewer, say, now = self.viewer, self.say, time.time()
        self.reply(await self.read(lambda session: gpu_views.me(session, viewer, say, now)))


class ExplainApi(Api):
    """``GET api/v1/explain/USER?account=SUBJECT``."""

    @operation(
        "Which limits hold for a person, where each stands, and what is used",
        schemas.Explained,
        query=schemas.Charged,
    )
    async def get(self, user: str, query: schemas.Charged) -> None:
        """Of others, for those who look after them."""
        account = query.account or own_account(user)
        viewer, now = self.viewer, time.time()
        scope = of_account(account) or SITE
        if user != viewer.name or not can(viewer, Action.CHARGE, scope):
            self.need(Action.LOOK_AFTER, scope)
        self.reply(await self.read(lambda session: gpu_views.explain(session, user, account, now)))


_LEASE = {"lease": Part("of the lease")}
ROUTES = (
    Route("/api/v1/gpus", GpusApi),
    Route("/api/v1/gpus/devices", DevicesApi),
    Route("/api/v1/gpus/drain", DrainApi),
    Route("/api/v1/gpus/undrain", UndrainApi),
    Route("/api/v1/leases", LeasesApi),
    Route("/api/v1/leases/{lease}", LeaseApi, _LEASE),
    Route("/api/v1/leases/{lease}/cancel", CancelLeaseApi, _LEASE),
    Route("/api/v1/leases/{lease}/extend", ExtendLeaseApi, _LEASE),
    Route("/api/v1/leases/{lease}/keep", KeepLeaseApi, _LEASE),
    Route("/api/v1/queue", QueueApi),
    Route("/api/v1/queue/{lease}", PlaceApi, _LEASE),
    Route("/api/v1/usage", UsageApi),
    Route("/api/v1/me", MeApi),
    Route("/api/v1/explain/{user}", ExplainApi, {"user": Part("a person")}),
)
