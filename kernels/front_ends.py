"""Front ends that come with environments: JupyterLab's part of ipywidgets, ipympl, bqplot, plotly.

``share/jupyter/labextensions`` of an environment is code for the browser, written by whoever made
the package. It is checked before a word of it is used; which of several versions is taken is a
function of plain values. Nothing of it is run here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from packaging.version import InvalidVersion, Version

from kernels import files
from kernels.hostile import parse_json
from kernels.kernelspec import Place
from kernels.messages import Message, ToldError, say, why

# Of one environment, and of one front end: files, bytes, folders within folders.
MAX_FRONT_ENDS, MAX_FILES, MAX_SIZE, MAX_DEPTH = 50, 4000, 100 * 1024 * 1024, 8
MAX_SCHEMAS = 20
_MAX_JSON = 128 * 1024
_NAME = re.compile(r"(?:@[a-z0-9~][a-z0-9._~-]{0,60}/)?[A-Za-z0-9~][A-Za-z0-9._~-]{0,90}")
_LOAD = re.compile(r"(?:\./)?static/(?:[\w@-][\w.@-]{0,120}/){0,3}[\w@-][\w.@-]{0,120}\.js")
_MODULE = re.compile(r"\./[\w@-][\w./@-]{0,120}")
# JupyterLab's own and ours, whose names nobody else may take.
_RESERVED = re.compile(r"@(?:jupyterlab|lumino|labcommons)/.*|labcommons.*|jupyterlab|__proto__")


class FrontEndError(ToldError, ValueError):
    """A front end that cannot be used; ``message`` is the reason, for people."""


@dataclass(frozen=True)
class FrontEnd:
    """A checked front end: ``folder`` has its ``static``; ``build`` is how JupyterLab loads it."""

    name: str
    version: str
    folder: str
    build: Mapping[str, str] = field(hash=False, default_factory=dict)
    schemas: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What one environment has: front ends, and for those that cannot be used, why."""

    place: Place
    shown: str
    front_ends: tuple[FrontEnd, ...] = ()
    refused: tuple[tuple[str, Message], ...] = ()


@dataclass(frozen=True)
class Choice:
    """What a page gets. ``shelf`` are those taken, by name, with their environment; ``passed``
    those of another version than the one taken.
    """

    shelf: Mapping[str, tuple[FrontEnd, Found]] = field(default_factory=dict)
    passed: tuple[tuple[FrontEnd, Found], ...] = ()


def choose(found: Sequence[Found], own: Mapping[str, str], chosen: str) -> Choice:
    """One version of each: our own, then the chosen environment's, then by the list's order of
    tiers, of which each gives its newest.

    ``own`` are the server's, name to version; ``chosen`` is an environment, ``name`` or
    ``name:version``.
    """
    name = chosen.partition(":")[0]
    first = [each for each in found if each.place.environment == name]
    first.sort(key=lambda each: each.place.source != "image")
    shelf: dict[str, tuple[FrontEnd, Found]] = {}
    passed: list[tuple[FrontEnd, Found]] = []
    rest = [each for each in found if each not in first]
    everything = [(front_end, each) for each in (*first, *rest) for front_end in each.front_ends]
    for front_end, each in everything:
        if front_end.name in own:
            continue
        before, of = shelf.setdefault(front_end.name, (front_end, each))
        same_tier = of not in first and _tier(of) == _tier(each)
        if same_tier and _newness(front_end.version) > _newness(before.version):
            shelf[front_end.name] = front_end, each
    for front_end, each in everything:
        taken = own.get(front_end.name) or shelf[front_end.name][0].version
        if taken != front_end.version:
            passed.append((front_end, each))
    return Choice(shelf, tuple(passed))


def _tier(found: Found) -> str:
    """What a source is one of: all teams are one tier."""
    return found.place.source.partition("-")[0]


def _newness(version: str) -> Version:
    try:
        return Version(version)
    except InvalidVersion:  # npm allows any word after a hyphen
        return Version("0")


def look(place: Place, shown: str, own: Collection[str]) -> Found:
    """The front ends of an environment. Never raises for what is on disk."""
    folder = f"{place.prefix}/share/jupyter/labextensions"
    taken: list[FrontEnd] = []
    refused: list[tuple[str, Message]] = []
    for name in _names(folder):
        if len(taken) + len(refused) == MAX_FRONT_ENDS:
            refused.append((name[:100], say("front_ends_many", most=MAX_FRONT_ENDS)))
            break
        try:
            taken.append(read(folder, name, own))
        except FrontEndError as error:
            refused.append((name[:100], error.message))
        except (OSError, ValueError, RecursionError) as error:
            refused.append((name[:100], say("front_end_not_read", error=why(error))))
    return Found(place, shown, tuple(taken), tuple(refused))


