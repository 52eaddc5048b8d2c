"""From a well-formed request to what it stands for: environment, size, who is charged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from commons.errors import BadRequest, NotAllowed
from commons.i18n import N_
from commons.messages import Text
from commons.principal import Principal
from commons.rights import NOT_CHARGED, Action, can
from commons.scopes import Scope, groups_of_site, of_account, with_account
from commons.site import Site, Size
from environments.catalog import CatalogEntry
from spawner.options.request import Request

Catalog = Mapping[str, Sequence[CatalogEntry]]

NO_ENVIRONMENTS = Text(
    "environment_none",
    N_(
        "No environment has been built yet. An administrator builds them with “labcommons env "
        "build --all”."
    ),
)
ENVIRONMENT_UNKNOWN = Text(
    "environment_unknown", N_("There is no environment “{environment}”. Environments: {known}.")
)
VERSION_WITHDRAWN = Text(
    "version_withdrawn",
    N_(
        "Version “{version}” of environment “{environment}” was withdrawn: {reason}. Take "
        "version “{newer}”."
    ),
)
VERSION_UNKNOWN = Text(
    "version_unknown",
    N_("Environment “{environment}” has no version “{version}”. Versions: {known}."),
)
SIZE_UNKNOWN = Text("size_unknown", N_("There is no size “{size}”. Sizes: {known}."))
SIZE_NOT_YOURS = Text("size_not_yours", N_("The size “{size}” is for {groups}. Sizes: {known}."))
GPU_REQUIRED = Text(
    "gpu_required", N_("Environment “{environment}” works only with a GPU. Ask for one.")
)
GPU_OVER_LIMIT = Text(
    "gpu_over_limit", N_("{count} GPUs were asked for; one server may have at most {most} here.")
)
COURSE_NOT_YOURS = Text("course_not_yours", N_("You are not in the course “{course}”."))
COURSE_UNKNOWN = Text("course_unknown", N_("There is no course “{course}” here."))


@dataclass(frozen=True)
class Choice:
    """A request with every name resolved.

    Attributes:
        account: the subject charged.
        time_limit: seconds, where one was asked.
        asked: those of the options that come back as they were given.
    """

    entry: CatalogEntry
    size_name: str
    size: Size
    gpus: int
    gpu_type: str
    account: str
    time_limit: float | None = None
    wait: bool = True
    asked: Mapping[str, Any] = field(default_factory=dict)

    def user_options(self) -> dict[str, Any]:
        """What the hub keeps; ``profile`` is what its admin page shows, ``title`` ours."""
        profile = f"{self.entry.name} · {self.size_name}"
        if self.gpus:
            profile += f" · {self.gpus} GPU"
        return {
            "environment": self.entry.name,
            "gpus": self.gpus,
            "gpu_type": self.gpu_type,
            "size": self.size_name,
            "profile": profile,
            "title": self.entry.words.get("title") or self.entry.name,
            **self.asked,
        }


def usable(catalog: Catalog, person: Principal) -> Catalog:
    """The environments that a person may use and of which a version can be started.

    Their withdrawn versions are among them, so that who asks for one can be told why not.
    """
    return {
        name: versions
        for name, versions in catalog.items()
        for offered in [[entry for entry in versions if entry.is_offered]]
        if offered and can(person, Action.USE, offered[0].resource)
    }


def resolve(request: Request, catalog: Catalog, site: Site, person: Principal) -> Choice:
    """Turn names into what they stand for; what is left out gets the site's default.

    Raises BadRequest for a name that does not exist and for more GPUs than one server
    may have, NotAllowed for an account that is not the person's. Whether GPUs are free is
    for the policy to say.
    """
    known = list(catalog)
    if not catalog:
        raise BadRequest(NO_ENVIRONMENTS())
    name = request.environment or next(iter(catalog))
    if name not in catalog:
        raise BadRequest(ENVIRONMENT_UNKNOWN(environment=name, known=known))
    versions = [entry for entry in catalog[name] if entry.is_offered]
    entry = next((v for v in versions if request.version in ("", v.version, v.tag)), None)
    gone = next((v for v in catalog[name] if request.version in (v.version, v.tag)), None)
    if entry is None and gone is not None:
        raise BadRequest(
            VERSION_WITHDRAWN(
                environment=name,
                version=request.version,
                reason=(gone.withdrawn_reason or "-").rstrip("."),
                newer=versions[0].version,
            )
        )
    if entry is None:
        raise BadRequest(
            VERSION_UNKNOWN(
                environment=name,
                version=request.version,
                known=[version.version for version in versions],
            )
        )
    size_name = request.size or suiting(entry, site, sizes_for(person, site))
    size = size_of(size_name, person, site)
    if entry.gpu == "required" and not request.gpus:
        raise BadRequest(GPU_REQUIRED(environment=name))
    if request.gpus > site.gpus.max_per_server:
        raise BadRequest(GPU_OVER_LIMIT(count=request.gpus, most=site.gpus.max_per_server))
    asked = {
        "course": request.course,
        "account": request.account,
        "time_limit": request.minutes,
        "wait": None if request.wait else False,
    }
    return Choice(
        entry,
        size_name,
        size,
        request.gpus,
        request.gpu_type,
        account_of(request, person, site, entry.groups),
        None if request.minutes is None else request.minutes * 60.0,
        request.wait,
        {key: value for key, value in asked.items() if value not in ("", None)},
    )


def account_of(
    request: Request, person: Principal, site: Site, groups: Sequence[Scope] = ()
) -> str:
    """Who is charged: what is asked, else the course, else the one group whose environment it is.

    Else the only team, or of a student of one course that course, or the person. ``groups`` are
    those that the environment is for.
    """
    course = Scope("course", request.course)
    if request.course and not can(person, Action.CHARGE, course):
        if course not in groups_of_site(site):
            raise BadRequest(COURSE_UNKNOWN(course=request.course))
        raise NotAllowed(COURSE_NOT_YOURS(course=request.course))
    wanted = request.account
    if not wanted:
        if request.course:
            return course.account
        mine = [scope for scope in groups if can(person, Action.CHARGE, scope)]
        return mine[0].account if len(mine) == 1 else person.accounts[0]
    for scope in (of_account(wanted), *with_account(wanted)):
        if scope and can(person, Action.CHARGE, scope):
            return scope.account
    raise NOT_CHARGED.error(account=wanted, known=[*person.accounts])


def sizes_for(person: Principal, site: Site) -> Mapping[str, Size]:
    """The sizes that a person may have, by name."""
    scopes = [scope.source for scope in person.scopes]
    return {name: size for name, size in site.sizes.items() if size.is_for(scopes)}


def size_of(name: str, person: Principal, site: Site) -> Size:
    """A size by its name. Raises BadRequest where there is none, NotAllowed where it is others'."""
    sizes = sizes_for(person, site)
    if name not in site.sizes:
        raise BadRequest(SIZE_UNKNOWN(size=name, known=[*sizes]))
    size = site.sizes[name]
    if name not in sizes:
        raise NotAllowed(SIZE_NOT_YOURS(size=name, groups=size.only_for, known=[*sizes]))
    return size


def suiting(entry: CatalogEntry, site: Site, sizes: Collection[str]) -> str:
    """The size that an environment suggests, where the person may have it, else the site's own."""
    wanted = entry.server_size
    return wanted if wanted and wanted in sizes else site.default_size
