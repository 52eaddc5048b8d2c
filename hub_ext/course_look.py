"""Looking at a student's notebook, with their consent.

``/hub/course-looks`` is the student's page: who asks, which notebook they may see, what goes on.
Consent is given there by who is logged in, and not by what runs in a server.
``/hub/course-look/ID`` is the page of who has asked: the notebook as it is saved, to be read.

The notebook is read by the student's own server, as the student, with that server's own token.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import quote

from jupyterhub.handlers.base import BaseHandler
from sqlalchemy.orm import Session
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.simple_httpclient import HTTPStreamClosedError
from tornado.web import authenticated

from commons.audit import make_event
from commons.errors import LabError, NotAvailable
from commons.i18n import N_
from commons.messages import Text
from commons.principal import Principal
from commons.rights import Action, check
from commons.scopes import Scope
from commons.store.models import CourseLook, utcnow
from commons.web.pages import locale_of
from commons.web.refused import Refused
from courses import looks
from hub_ext.notebook_view import rendered
from kernels.hostile import parse_json
from spawner.spawner import LabSpawner

MOST = 8 * 2**20  # bytes of a notebook
TIMEOUT = 10  # seconds
DEPTH, VALUES = 48, 500_000

NOT_READ = Text(
    "look_not_read",
    N_("The notebook cannot be read now: the server does not run, or it is too large or gone."),
)


async def get_json(spawner: Any, path: str) -> Any:
    """What a server answers, asked with its own token. Raises NotAvailable."""
    there = await spawner.whereabouts() if spawner is not None and spawner.ready else None
    if there is None:
        raise NotAvailable(NOT_READ())
    url, token = there
    client = AsyncHTTPClient(force_instance=True, max_body_size=MOST)
    try:
        answer = await client.fetch(
            f"{url}api/{path}",
            headers={"Authorization": f"token {token}"},
            connect_timeout=TIMEOUT,
            request_timeout=TIMEOUT,
            follow_redirects=False,
        )
        return parse_json(answer.body, MOST, DEPTH, VALUES)
    except (OSError, ValueError, RecursionError, HTTPClientError, HTTPStreamClosedError) as error:
        raise NotAvailable(NOT_READ()) from error
    finally:
        client.close()


async def open_notebooks(spawner: Any) -> list[str]:
    """The notebooks that a student has open, of a server that says so."""
    try:
        found = await get_json(spawner, "sessions?no_track_activity=1")
    except NotAvailable:
        return []
    fine = set()
    for one in found[:50] if isinstance(found, list) else []:
        path = one.get("path") if isinstance(one, dict) else None
        with suppress(LabError):
            looks.check_path(path if isinstance(path, str) else "")
            fine.add(str(path))
    return sorted(fine)


class _Looks(BaseHandler):  # type: ignore[misc]
    def shared(self) -> Any:
        """What all servers have in common."""
        shared = LabSpawner.shared
        assert shared is not None
        return shared

    def record(self, done: str, row: CourseLook) -> None:
        """Leave a line in the audit trail."""
        details = {"done": done, "course": row.course, "who": [row.username], "by": row.asked_by}
        self.shared().audit.record(
            make_event(
                "course-room",
                "success",
                user=self.current_user.name,
                address=self.request.remote_ip,
                details=details | ({"path": row.path} if row.path else {}),
            )
        )


class Mine(_Looks):
    """``/hub/course-looks``: GET shows, POST allows, refuses or ends."""

    @authenticated
    async def get(self) -> None:
        """Questions that wait, and looks that go on."""
        await self._show()

    @authenticated
    async def post(self) -> None:
        """One answer."""
        do, look = self.get_body_argument("do", ""), self.get_body_argument("look", "")
        name, now = self.current_user.name, utcnow()
        path = self.get_body_argument("other", "").strip() or self.get_body_argument("path", "")

        def work(session: Session) -> CourseLook:
            if do == "end":
                row = looks.end(session, look, name, now)
            else:
                if do == "allow":
                    looks.check_path(path)
                row = looks.answer(session, look, name, path if do == "allow" else "", now)
            session.flush()
            session.expunge(row)
            return row

        try:
            row = await self.shared().store.run(work)
        except LabError as error:
            self.set_status(error.status)
            await self._show(problem=error.sentence(locale_of(self)))
            return
        self.record({"end": "look-ended", "allow": "look-allowed"}.get(do, "look-refused"), row)
        self.redirect(f"{self.hub.base_url}course-looks")

    async def _show(self, problem: str = "") -> None:
        user, name = self.current_user, self.current_user.name

        def work(session: Session) -> list[CourseLook]:
            found = looks.of_person(session, name, utcnow())
            for row in found:
                session.expunge(row)
            return found

        rows = await self.shared().store.read(work)
        asked = [
            (row, await open_notebooks(user.spawners.get(row.server_name)))
            for row in rows
            if row.state == looks.State.ASKED
        ]
        on = [row for row in rows if row.state == looks.State.ALLOWED]
        page = await self.render_template("course_looks.html", asked=asked, on=on, problem=problem)
        self.finish(page)


class Look(_Looks):
    """``/hub/course-look/ID``: the notebook, for who has asked."""

    @authenticated
    async def get(self, look: str) -> None:
        """What became of the question; when it is allowed, the notebook as it is saved."""
        user, now, locale = self.current_user, utcnow(), locale_of(self)

        name = user.name  # read here: the hub's own objects are no other thread's

        def work(session: Session) -> CourseLook:
            row = looks.seen_by(session, look, name)
            session.expunge(row)
            return row

        try:
            row = await self.shared().store.read(work)
            groups = [group.name for group in user.groups]
            viewer = Principal.from_groups(user.name, bool(user.admin), groups)
            check(viewer, Action.ATTEND, Scope("course", row.course))
        except LabError as error:
            raise Refused(error, locale) from error
        state, view, problem = looks.state_of(row, now), "", ""
        if state is looks.State.ALLOWED:
            try:
                view = await self._read(row)
                self.record("look", row)
            except LabError as error:
                problem = error.sentence(locale)
        self.set_header("Cache-Control", "no-store")
        page = await self.render_template(
            "course_look.html", look=row, state=str(state), view=view, problem=problem
        )
        self.finish(page)

    async def _read(self, row: CourseLook) -> str:
        owner = self.find_user(row.username)
        spawner = owner.spawners.get(row.server_name) if owner is not None else None
        address = f"contents/{quote(row.path)}?type=notebook&content=1"
        found = await get_json(spawner, address)
        return rendered(found.get("content") if isinstance(found, dict) else None)


async def ask(course: str, by: str, username: str, server: str) -> str:
    """Ask a student; the id of the question."""
    shared = LabSpawner.shared
    assert shared is not None
    work = partial(looks.ask, course=course, username=username, server=server, by=by, now=utcnow())
    return await shared.store.run(lambda session: work(session).id)


HANDLERS = ((r"/course-looks", Mine), (r"/course-look/([0-9a-f]{1,32})", Look))
