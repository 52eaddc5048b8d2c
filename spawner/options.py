"""What may be asked of a server: parsing, checking and showing ``user_options``.

The contract: ``environment`` ("name" or "name:version"), ``gpus`` (int), ``gpu_type``,
``size``, ``course``, ``account`` (who is charged), ``time_limit`` (whole minutes; Slurm's
``--time``), ``wait`` (in the queue, or be refused where nothing is free). Form and REST end in
the same check; nothing else passes, least of all an image name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub_ext.i18n import N_, Gettext
from hub_ext.site import Site, Size, words_in
from spawner.environments.catalog import CatalogEntry
from spawner.errors import BadRequest, NotAllowed
from spawner.gpu.devices import Availability
from spawner.gpu.offer import Offer

KEYS = ("environment", "gpus", "gpu_type", "size", "course", "account", "time_limit", "wait")
NOT_TEXTS = ("gpus", "time_limit", "wait")
# Written by us for the hub's admin page, so it comes back when a server is started again.
OWN_KEYS = ("profile",)
MAX_TEXT = 200
MOST_MINUTES = 366 * 24 * 60

Catalog = Mapping[str, Sequence[CatalogEntry]]


@dataclass(frozen=True)
class Request:
    """A well-formed request; whether it can be filled is another question."""

    environment: str = ""
    version: str = ""
    gpus: int = 0
    gpu_type: str = ""
    size: str = ""
    course: str = ""
    account: str = ""
    minutes: int | None = None
    wait: bool = True


@dataclass(frozen=True)
class Person:
    """Who asks, and what they are in, as the directory says."""

    name: str
    teams: Sequence[str] = ()
    courses: Sequence[str] = ()

    @classmethod
    def of(cls, name: str, auth_state: Mapping[str, Any]) -> Person:
        """From the hub's ``auth_state``."""
        return cls(
            name, tuple(auth_state.get("teams") or ()), tuple(auth_state.get("courses") or ())
        )

    @property
    def accounts(self) -> tuple[str, ...]:
        """The subjects whom this person may charge; the first one is meant without a word."""
        teams = [f"group:{team}" for team in sorted(self.teams)]
        courses = [f"course:{course}" for course in sorted(self.courses)]
        own = f"user:{self.name}"
        return (*teams, own, *courses) if len(teams) == 1 else (own, *teams, *courses)


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
        """What the hub keeps; ``profile`` is what its admin page shows."""
        profile = f"{self.entry.name} · {self.size_name}"
        if self.gpus:
            profile += f" · {self.gpus} GPU"
        return {
            "environment": self.entry.name,
            "gpus": self.gpus,
            "gpu_type": self.gpu_type,
            "size": self.size_name,
            "profile": profile,
            **self.asked,
        }


