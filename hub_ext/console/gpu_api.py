"""REST about GPUs: devices, leases, the queue, use, and what holds for whom."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy.orm import Session

from hub_ext.console import gpu_views
from hub_ext.console.handlers import Api, Refused
from hub_ext.i18n import N_
from hub_ext.store.models import Lease, LeaseState
from spawner.errors import NotAllowed, NotAvailable
from spawner.gpu import board, health, ledger, monitor
from spawner.gpu.durations import parse_duration


class GpusApi(Api):
    """``GET api/v1/gpus``."""

    def check_xsrf_cookie(self) -> None:
        """Not needed: every account sees the same counts, so a page that somebody else's
        server shows learns nothing by them. The spawn page, which is the hub's and cannot
        know this service's XSRF token, keeps its counts fresh from here.
        """

    async def get(self) -> None:
        """Counts of GPUs and of who waits."""
        self.reply(await self.read(gpu_views.gpus))


class DevicesApi(Api):
    """``GET api/v1/gpus/devices``."""

    async def get(self) -> None:
        """Every device with its state."""
        viewer = self.viewer
        self.reply(await self.read(lambda session: gpu_views.devices(session, viewer)))


class DrainApi(Api):
    """``POST api/v1/gpus/drain`` and ``undrain``, for administrators."""

    async def post(self, action: str) -> None:
        """Offer a device or node no longer, or again."""
        self.need_admin()
        body = self.body(target=str, reason=str)
        target, by = body["target"] or "", self.viewer.name

        def work(session: Session) -> health.Drained:
            if action == "undrain":
                return health.undrain(session, target)
            return health.drain(session, target, by, body["reason"] or "")

        done = await self.change(work)
        self.record("gpu-drain", done=action, target=done.target)
        self.reply(
            {
                "kind": done.kind,
                "target": done.target,
                "devices": list(done.devices),
                "running": done.running,
            }
        )


class LeasesApi(Api):
    """``GET api/v1/leases``."""

    async def get(self) -> None:
        """Leases that the viewer may see."""
        viewer, say = self.viewer, self.say
        self.reply(await self.read(lambda session: gpu_views.leases(session, viewer, say)))


class QueueApi(Api):
    """``GET api/v1/queue``."""

    async def get(self) -> None:
        """Who waits, where, and why."""
        viewer, say = self.viewer, self.say
        self.reply(await self.read(lambda session: gpu_views.queue(session, viewer, say)))


class LeaseApi(Api):
    """``GET api/v1/leases/ID``."""

    async def get(self, lease_id: str) -> None:
        """One lease; 404 also for one that is not the viewer's to see."""
        say = self.say

        def work(session: Session) -> dict[str, Any]:
            row = self.lease(session, lease_id)
            return board.lease(row, board.known_devices(session), say)

        self.reply(await self.read(work))

    def lease(self, session: Session, lease_id: str) -> Lease:
        """The lease. Raises NotAllowed, as if it did not exist, where it is not theirs."""
        row = session.get(Lease, lease_id)
        if row is None or not self.viewer.looks_after(row.username, row.account):
            error = NotAllowed("lease_unknown", N_("There is no such lease, or it is over."))
            error.status = 404
            raise error
        return row


class LeaseActionApi(LeaseApi):
    """``POST api/v1/leases/ID/cancel``, ``extend``, ``keep``: by its holder, the lead or
    instructor of its account, and administrators. A server may extend and keep its own lease.
    """

    for_servers = ("POST",)

    async def get(self, lease_id: str, action: str = "") -> None:
        """Nothing to read here."""
        self.send_error(405)

    async def post(self, lease_id: str, action: str) -> None:
        """Do it; the answer is the lease afterwards."""
        server = self.viewer.server
        if server is not None and action == "cancel":
            raise self.person_wanted()
        body = self.body(by=object)
        seconds = self._seconds(body["by"]) if action == "extend" else 0
        say, now = self.say, time.time()

        def work(session: Session) -> dict[str, Any]:
            row = self.lease(session, lease_id)
            if server is not None and row.server_name != server:
                raise self.person_wanted()
            if row.state is LeaseState.ENDED:
                raise NotAvailable("lease_over", N_("This lease is over already."))
            if action == "cancel":
                ledger.cancel(session, lease_id)
            elif action == "extend":
                reasons = ledger.extend(session, lease_id, seconds)
                if reasons:
                    said = board.reasons(reasons, say)
                    sentence = " ".join(one["sentence"] for one in said)
                    raise Refused(409, "not_extended", sentence, reasons=said)
            else:
                monitor.keep(session, lease_id, now)
            session.flush()
            session.expire(row)
            return board.lease(row, board.known_devices(session), say)

        lease = await self.change(work)
        self.record("lease-change", done=action, lease=lease_id, holder=lease["user"])
        self.reply(lease)

    def _seconds(self, value: object) -> int:
        try:
            return parse_duration(value)
        except ValueError as error:
            sentence = f"“by” {self._(str(error))}"
            raise Refused(400, "duration_wrong", sentence) from error


class UsageApi(Api):
    """``GET api/v1/usage``."""

    async def get(self) -> None:
        """GPU-hours used, and budgets, of whom the viewer may see."""
        viewer, now = self.viewer, time.time()
        self.reply(await self.read(lambda session: gpu_views.usage(session, viewer, now)))


class MeApi(Api):
    """``GET api/v1/me``."""

    async def get(self) -> None:
        """What the viewer may use, holds and waits for."""
        viewer, say, now = self.viewer, self.say, time.time()
        self.reply(await self.read(lambda session: gpu_views.me(session, viewer, say, now)))


class ExplainApi(Api):
    """``GET api/v1/explain/USER?account=SUBJECT``."""

    async def get(self, user: str) -> None:
        """Which limits hold and what is used; of others, for those who look after them."""
        account = self.get_query_argument("account", f"user:{user}")
        viewer, now = self.viewer, time.time()
        own = user == viewer.name and account in (f"user:{user}", *viewer.accounts)
        if not own and not viewer.admin and account not in viewer.leads:
            sentence = self._(
                N_("Ask for yourself, or for somebody in a team or course that you look after.")
            )
            raise Refused(403, "not_yours", sentence)
        self.reply(await self.read(lambda session: gpu_views.explain(session, user, account, now)))
