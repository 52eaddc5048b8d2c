"""What “My servers” and a server's page tell of it: why it ended, news, and what it uses now."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Context
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.scopes import needs_scope
from sqlalchemy import select
from sqlalchemy.orm import Session
from tornado.web import HTTPError

from commons import notices
from commons.broadcasts import Board, told
from commons.errors import BadRequest, LabError
from commons.i18n import LANGUAGES, Gettext, gettext_for
from commons.leases import LeaseState, ServerKey
from commons.messages import Locale, listed
from commons.notice_kinds import KINDS, Level
from commons.site import Size, words_in
from commons.store import StoreError, ends
from commons.store.models import GpuNotice, GpuWatch, Lease, utcnow
from commons.web.operations import PARAMETER_WRONG
from commons.web.pages import handler_of, language_of, locale_of, timezone_of
from commons.web.refused import Refused
from hub_ext.doctor import kept
from spawner import endings
from spawner.culling import culler
from spawner.gpu.ledger import transitions
from spawner.spawner import LabSpawner
from spawner.starts.told import place_json
from spawner.warm import keeper

PATIENCE = 5.0  # seconds for the agent's answer
NEWS = 5  # notices on “My servers”
MEMORY = ("kernel_out_of_memory", "process_out_of_memory", "memory_high")
HIGH = 0.85  # share from which on a page warns


@dataclass(frozen=True)
class End:
    """Why a server ended, for its page; ``log`` is the end of its own, for its owner alone."""

    at: datetime
    level: Level
    sentence: str
    more: str
    cause: str = ""
    log: str = ""


def last_end(
    session: Session,
    username: str,
    server: str,
    sizes: Mapping[str, Size],
    _: Gettext,
    timezone: tzinfo | None = None,
) -> End | None:
    """How a person's server last ended; None where that was long ago, or never."""
    row = ends.last(session, username, server)
    if row is None or row.cause not in KINDS or row.at < utcnow() - notices.SHOWN_FOR:
        return None
    if row.cause == "out_of_memory":
        more = _about_memory(session, row, sizes, _, timezone)
    else:
        more = notices.more(row.cause, row.data, _, timezone)
    sentence = notices.sentence(row.cause, endings.said(row), _, timezone)
    log = str(row.data.get("log") or "")
    return End(row.at, KINDS[row.cause].level, sentence, more, row.cause, log)


def _about_memory(
    session: Session,
    row: Any,
    sizes: Mapping[str, Size],
    _: Gettext,
    timezone: tzinfo | None,
) -> str:
    """What the server itself said last when memory was short, else what to do."""
    said = session.scalars(
        select(GpuNotice)
        .where(
            GpuNotice.username == row.username,
            GpuNotice.server_name == row.server_name,
            GpuNotice.code.in_(MEMORY),
            GpuNotice.at <= row.at,
        )
        .order_by(GpuNotice.id.desc())
        .limit(1)
    ).first()
    if said is not None and (row.at - said.at).total_seconds() < 600:
        return notices.more(said.code, said.data, _, timezone)
    known = [(size.title or name, size.memory_bytes) for name, size in sizes.items()]
    found = notices.about_memory(row.data.get("limit_bytes"), known)
    return listed(found, Locale(_, timezone))


def note_lost(session: Session, lost: Iterable[tuple[ServerKey, datetime]]) -> None:
    """Write down, and tell, starts that a restart of the hub has cost; but of those with a lease,
    which are begun again.
    """
    for (user, server), began in lost:
        before = ends.last(session, user, server)
        if transitions.of_server(session, user, server) or (before and before.at >= began):
            continue
        if keeper.expected(session, user, server):  # nobody asked for it but us
            continue
        key = f"start:{sha256(f'{user}/{server}'.encode()).hexdigest()[:32]}:{began.isoformat()}"
        ends.record(session, key, user, server, ends.Ending("lost_in_restart"))
        endings.tell(session, key)


# -- for templates ---------------------------------------------------------------------------------


