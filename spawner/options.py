"""What may be asked of a server: parsing, checking and showing ``user_options``.

The contract: ``environment`` ("name" or "name:version"), ``gpus`` (int), ``gpu_type``,
``size``, ``course``. Form and REST end in the same check; nothing else passes, least of
all an image name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hub_ext.i18n import N_, Gettext
from hub_ext.site import Site, Size, words_in
from spawner.environments.catalog import CatalogEntry
from spawner.errors import BadRequest
from spawner.gpu.devices import Availability

KEYS = ("environment", "gpus", "gpu_type", "size", "course")
# Written by us for the hub's admin page, so it comes back when a server is started again.
OWN_KEYS = ("profile",)
MAX_TEXT = 200

Catalog = Mapping[str, Sequence[CatalogEntry]]


@dataclass(frozen=True)
class Request:
    """A well-formed request; whether it can be filled is another question."""

    environment: str = ""
    version: str = ""
    gpus: int = 0
    gpu_type: str = ""
    size: str = ""


@dataclass(frozen=True)
class Choice:
    """A request with every name resolved."""

    entry: CatalogEntry
    size_name: str
    size: Size
    gpus: int
    gpu_type: str

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
    gpus = options.get("gpus")
    if isinstance(gpus, str) and re.fullmatch(r"\d{1,4}", gpus):
        options["gpus"] = int(gpus)
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
    texts = {key: options.get(key) or "" for key in KEYS if key != "gpus"}
    for key, value in texts.items():
        if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
            raise BadRequest(
                "option_not_text",
                N_("“{option}” must be a short text without control characters."),
                {"option": key},
            )
    if texts["course"]:
        raise BadRequest(
            "course_unknown",
            N_("There is no course “{course}” here."),
            {"course": texts["course"]},
        )
    name, _, version = texts["environment"].partition(":")
    return Request(name, version, gpus, texts["gpu_type"], texts["size"])


def usable(catalog: Catalog, auth_state: Mapping[str, Any]) -> Catalog:
    """The environments that a person may use and of which a version can be started.

    Their withdrawn versions are among them, so that who asks for one can be told why not.
    """
    teams, courses = auth_state.get("teams") or {}, auth_state.get("courses") or {}
    return {
        name: versions
        for name, versions in catalog.items()
        if any(entry.is_offered for entry in versions)
        and next(entry for entry in versions if entry.is_offered).allows(teams, courses)
    }


def resolve(request: Request, catalog: Catalog, site: Site) -> Choice:
    """Turn names into what they stand for; what is left out gets the site's default.

    Raises BadRequest for a name that does not exist and for more GPUs than one server
    may have. Whether GPUs are free is for the ledger to say.
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
    versions = [entry for entry in catalog[name] if entry.is_offered]
    entry = next((v for v in versions if request.version in ("", v.version, v.tag)), None)
    gone = next((v for v in catalog[name] if request.version in (v.version, v.tag)), None)
    if entry is None and gone is not None:
        raise BadRequest(
            "version_withdrawn",
            N_(
                "Version “{version}” of environment “{environment}” was withdrawn: {reason}. "
                "Take version “{newer}”."
            ),
            {
                "environment": name,
                "version": request.version,
                "reason": (gone.withdrawn_reason or "-").rstrip("."),
                "newer": versions[0].version,
            },
        )
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
    size_name = request.size or _suiting(entry, site)
    size = site.sizes.get(size_name)
    if size is None:
        raise BadRequest(
            "size_unknown",
            N_("There is no size “{size}”. Sizes: {known}."),
            {"size": size_name, "known": ", ".join(site.sizes)},
        )
    if entry.gpu == "required" and not request.gpus:
        raise BadRequest(
            "gpu_required",
            N_("Environment “{environment}” works only with a GPU. Ask for one."),
            {"environment": name},
        )
    if request.gpus > site.gpus.max_per_server:
        raise BadRequest(
            "gpu_over_limit",
            N_("{count} GPUs were asked for; one server may have at most {most} here."),
            {"count": request.gpus, "most": site.gpus.max_per_server},
        )
    return Choice(entry, size_name, size, request.gpus, request.gpu_type)


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
) -> dict[str, Any]:
    """All that the spawn page shows, in a person's language, as JSON-ready data.

    ``last`` are the options of the person's last start, which are chosen beforehand
    where they still exist. ``disabled`` is the reason why something can't be had.
    """
    chosen, _, pinned = str(last.get("environment", "")).partition(":")
    if chosen not in catalog:
        chosen = next(iter(catalog), "")
    offered = [entry for entry in catalog.get(chosen, ()) if entry.is_offered]
    suiting = _suiting(offered[0], site) if offered else site.default_size
    size = last.get("size") if last.get("size") in site.sizes else suiting
    most = min(site.gpus.max_per_server, gpus.total)
    best = max((kind.free for kind in gpus.types), default=0)
    last_gpus = last.get("gpus")
    wanted = max(0, min(last_gpus if isinstance(last_gpus, int) else 0, best, most))
    return {
        "environments": [
            _environment(
                [entry for entry in versions if entry.is_offered], lang, name == chosen, pinned
            )
            for name, versions in catalog.items()
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
            "choices": [
                {
                    "count": count,
                    "disabled": None if count <= best else _why_not(count, best, gettext),
                    "selected": count == wanted,
                }
                for count in range(most + 1)
            ],
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


def _suiting(entry: CatalogEntry, site: Site) -> str:
    """The size that an environment suggests, where the site has it, else the site's own."""
    return entry.server_size if entry.server_size in site.sizes else site.default_size


def show_bytes(count: int) -> str:
    """``2147483648`` -> ``"2 GiB"``."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} B"


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
        "tags": {entry.version: entry.tag for entry in versions if entry.tag},
        "deprecated": {
            entry.version: f"{entry.deprecated_at:%Y-%m-%d}"
            for entry in versions
            if entry.deprecated_at
        },
        "needs_gpu": newest.gpu == "required",
        "chosen_version": pinned if selected and pinned in names else newest.version,
        "title": words_in(title, lang),
        "description": words_in(newest.words.get("description") or "", lang),
        "python": newest.python,
        "main_packages": newest.main_packages,
        "package_count": len(newest.packages),
        "disabled": None,
        "selected": selected,
    }
