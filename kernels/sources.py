"""Where environments are looked for: ordered patterns, and the names they give.

A pattern is a glob of prefixes, or ``@FILE`` for a file that lists one prefix a line, as
conda's ``~/.conda/environments.txt`` does; such a file is only ever read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from kernels import files

# Past this many, the rest of a folder is left out: a listing must end.
MAX_ENVIRONMENTS = 10_000

_MAX_FILE_BYTES = 1024 * 1024
_WILD = re.compile(r"[*?\[]")
# Folders inside a project that say nothing about which project it is.
_NAMELESS = frozenset(("env", "envs", "conda", "venv"))


@dataclass(frozen=True)
class Source:
    """A place where environments are looked for.

    ``id`` goes into kernel names (``image``, ``team-bio``), ``pattern`` is a glob of prefixes
    (``~`` is the home) or ``@FILE``, ``label`` is what people see, empty for the image's own.
    In ``id`` and ``label``, ``{1}`` stands for what the pattern's first component with a
    wildcard matched, ``{2}`` for the second, and so on: ``Source("team-{1}",
    "/teams/*/envs/*", "team: {1}")`` covers every team.
    """

    id: str
    pattern: str
    label: str = ""


# The scopes of a LabCommons server, then where conda, mamba, micromamba and pixi put a person's.
DEFAULT_SOURCES = (
    Source("image", "/opt/conda/envs/*"),
    Source("shared", "/opt/labcommons/shared/envs/*", "shared"),
    Source("team-{1}", "/opt/labcommons/teams/*/envs/*", "team: {1}"),
    Source("course-{1}", "/opt/labcommons/courses/*/envs/*", "course: {1}"),
    Source("personal", "~/.conda/envs/*", "personal"),
    Source("personal", "~/.local/share/mamba/envs/*", "personal"),
    Source("personal", "~/micromamba/envs/*", "personal"),
    Source("personal", "~/*/.pixi/envs/*", "personal"),
    Source("personal", "@~/.conda/environments.txt", "personal"),
)


def firsts(sources: Sequence[Source]) -> frozenset[Source]:
    """Of the sources of one id the first: what is found there has its name to itself."""
    by_id: dict[str, Source] = {}
    for source in sources:
        by_id.setdefault(source.id, source)
    return frozenset(by_id.values())


# The names in a folder; raises OSError.
ListFolder = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Root:
    """A folder that holds environments; ``captures`` are for the source's templates."""

    folder: str
    leaf: str
    captures: tuple[str, ...]


def list_folder(folder: str) -> list[str]:
    """The names in a folder, sorted. Raises OSError."""
    return sorted(files.names(folder))


def roots(source: Source, names_in: ListFolder = list_folder) -> list[Root]:
    """The folders in which a glob finds environments, whether or not they are there."""
    parts = os.path.expanduser(source.pattern).rstrip("/").split("/")
    found: list[Root] = [Root("", parts[-1], ())]
    for part in parts[:-1]:
        if not _WILD.search(part):
            found = [Root(f"{root.folder}{part}/", root.leaf, root.captures) for root in found]
            continue
        found = [
            Root(f"{root.folder}{name}/", root.leaf, (*root.captures, name))
            for root in found
            for name in _matching(root.folder, part, names_in)
        ]
    return [Root(root.folder.rstrip("/") or "/", root.leaf, root.captures) for root in found]


def _matching(folder: str, part: str, names_in: ListFolder) -> list[str]:
    try:
        return matching(names_in(folder.rstrip("/") or "/"), part)
    except OSError:
        return []


def matching(names: Sequence[str], leaf: str) -> list[str]:
    """Those of the names that a pattern's component matches; hidden ones where it says so."""
    match = _compiled(leaf)
    hidden = leaf.startswith(".")
    return [name for name in names if match(name) and (hidden or not name.startswith("."))][
        :MAX_ENVIRONMENTS
    ]


@lru_cache(maxsize=64)
def _compiled(leaf: str) -> Callable[[str], object]:
    return re.compile(translate(leaf)).match


def fill(template: str, captures: Sequence[str]) -> str:
    """A template with ``{1}``, ``{2}``, ... replaced; numbers too high are left as they are."""
    if "{" not in template:
        return template

    def value(match: re.Match[str]) -> str:
        index = int(match[1]) - 1
        return captures[index] if 0 <= index < len(captures) else match[0]

    return re.sub(r"\{(\d{1,2})\}", value, template)


def listed_prefixes(source: Source) -> Iterator[str]:
    """The prefixes that the file of an ``@FILE`` source lists. Raises OSError."""
    path = os.path.expanduser(source.pattern[1:])
    raw, _ = files.read(path, _MAX_FILE_BYTES)
    lines = {line.strip().rstrip("/") for line in os.fsdecode(raw).splitlines()}
    for line in sorted(lines)[:MAX_ENVIRONMENTS]:
        if line.startswith("/") and "\0" not in line:
            yield os.path.normpath(line)


def environment_name(prefix: str) -> str:
    """What an environment is called: its folder's name, or its project's where that has none.

    ``/home/a/.conda/envs/torch`` -> ``torch``; ``/home/a/rna/.pixi/envs/default`` -> ``rna``;
    ``/home/a/rna/.pixi/envs/gpu`` -> ``rna-gpu``; ``/home/a/rna/env`` -> ``rna-env``.
    """
    parts = prefix.rstrip("/").split("/")
    leaf = parts[-1]
    if parts[-3:-1] == [".pixi", "envs"] and len(parts) > 4:
        return parts[-4] if leaf == "default" else f"{parts[-4]}-{leaf}"
    if parts[-2:-1] != ["envs"] and (leaf.startswith(".") or leaf in _NAMELESS) and len(parts) > 2:
        return f"{parts[-2]}-{leaf.lstrip('.')}"
    return leaf
