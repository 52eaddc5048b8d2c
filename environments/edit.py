"""Packages added to an environment.yml and removed from it; every other line stays as it was.

Pure, and without a solver: what the text asks for then is checked where it is built.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from environments.document import Document
from environments.encoding import clean
from environments.errors import SpecError
from environments.files import SPEC_FILE
from environments.messages import edit as texts

MAX_CHANGES = 100
_NAME = re.compile(r"(?:[^\s:]+::)?([A-Za-z0-9_][A-Za-z0-9._-]*)")
# What YAML reads as the text that it is, without quotes.
_PLAIN = re.compile(r"[A-Za-z0-9_](?:(?!: |:$| #)[ -~])*(?<! )")


@dataclass(frozen=True)
class Change:
    """What shall become of a list of packages.

    Attributes:
        add: conda's packages, as environment.yml lists them: ``numpy>=2``, ``channel::package``.
        pip: requirements for the ``pip:`` section.
        remove: names, wherever they are listed.
        channels: of conda, to look into first; those that are listed stay where they are.
    """

    add: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.pip or self.remove)


@dataclass(frozen=True)
class _Item:
    """One package of the file."""

    section: Literal["conda", "pip"]
    name: str
    node: ScalarNode


def changed(text: str, change: Change, conda: Collection[str] = ()) -> str:
    """The text with a change made to it. Raises SpecError.

    ``conda`` are names of packages that the environment has from conda, listed or not: pip must
    not replace them, so what is asked of pip for one of these is asked of conda. A package that is
    listed already gets what is asked for now.
    """
    if len(change.add) + len(change.pip) + len(change.remove) > MAX_CHANGES:
        raise SpecError(texts.TOO_MANY(most=MAX_CHANGES))
    text = clean(text, SPEC_FILE)
    for channel in reversed(change.channels if change.add else ()):
        text = _with_channel(text, channel.strip())
    ours = {canonicalize_name(name) for name in conda}
    for asked in change.add:
        text = _added(text, "conda", asked.strip())
    for asked in change.pip:
        name, spec = _name(asked), asked.strip()
        listed = {
            item.name for item in _items(Document(text, SPEC_FILE)) if item.section == "conda"
        }
        if name in ours | listed and (plain := _for_conda(spec)):
            text = _added(text, "conda", plain)
        else:
            text = _added(text, "pip", spec)
    come = {_name(asked) for asked in (*change.add, *change.pip)}
    for name in change.remove:  # last, so that the list is never empty meanwhile
        if _name(name) not in come:
            text = _removed(text, _name(name), ours)
    return text


def diff(before: str, after: str, old: str = "", new: str = "") -> str:
    """How two texts differ, as ``diff -u`` says it."""
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{SPEC_FILE} {old}", f"{SPEC_FILE} {new}", "", "",
        lineterm="",
    )  # fmt: skip
    return "\n".join(line.rstrip() for line in lines)


def _name(asked: str) -> str:
    """The name in what somebody asks for, as both kinds of packages compare it."""
    found = _NAME.match(asked.strip())
    if found is None or len(asked) > 500 or not asked.isprintable():
        raise SpecError(texts.NOT_A_PACKAGE(text=asked[:80]))
    return canonicalize_name(found[1])


def _for_conda(requirement: str) -> str:
    """A requirement as conda writes it; "" where it says what conda does not know."""
    try:
        asked = Requirement(requirement)
    except InvalidRequirement:
        return ""
    if asked.url or asked.marker or asked.extras:
        return ""
    return f"{asked.name}{asked.specifier}"


def _added(text: str, section: Literal["conda", "pip"], spec: str) -> str:
    name = _name(spec)
    document = Document(text, SPEC_FILE)
    there = next((item for item in _items(document) if item.name == name), None)
    if there is not None and there.section == section:
        # The name alone asks for nothing that is not there.
        if re.fullmatch(r"[\w.-]+", spec):
            return text
        return _replaced(text, there.node, spec)
    if there is not None:
        document = Document(_cut(text, document, there), SPEC_FILE)
    sequence = _list(document)
    if section == "conda":
        return _inserted(document, sequence, spec)
    key, pip = _pip(sequence)
    if key is None:
        return _inserted(document, sequence, spec, section=True)
    if isinstance(pip, SequenceNode) and (pip.value or pip.flow_style):
        return _inserted(document, pip, spec)
    return _after_line(document.text_of_file, key.start_mark.line, " " * (_dash(key) + 4), spec)


def _with_channel(text: str, channel: str) -> str:  # noqa: PLR0911
    """The text with a channel before those that it lists."""
    if not channel or len(channel) > 500 or not channel.isprintable():
        raise SpecError(texts.NOT_A_CHANNEL(text=channel[:80]))
    document = Document(text, SPEC_FILE)
    _list(document)
    root, words = document.root, json.dumps(channel, ensure_ascii=False)
    assert isinstance(root, MappingNode)
    keys = {key.value: (key, value) for key, value in root.value}
    key, listed = keys.get("channels", (None, None))
    if isinstance(listed, SequenceNode) and listed.value:
        if channel in [item.value for item in listed.value]:
            return text
        at = listed.value[0].start_mark
        if listed.flow_style:
            return f"{text[: at.index]}{words}, {text[at.index :]}"
        return _before_line(text, at.line, f"{' ' * (at.column - 2)}- {_quoted(channel)}")
    if listed is not None and (listed.value or isinstance(listed, SequenceNode) or listed.style):
        return f"{text[: listed.start_mark.index]}[{words}]{text[listed.end_mark.index :]}"
    if key is not None:  # nothing stands there
        at = text.index(":", key.end_mark.index) + 1
        return f"{text[:at]} [{words}]{text[at:]}"
    if root.flow_style:
        at = root.start_mark.index + 1
        return f'{text[:at]}"channels": [{words}], {text[at:]}'
    return _before_line(text, keys["dependencies"][0].start_mark.line, f"channels: [{words}]")


def _removed(text: str, name: str, ours: Collection[str]) -> str:
    document = Document(text, SPEC_FILE)
    items = _items(document)
    found = [item for item in items if item.name == name]
    if not found and name in ours:
        raise SpecError(texts.NEEDED_BY_OTHERS(name=name))
    if not found:
        raise SpecError(texts.NOT_THERE(name=name, listed=[item.name for item in items]))
    while found:
        text = _cut(text, document, found[0])
        document = Document(text, SPEC_FILE)
        found = [item for item in _items(document) if item.name == name]
    return text


# Where things are -----------------------------------------------------------------------------


def _list(document: Document) -> SequenceNode:
    node = document.find(["dependencies"])
    if not isinstance(node, SequenceNode) or node is document.root:
        raise document.error(node, texts.NO_PLACE())
    return node


def _pip(sequence: SequenceNode) -> tuple[Node | None, Node | None]:
    """The key and the value of the ``pip:`` section."""
    for item in sequence.value:
        if isinstance(item, MappingNode):
            for key, value in item.value:
                if key.value == "pip":
                    return key, value
    return None, None


def _is_section(node: Node, key: Node) -> bool:
    return isinstance(node, MappingNode) and any(each is key for each, _ in node.value)


def _items(document: Document) -> list[_Item]:
    sequence = _list(document)
    _, pip = _pip(sequence)
    found: list[_Item] = []
    sections: Iterable[tuple[Literal["conda", "pip"], Node | None]] = (
        ("conda", sequence),
        ("pip", pip),
    )
    for section, node in sections:
        for item in node.value if isinstance(node, SequenceNode) else ():
            if isinstance(item, ScalarNode) and (match := _NAME.match(str(item.value).strip())):
                found.append(_Item(section, canonicalize_name(match[1]), item))
    return found


def _dash(key: Node) -> int:
    """How far the dash before a key is from the left, as it is usually written."""
    return max(int(key.start_mark.column) - 2, 0)


# The text ---------------------------------------------------------------------------------------


def _quoted(spec: str) -> str:
    return spec if _PLAIN.fullmatch(spec) else json.dumps(spec, ensure_ascii=False)


def _replaced(text: str, node: Node, spec: str) -> str:
    return text[: node.start_mark.index] + _quoted(spec) + text[node.end_mark.index :]


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _after_line(text: str, line: int, indent: str, spec: str) -> str:
    """A new item in a line of its own."""
    lines = _lines(text)
    if not lines[line].endswith("\n"):
        lines[line] += "\n"
    lines.insert(line + 1, f"{indent}- {_quoted(spec)}\n")
    return "".join(lines)


def _before_line(text: str, line: int, words: str) -> str:
    lines = _lines(text)
    lines.insert(line, f"{words}\n")
    return "".join(lines)


def _last_line(node: Node) -> int:
    """The last line that a node is in; that of a list is where its last item is."""
    if isinstance(node, SequenceNode) and not node.flow_style and node.value:
        return _last_line(node.value[-1])
    if isinstance(node, MappingNode) and not node.flow_style and node.value:
        key, value = node.value[-1]
        empty = isinstance(value, ScalarNode) and not value.value
        return int(key.start_mark.line) if empty else _last_line(value)
    return int(node.end_mark.line)


def _inserted(document: Document, sequence: SequenceNode, spec: str, section: bool = False) -> str:
    """A text with one more item in a list; with ``section``, a ``pip:`` section with that item."""
    text = document.text_of_file
    if sequence.flow_style:
        words = (
            f"{{pip: [{json.dumps(spec, ensure_ascii=False)}]}}" if section else json.dumps(spec)
        )
        at = sequence.value[-1].end_mark.index if sequence.value else sequence.start_mark.index + 1
        return text[:at] + (", " if sequence.value else "") + words + text[at:]
    scalars = [item for item in sequence.value if isinstance(item, ScalarNode)]
    lines = _lines(text)
    last = scalars[-1] if scalars and not section else sequence.value[-1]
    first = lines[last.start_mark.line]
    column = first.index("-") if first.lstrip().startswith("-") else last.start_mark.column - 2
    if not scalars and not section:  # before the ``pip:`` section
        lines.insert(last.start_mark.line, f"{' ' * column}- {_quoted(spec)}\n")
        return "".join(lines)
    if not section:
        return _after_line(text, _last_line(last), " " * column, spec)
    text = _after_line(text, _last_line(last), " " * column, "pip")
    line = _last_line(last) + 1
    lines = _lines(text)
    lines[line] = lines[line].replace("- pip", "- pip:", 1)
    return _after_line("".join(lines), line, " " * (column + 4), spec)


def _cut(text: str, document: Document, item: _Item) -> str:
    """A text without one item; without the ``pip:`` section where nothing is left in it."""
    sequence = _list(document)
    key, pip = _pip(sequence)
    where: Node = sequence if item.section == "conda" else (pip or sequence)
    assert isinstance(where, SequenceNode)
    node: Node = item.node
    if item.section == "pip" and len(where.value) == 1 and key is not None:
        node, where = next(each for each in sequence.value if _is_section(each, key)), sequence
    if where.flow_style:
        number = where.value.index(node)
        begin, end = node.start_mark.index, node.end_mark.index
        if number + 1 < len(where.value):
            end = where.value[number + 1].start_mark.index
        elif number:
            begin = where.value[number - 1].end_mark.index
        return text[:begin] + text[end:]
    lines = _lines(text)
    del lines[node.start_mark.line : _last_line(node) + 1]
    return "".join(lines)
