"""The closed table of tasks: from a task's words to its container's name and body.

Mounts, accounts and images are decided here, from the site file and from who owns what; the task
only says which step of which job, in which scope, and with whose numbers.
"""

from __future__ import annotations

import base64
import io
import tarfile
from pathlib import PurePosixPath
from typing import Any

from commons.scopes import FILES, MATERIALS, Keeper, Owners, Scope, parse_source, personal
from spawner.runtime.docker import archives
from spawner.runtime.docker.body import JOB, TMP, Bind, build_body, maker_body
from spawner.runtime.docker.job_folders import JobFolders
from spawner.runtime.docker.places import ENVS_MODE, UPPER_MODE, Places
from spawner.runtime.docker.rules import against_rules, build_variables, check_account
from spawner.runtime.docker.settings import OWNER, AgentSettings
from spawner.runtime.names import escaped
from spawner.runtime.spec import (
    Account,
    BuildStep,
    CourseStep,
    ImageStep,
    LongTask,
    MakeFolder,
    MakeHome,
)

DATA = PurePosixPath("/srv/labcommons/data")
SERVICES = Account(uid=OWNER, gid=OWNER)
LOGINS = "/run/labcommons/logins"
AGENT_TLS = "/run/labcommons/agent"
PRIVATE = "/private"
_BYTECODE = ("cache", "bytecode")

# Nothing below the upper folder is given away through a link: `envs` is made once, and its
# parent is nobody's to write.
_MAKE = (
    'set -e; install -d -m "$1" -o "$2" -g "$3" "$5"; '
    '[ -L "$5/envs" ] && exit 9; install -d -m "$6" -o "$2" -g "$4" "$5/envs"; '
    'owner="$2"; cd "$5"; shift 6; '
    # Its areas; each made whole before it has its name. tar sets what no small tool can: the rights
    # of what is made in it, whatever the maker's umask. Not every file system has them.
    'while [ $# -gt 0 ]; do [ -L "$1" ] && exit 9; [ -d "$1" ] || { rm -rf ".$1"; '
    '[ -n "$4" ] && printf %s "$4" | base64 -d | tar --acls -xpf - || mkdir -p ".$1"; '
    'chown "$owner:$3" ".$1"; chmod "$2" ".$1"; mv -T ".$1" "$1"; }; shift 4; done'
)


def _area(scope: Scope, pair: Owners, name: str) -> list[str]:
    """One of a group's folders for _MAKE: its name, mode and group, and it as an archive.

    The archive has it empty, with the rights of what is made in it.
    """
    members, leads = str(pair.members), str(pair.leads)
    if name == MATERIALS:  # our services' alone to write
        return [name, f"{UPPER_MODE:o}", members, ""]
    rights = ["user::rwx", "group::rwx", "mask::rwx", "other::---"]
    if name == FILES and not scope.row.members_write:
        rights.insert(2, f"group:{pair.members}:r-x")
    acl = {f"SCHILY.acl.{kind}": "\n".join(rights) + "\n" for kind in ("access", "default")}
    entry = tarfile.TarInfo(f".{name}")
    entry.type, entry.mode, entry.pax_headers = tarfile.DIRTYPE, 0o2770, acl
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(entry)
    group = members if name == FILES and scope.row.members_write else leads
    return [name, "2770", group, base64.b64encode(made.getvalue()).decode()]