@pass_context
async def server_end(context: Context, username: str, server: str) -> End | None:
    """Why a server ended, in the reader's language; None where the reader is another, or it is not
    known.
    """
    handler, shared = handler_of(context), LabSpawner.shared
    reader = getattr(handler, "current_user", None)
    if handler is None or shared is None or reader is None:
        return None
    if reader.name != username and not getattr(reader, "admin", False):
        return None
    _, timezone = gettext_for(language_of(handler)), timezone_of(handler)
    sizes = shared.site.sizes
    try:
        end = await shared.store.read(
            lambda session: last_end(session, username, server, sizes, _, timezone)
        )
    except StoreError:
        return None
    return replace(end, log="") if end and reader.name != username else end


@pass_context
async def news(context: Context, username: str) -> list[notices.Notice]:
    """What a person has not seen yet, and is no end of a server, newest first."""
    handler, shared = handler_of(context), LabSpawner.shared
    if handler is None or shared is None:
        return []
    _, timezone = gettext_for(language_of(handler)), timezone_of(handler)
    try:
        found = await shared.store.read(lambda s: notices.show(s, username, _, timezone))
    except StoreError:
        return []
    return [one for one in found if not one.seen and not one.ended][:NEWS]


@pass_context
def urgent(context: Context) -> Awaitable[list[dict[str, str]]] | list[dict[str, str]]:
    """What an administrator has to know at once of the site, in their language.

    Nothing on the page of an error, which is written without waiting for anything.
    """
    return _urgent(context) if context.environment.is_async else []


async def _urgent(context: Context) -> list[dict[str, str]]:
    handler, shared = handler_of(context), LabSpawner.shared
    if handler is None or shared is None:
        return []
    lang = language_of(handler)
    try:
        found = await shared.store.read(kept.urgent)
    except StoreError:
        return []
    return [
        {
            "check": one["check"],
            "about": one["about"],
            **{key: words_in(one[key], lang) for key in ("cause", "remedy")},
        }
        for one in found
    ]


# -- what is used now ------------------------------------------------------------------------------


class Usage(APIHandler):  # type: ignore[misc]
    """``GET /hub/api/users/NAME/usage``: what a person's running servers use, by their names.

    Memory in bytes, CPU in cores; null where it is not known.
    """

    @needs_scope("read:servers")  # type: ignore[untyped-decorator]
    async def get(self, user_name: str) -> None:
        """By the Engine's counters, the disk's and the GPU monitor's."""
        user, shared = self.find_user(user_name), LabSpawner.shared
        if user is None or shared is None:
            raise HTTPError(404)
        running = {
            name: spawner
            for name, spawner in user.spawners.items()
            if isinstance(spawner, LabSpawner) and spawner.ready and spawner.container_ref
        }
        handles = [spawner.container_ref for spawner in running.values()]
        try:
            async with asyncio.timeout(PATIENCE):
                used = await shared.runtime.usage(handles) if handles else {}
        except (LabError, TimeoutError):
            used = {}
        try:
            leases = await shared.store.read(lambda session: _leases(session, user_name))
        except StoreError:
            leases = {}
        # The hub's container has no homes; they are on the data folder's disk.
        home = await asyncio.to_thread(_disk, shared.data)
        found = {}
        for name, spawner in running.items():
            size = shared.site.sizes.get(str(spawner.user_options.get("size")))
            now = used.get(spawner.container_ref)
            found[name] = {
                "memory": now and {"used": now.memory, "limit": size and size.memory_bytes},
                "cpu": now and {"used": round(now.cpu, 2), "limit": size and size.cpu},
                "disk": home,
                **leases.get(name, {"gpu_percent": None, "ends_at": None}),
            }
        self.write(json.dumps({"servers": found, "high": HIGH}))


class Starts(APIHandler):  # type: ignore[misc]
    """``GET /hub/api/users/NAME/starts``: where a person's starting servers stand in line, by their
    names; null for those that have their turn, or wait for GPUs.
    """

    @needs_scope("read:servers")  # type: ignore[untyped-decorator]
    async def get(self, user_name: str) -> None:
        """Position (1: next), when it may be expected to start, and why where nobody knows."""
        user, shared = self.find_user(user_name), LabSpawner.shared
        if user is None or shared is None:
            raise HTTPError(404)
        found = {}
        for name, spawner in user.spawners.items():
            if spawner.pending == "spawn":
                place = shared.turns.place((user_name, name))
                found[name] = place and place_json(place, locale_of(self))
        self.write(json.dumps({"starts": found}))


