"""Exams on one machine: the folder that somebody works in, whose it is afterwards, and the address
that reaches the gate and nothing else.

``courses/NAME/exams/EXAM/PERSON`` is the home in that exam's server, and is mounted nowhere else.
Its parents are its instructors' to read, so that nobody comes to it by another way.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network
from typing import Any

from commons.errors import RuntimeRefused
from commons.i18n import N_
from commons.messages import Text
from commons.scopes import Scope
from spawner.runtime import labels
from spawner.runtime.docker.body import Bind, maker_body
from spawner.runtime.docker.places import Places
from spawner.runtime.docker.rules import against_rules, check_account
from spawner.runtime.docker.settings import OWNER, AgentSettings
from spawner.runtime.names import escaped
from spawner.runtime.spec import Account, CloseExam, ExamPlace, MakeExam, ServerSpec

EXAMS = "exams"
# Nobody's (RFC 5737). Docker's own name server knows the site's services, and asks this one for the
# rest: in vain, also where it would ask from outside the container's network.
NO_NAMES = ("192.0.2.1",)
# JupyterLab saves what is open this often, so that the clock takes little: its own is 120.
_LAB = ".jupyter/lab/user-settings/@jupyterlab/docmanager-extension"
_AUTOSAVE = '{"autosaveInterval": 10}'

NOT_APART = Text(
    "exam_not_apart",
    N_(
        "No exam can be held here: this machine does not keep servers apart "
        "(servers.perimeter). Tell an administrator."
    ),
)
NO_ADDRESS = Text(
    "exam_no_address",
    N_("There is room for {count} servers of exams at a time here. Tell an administrator."),
)
EXAM_FOLDER_NOT_MADE = Text(
    "exam_folder_not_made",
    N_("The folder of this exam could not be made: {reason}. Tell an administrator."),
)

_PARENTS = (
    'set -e; cd "/courses/$1"; for one in exams "exams/$2"; do [ -L "$one" ] && exit 9; '
    'install -d -m 2750 -o "$4" -g "$5" "$one"; done; home="exams/$2/$3"; '
    '[ -L "$home" ] && exit 9; '
)
# New ones have their name when they are whole; one that was closed is given back as it is.
_MAKE = (
    _PARENTS + 'if [ ! -d "$home" ]; then new="exams/.$2.$3"; rm -rf "$new"; '
    'install -d -m 0700 "$new" "$new/$8"; printf %s "$9" >"$new/$8/plugin.jupyterlab-settings"; '
    'chmod -R g-s "$new"; chown -hR "$6:$7" "$new"; mv -T "$new" "$home"; exit 0; fi; '
    'chown -hR "$6:$7" "$home"; chmod 0700 "$home"'
)
_CLOSE = (
    _PARENTS + '[ -d "$home" ] || exit 0; chown -hR "$4:$5" "$home"; '
    'chmod -R a-st,u=rwX,g=rX,o= "$home"'
)


class Exams:
    """Folders and addresses of one machine's exams."""

    def __init__(self, settings: AgentSettings, places: Places) -> None:
        self.settings, self.places = settings, places

    # -- folders ---------------------------------------------------------------------------------

    def course(self, place: ExamPlace) -> Scope:
        """Raises RuntimeRefused where the site file has no such course."""
        scope = self.places.scope(place.course)
        if scope is None or scope.kind != "course":
            raise against_rules(f"the site file has no course {place.course[:40]!r}")
        return scope

    def owner(self, place: ExamPlace, user: str) -> int | None:
        """The uid that the folder belongs to; None where there is none. Raises RuntimeRefused."""
        parts = self._parts(place, user)
        if self.places.folder(*parts) is None:
            return None
        found = os.lstat(self.places.data.joinpath(*parts))
        return found.st_uid if stat.S_ISDIR(found.st_mode) else None

    def home(self, place: ExamPlace, user: str, uid: int) -> str:
        """The folder on the Engine's machine. Raises RuntimeRefused where it is not the person's:
        after the exam it is nobody's of them.
        """
        if self.owner(place, user) != uid:
            raise against_rules("the folder of this exam is not open to this person")
        return str(self.places.host.joinpath(*self._parts(place, user)))

    def _parts(self, place: ExamPlace, user: str) -> tuple[str, ...]:
        return (*self.course(place).folder.parts, EXAMS, place.exam, user)

    def task(self, task: MakeExam | CloseExam) -> tuple[str, dict[str, Any]]:
        """Name and body of what makes or closes a folder. Raises RuntimeRefused."""
        scope = self.course(task.place)
        words = [scope.owner, task.place.exam, task.user]
        words += [str(OWNER), str(self.places.owners[scope].leads)]
        script = _CLOSE
        if isinstance(task, MakeExam):
            check_account(Account(uid=task.uid, gid=task.gid), self.settings)
            words += [str(task.uid), str(task.gid), _LAB, _AUTOSAVE]
            script = _MAKE
        site, image = self.settings.site_id, self.settings.maker_image
        above = Bind(str(self.places.host / "courses"), "/courses", read_only=False)
        body = maker_body(site, "folder", image, ["sh", "-c", script, "exam", *words], above)
        exam = f"{escaped(task.place.course)}--{task.place.exam}"
        return f"{site}-exam-{exam}--{escaped(task.user)}", body

    # -- servers ---------------------------------------------------------------------------------

    def check(self, spec: ServerSpec) -> None:
        """Raises RuntimeRefused for an exam's server that would have more than its folder."""
        if spec.exam is None:
            return
        if spec.scopes or spec.mounts or spec.gpus or spec.account.gids:
            raise against_rules("an exam's server with more than its own folder")
        if not self.settings.closed:
            raise RuntimeRefused(NOT_APART())

    def address(self, containers: Iterable[Mapping[str, Any]]) -> str:
        """One that no container has. Raises RuntimeRefused."""
        taken = {(one.get("Labels") or {}).get(labels.ADDRESS) for one in containers}
        closed = IPv4Network(self.settings.closed)
        # All of them: the network's own first and last are not among these.
        free = next((str(one) for one in closed if str(one) not in taken), None)
        if free is None:
            raise RuntimeRefused(NO_ADDRESS(count=closed.num_addresses))
        return free