def from_form(form: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """``user_options`` from posted form data (lists of strings), to be checked by ``parse``."""
    options: dict[str, Any] = {}
    for key in KEYS:
        values = form.get(key, [])
        if len(values) > 1:
            raise BadRequest(
                "option_repeated",
                N_("The option “{option}” was given more than once. Choose one."),
                {"option": key},
            )
        if values and values[0] != "":
            options[key] = values[0]
    for key in ("gpus", "time_limit"):
        value = options.get(key)
        if isinstance(value, str) and re.fullmatch(r"\d{1,6}", value):
            options[key] = int(value)
    # A browser does not send a box that is not ticked; that there was one, says its twin.
    wait = options.pop("wait", None)
    if wait == "false" or (wait is None and form.get("wait_shown")):
        options["wait"] = False
    elif wait not in (None, "true"):
        options["wait"] = wait
    return options


def parse(options: Mapping[str, Any]) -> Request:
    """Check names and types. Raises BadRequest naming the option and what would work."""
    unknown = [str(key)[:40] for key in options if key not in KEYS + OWN_KEYS]
    if unknown:
        raise BadRequest(
            "option_unknown",
            N_("There is no option “{option}”. The options are: {known}."),
            {"option": unknown[0], "known": ", ".join(KEYS)},
        )
    gpus = options.get("gpus", 0)
    if isinstance(gpus, bool) or not isinstance(gpus, int) or not 0 <= gpus <= 9999:
        raise BadRequest(
            "gpus_not_a_number",
            N_("“gpus” must be a whole number, 0 or more."),
        )
    minutes, wait = options.get("time_limit"), options.get("wait", True)
    if minutes is not None and (
        isinstance(minutes, bool)
        or not isinstance(minutes, int)
        or not 1 <= minutes <= MOST_MINUTES
    ):
        raise BadRequest(
            "time_limit_not_minutes",
            N_("“time_limit” must be a whole number of minutes, 1 or more."),
        )
    if not isinstance(wait, bool):
        raise BadRequest("wait_not_boolean", N_("“wait” must be true or false."))
    texts = {key: options.get(key) or "" for key in KEYS if key not in NOT_TEXTS}
    for key, value in texts.items():
        if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
            raise BadRequest(
                "option_not_text",
                N_("“{option}” must be a short text without control characters."),
                {"option": key},
            )
    name, _, version = texts["environment"].partition(":")
    return Request(
        name,
        version,
        gpus,
        texts["gpu_type"],
        texts["size"],
        texts["course"],
        texts["account"],
        minutes,
        wait,
    )


def resolve(request: Request, catalog: Catalog, site: Site, person: Person) -> Choice:
    """Turn names into what they stand for; what is left out gets the site's default.

    Raises BadRequest for a name that does not exist and for more GPUs than one server
    may have, NotAllowed for an account that is not the person's. Whether GPUs are free is
    for the policy to say.
    """
    known = ", ".join(catalog)
    if not catalog:
        raise BadRequest("environment_none", NO_ENVIRONMENTS)
    name = request.environment or next(iter(catalog))
    if name not in catalog:
        raise BadRequest(
            "environment_unknown",
            N_("There is no environment “{environment}”. Environments: {known}."),
            {"environment": name, "known": known},
        )
    versions = catalog[name]
    entry = next((v for v in versions if request.version in ("", v.version)), None)
    if entry is None:
        raise BadRequest(
            "version_unknown",
            N_("Environment “{environment}” has no version “{version}”. Versions: {known}."),
            {
                "environment": name,
                "version": request.version,
                "known": ", ".join(version.version for version in versions),
            },
        )
    size_name = request.size or site.default_size
    size = site.sizes.get(size_name)
    if size is None:
        raise BadRequest(
            "size_unknown",
            N_("There is no size “{size}”. Sizes: {known}."),
            {"size": size_name, "known": ", ".join(site.sizes)},
        )
    if request.gpus > site.gpus.max_per_server:
        raise BadRequest(
            "gpu_over_limit",
            N_("{count} GPUs were asked for; one server may have at most {most} here."),
            {"count": request.gpus, "most": site.gpus.max_per_server},
        )
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
        account_of(request, person, site),
        None if request.minutes is None else request.minutes * 60.0,
        request.wait,
        {key: value for key, value in asked.items() if value not in ("", None)},
    )


def account_of(request: Request, person: Person, site: Site) -> str:
    """Who is charged: what is asked, else the course, else the only team, else the person."""
    if request.course and request.course not in person.courses:
        if request.course not in site.directory.courses:
            raise BadRequest(
                "course_unknown",
                N_("There is no course “{course}” here."),
                {"course": request.course},
            )
        raise NotAllowed(
            "course_not_yours",
            N_("You are not in the course “{course}”."),
            {"course": request.course},
        )
    wanted = request.account
    if not wanted:
        return f"course:{request.course}" if request.course else person.accounts[0]
    for account in (wanted, f"group:{wanted}", f"course:{wanted}", f"user:{wanted}"):
        if account in person.accounts:
            return account
    raise NotAllowed(
        "account_not_yours",
        N_("You cannot charge “{account}”. You may charge: {known}."),
        {"account": wanted, "known": ", ".join(person.accounts)},
    )


