"""``/hub/course/NAME``: one link to a course, and ``/hub/course/NAME/PATH`` to a notebook of it.

Whoever has a server is led into it, and to the notebook; whoever has none finds the spawn page
filled in as the course says, and comes there after the start.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

from jupyterhub.handlers.base import BaseHandler
from sqlalchemy.orm import Session
from tornado.web import authenticated

from commons.errors import BadRequest
from commons.principal import Principal
from commons.scopes import Scope
from commons.store.models import Course
from commons.web.pages import locale_of
from commons.web.refused import Refused
from courses import records
from spawner.spawner import LabSpawner

LONGEST = 1000  # characters of a path
FILES = "lab/tree"


class CourseLink(BaseHandler):  # type: ignore[misc]
    """Leads to the server, or to the spawn page."""

    @authenticated
    async def get(self, name: str, path: str | None) -> None:
        """``path`` is below the folder that the server opens in."""
        user, shared = self.current_user, LabSpawner.shared
        assert shared is not None
        groups = [group.name for group in user.groups]
        viewer = Principal.from_groups(user.name, bool(user.admin), groups)
        if not viewer.admin and not viewer.position(Scope("course", name)):
            raise self._refused(name)

        def work(session: Session) -> dict[str, object] | None:
            row = session.get(Course, name)
            return records.spec_of(row).options if row else None

        options = await shared.store.read(work)
        if options is None:
            raise self._refused(name)
        target = f"{user.server_url('')}{_file(path)}"
        spawner = user.spawners[""]
        if spawner.ready:
            self.redirect(target)
            return
        page = "spawn-pending" if spawner.pending else "spawn"
        asked = {} if spawner.pending else options
        query = urlencode({**{key: str(value) for key, value in asked.items()}, "next": target})
        self.redirect(f"{self.hub.base_url}{page}/{user.escaped_name}?{query}")

    def _refused(self, name: str) -> Refused:
        """As if it were not there, to who is in none of that name."""
        error = BadRequest(records.COURSE_UNKNOWN(name=name[:80]))
        error.status = 404
        return Refused(error, locale_of(self))


def _file(path: str | None) -> str:
    """The address of a file within the server; of what is no path, none."""
    parts = (path or "").split("/")
    if not path or len(path) > LONGEST or ".." in parts or not path.isprintable():
        return ""
    return f"{FILES}/{quote(path)}"


HANDLERS = [(r"/course/([a-z0-9._-]{1,64})(?:/(.*))?", CourseLink)]
