"""environment.yml, as conda users write it: checked, and turned into plain records."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml.nodes import Node

from commons.messages import Message
from commons.site import DEFAULT_CHANNELS, Name
from environments import given, kinds, pixi
from environments.about import PLATFORMS, About, AboutFile, is_cuda, load_about, parse_about
from environments.channel_names import channel_problem
from environments.dependencies import MAX_DEPENDENCIES, Dependency, read_dependencies
from environments.document import Document, is_null, read_text
from environments.encoding import clean, in_file, shown
from environments.errors import SpecError
from environments.files import SPEC_FILE, WORDS_FILE
from environments.given import Given
from environments.messages import spec as texts

MAX_CHANNELS = 16
MAX_VARIABLES = 100
MAX_REMARKS = 20
_KEYS = ("name", "channels", "dependencies", "variables", "platforms")
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
        appended: those of the channels that the file does not name: the site's default ones.
        remarks: what in the file means nothing, or perhaps not what was meant.
        given: the exact packages, where it is a lock.
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
    appended: tuple[str, ...] = ()
    remarks: tuple[Message, ...] = ()
    given: Given | None = None

    @property
    def all_channels(self) -> tuple[str, ...]:
        """The channels listed, those that only ``channel::package`` names, the site's own."""
        named = (item.channel for item in self.dependencies if item.channel)
        return tuple(dict.fromkeys((*self._listed, *named, *self.appended)))

    @property
    def optional_channels(self) -> tuple[str, ...]:
        """Those that nothing in the file names."""
        named = {item.channel for item in self.dependencies}
        return tuple(channel for channel in self.appended if channel not in named)

    @property
    def _listed(self) -> tuple[str, ...]:
        return tuple(channel for channel in self.channels if channel not in self.appended)

    @property
    def where(self) -> str:
        """The environment.yml, for people."""
        return str(self.folder / SPEC_FILE) if self.folder else self.file

    @property
    def words(self) -> dict[str, Any]:
        """Title, description and place in lists, as the catalog keeps them."""
        return {
            "title": self.about.title or self.name,
            "description": self.about.description or "",
            "default": self.about.default,
            "order": self.about.order,
        }

    @property
    def asks(self) -> tuple[str, ...]:
        """One line for everything in the two files that decides what is installed, sorted."""
        lines = [*(f"package {item}" for item in self.dependencies)]
        if self.given:
            lines = [f"exactly {len(self.given.packages)} packages {self.given.digest}"]
        lines += [f"pip {item}" for item in self.pip]
        lines += [f"channel {index} {item}" for index, item in enumerate(self._listed, 1)]
        if self.platforms != PLATFORMS[:1]:
            lines += [f"platform {item}" for item in self.platforms]
        if self.about.cuda:
            lines.append(f"cuda {self.about.cuda}")
        return tuple(sorted(lines))

    @property
    def digest(self) -> str:
        """SHA-256 over what in the files decides what is installed, and nothing else."""
        return hashlib.sha256(json.dumps(self.asks).encode()).hexdigest()


def find_environments(folder: Path) -> list[str]:
    """The names of the environments in a folder, sorted: its subfolders with a spec."""
    try:
        return sorted(path.parent.name for path in folder.glob(f"*/{SPEC_FILE}"))
    except OSError as error:
        raise SpecError(texts.NOT_LISTED(folder=folder, reason=error.strerror)) from error


def load_spec(folder: Path, defaults: Sequence[str] = DEFAULT_CHANNELS) -> EnvironmentSpec:
    """Read and check one environment's folder; ``defaults`` are the site's. Raises SpecError."""
    if not _is_name(folder.name):
        raise SpecError(texts.FOLDER_NAME(folder=folder))
    text = read_text(folder / SPEC_FILE, 4 * kinds.MAX_LOCK)
    words = load_about(folder / WORDS_FILE)
    return _read(text, str(folder / SPEC_FILE), folder.name, folder, words, defaults)


def parse_spec(
    text: str,
    *,
    name: str | None,
    words: str | None = None,
    file: str = SPEC_FILE,
    words_file: str = WORDS_FILE,
    defaults: Sequence[str] = DEFAULT_CHANNELS,
) -> EnvironmentSpec:
    """Check the texts of an environment.yml and, where there is one, a labcommons.yml.

    ``name`` counts more than what the text says, None takes that. ``defaults`` are the site's
    default channels. Errors (SpecError) call the texts ``file`` and ``words_file``.
    """
    return _read(text, file, name, None, parse_about(words, words_file), defaults)


