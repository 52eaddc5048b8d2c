"""environment.yml and labcommons.yml: checked, and turned into plain records."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator
from rattler import MatchSpec
from rattler.exceptions import InvalidMatchSpecError
from ruamel.yaml.nodes import MappingNode, Node

from hub_ext.site import Name, Words
from spawner.environments.document import Document
from spawner.environments.errors import SpecError

SPEC_FILE = "environment.yml"
WORDS_FILE = "labcommons.yml"
LOCK_FILE = "pixi.lock"
MAX_DEPENDENCIES = 500
MAX_CHANNELS = 16
MAX_WORDS = 500
# `conda env export` writes the first, conda users the second; neither says what to install.
_IGNORED_KEYS = ("prefix",)
_NO_CHANNEL = "nodefaults"
_CHANNEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_SCHEMES = ("https", "http", "file")
_PACKAGE_NAME = re.compile(r"[a-z0-9_][a-z0-9._-]*")
# The name becomes part of an image's name, for which Docker has this rule.
_IMAGE_NAME = re.compile(r"[a-z0-9]+((\.|_|-)[a-z0-9]+)*")
_NAME: TypeAdapter[str] = TypeAdapter(Name)


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


@dataclass(frozen=True)
class EnvironmentSpec:
    """What an environment shall be: the checked contents of its folder."""

    name: str
    folder: Path
    channels: tuple[str, ...]
    dependencies: tuple[Dependency, ...]
    title: Words | None = None
    description: Words | None = None

    @property
    def all_channels(self) -> tuple[str, ...]:
        """The channels listed, then those that only ``channel::package`` names."""
        named = (item.channel for item in self.dependencies if item.channel)
        return tuple(dict.fromkeys((*self.channels, *named)))

    @property
    def words(self) -> dict[str, Any]:
        """Title and description, as the catalog keeps them."""
        return {"title": self.title or self.name, "description": self.description or ""}

    @property
    def digest(self) -> str:
        """SHA-256 over what decides which packages are installed, and nothing else."""
        parts = {
            "channels": self.channels,
            "dependencies": sorted(str(item) for item in self.dependencies),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class _WordsFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Words | None = None
    description: Words | None = None

    @field_validator("title", "description")
    @classmethod
    def _short(cls, words: Words | None) -> Words | None:
        texts = [words] if isinstance(words, str) else (words or {}).values()
        for text in texts:
            if not 0 < len(text) <= MAX_WORDS or not text.replace("\n", " ").isprintable():
                raise ValueError(f"1 to {MAX_WORDS} characters without control characters")
        return words


def find_environments(folder: Path) -> list[str]:
    """The names of the environments in a folder, sorted: its subfolders with a spec."""
    try:
        return sorted(path.parent.name for path in folder.glob(f"*/{SPEC_FILE}"))
    except OSError as error:
        raise SpecError(f"{folder}: {error.strerror}; check --environments") from error


def load_spec(folder: Path) -> EnvironmentSpec:
    """Read and check one environment's folder. Raises SpecError."""
    path = folder / SPEC_FILE
    _check_name(folder)
    reader = Document(path)
    keys = reader.mapping(reader.root, "the file")
    known = ("name", "channels", "dependencies", *_IGNORED_KEYS)
    for key, node in keys.items():
        if key == "variables":
            raise reader.error(node, "'variables' are not supported yet; remove them")
        if key not in known:
            raise reader.error(node, f"unknown key {key!r}; known are {', '.join(known)}")
    name = reader.text(keys["name"], "name") if "name" in keys else folder.name
    if name != folder.name:
        raise reader.error(
            keys["name"], f"name {name!r} must be the folder's name; write 'name: {folder.name}'"
        )
    words = _load_words(folder / WORDS_FILE)
    return EnvironmentSpec(
        name=name,
        folder=folder,
        channels=_channels(reader, keys.get("channels")),
        dependencies=_dependencies(reader, keys.get("dependencies")),
        title=words.title,
        description=words.description,
    )


def _check_name(folder: Path) -> None:
    try:
        good = _IMAGE_NAME.fullmatch(_NAME.validate_python(folder.name))
    except ValidationError:
        good = None
    if not good:
        raise SpecError(
            f"{folder}: an environment's folder is named with small letters and digits, and "
            "single '.', '_' or '-' between them, at most 64; rename it"
        )


