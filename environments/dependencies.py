"""What an environment.yml asks for: conda's packages and those of its ``pip:`` section."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from commons.messages import Message
from environments import match_spec, pip_lines
from environments.channel_names import channel_problem
from environments.document import Document, is_null
from environments.errors import SpecError
from environments.messages import spec as texts

# As many as a version's record has (builds.repository.MAX_PACKAGES); the largest known to us, a
# release of QIIME 2, has 727.
MAX_DEPENDENCIES = 5000
# mamba's selectors: what a server here is.
_OURS = ("linux", "unix", "linux-64")
_SELECTOR = re.compile(r"sel\(\s*(.*?)\s*\)")


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


def read_dependencies(
    reader: Document, node: Node | None, pip: dict[str, str], remarks: list[Message]
) -> tuple[Dependency, ...]:
    """The conda packages; those of the ``pip:`` section are put into ``pip`` by name.

    A package that is listed twice is asked for twice, as conda does: all lines hold. Raises
    SpecError with file, line and remedy.
    """
    if node is None or is_null(node):
        raise reader.error(node, texts.NO_DEPENDENCIES())
    items = reader.sequence(node, "dependencies")
    if not 0 < len(items) <= MAX_DEPENDENCIES:
        raise reader.error(node, texts.DEPENDENCIES(most=MAX_DEPENDENCIES))
    found: dict[str, Dependency] = {}
    sections: list[Node] = []
    for item in _selected(reader, items):
        if isinstance(item, MappingNode):
            sections += _pip_section(reader, item)
            continue
        dependency = _dependency(reader, item, remarks)
        found.setdefault(str(dependency), dependency)
    pip |= pip_lines.read(reader, sections)
    if len(pip) > MAX_DEPENDENCIES:
        raise reader.error(node, texts.PIP_PACKAGES(most=MAX_DEPENDENCIES))
    if not found and not pip:
        raise reader.error(node, texts.NO_DEPENDENCIES())
    # The name alone asks for nothing that another line of the same package does not.
    names = [item.name for item in found.values()]
    return tuple(
        item for text, item in found.items() if text != item.name or names.count(item.name) == 1
    )


def _selected(reader: Document, items: list[Node]) -> Iterator[Node]:
    """The items, with what mamba's ``sel(linux)`` chooses on a server in its place."""
    for item in items:
        found = None
        if isinstance(item, MappingNode) and len(item.value) == 1:
            found = _SELECTOR.fullmatch(str(item.value[0][0].value))
        if found is None:
            yield item
        elif found[1] in _OURS:
            chosen = item.value[0][1]
            yield from chosen.value if isinstance(chosen, SequenceNode) else [chosen]


def _pip_section(reader: Document, node: MappingNode) -> list[Node]:
    section = reader.mapping(node, texts.A_DEPENDENCY())
    if list(section) != ["pip"]:
        raise reader.error(node, texts.NO_DEPENDENCY())
    return [] if is_null(section["pip"]) else reader.sequence(section["pip"], "pip")


def _dependency(reader: Document, node: Node, remarks: list[Message]) -> Dependency:
    if is_null(node):
        raise reader.error(node, texts.EMPTY_TEXT(what=texts.A_DEPENDENCY()))
    text = reader.text(node, texts.A_DEPENDENCY())
    try:
        asked = match_spec.read(text)
    except SpecError as error:
        raise reader.error(node, error.message) from error
    if asked.channel is not None and (problem := channel_problem(asked.channel)):
        raise reader.error(node, problem)
    remarks += [reader.remark(node, remark) for remark in asked.remarks]
    return Dependency(asked.name, asked.version, asked.spec, asked.channel)