def _leases(session: Session, username: str) -> dict[str, dict[str, Any]]:
    query = (
        select(Lease, GpuWatch.gpu_percent)
        .outerjoin(GpuWatch, GpuWatch.lease_id == Lease.id)
        .where(Lease.username == username, Lease.state == LeaseState.ACTIVE)
    )
    return {
        lease.server_name: {
            "gpu_percent": percent,
            "ends_at": lease.ends_at and lease.ends_at.isoformat(timespec="seconds") + "Z",
        }
        for lease, percent in session.execute(query)
    }


def _disk(place: Path) -> dict[str, int] | None:
    try:
        found = os.statvfs(place)
    except OSError:
        return None
    blocks = found.f_blocks - found.f_bfree + found.f_bavail
    return {
        "used": (blocks - found.f_bavail) * found.f_frsize,
        "limit": blocks * found.f_frsize,
    }


class NoticesSeen(APIHandler):  # type: ignore[misc]
    """``POST /hub/api/users/NAME/notices/seen`` with ``{"ids": [1, 2]}``, for “My servers”."""

    @needs_scope("delete:servers")  # type: ignore[untyped-decorator]
    async def post(self, user_name: str) -> None:
        """The person has seen these of their own notices."""
        shared, body = LabSpawner.shared, self.get_json_body()
        if shared is None or self.current_user.name != user_name:
            raise HTTPError(403)
        ids = body.get("ids") if isinstance(body, dict) else None
        if not isinstance(ids, list) or not all(type(one) is int and one > 0 for one in ids):
            raise Refused(BadRequest(PARAMETER_WRONG(name="ids")), locale_of(self))
        done = await shared.store.run(lambda s: notices.mark_seen(s, user_name, ids))
        self.write(json.dumps({"changed": done}))


class ServerKept(APIHandler):  # type: ignore[misc]
    """``POST /hub/api/users/NAME/servers-kept`` with ``{"server": ""}``, for “My servers”."""

    @needs_scope("delete:servers")  # type: ignore[untyped-decorator]
    async def post(self, user_name: str) -> None:
        """The person keeps one of their own that nobody uses (``servers.culling``)."""
        shared, body = LabSpawner.shared, self.get_json_body()
        if shared is None or self.current_user.name != user_name:
            raise HTTPError(403)
        server = body.get("server") if isinstance(body, dict) else None
        if not isinstance(server, str):
            raise Refused(BadRequest(PARAMETER_WRONG(name="server")), locale_of(self))
        try:
            until = await shared.store.run(lambda s: culler.keep(s, user_name, server, time.time()))
        except LabError as error:
            raise Refused(error, locale_of(self)) from error
        self.write(json.dumps({"keep_until": until}))


class Broadcasts(APIHandler):  # type: ignore[misc]
    """``GET /hub/api/broadcasts``: messages to everybody, for every page, whoever looks at it."""

    _xsrf_safe_methods = frozenset({"GET", "HEAD", "OPTIONS"})  # everybody may read them

    async def get(self) -> None:
        """In the language of the page (``lang``) and the time zone of the browser."""
        board: Board | None = self.settings.get("board")
        lang = self.get_query_argument("lang", "").replace("-", "_")
        _ = gettext_for(lang if lang in LANGUAGES else language_of(self))
        found = await board.fresh() if board else []
        self.write({"broadcasts": [told(one, _, timezone_of(self)) for one in found]})


HANDLERS = (
    (r"/api/broadcasts", Broadcasts),
    (r"/api/users/([^/]+)/servers-kept", ServerKept),
    (r"/api/users/([^/]+)/usage", Usage),
    (r"/api/users/([^/]+)/starts", Starts),
    (r"/api/users/([^/]+)/notices/seen", NoticesSeen),
)