def _channels(reader: Document, node: Node | None) -> tuple[str, ...]:
    remedy = "write for example 'channels: [conda-forge]'"
    if node is None:
        raise reader.error(None, f"'channels' is missing; {remedy}")
    found: dict[str, None] = {}
    for item in reader.sequence(node, "channels"):
        channel = reader.text(item, "a channel")
        if channel == _NO_CHANNEL:
            continue
        if problem := _channel_problem(channel):
            raise reader.error(item, problem)
        found[channel] = None
    if not 0 < len(found) <= MAX_CHANNELS:
        raise reader.error(node, f"one to {MAX_CHANNELS} channels are wanted; {remedy}")
    return tuple(found)


def _channel_problem(channel: str) -> str | None:
    """Why a text is no channel, or None. Relative paths would depend on where one stands."""
    if "://" in channel:
        return _url_problem(channel)
    if channel.startswith("/"):
        return f"channel {channel!r}: '..' is not accepted" if ".." in channel.split("/") else None
    if not _CHANNEL_NAME.fullmatch(channel) or len(channel) > 200:
        return f"{channel[:200]!r} is not a channel's name; write for example conda-forge"
    return None


def _url_problem(channel: str) -> str | None:
    try:
        url = urlsplit(channel)
        host, secret = url.hostname, url.username or url.password
    except ValueError:
        return f"channel {channel!r} is not a valid URL"
    if secret:
        return "a channel's URL must not contain a name or password"
    if url.query or url.fragment or ".." in url.path.split("/"):
        return f"channel {channel!r}: a URL without '?', '#' and '..' is wanted"
    if bool(host) != (url.scheme in ("http", "https")) or url.scheme not in _SCHEMES:
        return f"channel {channel!r}: write https://HOST/…, http://HOST/… or file:///…"
    return None


def _dependencies(reader: Document, node: Node | None) -> tuple[Dependency, ...]:
    if node is None:
        raise reader.error(None, "'dependencies' is missing; write for example '- python 3.13.*'")
    items = reader.sequence(node, "dependencies")
    if not 0 < len(items) <= MAX_DEPENDENCIES:
        raise reader.error(node, f"one to {MAX_DEPENDENCIES} dependencies are wanted")
    found: dict[str, Dependency] = {}
    for item in items:
        if isinstance(item, MappingNode):
            raise reader.error(
                item,
                "a 'pip:' section is not supported yet; list the packages as conda packages, "
                "most of PyPI is on conda-forge under the same name"
                if "pip" in reader.mapping(item, "a dependency")
                else "a dependency is one text such as 'numpy >=2', without ': '",
            )
        dependency = _dependency(reader, item)
        if dependency.name in found:
            raise reader.error(
                item, f"{dependency.name!r} is listed twice; write one line such as 'x >=1,<2'"
            )
        found[dependency.name] = dependency
    return tuple(found.values())


def _dependency(reader: Document, node: Node) -> Dependency:
    text = reader.text(node, "a dependency")
    head, separator, rest = text.partition("::")
    channel, spec = (head.strip(), rest.strip()) if separator else (None, text)
    if channel is not None and (problem := _channel_problem(channel)):
        raise reader.error(node, problem)
    remedy = "write for example 'numpy >=2' or 'conda-forge::numpy'"
    if "://" in spec or spec.startswith("/"):
        raise reader.error(node, f"{spec!r}: a package's name is wanted, not a URL; {remedy}")
    try:
        match = MatchSpec(spec)
    except InvalidMatchSpecError as error:
        reason = str(error).splitlines()[0]
        raise reader.error(node, f"{text!r} is not a package spec: {reason}; {remedy}") from error
    name = match.name.normalized
    if not _PACKAGE_NAME.fullmatch(name) or len(name) > 128:
        raise reader.error(node, f"{name!r} is not a package's name; {remedy}")
    return Dependency(name, match.version, str(match), channel)


def _load_words(path: Path) -> _WordsFile:
    if not path.exists():
        return _WordsFile()
    reader = Document(path)
    try:
        return _WordsFile.model_validate(reader.plain(reader.root))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        known = "known are title and description, each a text or {en: …, zh_CN: …}"
        raise SpecError(f"{path}: {key}: {first['msg']}; {known}") from error
