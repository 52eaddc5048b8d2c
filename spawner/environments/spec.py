"""environment.yml, as conda users write it: checked, and turned into plain records."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml.nodes import Node

from hub_ext.site import Name
from spawner.environments.about import PLATFORMS, About, AboutFile, load_about, parse_about
from spawner.environments.dependencies import Dependency, channel_problem, read_dependencies
from spawner.environments.document import Document
from spawner.environments.errors import SpecError
from spawner.environments.files import SPEC_FILE, WORDS_FILE

MAX_CHANNELS = 16
MAX_VARIABLES = 100
# `conda env export` writes it; it does not say what to install.
_IGNORED_KEYS = ("prefix",)
_NO_CHANNEL = "nodefaults"
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
    dependencies = read_dependencies(reader, keys.get("dependencies"), pip)
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
        if problem := channel_problem(channel):
            raise reader.error(item, problem)
        found[channel] = None
    if not 0 < len(found) <= MAX_CHANNELS:
        raise reader.error(node, f"one to {MAX_CHANNELS} channels are wanted; {remedy}")
    return tuple(found)


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
