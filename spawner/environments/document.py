"""A YAML file written by people, read as nodes that know their lines.

Nothing in it is ever made into an object: only mappings, lists and texts are let through,
without aliases (which can make a small file enormous) and tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.tokens import (
    AliasToken,
    AnchorToken,
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

from spawner.environments.errors import SpecError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
MAX_TOKENS = 20_000  # of the longest spec that is accepted some 2,000; each costs 40 µs
_OPENING = (
    BlockMappingStartToken,
    BlockSequenceStartToken,
    FlowMappingStartToken,
    FlowSequenceStartToken,
)
_CLOSING = (BlockEndToken, FlowMappingEndToken, FlowSequenceEndToken)


class Document:
    """One text. Every method raises SpecError naming file, line and remedy."""

    def __init__(self, text: str, file: str | Path) -> None:
        self.text_of_file, self.file = text, str(file)
        if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise SpecError(f"{file}: larger than {MAX_BYTES // 1024} kB; make it shorter")
        self.root = self._compose(text)

    @classmethod
    def read(cls, path: Path) -> Document:
        """The document in a file."""
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise SpecError(f"{path}: {error.strerror}") from error
        if len(raw) > MAX_BYTES:
            raise SpecError(f"{path}: larger than {MAX_BYTES // 1024} kB; make it shorter")
        try:
            return cls(raw.decode("utf-8-sig"), path)
        except UnicodeDecodeError as error:
            raise SpecError(f"{path}: not UTF-8 text; save it as UTF-8") from error

    def _compose(self, text: str) -> Node:
        for number, line in enumerate(text.splitlines(), 1):
            if line[: len(line) - len(line.lstrip())].count("\t"):
                raise self._at(number, "a tab at the beginning; YAML wants spaces there")
        try:
            self._check_tokens(text)
            root = YAML(typ="safe", pure=True).compose(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = error.problem or "cannot be read"
            raise self._at(mark.line + 1 if mark else None, f"not valid YAML: {problem}") from error
        except SpecError:
            raise
        except Exception as error:  # ruamel lets through what Python raises on wild input
            raise SpecError(f"{self.file}: not valid YAML: {str(error)[:200]}") from error
        if root is None:
            raise SpecError(f"{self.file}: empty")
        assert isinstance(root, Node)
        return root

    def _check_tokens(self, text: str) -> None:
        """Refuse what could make a small file large or slow, before anything is built of it."""
        depth = 0
        for number, token in enumerate(YAML(typ="safe", pure=True).scan(text)):
            if number > MAX_TOKENS:
                raise self._at(token.start_mark.line + 1, "too many entries; make it shorter")
            if isinstance(token, AliasToken | AnchorToken | TagToken | DirectiveToken):
                raise self._at(
                    token.start_mark.line + 1,
                    "aliases, anchors, tags and directives ('*', '&', '!', '%') are not "
                    "accepted; write the text out, in quotes where it begins with such a sign",
                )
            depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
            if depth > MAX_DEPTH:
                raise self._at(token.start_mark.line + 1, "nested too deeply; make it flatter")

    def _at(self, line: int | None, message: str) -> SpecError:
        return SpecError(f"{self.file}{f', line {line}' if line else ''}: {message}")

    def error_at(self, line: int, message: str) -> SpecError:
        """An error at a line, counted from 1."""
        return self._at(line, message)

    def error(self, node: Node | None, message: str) -> SpecError:
        """An error at a node's line."""
        return self._at(node.start_mark.line + 1 if node is not None else None, message)

    def mapping(self, node: Node, what: str) -> Mapping[str, Node]:
        """The values of a mapping by key."""
        if not isinstance(node, MappingNode):
            raise self.error(node, f"{what} must be a mapping, lines of the form 'key: value'")
        found: dict[str, Node] = {}
        for key_node, value in node.value:
            key = self.text(key_node, "a key")
            if key in found:
                raise self.error(key_node, f"{key!r} is given twice; remove one")
            found[key] = value
        return found

    def sequence(self, node: Node, what: str) -> list[Node]:
        """The items of a list."""
        if not isinstance(node, SequenceNode):
            raise self.error(node, f"{what} must be a list, lines of the form '- item'")
        return list(node.value)

    def text(self, node: Node, what: str) -> str:
        """A short text on one line."""
        if not isinstance(node, ScalarNode):
            raise self.error(node, f"{what} must be a text")
        value = str(node.value).strip()
        if not value or len(value) > 500 or not value.isprintable():
            raise self.error(node, f"{what} must be a text of one line, at most 500 characters")
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
