"""``/hub/course/NAME``: one link to a course, and ``/hub/course/NAME/PATH`` to a notebook of it.

Whoever has a server of the course is led into it, and to the notebook; whoever has none finds the
spawn page filled in as the course says, and comes there after the start. A path is one of the
course's materials, in the person's own copy, which is brought up to date first. Who has a server
that runs with something else is told what runs and what the course asks for, and chooses.

``/hub/course-roster/NAME``: the roster, for its instructors, here because the hub alone asks the
directory who somebody is. ``/hub/course-join/CODE``: a link with which people put themselves on it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from jupyterhub.handlers.base import BaseHandler
from sqlalchemy.orm import Session
from tornado.web import authenticated

from commons import frozen
from commons.audit import make_event
from commons.errors import BadRequest, LabError, NotAvailable
from commons.messages import Locale
from commons.principal import Principal
from commons.rights import Action, check
from commons.scopes import Scope
from commons.store.models import Course, utcnow
from commons.web.pages import language_of, locale_of
from commons.web.refused import Refused
from courses import people, records, roster_files
from courses.document import check_in_site
from hub_ext import course_roster
from hub_ext.servers import may_have, runs_with
from spawner.gpu.quotas.problems import Problem, ProblemsError
from spawner.spawner import LabSpawner
from spawner.warm import records as warm

LONGEST = 1000  # characters of a path
FILES = "lab/tree"
MATERIALS = "labcommons/course"


class CourseLink(BaseHandler):  # type: ignore[misc]
    """Leads to the server, or to the spawn page."""

    @authenticated
    async def get(self, name: str, path: str | None) -> None:
        """``path`` is below the materials, where the course has some, else below the home."""
        user, shared = self.current_user, LabSpawner.shared
        assert shared is not None
        groups = [group.name for group in user.groups]
        viewer = Principal.from_groups(user.name, bool(user.admin), groups)
        if not viewer.admin and not viewer.position(Scope("course", name)):
            raise self._refused(name)

        def work(session: Session) -> tuple[dict[str, object], str, str, bool] | None:
            row = session.get(Course, name)
            spec = records.spec_of(row) if row else None
            if spec is None:
                return None
            target = _material(name, path) if spec.materials else _file(path)
            shut = frozen.is_frozen(session, name)
            return spec.options, spec.called(language_of(self)), target, shut

        found = await shared.store.read(work)
        if found is None:
            raise self._refused(name)
        options, title, file, shut = found
        active = [one for one in user.spawners.values() if one.active]
        its = [one for one in active if warm.serves(runs_with(one), options)]
        if shut and not its:
            raise Refused(NotAvailable(frozen.FROZEN(course=name)), locale_of(self))
        spawner = next((one for one in its if one.ready), its[0] if its else user.spawners[""])
        target = f"{user.server_url(spawner.name)}{file}"
        if its and spawner.ready:
            self.redirect(target)
        elif its or not spawner.active:
            self.redirect(self._start(spawner.name, {} if spawner.pending else options, target))
        else:
            other = warm.beside(f"course:{name}")
            its_own = self._start(other, options, f"{user.server_url(other)}{file}")
            may = may_have(user, other, self.allow_named_servers, self.named_server_limit_per_user)
            taken = any(one.name == other for one in active)
            page = await self.render_template(
                "course_taken.html",
                title=title,
                wanted=options,
                runs=[(one, runs_with(one)) for one in active],
                beside=its_own if may and not taken else "",
                anyway=target if spawner.ready else "",
            )
            self.finish(page)

    def _start(self, server: str, options: Mapping[str, object], target: str) -> str:
        """The page on which a server starts that leads to what was asked for."""
        user = self.current_user
        on_its_way = server in user.spawners and user.spawners[server].pending
        page = "spawn-pending" if on_its_way else "spawn"
        tail = f"/{server}" if server else ""
        query = urlencode({**{key: str(value) for key, value in options.items()}, "next": target})
        return f"{self.hub.base_url}{page}/{user.escaped_name}{tail}?{query}"

    def _refused(self, name: str) -> Refused:
        """As if it were not there, to who is in none of that name."""
        error = BadRequest(records.COURSE_UNKNOWN(name=name[:80]))
        error.status = 404
        return Refused(error, locale_of(self))


def _file(path: str | None) -> str:
    """The address of a file within the server; of what is no path, none."""
    return f"{FILES}/{quote(path)}" if path and _is_path(path) else ""


def _material(course: str, path: str | None) -> str:
    """The address of a file of the materials; of none, that of their folder."""
    if path is None:
        return ""
    return f"{MATERIALS}/{course}/{quote(path) if _is_path(path) else ''}"


def _is_path(path: str) -> bool:
    return len(path) <= LONGEST and ".." not in path.split("/") and path.isprintable()


class CourseRoster(BaseHandler):  # type: ignore[misc]
    """GET: who is on it. POST: look at a file, put its people on, take somebody off."""

    @authenticated
    async def get(self, name: str) -> None:
        """The list and the form."""
        self._need(name)
        await self._show(name)

    @authenticated
    async def post(self, name: str) -> None:
        """What was seen is what is done: the people that a look has found come back with it."""
        self._need(name)
        done = self.get_body_argument("do", "")
        try:
            if done == "look":
                await self._show(name, **await self._look(name))
                return
            if done == "code":
                await self._make_code(name)
            elif done == "take-back":
                code = self.get_body_argument("code", "")
                await self._change(name, lambda s: people.take_back(s, name, code))
            elif done == "remove":
                login = self.get_body_argument("login", "")
                await self._change(name, lambda s: _removed(s, name, login))
            else:
                wanted = _people(self.get_body_argument("people", ""))
                prune = bool(self.get_body_argument("prune", ""))
                by = self.current_user.name
                said = _number(self.get_body_argument("leaving", "0"))
                try:
                    await self._change(
                        name, lambda s: people.apply(s, name, wanted, by, prune, said)
                    )
                except LabError as error:
                    self.set_status(error.status)
                    seen = await self._change_of(name, wanted, prune)
                    await self._show(name, problems=_problems(error, locale_of(self)), **seen)
                    return
        except LabError as error:
            self.set_status(error.status)
            await self._show(name, problems=_problems(error, locale_of(self)))
            return
        self.redirect(f"{self.hub.base_url}course-roster/{name}")

    def _need(self, name: str) -> None:
        """Raises Refused for all but instructors and administrators."""
        shared, user = LabSpawner.shared, self.current_user
        assert shared is not None
        groups = [group.name for group in user.groups]
        viewer = Principal.from_groups(user.name, bool(user.admin), groups)
        try:
            check(viewer, Action.RUN_COURSE, Scope("course", name))
            check_in_site(Scope("course", name), shared.site)
        except LabError as error:
            raise Refused(error, locale_of(self)) from error

    async def _look(self, name: str) -> dict[str, Any]:
        """What a file would change. Raises RosterFileError, DirectoryUnavailable."""
        [file, *_] = self.request.files.get("file") or [None]
        data = file["body"] if file else self.get_body_argument("lines", "").encode()
        class_ = self.get_body_argument("class", "").strip()[:200]
        filename = str(file["filename"])[:200] if file else ""
        found = await asyncio.to_thread(roster_files.read, data, filename, class_ or name)
        matches = await self.authenticator.find_people(course_roster.asked(found.people))
        known = course_roster.known(found.people, matches, people.WORDS)
        prune = bool(self.get_body_argument("prune", ""))
        left = [(one.line, one.who, one.reason.in_words(locale_of(self))) for one in known.left]
        return {**await self._change_of(name, known.people, prune), "left": left}

    async def _change_of(self, name: str, wanted: Mapping[str, str], prune: bool) -> dict[str, Any]:
        """What a roster would change, for the page."""
        shared = LabSpawner.shared
        assert shared is not None
        changes = await shared.store.read(lambda s: people.diff(s, name, wanted, prune))
        gone = len(people.leaving(changes))
        return {"changes": changes, "found": json.dumps(wanted), "prune": prune, "gone": gone}

    async def _make_code(self, name: str) -> None:
        by = self.current_user.name
        days, uses = (_number(self.get_body_argument(key, "")) for key in ("days", "uses"))
        await self._change(
            name, lambda s: [str(people.make_code(s, name, by, days, uses, utcnow()).uses_left)]
        )

    async def _change(self, name: str, work: Callable[[Session], Sequence[object] | None]) -> None:
        shared = LabSpawner.shared
        assert shared is not None
        lines = [str(change) for change in await shared.store.run(work) or ()]
        done = self.get_body_argument("do", "")[:20]
        _record(self, done, name, changes=lines[:500])

    async def _show(self, name: str, **more: Any) -> None:
        shared = LabSpawner.shared
        assert shared is not None

        def work(session: Session) -> dict[str, Any]:
            return {
                "title": _title(session, name, language_of(self)),
                "roster": people.roster(session, name),
                "codes": [
                    (one.code, one.expires_at, one.uses_left)
                    for one in people.codes(session, name, utcnow())
                ],
            }

        found = await shared.store.read(work)
        link = f"{shared.site.site.public_url}{self.hub.base_url}course-join/"
        page = await self.render_template(
            "course_roster.html", course=name, link=link, **found, **more
        )
        self.finish(page)


class CourseJoin(BaseHandler):  # type: ignore[misc]
    """``/hub/course-join/CODE``: GET asks, POST joins; in effect at once."""

    @authenticated
    async def get(self, code: str) -> None:
        """Which course it is."""
        lang = language_of(self)

        def work(session: Session) -> str:
            return _title(session, people.course_of(session, code, utcnow()).course, lang)

        self.finish(await self.render_template("course_join.html", title=await self._do(work)))

    @authenticated
    async def post(self, code: str) -> None:
        """Put who asks on the roster, and lead them to the course."""
        user = self.current_user
        course = await self._do(lambda s: people.join(s, code, user.name, utcnow()), change=True)
        _record(self, "join", course)
        await self.refresh_auth(user, force=True)
        self.redirect(f"{self.settings['base_url']}services/labcommons/courses/{course}")

    async def _do(self, work: Callable[[Session], str], change: bool = False) -> str:
        shared = LabSpawner.shared
        assert shared is not None
        try:
            return await (shared.store.run if change else shared.store.read)(work)
        except LabError as error:
            raise Refused(error, locale_of(self)) from error


def _title(session: Session, name: str, lang: str) -> str:
    row = session.get(Course, name)
    return records.spec_of(row).called(lang) if row else name


def _record(handler: BaseHandler, done: str, course: str, **details: Any) -> None:
    """Leave a line in the audit trail."""
    shared = LabSpawner.shared
    assert shared is not None
    shared.audit.record(
        make_event(
            "course-change",
            "success",
            user=handler.current_user.name,
            address=handler.request.remote_ip,
            details={"done": done, "course": course, **details},
        )
    )


def _number(text: str) -> int:
    """A whole number; 0 for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else 0


def _removed(session: Session, name: str, login: str) -> list[people.Change]:
    before = people.roster(session, name).get(login, "")
    people.remove(session, name, login)
    return [people.Change(login, before, "")]


def _people(text: str) -> dict[str, str]:
    """What a look has found, as the browser sends it back. Raises RosterFileError."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise roster_files.RosterFileError([Problem("", roster_files.NOT_A_ROSTER())])
    return {str(name)[:255]: position for name, position in found.items()}


def _problems(error: LabError, locale: Locale) -> list[tuple[int | None, str]]:
    """Each with its line, where it has one."""
    if isinstance(error, ProblemsError):
        return [(one.line, one.sentence(locale)) for one in error.problems]
    return [(None, error.sentence(locale))]


_NAME = "([a-z0-9._-]{1,64})"
HANDLERS = [
    (rf"/course/{_NAME}(?:/(.*))?", CourseLink),
    (rf"/course-roster/{_NAME}", CourseRoster),
    (r"/course-join/([A-Za-z0-9_-]{1,32})", CourseJoin),
]
