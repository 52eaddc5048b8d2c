"""A YAML file written by people, read as nodes that know their lines.

Nothing in it is ever made into an object: only mappings, lists and texts are let through. Aliases
are followed within a bound, as they can make a small file enormous.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.tokens import (
    BlockEndToken,
    BlockMappingStartToken,
    BlockSequenceStartToken,
    DirectiveToken,
    FlowMappingEndToken,
    FlowMappingStartToken,
    FlowSequenceEndToken,
    FlowSequenceStartToken,
    TagToken,
)

from commons.messages import Message, verbatim
from environments.encoding import clean, decode, in_file
from environments.errors import SpecError
from environments.kinds import MAX_TEXT
from environments.messages import spec as texts

MAX_BYTES = 2 * MAX_TEXT  # 5,000 packages, each with version and build, are some 300 kB
MAX_DEPTH = 16
MAX_TOKENS = 20_000  # of 5,000 packages 10,000; each costs 40 µs
_OPENING = (
    BlockMappingStartToken,
    BlockSequenceStartToken,
    FlowMappingStartToken,
    FlowSequenceStartToken,
)
_CLOSING = (BlockEndToken, FlowMappingEndToken, FlowSequenceEndToken)
# Tags that say what is so without them.
_TAGS = ("str", "int", "float", "bool", "null", "seq", "map")
# Signs that a Chinese keyboard writes for those of YAML, where one of YAML is meant.
_PLAIN = dict(zip("：，“”‘’＜＞＝；", ":,\"\"''<>=;", strict=True))
_FULL_WIDTH = re.compile(
    rf"\s*-?\s*(?:[\w.-]+\s*(?P<key>：)|(?P<space>[\u00a0\u3000]))"
    rf"|\s*-[^#]*?(?P<item>[{''.join(_PLAIN)}])",
    re.ASCII,
)
_NULL, _MERGE = "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"


def is_null(node: Node) -> bool:
    """Whether a key has no value: nothing, ``~`` or ``null``."""
    return isinstance(node, ScalarNode) and node.tag == _NULL


class Document:
    """One text. Every method raises SpecError naming file, line and remedy."""

    def __init__(self, text: str, file: str | Path) -> None:
        self.file = str(file)
        self.text_of_file = text = clean(text, self.file)
        if len(text) > MAX_TEXT:
            raise in_file(self.file, texts.TOO_LARGE(most=MAX_TEXT // 1024))
        self.root = self._compose(text)

    @classmethod
    def read(cls, path: Path) -> Document:
        """The document in a file."""
        return cls(read_text(path, MAX_BYTES), path)

    def _compose(self, text: str) -> Node:
        try:
            self._check_tokens(text)
            root = YAML(typ="safe", pure=True).compose(text)
        except MarkedYAMLError as error:
            raise self._not_yaml(error, text) from error
        except SpecError:
            raise
        except Exception as error:  # ruamel lets through what Python raises on wild input
            raise in_file(self.file, texts.NOT_YAML(reason=str(error)[:200])) from error
        if root is None:
            raise in_file(self.file, texts.EMPTY())
        assert isinstance(root, Node)
        self._check_nodes(root)
        return root

    def _not_yaml(self, error: MarkedYAMLError, text: str) -> SpecError:
        mark = error.problem_mark or error.context_mark
        reason = error.problem or "cannot be read"
        if mark is None:
            return in_file(self.file, texts.NOT_YAML(reason=reason))
        line = text.split("\n")[mark.line : mark.line + 1]
        problem = texts.NOT_YAML(reason=reason)
        if line and "\t" in line[0].partition("#")[0]:
            problem = texts.TAB()
        elif "undefined alias" in reason:
            problem = texts.ALIAS()
        return self.error_at(mark.line + 1, problem)

    def _check_tokens(self, text: str) -> None:
        """Refuse what could make a small file large or slow, before anything is built of it."""
        depth = 0
        for number, token in enumerate(YAML(typ="safe", pure=True).scan(text)):
            line = token.start_mark.line + 1
            if number > MAX_TOKENS:
                raise self.error_at(line, texts.TOO_MANY_ENTRIES())
            if isinstance(token, DirectiveToken) and token.name != "YAML":
                raise self.error_at(line, texts.DIRECTIVE())
            if isinstance(token, TagToken) and not self._is_plain_tag(token):
                raise self.error_at(line, texts.TAG_OF_YAML())
            depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
            if depth > MAX_DEPTH:
                raise self.error_at(line, texts.TOO_DEEP())

    @staticmethod
    def _is_plain_tag(token: TagToken) -> bool:
        handle, suffix = token.value
        return handle == "!!" and suffix in _TAGS

    def _check_nodes(self, root: Node) -> None:
        """Refuse what aliases make too large or endless; give values that are missing their line.

        To the parser what is missing stands where the next thing begins.
        """
        number, left = 0, [(root, 1)]
        while left:
            node, depth = left.pop()
            number += 1
            if number > MAX_TOKENS:
                raise self.error(node, texts.TOO_MANY_ENTRIES())
            if depth > MAX_DEPTH:
                raise self.error(node, texts.TOO_DEEP())
            if isinstance(node, MappingNode):
                for key, value in node.value:
                    if isinstance(value, ScalarNode) and not value.value and not value.style:
                        value.start_mark = key.end_mark
                    left += [(key, depth + 1), (value, depth + 1)]
            elif isinstance(node, CollectionNode):
                left += [(item, depth + 1) for item in node.value]

    def remark(self, node: Node, what: Message) -> Message:
        """Something to know of a place in the file, which is no error."""
        return texts.AT_LINE(file=self.file, line=node.start_mark.line + 1, problem=what)

    def error_at(self, line: int, problem: Message) -> SpecError:
        """An error at a line, counted from 1.

        A sign that is no YAML leads to an error on one of the next lines, of something else.
        """
        lines = self.text_of_file.split("\n")[:line]
        for number in range(len(lines), max(len(lines) - 3, 0), -1):
            if found := _FULL_WIDTH.match(lines[number - 1]):
                sign = found[found.lastgroup or 0]
                known = sign in _PLAIN
                told = texts.FULL_WIDTH(sign=sign, plain=_PLAIN[sign]) if known else None
                return in_file(self.file, told or texts.OTHER_SPACE(), number)
        return in_file(self.file, problem, line)

    def error(self, node: Node | None, problem: Message) -> SpecError:
        """An error at a node's line."""
        if node is None:
            return in_file(self.file, problem)
        return self.error_at(node.start_mark.line + 1, problem)

    def mapping(self, node: Node, what: str | Message) -> Mapping[str, Node]:
        """The values of a mapping by key, with those that it takes over from others (``<<``)."""
        if not isinstance(node, MappingNode):
            raise self.error(node, texts.MAPPING(what=what))
        found: dict[str, Node] = {}
        taken: dict[str, Node] = {}
        for key_node, value in node.value:
            if key_node.tag == _MERGE:
                others = value.value if isinstance(value, SequenceNode) else [value]
                for other in others:
                    taken = {**self.mapping(other, what), **taken}
                continue
            key = self.text(key_node, texts.A_KEY())
            if key in found:
                raise self.error(key_node, texts.TWICE(key=key))
            found[key] = value
        return {**{key: value for key, value in taken.items() if key not in found}, **found}

    def sequence(self, node: Node, what: str | Message) -> list[Node]:
        """The items of a list."""
        if not isinstance(node, SequenceNode):
            raise self.error(node, texts.LIST(what=what))
        return list(node.value)

    def text(self, node: Node, what: str | Message, may_be_empty: bool = False) -> str:
        """A short text on one line."""
        if not isinstance(node, ScalarNode):
            raise self.error(node, texts.NO_TEXT(what=what))
        value = str(node.value).strip()
        if not value and not may_be_empty:
            raise self.error(node, texts.EMPTY_TEXT(what=what))
        if len(value) > 500 or not value.isprintable():
            raise self.error(node, texts.LONG_TEXT(what=what))
        return value

    def find(self, path: Iterable[str | int]) -> Node:
        """The node at a path of keys and indexes, or the last one on the way to it."""
        node = self.root
        for part in path:
            if isinstance(node, MappingNode):
                found = next((v for k, v in node.value if k.value == str(part)), None)
            elif isinstance(node, SequenceNode) and isinstance(part, int):
                found = node.value[part] if part < len(node.value) else None
            else:
                found = None
            if found is None:
                break
            node = found
        return node

    def plain(self, node: Node) -> Any:
        """The node as dict, list and text."""
        if isinstance(node, MappingNode):
            return {key: self.plain(item) for key, item in self.mapping(node, "it").items()}
        if isinstance(node, SequenceNode):
            return [self.plain(item) for item in node.value]
        return str(node.value)


def read_text(path: Path, most: int) -> str:
    """The text of a file of at most ``most`` bytes. Raises SpecError."""
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise in_file(str(path), verbatim(error.strerror or str(error))) from error
    if len(raw) > most:
        raise in_file(str(path), texts.TOO_LARGE(most=most // 1024))
    return decode(raw, str(path))
