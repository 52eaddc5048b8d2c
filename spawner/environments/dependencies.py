"""What an environment.yml asks for: conda's packages and those of its ``pip:`` section."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from rattler import MatchSpec
from rattler.exceptions import InvalidMatchSpecError
from ruamel.yaml.nodes import MappingNode, Node

from spawner.environments.document import Document
from spawner.environments.errors import SpecError
from spawner.environments.files import WORDS_FILE

MAX_DEPENDENCIES = 500
_CHANNEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_SCHEMES = ("https", "http", "file")
_SUBDIR = re.compile(r"(noarch|(linux|osx|win|emscripten|wasi|freebsd|zos)-\w+)")
_PACKAGE_NAME = re.compile(r"[a-z0-9_][a-z0-9._-]*")
_BRACKETS = re.compile(r"\[(.*)\]")
_BRACKET_KEYS = ("build_number", "md5", "sha256")
_REMEDY = "write for example 'numpy >=2' or 'conda-forge::numpy'"


@dataclass(frozen=True)
class Dependency:
    """One package asked for.

    Attributes:
        name: the package's normalised name.
        version: conda's version spec, or None for any.
        spec: the whole match spec without its channel.
        channel: the channel of ``channel::package``, or None.
    """

    name: str
    version: str | None
    spec: str
    channel: str | None = None

    def __str__(self) -> str:
        return f"{self.channel}::{self.spec}" if self.channel else self.spec


def channel_problem(channel: str) -> str | None:
    """Why a text is no channel, or None. Relative paths would depend on where one stands."""
    if "://" in channel:
        return _url_problem(channel)
    if channel.startswith("/"):
        return f"channel {channel!r}: '..' is not accepted" if ".." in channel.split("/") else None
    if not _CHANNEL_NAME.fullmatch(channel) or len(channel) > 200:
        return f"{channel[:200]!r} is not a channel's name; write for example conda-forge"
    if _SUBDIR.fullmatch(channel.rpartition("/")[2]):
        return (
            f"channel {channel!r} names a platform; servers choose theirs: write "
            f"{channel.rpartition('/')[0] or 'conda-forge'}"
        )
    return None


def _url_problem(channel: str) -> str | None:
    try:
        url = urlsplit(channel)
        host, secret = url.hostname, url.username or url.password
    except ValueError:
        return f"channel {channel!r} is not a valid URL"
    if secret or "/t/" in url.path:
        return (
            "a channel's URL must not contain a name, password or token; the site file's "
            "environments.credentials is the place"
        )
    if url.query or url.fragment or ".." in url.path.split("/"):
        return f"channel {channel!r}: a URL without '?', '#' and '..' is wanted"
    if bool(host) != (url.scheme in ("http", "https")) or url.scheme not in _SCHEMES:
        return f"channel {channel!r}: write https://HOST/…, http://HOST/… or file:///…"
    return None


def read_dependencies(
    reader: Document, node: Node | None, pip: dict[str, str]
) -> tuple[Dependency, ...]:
    """The conda packages; those of the ``pip:`` section are put into ``pip`` by name.

    Raises SpecError with file, line and remedy.
    """
    if node is None:
        raise reader.error(None, "'dependencies' is missing; write for example '- python 3.13.*'")
    items = reader.sequence(node, "dependencies")
    if not 0 < len(items) <= MAX_DEPENDENCIES:
        raise reader.error(node, f"one to {MAX_DEPENDENCIES} dependencies are wanted")
    found: dict[str, Dependency] = {}
    sections = []
    for item in items:
        if isinstance(item, MappingNode):
            sections.append(_pip_section(reader, item))
            continue
        dependency = _dependency(reader, item)
        if dependency.name in found:
            raise reader.error(
                item, f"{dependency.name!r} is listed twice; write one line such as 'x >=1,<2'"
            )
        found[dependency.name] = dependency
    names = {canonicalize_name(name) for name in found}
    for item in (item for section in sections for item in section):
        name, requirement = _requirement(reader, item)
        if name in names:
            raise reader.error(
                item, f"{name!r} is listed for conda and for pip; keep one, best conda's"
            )
        if name in pip:
            raise reader.error(item, f"{name!r} is listed twice for pip; keep one")
        pip[name] = requirement
    if len(pip) > MAX_DEPENDENCIES:
        raise reader.error(node, f"at most {MAX_DEPENDENCIES} pip packages are wanted")
    return tuple(found.values())


def _pip_section(reader: Document, node: MappingNode) -> Iterable[Node]:
    section = reader.mapping(node, "a dependency")
    key = next(iter(section), "")
    if key.startswith("sel("):
        raise reader.error(
            node,
            f"the selector {key!r} is not understood by conda; servers here run Linux: write "
            "the Linux packages without it and remove the others",
        )
    if list(section) != ["pip"]:
        raise reader.error(
            node, "a dependency is one text such as 'numpy >=2', without ': ', or a 'pip:' list"
        )
    return reader.sequence(section["pip"], "pip")


def _requirement(reader: Document, node: Node) -> tuple[str, str]:
    text = reader.text(node, "a pip package")
    remedy = "write for example 'requests >=2.31'"
    if text.startswith(("-r", "--requirement", "-c", "--constraint")):
        raise reader.error(
            node, f"{text[:80]!r}: other files are not read; write their lines here, one each"
        )
    if text.startswith(("-e", "--editable", ".", "/")) or text.startswith("file:"):
        raise reader.error(
            node,
            f"{text[:80]!r}: a folder is on one machine only; make a wheel and put it into the "
            "site's package index, or install it in your own environment after the build",
        )
    if text.startswith("-"):
        raise reader.error(
            node,
            f"{text[:80]!r}: pip's options are the site's: environments.pip_index and "
            "pip_extra_indexes in the site file say where packages come from",
        )
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        if "://" in text:
            raise _url_requirement(reader, node, text) from error
        reason = str(error).splitlines()[0]
        raise reader.error(
            node, f"{text[:80]!r} is not a pip requirement: {reason}; {remedy}"
        ) from error
    if requirement.url:
        raise _url_requirement(reader, node, text)
    return canonicalize_name(requirement.name), str(requirement)


def _url_requirement(reader: Document, node: Node, text: str) -> SpecError:
    return reader.error(
        node,
        f"{text[:80]!r}: what a URL leads to can change; put the wheel into the site's package "
        "index and name it here with its version",
    )


def _dependency(reader: Document, node: Node) -> Dependency:
    text = reader.text(node, "a dependency")
    head, separator, rest = text.partition("::")
    channel, spec = (head.strip(), rest.strip()) if separator else (None, text)
    if channel is not None and (problem := channel_problem(channel)):
        raise reader.error(node, problem)
    if "://" in spec or spec.startswith("/"):
        raise reader.error(node, f"{spec!r}: a package's name is wanted, not a URL; {_REMEDY}")
    try:
        match = MatchSpec(spec)
        name = match.name.normalized
        inside = match.channel
    except (InvalidMatchSpecError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise reader.error(node, f"{text!r} is not a package spec: {reason}; {_REMEDY}") from error
    if not _PACKAGE_NAME.fullmatch(name) or len(name) > 128:
        raise reader.error(node, f"{name!r} is not a package's name; {_REMEDY}")
    if name.startswith("__"):
        raise reader.error(
            node,
            f"{name!r} is what a machine has, not a package; for CUDA write 'cuda: \"12.4\"' into "
            f"{WORDS_FILE}",
        )
    if inside is not None:
        channel = channel or str(inside.name)
    plain = str(match).partition("::")[2] if inside is not None else str(match)
    for part in (p for found in _BRACKETS.findall(plain) for p in found.split(",")):
        if part.partition("=")[0].strip() not in _BRACKET_KEYS:
            raise reader.error(
                node,
                f"{text!r}: of what stands in brackets only version, build, channel, "
                f"{', '.join(_BRACKET_KEYS)} are accepted; {_REMEDY}",
            )
    return Dependency(name, match.version, plain, channel)
