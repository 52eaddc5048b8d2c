"""Who may do what: one table of rights, one function.

``can(principal, action, resource)`` is asked by form, REST, console, commands and kernels service.
A row of ``RIGHTS`` says for each kind of keeper (the site, a group, a person) who may do one thing;
a new action is a new row, a new scope (``commons.scopes``) needs none. What is in no row, nobody
may. Verdicts say by what somebody may, or what they are told that may not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Flag, StrEnum, auto

from commons.errors import NotAllowed
from commons.i18n import N_
from commons.messages import Message, Text
from commons.principal import Principal
from commons.scopes import SCOPES, Keeper, Scope, of_account, personal

METRICS_SCOPE = "read:metrics"


class Action(StrEnum):
    """What is asked for. With environments, then with GPUs and who pays, then with the site."""

    SEE = "see"  # that they are there, their packages, versions and exports
    USE = "use"  # have them in a server; start it with them
    LOOK = "look"  # have a folder looked at, for what was made in a terminal
    CREATE = "create"
    PUBLISH = "publish"  # a copy into a group's
    PROMOTE = "promote"  # a copy into the site's
    DELETE = "delete"
    DECIDE = "decide"  # pin, tag, deprecate, withdraw a version
    SEE_BUILD = "see-build"  # a job of the queue, its log
    END_BUILD = "end-build"
    CHARGE = "charge"
    SEE_LEASE = "see-lease"
    END_LEASE = "end-lease"
    EXTEND_LEASE = "extend-lease"
    KEEP_LEASE = "keep-lease"  # its server, though the GPU is idle
    READ_QUOTA = "read-quota"  # what is set
    READ_USAGE = "read-usage"  # what one person has used
    READ_TOTAL = "read-total"  # what all have used together
    LOOK_AFTER = "look-after"  # learn what holds for the group's people
    GIVE_UP = "give-up"  # a reservation, or a day of it
    START_AHEAD = "start-ahead"  # people's servers, ahead of time
    RUN_COURSE = "run-course"  # say what it is, when, and who is in it
    ATTEND = "attend"  # its people at work: who is there, messages, their servers of its hours
    HAND_IN = "hand-in"
    GRADE = "grade"  # see what was handed in, give feedback and marks
    ENTER_SHARED = "enter-shared"  # a server of the group's own account
    RUN_SHARED = "run-shared"  # start and stop it
    MAKE_SHARED = "make-shared"  # make one, say what it starts with and who may enter and start it
    ADMINISTER = "administer"  # devices, quotas, reservations; learn whose everything is
    READ_METRICS = "read-metrics"
    RUN_JOB = "run-job"  # a program without one's server
    SEE_JOB = "see-job"  # with its output
    END_JOB = "end-job"
    SEE_SERVER = "see-server"  # that it runs, with what, and what it uses
    RUN_SERVER = "run-server"  # stop it, write to who uses it
    READ_CHANNEL = "read-channel"  # a channel of packages
    FILL_CHANNEL = "fill-channel"  # put a package into it
    YANK_PACKAGE = "yank-package"


class Who(Flag):
    """What somebody is to what they ask for."""

    NOBODY = 0
    ANYBODY = auto()  # who is logged in; of what is for some groups alone, who is in one of these
    MEMBER = auto()  # of the group, whatever their position
    LEAD = auto()  # of the group
    ASSISTANT = auto()  # of the group
    OWNER = auto()  # the person whose it is
    HOLDER = auto()  # who asked for it or holds it, whoever is charged
    ADMIN = auto()
    BEARER = auto()  # of a token with the scope that the row names


@dataclass(frozen=True)
class Denial:
    """What is said where something is refused; ``status`` is HTTP's."""

    text: Text
    status: int = 403

    def error(self, **params: object) -> NotAllowed:
        """To be raised."""
        error = NotAllowed(self.text(**params))
        error.status = self.status
        return error


def _denial(code: str, english: str, status: int = 403) -> Denial:
    return Denial(Text(code, english), status)