def _read(
    text: str,
    file: str,
    name: str | None,
    folder: Path | None,
    words: AboutFile,
    defaults: Sequence[str],
) -> EnvironmentSpec:
    """Read a text of whatever kind it is."""
    kind = kinds.kind_of(text)
    if problem := kinds.problem(kind):
        raise in_file(file, problem)
    if kind.is_lock:
        return _exact(clean(text, file), kind, file, name, folder, words)
    if kind is kinds.Kind.PIXI:
        return _manifest(text, file, name, folder, words, defaults)
    return _spec(Document(text, file), name, folder, words, defaults)


def _manifest(
    text: str,
    file: str,
    name: str | None,
    folder: Path | None,
    words: AboutFile,
    defaults: Sequence[str],
) -> EnvironmentSpec:
    """pixi's manifest; a version of CUDA that it names is asked for unless labcommons.yml does."""
    found = pixi.read(text, file)
    wanted = name or found.name
    if wanted is None or not _is_name(wanted):
        raise in_file(file, texts.NAME(name=shown(wanted)) if wanted else texts.NO_NAME())
    if not found.asked and not found.pip:
        raise in_file(file, texts.NO_DEPENDENCIES())
    if max(len(found.asked), len(found.pip)) > MAX_DEPENDENCIES:
        raise in_file(file, texts.DEPENDENCIES(most=MAX_DEPENDENCIES))
    if len(found.channels) > MAX_CHANNELS:
        raise in_file(file, texts.CHANNELS(most=MAX_CHANNELS))
    for key, value in found.variables.items():
        if problem := _variable_problem(key, value):
            raise in_file(file, problem)
    about = words.about
    if found.cuda and not about.cuda and is_cuda(found.cuda):
        about = about.model_copy(update={"cuda": found.cuda})
    listed = tuple(dict.fromkeys(found.channels))
    more = () if listed else tuple(defaults)
    return EnvironmentSpec(
        name=wanted,
        folder=folder,
        channels=(*listed, *more),
        dependencies=tuple(
            Dependency(item.name, item.version, item.spec, item.channel)
            for item in found.asked.values()
        ),
        pip=tuple(sorted(found.pip.values())),
        variables=found.variables,
        platforms=about.platforms or PLATFORMS[:1],
        about=about,
        file=file,
        text=clean(text, file),
        words_text=words.text,
        appended=more,
        remarks=tuple(texts.IN_FILE(file=file, problem=item) for item in found.remarks),
    )


