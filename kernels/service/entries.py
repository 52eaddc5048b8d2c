"""What the registry says of environments: plain records, and the pure rules that make them.

An entry is one environment of one source. Those in images come from the catalog; those of the
scopes (shared, teams, courses) from looking at their folders. Nothing here touches disk or
database.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from commons.scopes import listed
from kernels.discovery import Environment
from kernels.kernelspec import (
    CheckedSpec,
    Place,
    SpecError,
    check_document,
    display_name,
    kernel_names,
    load_document,
    plain_spec,
)
from kernels.messages import Message, in_one, say, why
from kernels.prefix import of_kernels
from kernels.service.registry import IMAGE, Shelf

LIVE = "live"
# How long what cannot be seen any more is kept: longer than a weekend without the file server.
KEEP = timedelta(days=4)

_MAX_KERNELS = 100
_MAX_VARIABLES = 64
_MAX_VALUE = 4096


class State(StrEnum):
    """Of an environment, or of a whole source. ``kernels.discovery`` says most of them."""

    HEALTHY = "healthy"
    NO_KERNEL = "no_kernel"
    INCOMPLETE = "incomplete"
    BROKEN = "broken"
    UNREADABLE = "unreadable"
    UNAVAILABLE = "unavailable"
    WITHDRAWN = "withdrawn"
    UNWRITTEN = "unwritten"  # healthy, but its kernelspecs could not be put into the registry


# An environment that is under way, or that somebody may be repairing.
UNSETTLED = frozenset({State.NO_KERNEL, State.INCOMPLETE, State.BROKEN})


@dataclass(frozen=True)
class KernelEntry:
    """One kernel as lists show it. ``content`` is its kernel.json, empty where it is only known
    from the database."""

    name: str
    display_name: str
    language: str
    content: bytes = field(default=b"", repr=False, compare=False)


Key = tuple[str, str, str]


@dataclass(frozen=True)
class RegistryEntry:
    """One environment of one source. ``reason`` says why it is not healthy and what to do.

    ``facts`` may have ``title`` (a text, or texts by language), ``deprecated`` (a date) and
    ``access`` (the sources whose people may use it; without it everybody may).
    """

    source: str
    environment: str
    version: str
    label: str
    prefix: str
    python: str | None
    state: State
    reason: Message | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    kernels: tuple[KernelEntry, ...] = ()

    @property
    def key(self) -> Key:
        """What an entry is told by."""
        return self.source, self.environment, self.version

    @property
    def access(self) -> tuple[str, ...]:
        """The sources whose people alone may use it; empty where it is for all of its source."""
        access = self.facts.get("access")
        return tuple(access) if isinstance(access, list) else ()

    @property
    def audience(self) -> tuple[str, ...]:
        """The sources of which one has to be a person's for this environment to be."""
        return self.access or (self.source,)

    @property
    def shelf(self) -> Shelf:
        """The folder of the registry that has its kernels."""
        if self.source == IMAGE:
            return IMAGE, self.environment, self.version
        return (self.source,)


@dataclass(frozen=True)
class CatalogRow:
    """What the catalog says of one built environment; not yet checked."""

    name: str
    version: str
    prefix: str
    python: str | None
    kernelspecs: Mapping[str, Any]
    words: Mapping[str, Any] = field(default_factory=dict)
    access: Mapping[str, Any] = field(default_factory=dict)
    deprecated: datetime | None = None
    withdrawn: Message | None = None


@dataclass(frozen=True)
class Found:
    """An environment on disk, and what else of it matters here.

    ``version`` is that of a build of ours, ``variables`` are what an activation sets without
    running anything.
    """

    environment: Environment
    version: str = LIVE
    facts: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


# From the catalog ------------------------------------------------------------------------------