NO_ENVIRONMENTS = N_(
    "No environment has been built yet. An administrator builds them with "
    "“labcommons env build --all”."
)


def form_model(
    catalog: Catalog,
    site: Site,
    gpus: Availability,
    last: Mapping[str, Any],
    lang: str,
    gettext: Gettext,
    offers: Sequence[Offer] = (),
) -> dict[str, Any]:
    """All that the spawn page shows, in a person's language, as JSON-ready data.

    ``last`` are the options of the person's last start, which are chosen beforehand
    where they still exist. ``disabled`` is the reason why something can't be had. ``offers``
    are the accounts that the person may charge, the usual one first.
    """
    chosen, _, pinned = str(last.get("environment", "")).partition(":")
    if chosen not in catalog:
        chosen = next(iter(catalog), "")
    size = last.get("size") if last.get("size") in site.sizes else site.default_size
    most = min(site.gpus.max_per_server, gpus.total)
    best = max((kind.free for kind in gpus.types), default=0)
    last_gpus = last.get("gpus")
    wanted = max(0, min(last_gpus if isinstance(last_gpus, int) else 0, most))
    account = next((one for one in offers if one.account == last.get("account")), None)
    account = account or next(iter(offers), None)
    choices = [_gpu_choice(count, best, account, gettext) for count in range(most + 1)]
    wanted = max(c["count"] for c in choices[: wanted + 1] if not c["disabled"])
    return {
        "environments": [
            _environment(versions, lang, versions[0].name == chosen, pinned)
            for versions in catalog.values()
        ],
        "sizes": [
            {
                "name": name,
                "title": words_in(item.title, lang) if item.title else name,
                "cpu": item.cpu,
                "memory": show_bytes(item.memory_bytes),
                "disabled": None,
                "selected": name == size,
            }
            for name, item in site.sizes.items()
        ],
        "gpus": {
            "simulated": gpus.simulated,
            "total": gpus.total,
            "free": gpus.free,
            "max": most,
            "choices": [choice | {"selected": choice["count"] == wanted} for choice in choices],
            "accounts": [one.as_json(one is account) for one in offers],
            "time_limit": last.get("time_limit"),
            "wait": last.get("wait", True),
            "types": [
                {
                    "name": kind.model,
                    "memory": show_bytes(kind.memory),
                    "total": kind.total,
                    "free": kind.free,
                }
                for kind in gpus.types
            ],
            "selected_type": last.get("gpu_type", "")
            if last.get("gpu_type") in [kind.model for kind in gpus.types]
            else "",
        },
        "problem": None if catalog else gettext(NO_ENVIRONMENTS),
    }


def show_bytes(count: int) -> str:
    """``2147483648`` -> ``"2 GiB"``."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} B"


def _gpu_choice(count: int, free: int, offer: Offer | None, gettext: Gettext) -> dict[str, Any]:
    """A number of GPUs: whether it can be had now, must be waited for, or never can be."""
    state, text = ("now", "") if offer is None else offer.outlooks.get(count, ("now", ""))
    if offer is None and count > free:
        state, text = "never", _why_not(count, free, gettext)
    return {
        "count": count,
        "disabled": text if state == "never" else None,
        "note": text if state != "never" else "",
    }


def _why_not(count: int, free: int, gettext: Gettext) -> str:
    if free == 0:
        return gettext(N_("All GPUs are in use now."))
    return gettext(N_("Free now, of one type: {free}.")).format(free=free)


def _environment(
    versions: Sequence[CatalogEntry], lang: str, selected: bool, pinned: str
) -> dict[str, Any]:
    newest = versions[0]
    names = [entry.version for entry in versions]
    title = newest.words.get("title") or newest.name
    return {
        "name": newest.name,
        "version": newest.version,
        "versions": names,
        "chosen_version": pinned if selected and pinned in names else newest.version,
        "title": words_in(title, lang),
        "description": words_in(newest.words.get("description") or "", lang),
        "python": newest.python,
        "main_packages": newest.main_packages,
        "package_count": len(newest.packages),
        "disabled": None,
        "selected": selected,
    }