HIDDEN = _denial(
    "scope_hidden", N_("The environments of “{scope}” are for its members. Ask one of its leads.")
)
NOT_OF_GROUP = _denial(
    "scope_read_only",
    N_(
        "The environments of “{scope}” are changed by its leads. Ask one of them, or build "
        "a personal environment."
    ),
)
NOT_OF_PERSON = _denial(
    "personal_read_only", N_("Personal environments are changed by the person they belong to.")
)
NOT_OF_SITE = _denial(
    "site_read_only", N_("The environments of “{scope}” are changed by administrators.")
)
NO_BUILD = _denial(
    "no_build", N_("There is no such build. It may have been removed since."), status=404
)
NO_LEASE = _denial("lease_unknown", N_("There is no such lease, or it is over."), status=404)
NOT_CHARGED = _denial(
    "account_not_yours", N_("You cannot charge “{account}”. You may charge: {known}.")
)
NOT_LOOKED_AFTER = _denial(
    "person_not_yours",
    N_("Ask for yourself, or for somebody in a team or course that you look after."),
)
NOT_GIVEN_UP = _denial(
    "not_yours",
    N_("Only an administrator, or who looks after the team or course, may do this."),
)
NOT_STARTED_AHEAD = _denial(
    "not_started_ahead",
    N_(
        "Servers are started ahead of time by administrators, and for a team or course by who "
        "looks after it."
    ),
)
NOT_RUN = _denial("course_not_led", N_("A course is changed by its instructors."))
NOT_ATTENDED = _denial(
    "course_not_attended", N_("This is for the instructors and assistants of the course.")
)
NOT_OF_COURSE = _denial(
    "handin_not_yours",
    N_("You are not in this course. Ask its instructor to put you on."),
)
NOT_ENTERED = _denial(
    "shared_not_yours", N_("The shared servers of “{scope}” are for its members.")
)
NOT_RUN_SHARED = _denial(
    "shared_not_led",
    N_("This is for who looks after “{scope}” or assists there. Ask one of them."),
)
NOT_MADE_SHARED = _denial(
    "shared_not_made", N_("Shared servers of “{scope}” are made by who looks after it.")
)
NO_JOB = _denial("job_unknown", N_("There is no such job. It may be long over."), status=404)
NOT_RUN_FOR = _denial("job_for_another", N_("Jobs are run by the person whose they are."))
NO_SERVER = _denial("server_unknown", N_("There is no such server, or it is over."), status=404)
NOT_READ_CHANNEL = _denial(
    "channel_hidden", N_("The channel of “{scope}” is for its members. Ask one of its leads.")
)
NOT_FILLED = _denial(
    "channel_read_only",
    N_("Packages are put in and withdrawn by who looks after this channel. Ask one of them."),
)
ADMINS_ONLY = _denial("admins_only", N_("Only an administrator may do this."))
SCOPE_MISSING = _denial("scope_missing", N_("This needs a token with the scope “{token_scope}”."))
PERSON_WANTED = _denial(
    "person_wanted",
    N_(
        "A server may not do this for its owner. Do it on a page of the hub, or with a token that "
        "you make there (Tokens, in the menu)."
    ),
)
UNKNOWN = _denial("right_unknown", N_("This site does not know “{action}” of “{scope}”."))


@dataclass(frozen=True)
class Right:
    """One action: who may do it, where the site, a group or a person keeps the scope.

    Attributes:
        denial: what the others are told; by keeper where that differs.
        servers: whether a server's own token may do it: with what is its owner's alone, and with
            what is about this server.
        token_scope: of the token that may do it, too (``Who.BEARER``).
    """

    site: Who
    group: Who
    person: Who
    denial: Denial | Mapping[Keeper, Denial]
    servers: bool = False
    token_scope: str = ""

    def who(self, keeper: Keeper) -> Who:
        """Those who may."""
        by_keeper = {Keeper.SITE: self.site, Keeper.GROUP: self.group, Keeper.PERSON: self.person}
        return by_keeper[keeper]

    def denial_at(self, keeper: Keeper) -> Denial:
        """What the others are told."""
        return self.denial if isinstance(self.denial, Denial) else self.denial[keeper]