def from_catalog(row: CatalogRow) -> tuple[RegistryEntry | None, list[Message]]:
    """The entry of a catalog row, and a message for each thing that cannot be used."""
    where = say("environment_version", name=repr(row.name), version=repr(row.version))
    for value in (row.name, row.version):
        if not isinstance(value, str) or not _is_folder(value):
            return None, [say("name_no_folder", where=where)]
    prefix = row.prefix
    if not isinstance(prefix, str) or not _is_plain_path(prefix):
        return None, [
            say(
                "prefix_not_plain",
                where=where,
                prefix=repr(prefix),
            )
        ]
    if not isinstance(row.kernelspecs, Mapping) or len(row.kernelspecs) > _MAX_KERNELS:
        return None, [say("kernelspecs_unusable", where=where)]
    if os.path.basename(prefix) != row.name:
        # A user's server names kernels by the prefix; both lists must give one name.
        return None, [
            say(
                "prefix_not_its_name",
                where=where,
                prefix=repr(prefix),
            )
        ]
    python = row.python if isinstance(row.python, str) else None
    place = Place(IMAGE, "", prefix, row.name, row.version, python)
    checked: list[tuple[str, CheckedSpec]] = []
    problems: list[Message] = []
    for own_name, document in sorted(row.kernelspecs.items(), key=lambda item: str(item[0])):
        try:
            raw = json.dumps(document).encode()
            checked.append((str(own_name), check_document(load_document(raw), prefix)))
        except (SpecError, TypeError, ValueError, RecursionError) as error:
            problems.append(
                say("kernel_in_version", where=where, name=repr(own_name), why=why(error))
            )
    names = kernel_names([(place, own_name) for own_name, _ in checked])
    kernels = tuple(
        _kernel(name, place, own_name, spec, {})
        for name, (own_name, spec) in zip(names, checked, strict=True)
    )
    state: State = State.HEALTHY
    reason: Message | None = None
    if row.withdrawn is not None:
        state = State.WITHDRAWN
        reason = say("withdrawn_version", reason=row.withdrawn)
    elif not kernels:
        state = State.BROKEN if problems else State.NO_KERNEL
        reason = in_one(problems) if problems else say("built_without_kernel")
    entry = RegistryEntry(
        IMAGE,
        row.name,
        row.version,
        "",
        prefix,
        python,
        state,
        _cleaned(reason),
        _facts_of(row),
        kernels,
    )
    return entry, problems


def _facts_of(row: CatalogRow) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if isinstance(row.words, Mapping) and isinstance(row.words.get("title"), str | Mapping):
        facts["title"] = row.words["title"]
    if row.deprecated is not None:
        facts["deprecated"] = row.deprecated.date().isoformat()
    if access := sorted(scope.source for scope in listed(row.access)):
        facts["access"] = access
    return facts


def _is_folder(name: str) -> bool:
    plain = name.isascii() and all(c.isalnum() or c in "._+-" for c in name)
    return plain and 0 < len(name) <= 64 and name[0].isalnum()


def _is_plain_path(path: str) -> bool:
    return (
        path.startswith("/")
        and os.path.normpath(path) == path
        and path.isprintable()
        and 1 < len(path) <= 255
    )


# From disk -------------------------------------------------------------------------------------


# What was made of an environment the last time, by its prefix: from what, under which names.
Memory = dict[str, tuple[Found, tuple[str, ...], RegistryEntry]]


