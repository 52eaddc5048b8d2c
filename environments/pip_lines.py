"""The lines of a ``pip:`` section, as requirements of PEP 508; whatever else pip takes is refused.

What pip would fetch from a URL, a folder or another file is not the same tomorrow or elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml.nodes import Node

from commons.messages import Message, Text
from environments.document import Document, is_null
from environments.errors import SpecError
from environments.messages import spec as texts

# pip's own options, each with what to say of it.
_OPTIONS: tuple[tuple[tuple[str, ...], Text], ...] = (
    (("-r", "--requirement", "-c", "--constraint"), texts.OTHER_FILE),
    (
        (
            *("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index"),
            *("--trusted-host", "--pypi-url"),
        ),
        texts.PIP_INDEX,
    ),
    (("--hash",), texts.PIP_HASH),
)
_COMMENT = re.compile(r"(^|\s+)#.*$")
_FOLDER = re.compile(r"[.~/\\].*|[A-Za-z]:[\\/].*|file:.*|[\w.-]+(/[\w.-]*)+(\[.*\])?")
_ARCHIVE = re.compile(r"\S+\.(whl|zip|tar\.gz|tar\.bz2|tgz)")


def problem(text: str) -> Message | None:
    """Why a line is no requirement that can be taken, or None."""
    why = _option(text) if text.startswith("-") else None
    if why is None and " --hash" in text:
        why = texts.PIP_HASH
    if why is None:
        try:
            url = Requirement(text).url or text
        except InvalidRequirement as error:
            why = _place(text)
            if why is None:
                reason = str(error).splitlines()[0]
                return texts.NO_REQUIREMENT(text=text[:80], reason=reason)
        else:
            why = _place(url) if url != text or _ARCHIVE.fullmatch(text) else None
    return why(text=text[:80]) if why else None


def _option(text: str) -> Text:
    """What to say of one of pip's own options."""
    if text.startswith(("-e", "--editable")):
        return _place(re.sub(r"^(-e|--editable)[\s=]*", "", text)) or texts.PIP_FOLDER
    for options, why in _OPTIONS:
        if re.split(r"[\s=]", text)[0] in options or text[:2] in options:
            return why
    return texts.PIP_OPTION


def _place(text: str) -> Text | None:
    """What to say of a place that packages are fetched from; None for what is none."""
    if text.startswith(("git+", "git@")) or ("://" in text and not text.startswith("file:")):
        return texts.PIP_URL
    is_file = _FOLDER.fullmatch(text) or _ARCHIVE.fullmatch(text)
    return texts.PIP_FOLDER if is_file else None


def read(reader: Document, items: Iterable[Node]) -> dict[str, str]:
    """The requirements by normalised name; of one that is listed twice, all that is asked."""
    found: dict[str, str] = {}
    for item in items:
        if is_null(item):
            raise reader.error(item, texts.EMPTY_TEXT(what=texts.A_PIP_PACKAGE()))
        text = _COMMENT.sub("", reader.text(item, texts.A_PIP_PACKAGE()))
        if not text:
            continue
        if why := problem(text):
            raise reader.error(item, why)
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name in found:
            requirement = _both(reader, item, Requirement(found[name]), requirement)
        found[name] = str(requirement)
    return found


def _both(reader: Document, node: Node, before: Requirement, more: Requirement) -> Requirement:
    """Two requirements of one package as one, as pip takes them."""
    if str(before.marker) != str(more.marker):
        raise _twice(reader, node, more)
    more.specifier &= before.specifier
    more.extras |= before.extras
    return more


def _twice(reader: Document, node: Node, requirement: Requirement) -> SpecError:
    return reader.error(node, texts.PIP_TWICE(name=requirement.name))