_NOBODY, _ANYBODY, _MEMBER, _LEAD = Who.NOBODY, Who.ANYBODY, Who.MEMBER, Who.LEAD
_ASSISTANT = Who.ASSISTANT
_OWNER, _HOLDER, _ADMIN, _BEARER = Who.OWNER, Who.HOLDER, Who.ADMIN, Who.BEARER
_MINE = _HOLDER | _ADMIN
_READ_ONLY = {
    Keeper.SITE: NOT_OF_SITE,
    Keeper.GROUP: NOT_OF_GROUP,
    Keeper.PERSON: NOT_OF_PERSON,
}
RIGHTS: dict[Action, Right] = {
    # ---------------- the site's           a group's                   a person's
    Action.SEE: Right(_ANYBODY | _ADMIN, _MEMBER | _ADMIN, _OWNER | _ADMIN, HIDDEN, servers=True),
    Action.USE: Right(_ANYBODY, _MEMBER, _OWNER, HIDDEN),
    Action.LOOK: Right(_NOBODY, _NOBODY, _OWNER, NOT_OF_PERSON),
    Action.CREATE: Right(_ADMIN, _LEAD, _OWNER, _READ_ONLY, servers=True),
    Action.PUBLISH: Right(_NOBODY, _LEAD, _NOBODY, _READ_ONLY),
    Action.PROMOTE: Right(_ADMIN, _NOBODY, _NOBODY, _READ_ONLY),
    Action.DELETE: Right(_ADMIN, _LEAD, _OWNER, _READ_ONLY, servers=True),
    Action.DECIDE: Right(_ADMIN, _LEAD, _OWNER, _READ_ONLY, servers=True),
    Action.SEE_BUILD: Right(_MINE, _MINE | _LEAD, _MINE, NO_BUILD, servers=True),
    Action.END_BUILD: Right(_MINE, _MINE | _LEAD, _MINE, NO_BUILD, servers=True),
    Action.CHARGE: Right(_NOBODY, _MEMBER, _OWNER, NOT_CHARGED),
    Action.SEE_LEASE: Right(_MINE, _MINE | _LEAD, _MINE, NO_LEASE, servers=True),
    Action.END_LEASE: Right(_MINE, _MINE | _LEAD, _MINE, NO_LEASE),
    Action.EXTEND_LEASE: Right(_MINE, _MINE | _LEAD, _MINE, NO_LEASE, servers=True),
    Action.KEEP_LEASE: Right(_MINE, _MINE | _LEAD, _MINE, NO_LEASE, servers=True),
    Action.READ_QUOTA: Right(_ANYBODY, _MEMBER | _ADMIN, _OWNER | _ADMIN, ADMINS_ONLY),
    Action.READ_USAGE: Right(_MINE, _MINE | _LEAD, _MINE, ADMINS_ONLY),
    Action.READ_TOTAL: Right(_ADMIN, _MEMBER | _ADMIN, _ADMIN, ADMINS_ONLY),
    Action.LOOK_AFTER: Right(_ADMIN, _LEAD | _ADMIN, _ADMIN, NOT_LOOKED_AFTER),
    Action.GIVE_UP: Right(_ADMIN, _LEAD | _ADMIN, _ADMIN, NOT_GIVEN_UP),
    Action.START_AHEAD: Right(_ADMIN, _LEAD | _ADMIN, _NOBODY, NOT_STARTED_AHEAD),
    Action.RUN_COURSE: Right(_NOBODY, _LEAD | _ADMIN, _NOBODY, NOT_RUN),
    Action.ATTEND: Right(_NOBODY, _LEAD | _ASSISTANT | _ADMIN, _NOBODY, NOT_ATTENDED),
    # The holder is a student's server: whoever asks has looked whether its owner is in the course.
    Action.HAND_IN: Right(_NOBODY, _MEMBER | _HOLDER, _NOBODY, NOT_OF_COURSE, servers=True),
    Action.GRADE: Right(_NOBODY, _LEAD | _ASSISTANT | _ADMIN, _NOBODY, NOT_ATTENDED),
    Action.ENTER_SHARED: Right(_NOBODY, _MEMBER | _ADMIN, _NOBODY, NOT_ENTERED),
    Action.RUN_SHARED: Right(_NOBODY, _LEAD | _ASSISTANT | _ADMIN, _NOBODY, NOT_RUN_SHARED),
    Action.MAKE_SHARED: Right(_NOBODY, _LEAD | _ADMIN, _NOBODY, NOT_MADE_SHARED),
    Action.ADMINISTER: Right(_ADMIN, _ADMIN, _ADMIN, ADMINS_ONLY),
    Action.READ_METRICS: Right(
        _ADMIN | _BEARER, _NOBODY, _NOBODY, SCOPE_MISSING, token_scope=METRICS_SCOPE
    ),
    Action.RUN_JOB: Right(_NOBODY, _NOBODY, _OWNER, NOT_RUN_FOR, servers=True),
    Action.SEE_JOB: Right(_NOBODY, _NOBODY, _OWNER | _ADMIN, NO_JOB, servers=True),
    Action.END_JOB: Right(_NOBODY, _NOBODY, _OWNER | _ADMIN, NO_JOB, servers=True),
    # A server is of whom it is charged to: of others, who leads a group is told nothing.
    Action.SEE_SERVER: Right(_MINE, _MINE | _LEAD, _MINE, NO_SERVER),
    Action.RUN_SERVER: Right(_MINE, _MINE | _LEAD, _MINE, NO_SERVER),
    Action.READ_CHANNEL: Right(_ANYBODY, _MEMBER | _ADMIN, _NOBODY, NOT_READ_CHANNEL),
    Action.FILL_CHANNEL: Right(_ADMIN, _LEAD, _NOBODY, NOT_FILLED),
    Action.YANK_PACKAGE: Right(_ADMIN, _LEAD | _ADMIN, _NOBODY, NOT_FILLED),
}


