"""``/hub/course-files/COURSE``: the files of one's home, to choose from what is handed in.

Each folder is a page of links, and a choice leads back to the console's page of the hand-in, with
the path filled in; nothing is handed in here. The folder is read by a task of the runtime, as the
person: also of who has no server.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from jupyterhub.handlers.base import BaseHandler
from tornado.web import authenticated

from commons.errors import BadRequest, LabError, NotAvailable
from commons.principal import Principal
from commons.scopes import Scope
from commons.units import amount
from commons.web.pages import language_of, locale_of
from commons.web.refused import Refused
from courses import handins, records
from courses.handin_keeper import REASONS
from spawner.runtime.spec import Account, ListFiles, MakeHome
from spawner.spawner import LabSpawner


class CourseFiles(BaseHandler):  # type: ignore[misc]
    """One folder."""

    @authenticated
    async def get(self, course: str) -> None:
        """``for``: the hand-in; ``path``: the folder; ``feedback``: of which feedback is given."""
        user, shared = self.current_user, LabSpawner.shared
        assert shared is not None
        name = self.get_argument("for", "")[:64]
        path = self.get_argument("path", "")[:1000].strip("/")
        back = bool(self.get_argument("feedback", ""))
        groups = [group.name for group in user.groups]
        viewer = Principal.from_groups(user.name, bool(user.admin), groups)
        if not viewer.position(Scope("course", course)):
            error = BadRequest(records.COURSE_UNKNOWN(name=course[:80]))
            error.status = 404
            raise Refused(error, locale_of(self))
        language = language_of(self)

        def work(session: Any) -> tuple[str, str]:
            spec = records.spec_of(records.get(session, course))
            return spec.called(language), handins.find(spec, name).called(language)

        try:
            title, handin = await shared.store.read(work)
            path = handins.checked_path(path) if path else ""
            found = await self._list(path)
        except LabError as error:
            raise Refused(error, locale_of(self)) from error
        parts = path.split("/") if path else []
        above = [("/".join(parts[: n + 1]), part) for n, part in enumerate(parts)]
        page = await self.render_template(
            "course_files.html",
            course=course,
            title=title,
            handin=handin,
            path=path,
            above=above,
            feedback=back,
            found=[(one.name, f"{path}/{one.name}".lstrip("/"), one.bytes) for one in found.files],
            left_out=found.left_out,
            amount=amount,
            takes=lambda name: not back or name.lower().endswith(".zip"),
            folder_link=lambda to: self._folder(course, name, to, back),
            choose_link=lambda to: self._choose(course, name, to, back),
        )
        self.finish(page)

    async def _list(self, path: str) -> Any:
        """As the person, by what the directory says. Raises LabError."""
        user, shared = self.current_user, LabSpawner.shared
        assert shared is not None
        state = await user.get_auth_state() or {}
        person = Principal.from_auth_state(user.name, bool(user.admin), state)
        uid, gid, gids = person.numbers()
        await shared.runtime.run_task(MakeHome(user=user.name, uid=uid, gid=gid))
        account = Account(uid=uid, gid=gid, gids=tuple(gids))
        found = await shared.runtime.list_files(
            ListFiles(user=user.name, account=account, path=path)
        )
        if found.refusal:
            text = REASONS.get("absent" if found.refusal == "gone" else found.refusal)
            raise NotAvailable((text or REASONS["absent"])(path=path))
        return found

    def _folder(self, course: str, name: str, path: str, back: bool) -> str:
        query = {"for": name, "path": path, **({"feedback": "1"} if back else {})}
        return f"{self.hub.base_url}course-files/{course}?{urlencode(query)}"

    def _choose(self, course: str, name: str, path: str, back: bool) -> str:
        there = f"{self.settings['base_url']}services/labcommons/courses/{course}/handins"
        if back:
            return f"{there}/{name}?{urlencode({'path': path})}#back"
        return f"{there}?{urlencode({'handin': name, 'path': path})}#h-{name}"


HANDLERS = [(r"/course-files/([a-z0-9._-]{1,64})", CourseFiles)]
