"""What the spawn page shows: the options as data, in a person's language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from commons.i18n import N_, Gettext
from commons.site import Site, words_in
from environments.catalog import CatalogEntry
from spawner.gpu.offer import Offer
from spawner.gpu.policy.placement import Availability
from spawner.options.choice import NO_ENVIRONMENTS, Catalog, suiting
from spawner.options.scoped import ScopedEntry


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
    offered = [entry for entry in catalog.get(chosen, ()) if entry.is_offered]
    usual = suiting(offered[0], site, site.sizes) if offered else site.default_size
    size = last.get("size") if last.get("size") in site.sizes else usual
    most = min(site.gpus.max_per_server, gpus.total)
    best = max((kind.free for kind in gpus.types), default=0)
    last_gpus = last.get("gpus")
    wanted = max(0, min(last_gpus if isinstance(last_gpus, int) else 0, most))
    account = next((one for one in offers if one.account == last.get("account")), None)
    account = account or next(iter(offers), None)
    models = [kind.model for kind in gpus.types]
    gpu_type = last["gpu_type"] if last.get("gpu_type") in models else ""
    choices = [_gpu_choice(count, best, account, gpu_type, gettext) for count in range(most + 1)]
    wanted = max(c["count"] for c in choices[: wanted + 1] if not c["disabled"])
    return {
        "environments": [
            _environment(
                [entry for entry in versions if entry.is_offered],
                lang,
                name == chosen,
                pinned,
                gettext,
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
            "selected_type": gpu_type,
        },
        "problem": None if catalog else NO_ENVIRONMENTS().in_words(gettext),
    }


def choose_posted(model: dict[str, Any], posted: Mapping[str, str]) -> None:
    """Make what was posted, and refused, the choice of a form's model, where it can be had."""
    environment, _, version = posted.get("environment", "").partition(":")
    _choose(model["environments"], "name", environment)
    _choose(model["sizes"], "name", posted.get("size", ""))
    gpus = model["gpus"]
    _choose(gpus["choices"], "count", posted.get("gpus", ""))
    for entry in model["environments"]:
        if entry["selected"] and version in entry["versions"]:
            entry["chosen_version"] = version
    if gpus.get("accounts"):
        _choose(gpus["accounts"], "name", posted.get("account", ""))
        minutes = posted.get("time_limit", "")
        gpus["time_limit"] = int(minutes) if minutes.isdecimal() and len(minutes) < 7 else None
        gpus["wait"] = bool(posted.get("wait"))
    if posted.get("gpu_type") in [kind["name"] for kind in gpus["types"]]:
        gpus["selected_type"] = posted["gpu_type"]


def _choose(choices: list[dict[str, Any]], key: str, value: str) -> None:
    """Make one choice the selected one, where it exists and can be had."""
    if any(str(one[key]) == value and not one.get("disabled") for one in choices):
        for one in choices:
            one["selected"] = str(one[key]) == value


def show_bytes(count: int) -> str:
    """``2147483648`` -> ``"2 GiB"``."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} B"


def _gpu_choice(
    count: int, free: int, offer: Offer | None, gpu_type: str, gettext: Gettext
) -> dict[str, Any]:
    """A number of GPUs: whether it can be had now, must be waited for, or never can be.

    What can be had of another type stays open to choice.
    """
    state, text = ("now", "") if offer is None else offer.outlooks.get(count, ("now", ""))
    if offer is None and count > free:
        state, text = "never", _why_not(count, free, gettext)
    if state == "never":
        return {"count": count, "disabled": text, "note": ""}
    note = text if offer is None else offer.outlooks_of(gpu_type).get(count, ("now", ""))[1]
    return {"count": count, "disabled": None, "note": note}


def _why_not(count: int, free: int, gettext: Gettext) -> str:
    if free == 0:
        return gettext(N_("All GPUs are in use now."))
    return gettext(N_("Free now, of one type: {free}.")).format(free=free)


def _environment(
    versions: Sequence[CatalogEntry], lang: str, selected: bool, pinned: str, gettext: Gettext
) -> dict[str, Any]:
    newest = versions[0]
    whose = newest.groups[0] if len(newest.groups) == 1 else None
    if isinstance(newest, ScopedEntry):
        whose = newest.scope
    names = [entry.version for entry in versions]
    title = newest.words.get("title") or newest.name
    return {
        "name": newest.name,
        "whose": whose.title(gettext) if whose else "",
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