@dataclass(frozen=True)
class Resource:
    """What somebody asks for: of a scope, or charged to it.

    Attributes:
        holder: who asked for it or holds it: a build's, a lease's person.
        server: the holder's server that it is about; None where it is about none.
        audience: the groups that alone may use it, of what is the site's.
    """

    scope: Scope
    holder: str = ""
    server: str | None = None
    audience: Sequence[Scope] = ()

    @classmethod
    def charged(cls, account: str, holder: str, server: str | None = None) -> Resource:
        """A lease, or what was used, by who is charged and who holds it."""
        return cls(of_account(account) or personal(holder), holder, server)


@dataclass(frozen=True)
class Verdict:
    """Whether something may be done, and why (not).

    Attributes:
        by: what they are that allows it; of a refusal, what they would have to be.
        reason, denial: of a refusal, what is said, and what kind of refusal it is.
    """

    by: Who
    reason: Message | None = None
    denial: Denial | None = None

    def __bool__(self) -> bool:
        return self.denial is None

    def check(self) -> None:
        """Raises NotAllowed, with the denial's status, where it may not be done."""
        if self.denial is not None and self.reason is not None:
            raise self.denial.error(**self.reason.params)


def can(principal: Principal, action: Action | str, asked: Resource | Scope) -> Verdict:
    """Whether somebody may do something with something. Never raises; what is unknown is denied."""
    resource = asked if isinstance(asked, Resource) else Resource(asked)
    row = next((right for name, right in RIGHTS.items() if name == action), None)
    kind = SCOPES.get(resource.scope.kind)
    if row is None or kind is None:
        return _refused(UNKNOWN, Who.NOBODY, principal, action, resource)
    wanted = row.who(kind.keeper)
    by = wanted & _is(principal, row, resource)
    denial = None if by else row.denial_at(kind.keeper)
    if principal.server is not None and not _within_reach(principal, row, resource, bool(by)):
        denial = PERSON_WANTED
    if denial is not None:
        return _refused(denial, wanted, principal, action, resource)
    return Verdict(by)


def check(principal: Principal, action: Action | str, asked: Resource | Scope) -> None:
    """Raises NotAllowed, saying who may."""
    can(principal, action, asked).check()


def _is(principal: Principal, row: Right, resource: Resource) -> Who:
    """All that somebody is to a resource."""
    scope, name = resource.scope, principal.name
    found = Who.NOBODY
    if not resource.audience or any(principal.position(group) for group in resource.audience):
        found |= Who.ANYBODY
    if principal.position(scope):
        found |= Who.MEMBER
    if principal.leads(scope):
        found |= Who.LEAD
    if principal.assists(scope):
        found |= Who.ASSISTANT
    if name and scope.keeper is Keeper.PERSON and scope.owner == name:
        found |= Who.OWNER
    if name and resource.holder == name:
        found |= Who.HOLDER
    if principal.admin:
        found |= Who.ADMIN
    if row.token_scope and row.token_scope in principal.token_scopes:
        found |= Who.BEARER
    return found


def _within_reach(principal: Principal, row: Right, resource: Resource, allowed: bool) -> bool:
    """Whether a server's own token may do this; of what is hidden from it, it is not told."""
    if not row.servers:
        return False
    if not allowed:  # somebody's lease or build is not there, whoever asks
        return bool(resource.holder)
    if resource.server is not None:
        return (resource.holder, resource.server) == (principal.name, principal.server)
    return resource.scope == personal(principal.name)


def _refused(
    denial: Denial, wanted: Who, principal: Principal, action: str, resource: Resource
) -> Verdict:
    scope = resource.scope
    there = scope.kind in SCOPES
    known: dict[str, Callable[[], str]] = {
        "action": lambda: str(action)[:40],
        "scope": lambda: scope.source if there else scope.kind[:40],
        "account": lambda: scope.account if there else "",
        "known": lambda: ", ".join(principal.accounts),
        "token_scope": lambda: METRICS_SCOPE,
    }
    english = str(denial.text.english)
    params = {key: value() for key, value in known.items() if f"{{{key}}}" in english}
    return Verdict(wanted, denial.text(**params), denial)