def _names(folder: str) -> Iterable[str]:
    """Names of packages, ``@scope/name`` where they have a scope."""
    for name in _listed(folder):
        if name.startswith("@"):
            yield from (f"{name}/{below}" for below in _listed(f"{folder}/{name}"))
        else:
            yield name


def _listed(folder: str) -> list[str]:
    try:
        return sorted(name for name in files.names(folder) if not name.startswith("."))[:1000]
    except OSError:
        return []


def read(root: str, name: str, own: Collection[str] = ()) -> FrontEnd:
    """One front end. Raises FrontEndError, or OSError and ValueError for what cannot be read."""
    if not _NAME.fullmatch(name):
        raise FrontEndError(say("front_end_name"))
    if _RESERVED.fullmatch(name.lower()):
        raise FrontEndError(say("front_end_reserved"))
    folder = f"{root}/{name}"
    # The folder of a scope, too, could lead elsewhere.
    if any(os.path.islink(part) for part in (folder, os.path.dirname(folder))):
        raise FrontEndError(say("front_end_link", path=name))
    document = _object(f"{folder}/package.json")
    if document.get("name") != name:
        raise FrontEndError(say("front_end_other_name"))
    version = document.get("version")
    if not isinstance(version, str) or not re.fullmatch(r"[\w.+~-]{1,64}", version):
        raise FrontEndError(say("front_end_version"))
    if name in own:
        # Ours is taken; of this the version is told and nothing used.
        return FrontEnd(name, version, folder)
    about = document.get("jupyterlab")
    build = _build(about.get("_build") if isinstance(about, Mapping) else None)
    _walk(folder)
    if not os.path.isfile(f"{folder}/{build['load']}"):
        raise FrontEndError(say("front_end_load", load=build["load"]))
    return FrontEnd(name, version, folder, build, _schemas(folder, name))


def _object(path: str) -> dict[str, Any]:
    raw, _ = files.read(path, _MAX_JSON + 1)
    document = parse_json(raw, _MAX_JSON)
    if not isinstance(document, dict):
        raise FrontEndError(say("front_end_no_object", path=os.path.basename(path)))
    return document


def _build(found: object) -> dict[str, str]:
    said = found if isinstance(found, Mapping) else {}
    load = said.get("load")
    if not isinstance(load, str) or not _LOAD.fullmatch(load):
        raise FrontEndError(say("front_end_build"))
    build = {"load": load.removeprefix("./")}
    for key in ("extension", "mimeExtension", "style"):
        module = said.get(key)
        if module is None:
            continue
        if not isinstance(module, str) or not _MODULE.fullmatch(module) or ".." in module:
            raise FrontEndError(say("front_end_build"))
        build[key] = module
    if len(build) == 1:
        raise FrontEndError(say("front_end_build"))
    return build


def _walk(folder: str) -> None:
    """Refuse links, pipes and what is too much. Raises FrontEndError, OSError."""
    count = size = 0
    waiting = [(folder, 0)]
    while waiting:
        where, depth = waiting.pop()
        with os.scandir(where) as entries:
            for entry in entries:
                seen = entry.stat(follow_symlinks=False)
                count, size = count + 1, size + seen.st_size
                if count > MAX_FILES or size > MAX_SIZE or depth > MAX_DEPTH:
                    raise FrontEndError(
                        say("front_end_large", files=MAX_FILES, size=MAX_SIZE // 1024**2)
                    )
                if stat.S_ISDIR(seen.st_mode):
                    waiting.append((entry.path, depth + 1))
                elif not stat.S_ISREG(seen.st_mode):
                    path = os.path.relpath(entry.path, folder)
                    raise FrontEndError(say("front_end_link", path=path[:200]))


def _schemas(folder: str, name: str) -> tuple[str, ...]:
    """Files that say its settings, those that a page can read."""
    found = []
    for each in _listed(f"{folder}/schemas/{name}")[:MAX_SCHEMAS]:
        path = f"{folder}/schemas/{name}/{each}"
        if not re.fullmatch(r"[\w-]{1,60}\.json", each):
            continue
        try:
            schema = _object(path)
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(schema.get("title"), str):
            found.append(each)
    return tuple(found)
