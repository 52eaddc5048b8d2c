"""environment.yml, as conda users write it: checked, and turned into plain records."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from pydantic import TypeAdapter, ValidationError
from rattler import MatchSpec
from rattler.exceptions import InvalidMatchSpecError
from ruamel.yaml.nodes import MappingNode, Node

from hub_ext.site import Name
from spawner.environments.about import PLATFORMS, About, AboutFile, load_about, parse_about
from spawner.environments.document import Document
from spawner.environments.errors import SpecError

SPEC_FILE = "environment.yml"
WORDS_FILE = "labcommons.yml"
LOCK_FILE = "pixi.lock"
MAX_DEPENDENCIES = 500
MAX_CHANNELS = 16
MAX_VARIABLES = 100
# `conda env export` writes it; it does not say what to install.
_IGNORED_KEYS = ("prefix",)
_NO_CHANNEL = "nodefaults"
_CHANNEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_SCHEMES = ("https", "http", "file")
_SUBDIR = re.compile(r"(noarch|(linux|osx|win|emscripten|wasi|freebsd|zos)-\w+)")
_PACKAGE_NAME = re.compile(r"[a-z0-9_][a-z0-9._-]*")
_BRACKETS = re.compile(r"\[(.*)\]")
_BRACKET_KEYS = ("build_number", "md5", "sha256")
# The name becomes part of an image's name, for which Docker has this rule.
_IMAGE_NAME = re.compile(r"[a-z0-9]+((\.|_|-)[a-z0-9]+)*")
_NAME: TypeAdapter[str] = TypeAdapter(Name)
# conda-build's and conda-lock's selectors: `# [win]`; to conda itself they are comments.
_SELECTOR = re.compile(r"#\s*\[[^\]]*\b(win|linux|osx|unix|arm64|aarch64|x86_64|py)\w*\b[^\]]*\]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# Set by the server and the kernel's launcher: an environment that set them would break both.
_OWN_VARIABLES = re.compile(
    r"PATH|HOME|USER|SHELL|PREFIX|LD_PRELOAD|PYTHONHOME|CUDA_VISIBLE_DEVICES|"
    r"(NVIDIA|CONDA|JUPYTERHUB|LABCOMMONS)_.*"
)
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


@dataclass(frozen=True)
class EnvironmentSpec:
    """What an environment shall be: the checked contents of environment.yml and labcommons.yml.

    Attributes:
        folder: where the two files are; None when they came as texts.
        pip: requirements of the ``pip:`` section, as PEP 508 writes them, sorted.
        variables: set while the environment is active.
        platforms: conda platforms that it is locked for.
        text, words_text: the two files as they were.
    """

    name: str
    folder: Path | None
    channels: tuple[str, ...]
    dependencies: tuple[Dependency, ...]
    pip: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[str, ...] = PLATFORMS[:1]
    about: About = field(default_factory=About)
    file: str = SPEC_FILE
    text: str = ""
    words_text: str | None = None

    @property
    def all_channels(self) -> tuple[str, ...]:
        """The channels listed, then those that only ``channel::package`` names."""
        named = (item.channel for item in self.dependencies if item.channel)
        return tuple(dict.fromkeys((*self.channels, *named)))

    @property
    def where(self) -> str:
        """The environment.yml, for people."""
        return str(self.folder / SPEC_FILE) if self.folder else self.file

    @property
    def words(self) -> dict[str, Any]:
        """Title and description, as the catalog keeps them."""
        return {
            "title": self.about.title or self.name,
            "description": self.about.description or "",
        }

    @property
    def asks(self) -> tuple[str, ...]:
        """One line for everything that decides which packages are installed, sorted."""
        lines = [*(f"package {item}" for item in self.dependencies)]
        lines += [f"pip {item}" for item in self.pip]
        lines += [f"channel {index} {item}" for index, item in enumerate(self.channels, 1)]
        if self.platforms != PLATFORMS[:1]:
            lines += [f"platform {item}" for item in self.platforms]
        if self.about.cuda:
            lines.append(f"cuda {self.about.cuda}")
        return tuple(sorted(lines))

    @property
    def digest(self) -> str:
        """SHA-256 over what decides which packages are installed, and nothing else."""
        return hashlib.sha256(json.dumps(self.asks).encode()).hexdigest()


def find_environments(folder: Path) -> list[str]:
    """The names of the environments in a folder, sorted: its subfolders with a spec."""
    try:
        return sorted(path.parent.name for path in folder.glob(f"*/{SPEC_FILE}"))
    except OSError as error:
        raise SpecError(f"{folder}: {error.strerror}; check --environments") from error


def load_spec(folder: Path) -> EnvironmentSpec:
    """Read and check one environment's folder. Raises SpecError."""
    if not _is_name(folder.name):
        raise SpecError(
            f"{folder}: an environment's folder is named with small letters and digits, and "
            "single '.', '_' or '-' between them, at most 64; rename it"
        )
    document = Document.read(folder / SPEC_FILE)
    return _spec(document, folder.name, folder, load_about(folder / WORDS_FILE))