def from_disk(found: Sequence[Found], memory: Memory) -> tuple[list[RegistryEntry], list[Message]]:
    """The entries of one source's environments, and a message for each that cannot be listed.

    What is in ``memory`` and has not changed is not made again; ``memory`` is brought up to date.
    """
    listed: list[Found] = []
    problems: list[Message] = []
    for item in found:
        place = item.environment.place
        if place.prefix.isprintable() and len(place.prefix) <= 1024:
            listed.append(item)
        else:
            # Surrogates of a name that is not UTF-8, control characters: no page can show them.
            problems.append(
                say(
                    "name_not_shown",
                    prefix=ascii(place.prefix),
                )
            )
    kernels = [
        (item, kernel)
        for item in listed
        if str(item.environment.state) in (State.HEALTHY, State.UNAVAILABLE)
        for kernel in item.environment.kernels
    ]
    names: dict[str, list[str]] = {}
    given = kernel_names([(item.environment.place, kernel.own_name) for item, kernel in kernels])
    for name, (item, _) in zip(given, kernels, strict=True):
        names.setdefault(item.environment.place.prefix, []).append(name)
    before = dict(memory)
    memory.clear()
    for item in listed:
        prefix = item.environment.place.prefix
        own = tuple(names.get(prefix, ()))
        known = before.get(prefix)
        if known and known[0] is item and known[1] == own:
            memory[prefix] = known
        else:
            memory[prefix] = (item, own, _entry(item, own))
    return [entry for _, _, entry in memory.values()], problems


def _place(found: Found) -> Place:
    return replace(found.environment.place, version=found.version)


def _entry(found: Found, names: Sequence[str]) -> RegistryEntry:
    environment, place = found.environment, _place(found)
    kernels = [
        _kernel(name, place, kernel.own_name, kernel.spec, found.variables)
        for name, kernel in zip(names, environment.kernels, strict=False)
    ]
    try:
        state = State(str(environment.state))
    except ValueError:
        state = State.BROKEN
    reason = environment.reason
    if state is State.HEALTHY and environment.problems:
        reason = of_kernels(environment.problems)
    return RegistryEntry(
        place.source,
        place.environment,
        found.version,
        place.label,
        place.prefix,
        place.python,
        state,
        _cleaned(reason),
        found.facts,
        tuple(sorted(kernels, key=lambda kernel: kernel.name)),
    )


def _cleaned(reason: Message | None) -> Message | None:
    """As it comes back from the store: within limits, and without what no page could show."""
    return reason and Message.from_json(reason.as_json())


def _kernel(
    name: str, place: Place, own_name: str, spec: CheckedSpec, variables: Mapping[str, str]
) -> KernelEntry:
    document = plain_spec(place, own_name, spec)
    document["env"] = literal_variables(variables) | document["env"]
    return KernelEntry(
        name,
        display_name(place, own_name, spec),
        spec.language,
        (json.dumps(document, indent=1, sort_keys=True) + "\n").encode(),
    )


def literal_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """An environment's variables as a kernelspec can say them: as they are, never a template.

    What is too long for a kernelspec is left out; our provisioner sets it all the same.
    """
    fitting = {
        name: value.replace("$", "$$")
        for name, value in sorted(variables.items())
        if len(value) <= _MAX_VALUE and "\0" not in value and _is_encodable(value)
    }
    return dict(list(fitting.items())[:_MAX_VARIABLES])


def _is_encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


# Over time -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """What one look at a source's folder gave.

    ``state`` is healthy where its environments could be listed. ``device`` tells one file
    system from another; it is empty where there is no folder.
    """

    source: str
    label: str
    state: State
    reason: Message | None = None
    device: str = ""
    found: tuple[Found, ...] = ()


def is_lost(look: Look, known: Iterable[RegistryEntry], device: str) -> bool:
    """Whether what was known is out of sight rather than removed.

    That is so where the folder cannot be read; and where all is gone at once together with
    the file system that it was on, which is what an unmounted one looks like.
    """
    if look.state is not State.HEALTHY:
        return True
    if look.found or not any(True for _ in known):
        return False
    return look.device != device


def kept(
    known: Iterable[RegistryEntry], look: Look, last_seen: datetime, now: datetime
) -> list[RegistryEntry]:
    """What stays listed of a source that is lost: all that it had, for as long as ``KEEP``.

    A clock that was set back makes nothing older.
    """
    if now - last_seen > KEEP:
        return []
    state = look.state if look.state is not State.HEALTHY else State.UNAVAILABLE
    reason = look.reason or say("folder_lost")
    return [replace(entry, state=state, reason=reason) for entry in known]