def _exact(
    text: str, kind: kinds.Kind, file: str, name: str | None, folder: Path | None, words: AboutFile
) -> EnvironmentSpec:
    """A lock: what it names, and nothing else."""
    if len(text) > kinds.MAX_LOCK:
        raise in_file(file, texts.TOO_LARGE(most=kinds.MAX_LOCK // 1024))
    if name is None:
        raise in_file(file, texts.NO_NAME())
    platform = (words.about.platforms or PLATFORMS)[0]
    found = given.read(text, kind, file, platform)
    return EnvironmentSpec(
        name=name,
        folder=folder,
        channels=found.channels,
        dependencies=tuple(
            Dependency(item.name, f"=={item.version}", f"{item.name} =={item.version} {item.build}")
            for item in found.packages
        ),
        pip=tuple(sorted(f"{item.name}=={item.version}" for item in found.pip)),
        platforms=(platform,),
        about=words.about,
        file=file,
        text=text,
        words_text=words.text,
        given=found,
    )


def _is_name(name: str) -> bool:
    try:
        return bool(_IMAGE_NAME.fullmatch(_NAME.validate_python(name)))
    except ValidationError:
        return False


def _spec(
    reader: Document,
    name: str | None,
    folder: Path | None,
    words: AboutFile,
    defaults: Sequence[str],
) -> EnvironmentSpec:
    keys = reader.mapping(reader.root, texts.THE_FILE())
    remarks = [
        reader.remark(node, texts.UNKNOWN_KEY(key=node.value, known=_KEYS))
        for node, _ in reader.root.value
        if node.value in keys and node.value not in (*_KEYS, *_IGNORED_KEYS)
    ]
    remarks += _selectors(reader)
    pip: dict[str, str] = {}
    dependencies = read_dependencies(reader, keys.get("dependencies"), pip, remarks)
    channels, appended = _channels(reader, keys.get("channels"), defaults)
    platforms = _platforms(reader, keys.get("platforms"), remarks)
    return EnvironmentSpec(
        name=_name(reader, keys.get("name"), name, folder),
        folder=folder,
        channels=channels,
        dependencies=dependencies,
        pip=tuple(sorted(pip.values())),
        variables=_variables(reader, keys.get("variables")),
        platforms=words.about.platforms or platforms,
        about=words.about,
        file=reader.file,
        text=reader.text_of_file,
        words_text=words.text,
        appended=appended,
        remarks=tuple(remarks[:MAX_REMARKS]),
    )


def _name(reader: Document, node: Node | None, wanted: str | None, folder: Path | None) -> str:
    found = wanted
    if node is not None and not is_null(node) and (wanted is None or folder is not None):
        found = reader.text(node, "name", may_be_empty=True) or wanted
    if found is None:
        raise reader.error(node, texts.NO_NAME())
    if not _is_name(found):
        raise reader.error(node, texts.NAME(name=found[:80]))
    if wanted is not None and found != wanted:
        raise reader.error(node, texts.NAME_NOT_FOLDERS(name=found, wanted=wanted))
    return found


def _selectors(reader: Document) -> list[Message]:
    """What looks like a selector of conda-build's: to conda, a comment, so the line counts."""
    found = []
    for number, line in enumerate(reader.text_of_file.split("\n"), 1):
        match = _SELECTOR.search(line)
        if match and line.strip().startswith("-"):
            problem = texts.SELECTOR(selector=match[0])
            found.append(texts.AT_LINE(file=reader.file, line=number, problem=problem))
    return found


def _platforms(reader: Document, node: Node | None, remarks: list[Message]) -> tuple[str, ...]:
    """conda-lock's key: those of ours among them."""
    if node is None or is_null(node):
        return PLATFORMS[:1]
    items = {reader.text(i, texts.A_PLATFORM()): i for i in reader.sequence(node, "platforms")}
    for platform, item in items.items():
        if platform not in PLATFORMS:
            problem = texts.PLATFORM(platform=platform, known=PLATFORMS)
            remarks.append(reader.remark(item, problem))
    return tuple(item for item in items if item in PLATFORMS) or PLATFORMS[:1]


def _channels(
    reader: Document, node: Node | None, defaults: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The channels, in their order, and those among them that are not in the file.

    conda puts its default channels after those of a file, unless ``nodefaults`` is among them.
    """
    items = [] if node is None or is_null(node) else reader.sequence(node, "channels")
    found: dict[str, None] = {}
    nodefaults = False
    for item in items:
        if is_null(item):
            raise reader.error(item, texts.EMPTY_TEXT(what=texts.A_CHANNEL()))
        channel = reader.text(item, texts.A_CHANNEL())
        if channel == _NO_CHANNEL:
            nodefaults = True
            continue
        if problem := channel_problem(channel):
            raise reader.error(item, problem)
        found[channel] = None
    if len(found) > MAX_CHANNELS:
        raise reader.error(node, texts.CHANNELS(most=MAX_CHANNELS))
    if nodefaults and not found:
        raise reader.error(node, texts.NO_CHANNELS())
    more = () if nodefaults else tuple(item for item in defaults if item not in found)
    return (*found, *more), more


def _variable_problem(key: str, value: str) -> Message | None:
    if not _VARIABLE.fullmatch(key):
        return texts.VARIABLE_NAME(key=key[:80])
    if _OWN_VARIABLES.fullmatch(key):
        return texts.VARIABLE_OURS(key=key)
    return texts.VARIABLE_RUNS(key=key) if "$(" in value or "`" in value else None


def _variables(reader: Document, node: Node | None) -> dict[str, str]:
    if node is None or is_null(node):
        return {}
    found = {}
    for key, item in reader.mapping(node, "variables").items():
        what = texts.A_VARIABLE(key=key)
        value = "" if is_null(item) else reader.text(item, what, may_be_empty=True)
        if problem := _variable_problem(key, value):
            raise reader.error(item, problem)
        found[key] = value
    if len(found) > MAX_VARIABLES:
        raise reader.error(node, texts.VARIABLES(most=MAX_VARIABLES))
    return found