def parse_spec(
    text: str,
    *,
    name: str | None,
    words: str | None = None,
    file: str = SPEC_FILE,
    words_file: str = WORDS_FILE,
) -> EnvironmentSpec:
    """Check the texts of an environment.yml and, where there is one, a labcommons.yml.

    ``name`` None takes the one in the text. Errors (SpecError) call the texts ``file`` and
    ``words_file``.
    """
    return _spec(Document(text, file), name, None, parse_about(words, words_file))


def _is_name(name: str) -> bool:
    try:
        return bool(_IMAGE_NAME.fullmatch(_NAME.validate_python(name)))
    except ValidationError:
        return False


def _spec(
    reader: Document, name: str | None, folder: Path | None, words: AboutFile
) -> EnvironmentSpec:
    keys = reader.mapping(reader.root, "the file")
    known = ("name", "channels", "dependencies", "variables", "platforms", *_IGNORED_KEYS)
    for key, node in keys.items():
        if key not in known:
            raise reader.error(node, f"unknown key {key!r}; known are {', '.join(known)}")
    _refuse_selectors(reader)
    pip: dict[str, str] = {}
    dependencies = _dependencies(reader, keys.get("dependencies"), pip)
    return EnvironmentSpec(
        name=_name(reader, keys.get("name"), name, folder),
        folder=folder,
        channels=_channels(reader, keys.get("channels")),
        dependencies=dependencies,
        pip=tuple(sorted(pip.values())),
        variables=_variables(reader, keys.get("variables")),
        platforms=words.about.platforms or _platforms(reader, keys.get("platforms")),
        about=words.about,
        file=reader.file,
        text=reader.text_of_file,
        words_text=words.text,
    )


def _name(reader: Document, node: Node | None, wanted: str | None, folder: Path | None) -> str:
    found = reader.text(node, "name") if node is not None else wanted
    if found is None:
        raise reader.error(None, "'name' is missing; write for example 'name: py313-data'")
    if not _is_name(found):
        raise reader.error(
            node,
            f"name {found[:80]!r}: small letters and digits are wanted, with single '.', '_' or "
            "'-' between them, at most 64; write for example 'name: py313-data'",
        )
    if wanted is not None and found != wanted:
        what = "the folder's name" if folder else "the environment's name"
        raise reader.error(node, f"name {found!r} must be {what}; write 'name: {wanted}'")
    return found


def _refuse_selectors(reader: Document) -> None:
    for number, line in enumerate(reader.text_of_file.splitlines(), 1):
        if found := _SELECTOR.search(line):
            raise reader.error_at(
                number,
                f"the selector {found[0]!r} is a comment to conda, so the line would count on "
                "every platform; servers here run Linux: remove the line, or the comment",
            )


def _platforms(reader: Document, node: Node | None) -> tuple[str, ...]:
    if node is None:
        return PLATFORMS[:1]
    items = reader.sequence(node, "platforms")
    found = tuple(dict.fromkeys(reader.text(item, "a platform") for item in items))
    for item, platform in zip(items, found, strict=False):
        if platform not in PLATFORMS:
            raise reader.error(
                item,
                f"platform {platform!r}: servers here run {' or '.join(PLATFORMS)}; remove it",
            )
    return found or PLATFORMS[:1]


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


def _dependencies(
    reader: Document, node: Node | None, pip: dict[str, str]
) -> tuple[Dependency, ...]:
    """The conda packages; those of the ``pip:`` section are put into ``pip`` by name."""
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
    if channel is not None and (problem := _channel_problem(channel)):
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


def _variables(reader: Document, node: Node | None) -> dict[str, str]:
    if node is None:
        return {}
    found = {}
    for key, item in reader.mapping(node, "variables").items():
        value = reader.text(item, f"variable {key}")
        if not _VARIABLE.fullmatch(key):
            raise reader.error(
                item, f"{key[:80]!r} is not a variable's name: letters, digits and '_' are"
            )
        if _OWN_VARIABLES.fullmatch(key):
            raise reader.error(item, f"variable {key} is set by the server; remove it")
        if "$(" in value or "`" in value:
            raise reader.error(
                item,
                f"variable {key}: some shells would run what stands in '$(…)' or '`…`'; write "
                "the value itself",
            )
        found[key] = value
    if len(found) > MAX_VARIABLES:
        raise reader.error(node, f"at most {MAX_VARIABLES} variables are wanted")
    return found
