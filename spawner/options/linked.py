"""A link to the spawn page (``?environment=…&gpus=1&size=…``) fills the form; what it names that
cannot be had is said, and the rest is filled all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from commons.errors import LabError
from commons.i18n import N_
from commons.messages import Message, Text
from commons.principal import Principal
from commons.site import Site
from spawner.gpu.ledger.reservations import GPU_TYPE_UNKNOWN
from spawner.gpu.policy.placement import Availability
from spawner.options.choice import (
    GPU_OVER_LIMIT,
    GPU_REQUIRED,
    Catalog,
    account_of,
    resolve,
    size_of,
)
from spawner.options.request import KEYS, OPTION_UNKNOWN, OPTIONS, parse

GPUS_NOT_NOW = Text("link_gpus_not_now", N_("{count} GPUs are not available: {reason}"))
TIME_LIMIT_NOT_OFFERED = Text(
    "link_time_limit_not_offered",
    N_("A time limit of {minutes} min cannot be chosen here; choose one of the list."),
)
MOST_UNKNOWN = 3  # options that are named; a link may have any number of them


def linked(
    link: Mapping[str, Sequence[str]],
    catalog: Catalog,
    site: Site,
    gpus: Availability,
    person: Principal,
) -> tuple[dict[str, Any], list[Message]]:
    """Options that a link asks for and that can be had, and a message for each that cannot."""
    unknown = [key[:40] for key in link if key not in KEYS][:MOST_UNKNOWN]
    problems = [OPTION_UNKNOWN(option=key, known=[*KEYS]) for key in unknown]
    found: dict[str, Any] = {}
    for option in OPTIONS:
        try:
            value = option.posted(link)
            if value is not None:
                found[option.name] = option.check(value)
        except LabError as error:
            problems.append(error.message)
    if not catalog:
        return {}, []
    if "environment" in found:
        problems += _environment(found, catalog, site, person)
    if found.get("size"):
        try:
            size_of(found["size"], person, site)
        except LabError as error:
            problems.append(error.message)
            del found["size"]
    most = min(site.gpus.max_per_server, gpus.total)
    if found.get("gpus", 0) > most:
        problems.append(GPU_OVER_LIMIT(count=found.pop("gpus"), most=most))
    models = [kind.model for kind in gpus.types]
    if found.get("gpu_type", "") not in ("", *models):
        known = ", ".join(models) or "–"
        problems.append(GPU_TYPE_UNKNOWN(model=found.pop("gpu_type"), known=known))
    if charged := {key: found.pop(key) for key in ("account", "course") if found.get(key)}:
        try:
            found["account"] = account_of(parse(charged), person, site)
        except LabError as error:
            problems.append(error.message)
    return {key: value for key, value in found.items() if value not in ("", None)}, problems


def _environment(
    found: dict[str, Any], catalog: Catalog, site: Site, person: Principal
) -> list[Message]:
    """What is wrong with the environment; of a version that is not there, the name is kept."""
    asked = found["environment"]
    try:
        resolve(parse({"environment": asked}), catalog, site, person)
    except LabError as error:
        if error.code == GPU_REQUIRED.code:
            return []
        name = asked.partition(":")[0]
        found["environment"] = name if name in catalog else ""
        return [error.message]
    return []


def not_chosen(model: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Message]:
    """What a link asks for, and the form's model cannot have chosen now."""
    gpus, problems = model["gpus"], []
    for one in gpus["choices"]:
        if one["count"] == wanted.get("gpus") and one["disabled"]:
            problems.append(GPUS_NOT_NOW(count=one["count"], reason=one["disabled"]))
    minutes = wanted.get("time_limit")
    account = next((one for one in gpus["accounts"] if one["selected"]), None)
    if minutes and account and minutes not in account["minutes"]:
        problems.append(TIME_LIMIT_NOT_OFFERED(minutes=minutes))
    return problems
