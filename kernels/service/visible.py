"""Which environments of the registry somebody may see."""

from __future__ import annotations

from collections.abc import Iterable

from commons.errors import BadRequest
from commons.principal import Principal
from commons.rights import Action, Resource, can
from commons.scopes import parse_source
from kernels.service.entries import RegistryEntry


def may_see(principal: Principal, source: str, audience: Iterable[str] = ()) -> bool:
    """Whether the environments of a source are this person's business.

    ``audience`` are the sources whose people alone may use them.
    """
    try:
        scopes = [parse_source(one, principal.name) for one in (source, *audience)]
    except BadRequest:
        return False
    return bool(can(principal, Action.SEE, Resource(scopes[0], audience=scopes[1:])))


def visible(principal: Principal, entries: Iterable[RegistryEntry]) -> list[RegistryEntry]:
    """Those of some environments that this person may see."""
    known: dict[tuple[str, ...], bool] = {}
    found = []
    for entry in entries:
        key = (entry.source, *entry.access)
        if key not in known:
            known[key] = may_see(principal, key[0], key[1:])
        if known[key]:
            found.append(entry)
    return found
