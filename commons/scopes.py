"""The scopes: whose something is. One row for each kind of scope says all that follows from it.

Environments, their kernels and what GPUs are charged to belong to a scope: to the site (in images
or on its disk), to a team, to a course, or to a person. Where its folder is, who owns it, which
groups of the hub stand for it, how kernels, quotas and people call it, is said here and nowhere
else. Who may do what in a scope is in ``commons.rights``.

The folders are the contract with ``kernels.sources``, and the names of kernels' sources with
``kernels.kernelspec``: that package is installed alone in users' images, and says them again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from commons.errors import BadRequest
from commons.i18n import N_, Gettext
from commons.messages import Text
from commons.site import Site, SiteFileError

SERVER_ROOT = PurePosixPath("/opt/labcommons")
# Of teams, courses and environments: what they are in paths and in kernels' names.
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
SERVICE_ID = 990  # uid and gid of `labcommons` in our images
# Above what directories use (uid and gid of Active Directory's range end below it too).
_FIRST, _COUNT = 1_900_000_000, 100_000_000


UNKNOWN_SCOPE = Text(
    "unknown_scope",
    N_("“{scope}” is no place for environments; write one of: {known}."),
)


class Keeper(StrEnum):
    """Who looks after a scope: the site's administrators, a group's leads, or a person."""

    SITE = "site"
    GROUP = "group"
    PERSON = "person"


@dataclass(frozen=True)
class Position:
    """What somebody is in a group.

    Attributes:
        word: as auth_state says it.
        groups: the hub's groups that they are in, with ``{name}``; the last one tells who has this
            position and none above it.
        leads: whether they look after the group.
        assists: whether they help its leads with its people.
    """

    word: str
    groups: tuple[str, ...]
    leads: bool = False
    assists: bool = False


@dataclass(frozen=True)
class ScopeKind:
    """One kind of scope; ``{name}`` is the group's or the person's name.

    Attributes:
        name: in the names of kernels' sources, in REST and in the store.
        folder: what is mounted of it, below the data folder; empty where it has none.
        mount: where that is in users' servers and in builders.
        environments: the folder of environments in it.
        writable: whether the mount is, in servers (the folder's owners and modes say by whom).
        members_write: whether all in it write its files (``FILES``), and not its leads alone.
        title, phrase: what people call it, alone and within a sentence.
        heading: above a list of what is in it; by default the title.
        absent: what is said of a name that the site file does not have.
        kernel_label: behind the names of its kernels; never translated, see kernels.kernelspec.
        account: of those who are charged in quotas (``group:NAME``); empty where none is.
        charged_first: whether who has one of these and no other charges it without a word.
        section: in the site file's ``directory``, in auth_state and in a labcommons.yml's
            ``access``: the names of all groups of this kind.
        positions: in a group, the highest first.
        areas: folders in a group's own, beside that of environments.
    """

    name: str
    keeper: Keeper
    title: str
    phrase: str
    folder: str = ""
    mount: str = ""
    environments: str = "envs"
    writable: bool = True
    members_write: bool = True
    heading: str = ""
    absent: Text | None = None
    kernel_label: str = ""
    account: str = ""
    charged_first: bool = False
    section: str = ""
    positions: tuple[Position, ...] = ()
    areas: tuple[str, ...] = ()


# In a group's folder: what its people share; what a course gives out, for its people to read, and
# what its leads alone see.
FILES, MATERIALS, STAFF = "files", "materials", "staff"
_ROWS = (
    ScopeKind(
        "image",
        Keeper.SITE,
        title=N_("Images"),
        phrase=N_("this site"),
        heading=N_("For everybody, in the servers’ images"),
    ),
    ScopeKind(
        "shared",
        Keeper.SITE,
        title=N_("Shared"),
        phrase=N_("this site"),
        heading=N_("For everybody, on this site’s disk"),
        folder="shared",
        mount=f"{SERVER_ROOT}/shared",
        writable=False,
        kernel_label="shared",
    ),
    ScopeKind(
        "team",
        Keeper.GROUP,
        title=N_("Team {name}"),
        phrase=N_("team {name}"),
        absent=Text("team_absent", N_("there is no such team in the site file (directory.teams).")),
        folder="teams/{name}",
        mount=f"{SERVER_ROOT}/teams/{{name}}",
        kernel_label="team: {name}",
        account="group",
        charged_first=True,
        section="teams",
        positions=(
            Position("lead", ("team:{name}", "team:{name}:leads"), leads=True),
            Position("member", ("team:{name}",)),
        ),
        areas=(FILES,),
    ),
    ScopeKind(
        "course",
        Keeper.GROUP,
        title=N_("Course {name}"),
        phrase=N_("course {name}"),
        absent=Text(
            "course_absent", N_("there is no such course in the site file (directory.courses).")
        ),
        folder="courses/{name}",
        mount=f"{SERVER_ROOT}/courses/{{name}}",
        members_write=False,
        kernel_label="course: {name}",
        account="course",
        section="courses",
        positions=(
            Position("instructor", ("course:{name}:instructors",), leads=True),
            Position("assistant", ("course:{name}:assistants",), assists=True),
            Position("student", ("course:{name}:students",)),
        ),
        areas=(FILES, MATERIALS, STAFF),
    ),
    ScopeKind(
        "personal",
        Keeper.PERSON,
        title=N_("Personal"),
        phrase=N_("{name}"),
        folder="homes/{name}",
        mount="/home/{name}",
        environments=".conda/envs",
        kernel_label="personal",
        account="user",
    ),
)
# In the order in which people see them: of all, of many, of one.
SCOPES: dict[str, ScopeKind] = {row.name: row for row in _ROWS}
_OWN = SCOPES["personal"].account


@dataclass(frozen=True)
class Scope:
    """One scope. ``owner`` is a group's or a person's name, else empty."""

    kind: str
    owner: str = ""

    @property
    def row(self) -> ScopeKind:
        """What follows from its kind. Raises KeyError for one that there is not."""
        return SCOPES[self.kind]

    @property
    def keeper(self) -> Keeper:
        """Who looks after it."""
        return self.row.keeper

    @property
    def source(self) -> str:
        """Its name in kernel names and in our REST API, such as ``team-vision``."""
        return f"{self.kind}-{self.owner}" if self.keeper is Keeper.GROUP else self.kind

    @property
    def has_folder(self) -> bool:
        """Whether its environments are in a folder; else they are in images."""
        return bool(self.row.folder)

    @property
    def folder(self) -> PurePosixPath:
        """What is mounted of it, below the data folder."""
        if not self.has_folder:
            raise ValueError(f"{self.kind} environments are not in a folder")
        return PurePosixPath(self._named(self.row.folder))

    @property
    def mount(self) -> PurePosixPath:
        """Where that folder is in a user's server and in the builder."""
        return PurePosixPath(self._named(self.row.mount))

    @property
    def environments(self) -> PurePosixPath:
        """The folder of environments in a user's server and in the builder."""
        return self.mount / self.row.environments

    @property
    def account(self) -> str:
        """Who is charged in quotas, such as ``group:vision``; empty where nobody is."""
        return f"{self.row.account}:{self.owner}" if self.row.account else ""

    @property
    def kernel_label(self) -> str:
        """What stands behind the names of its kernels."""
        return self._named(self.row.kernel_label)

    def title(self, gettext: Gettext) -> str:
        """What people call it: "Team vision"."""
        return self._named(gettext(self.row.title))

    def phrase(self, gettext: Gettext) -> str:
        """What people call it within a sentence: "team vision"."""
        return self._named(gettext(self.row.phrase))

    def heading(self, gettext: Gettext) -> str:
        """What stands above a list of what is in it."""
        return self._named(gettext(self.row.heading or self.row.title))

    def _named(self, text: str) -> str:
        return text.replace("{name}", self.owner)


IMAGE, SHARED = Scope("image"), Scope("shared")
# What belongs to nobody but the site: devices, defaults, what administrators do.
SITE = IMAGE
# Subjects of the quotas document that are about nobody in particular.
SITE_SUBJECTS = (SETTINGS, DEFAULT) = ("settings", "default")


def personal(name: str) -> Scope:
    """A person's own."""
    return Scope("personal", name)


def parse_source(source: object, username: str) -> Scope:
    """The scope that a source names, ``personal`` being the person's own. Raises BadRequest."""
    text = source if isinstance(source, str) else ""
    kind, dash, owner = text.partition("-")
    row = SCOPES.get(kind)
    if row is not None and row.keeper is Keeper.GROUP and NAME.fullmatch(owner):
        return Scope(kind, owner)
    if row is not None and row.keeper is not Keeper.GROUP and not dash:
        return Scope(kind, username if row.keeper is Keeper.PERSON else "")
    raise BadRequest(UNKNOWN_SCOPE(scope=text[:80], known=_examples()))


def _examples() -> list[str]:
    """Sources with a folder, as somebody writes them who asks for one."""
    rows = [row for row in reversed(SCOPES.values()) if row.folder]
    return [f"{row.name}-NAME" if row.keeper is Keeper.GROUP else row.name for row in rows]


def accounts_known() -> list[str]:
    """Those who can be charged, as somebody writes them."""
    return [f"{row.account}:NAME" for row in SCOPES.values() if row.account]


def own_account(name: str) -> str:
    """Who is charged where a person pays alone: ``user:alice``."""
    return f"{_OWN}:{name}"


def of_account(account: str) -> Scope | None:
    """The scope of who is charged (``group:vision``, ``user:alice``); None for no such thing."""
    kind, _, owner = account.partition(":")
    row = next((row for row in SCOPES.values() if row.account and row.account == kind), None)
    return Scope(row.name, owner) if row and owner else None


def with_account(owner: str) -> list[Scope]:
    """All that somebody may mean who is to charge ``vision``, and says no more of it."""
    return [Scope(row.name, owner) for row in SCOPES.values() if row.account]


def of_subject(subject: str) -> Scope | None:
    """The scope that a subject of the quotas document is about; the site's for its defaults."""
    return SITE if subject in SITE_SUBJECTS else of_account(subject)


def groups_of_site(site: Site) -> list[Scope]:
    """All teams, courses and what else of the kind the site file has, in its order."""
    return [
        Scope(row.name, name)
        for row in SCOPES.values()
        if row.section
        for name in getattr(site.directory, row.section, ())
    ]


def listed(named: Mapping[str, Iterable[str] | None]) -> list[Scope]:
    """The groups that a mapping lists by section (``{"teams": ["vision"]}``)."""
    return [
        Scope(row.name, name)
        for row in SCOPES.values()
        if row.section
        for name in named.get(row.section) or ()
    ]


# -- the hub's groups ---------------------------------------------------------------------------


def hub_groups(positions: Mapping[Scope, str]) -> set[str]:
    """The hub's groups that positions give (docs/architecture.md, Contracts)."""
    return {
        group.replace("{name}", scope.owner)
        for scope, word in positions.items()
        for position in scope.row.positions
        if position.word == word
        for group in position.groups
    }


def positions_in(groups: Iterable[str]) -> dict[Scope, str]:
    """What the hub's groups say that somebody is, where; the highest position counts."""
    names = set(groups)
    found: dict[Scope, str] = {}
    for row in SCOPES.values():
        for position in row.positions:
            for group in sorted(names):
                owner = _owner(position.groups[-1], group)
                if owner is not None:
                    found.setdefault(Scope(row.name, owner), position.word)
    return found


def is_ours(group: str) -> bool:
    """Whether a group's name, however it is written, is one that gives positions here."""
    prefixes = {
        group.split("{")[0] for row in SCOPES.values() for p in row.positions for group in p.groups
    }
    return group.casefold().startswith(tuple(prefixes))


def _owner(pattern: str, group: str) -> str | None:
    """The name in a group that fits a pattern such as ``team:{name}:leads``."""
    before, after = pattern.split("{name}")
    owner = group.removeprefix(before).removesuffix(after)
    return owner if NAME.fullmatch(owner) and f"{before}{owner}{after}" == group else None


# -- the numbers that own folders -----------------------------------------------------------------


@dataclass(frozen=True)
class Owners:
    """Two group numbers: who may read, and who may add and replace."""

    members: int
    leads: int


def owners(site: Site) -> Mapping[Scope, Owners]:
    """The numbers of every group's folder. Raises SiteFileError where two share one.

    The site file says them (``directory.teams.NAME.gid`` and ``leads_gid``), as a site does that
    shares these folders with other machines. Where it does not, they follow from the name: the hub
    gives them to the containers of those who belong there, and nobody else has them.
    """
    found: dict[Scope, Owners] = {}
    taken: dict[int, str] = {}
    for scope in groups_of_site(site):
        section = getattr(site.directory, scope.row.section)[scope.owner]
        found[scope] = pair = Owners(
            section.gid or _derived(f"{scope.source}:members"),
            section.leads_gid or _derived(f"{scope.source}:leads"),
        )
        for number, whose in ((pair.members, "members"), (pair.leads, "leads")):
            other = taken.setdefault(number, f"{whose} of {scope.source}")
            if other != f"{whose} of {scope.source}":
                raise SiteFileError(
                    f"gid {number} is both of the {other} and of the {whose} of {scope.source}; "
                    "give each team and course a gid and a leads_gid of its own"
                )
    known = {scope.source for scope in found}
    for name, mount in site.servers.mounts.items():
        if unknown := sorted({*mount.only_for, *mount.writers} - known):
            raise SiteFileError(
                f"servers.mounts.{name}: there is no {unknown[0]!r}; "
                f"name some of: {', '.join(sorted(known)) or 'directory has no teams and courses'}"
            )
    return found


def account_number(scope: Scope) -> int:
    """uid and gid of a group's own account (``commons.shared_accounts``)."""
    return _derived(f"{scope.source}:account")


def _derived(text: str) -> int:
    return _FIRST + int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) % _COUNT