class Tasks:
    """Bodies of one site's tasks."""

    def __init__(self, settings: AgentSettings, places: Places, folders: JobFolders) -> None:
        self.settings, self.places, self.folders = settings, places, folders
        self.site_id = settings.site_id

    # -- folders ---------------------------------------------------------------------------------

    def home(self, task: MakeHome) -> tuple[str, dict[str, Any]]:
        """Name and body of what makes a home. Raises RuntimeRefused."""
        check_account(Account(uid=task.uid, gid=task.gid), self.settings)
        command = ["install", "-d", "-m", "0700", "-o", str(task.uid), "-g", str(task.gid)]
        command.append(f"/homes/{task.user}")
        above = Bind(str(self.places.host / "homes"), "/homes", read_only=False)
        body = maker_body(self.site_id, "home", self.settings.maker_image, command, above)
        return f"{self.site_id}-home-{escaped(task.user)}--home", body

    def folder(self, task: MakeFolder) -> tuple[str, dict[str, Any]]:
        """Name and body of what makes a scope's folder. Raises RuntimeRefused."""
        scope = self._scope(task.scope)
        pair = self.places.owners.get(scope)
        if pair is None:
            raise against_rules("the shared folder is made with the data folder")
        above, name = scope.folder.parts
        command = [
            "sh", "-c", _MAKE, "make", f"{UPPER_MODE:o}", str(OWNER), str(pair.members),
            str(pair.leads),
            f"/scopes/{name}", f"{ENVS_MODE:o}",
            *(word for area in scope.row.areas for word in _area(scope, pair, area)),
        ]  # fmt: skip
        bind = Bind(str(self.places.host / above), "/scopes", read_only=False)
        body = maker_body(self.site_id, "folder", self.settings.maker_image, command, bind)
        return f"{self.site_id}-folder-{escaped(task.scope)}", body

    # -- builds ----------------------------------------------------------------------------------

    def name(self, task: LongTask) -> str:
        """One name for one step of one job: it is found again after a restart."""
        kind = "course" if isinstance(task, CourseStep) else "build"
        return f"{self.site_id}-{kind}-{task.job_id}-{step_of(task)}"

    def build(self, task: LongTask) -> dict[str, Any]:
        """The body of one step; lays its job down for it. Raises RuntimeRefused, NotAllowed."""
        if isinstance(task, CourseStep):
            job = self.folders.lay(key_of(task), {"job.json": task.job})
            return archives.body(task, self.settings, self.places, job)
        if isinstance(task, ImageStep):
            return self._image(task)
        account, home, binds = self._step(task)
        return build_body(
            self.site_id,
            (task.job_id, step_of(task)),
            self.settings.builder_image,
            account,
            task.limits,
            env=build_variables(task.env),
            binds=[self._job(task), *binds],
            home=home,
            network=self.settings.builders,
        )

    def _step(self, task: BuildStep) -> tuple[Account, str, list[Bind]]:
        """Account, home and mounts of one step."""
        if task.step == "lock":
            _same(task.account, SERVICES)
            binds = [*self._data("channel", "cache"), self._private(task, read_only=False)]
            binds.append(self._read("channels"))
            if self.settings.site.environments.credentials:
                binds.append(Bind(str(self.places.host / "logins"), LOGINS))
            return SERVICES, TMP, binds
        account, home = self._account(task)
        folder, mount = self._folder(task)
        binds = [self._read("channel"), self._read("advisories"), Bind(folder, mount, False)]
        if self.places.folder(*_BYTECODE):  # what the site's own builds have compiled
            binds.append(self._read(*_BYTECODE))
        if task.step == "install":
            binds.append(self._private(task, read_only=account != SERVICES))
        if home and home != mount:  # for the packages that are kept there
            assert task.home is not None
            path = self.places.home(task.home, account.uid)
            binds.append(Bind(path, home, read_only=False))
        return account, home or TMP, binds

    def _account(self, task: BuildStep) -> tuple[Account, str]:
        """Whose numbers a step may have, and where the home is in it; "" without one."""
        account = task.account
        scope = parse_source(task.scope, task.owner or "")
        if scope.keeper is Keeper.SITE:
            _same(account, SERVICES)
            return SERVICES, ""
        mine = scope.keeper is Keeper.PERSON
        user = task.owner if mine else task.home
        if user is None or (mine and task.home not in (None, user)):
            raise against_rules("a person's step without the person's home")
        check_account(account, self.settings)
        self.places.home(user, account.uid)
        if not mine:
            pair = self.places.owners.get(self._scope(task.scope))
            # Files that are made belong to the members' group.
            if pair is None or account.gid != pair.members:
                raise against_rules(f"gid {account.gid} is not that of {task.scope}'s members")
        return account, str(personal(user).mount)

    def _folder(self, task: BuildStep) -> tuple[str, str]:
        """The folder that a step works in, on the Engine's machine and in the container."""
        own = parse_source(task.scope, task.owner or "")
        if own.keeper is Keeper.PERSON:
            return self.places.home(own.owner, task.account.uid), str(own.mount)
        scope = self._scope(task.scope)
        path = self.places.folder(*scope.folder.parts)
        if path is None:
            raise against_rules(f"the folder of {task.scope} is not there")
        return str(path), str(scope.mount)

    def _image(self, task: ImageStep) -> dict[str, Any]:
        """Building an image: our services' user, and the builder's own certificate."""
        host = self.places.host
        binds = [self._job(task), *self._data("channel", "cache", "locks", "versions", "logs")]
        binds += [*self._data("store"), *map(self._read, ("advisories", "channels", "signing"))]
        binds.append(Bind(str(host / "secrets" / "pgpass"), "/run/labcommons/pgpass"))
        for mine, theirs in (("ca.crt", "ca.crt"), ("builder.crt", "client.crt"),
                             ("builder.key", "client.key")):  # fmt: skip
            binds.append(Bind(str(host / "agent-tls" / mine), f"{AGENT_TLS}/{theirs}"))
        env = {
            **build_variables(task.env),
            **self.settings.image_env,
            "LABCOMMONS_SITE_ID": self.site_id,
            "LABCOMMONS_AGENT_TLS": AGENT_TLS,
            "PGPASSFILE": "/run/labcommons/pgpass",
        }
        return build_body(
            self.site_id,
            (task.job_id, step_of(task)),
            self.settings.builder_image,
            SERVICES,
            task.limits,
            env=env,
            binds=binds,
            network=self.settings.control,
        )

    def _scope(self, name: str) -> Scope:
        scope = self.places.scope(name)
        if scope is None:
            raise against_rules(f"the site file has no {name[:40]!r}")
        return scope

    def _job(self, task: BuildStep | ImageStep) -> Bind:
        files = dict(task.files) if isinstance(task, ImageStep) else {}
        return Bind(self.folders.lay(key_of(task), {**files, "job.json": task.job}), JOB)

    def _private(self, task: BuildStep, read_only: bool) -> Bind:
        return Bind(self.folders.private(task.job_id), PRIVATE, read_only)

    def _read(self, *parts: str) -> Bind:
        """A folder of the data folder, to read."""
        return Bind(str(self.places.host.joinpath(*parts)), str(DATA.joinpath(*parts)))

    def _data(self, *names: str) -> list[Bind]:
        """Folders of the data folder, to write to."""
        host = self.places.host
        return [Bind(str(host / name), str(DATA / name), read_only=False) for name in names]


def step_of(task: LongTask) -> str:
    return "image" if isinstance(task, ImageStep) else task.step


def key_of(task: LongTask) -> str:
    """The name of a task's folder."""
    return f"{task.job_id}-{step_of(task)}"


def _same(account: Account, wanted: Account) -> None:
    if account != wanted:
        raise against_rules(f"uid {account.uid} where our services' user works")
