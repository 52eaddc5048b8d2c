"""One line of ``dependencies``, read as conda reads it and said as py-rattler takes it.

conda's own answers to some hundred forms are in tests/environments/conda/answers.json; where this
reads another thing, the test beside them says why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from rattler import MatchSpec
from rattler.exceptions import InvalidMatchSpecError

from commons.messages import Message
from environments.channel_names import SUBDIR
from environments.errors import SpecError
from environments.files import WORDS_FILE
from environments.messages import spec as texts
from environments.packages import conda_file

_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9._+-]*[a-z0-9_+])?")
_NUMBER = re.compile(r"[0-9.]+")
_KEYS = ("version", "build", "build_number", "channel", "subdir", "md5", "sha256", "license")
_HERE = ("linux-64", "linux-aarch64", "noarch")
_IN_BRACKETS = re.compile(
    r"""([A-Za-z0-9_-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^'",\s][^'",]*?))\s*(?=$|[,\s])"""
)
_CLAUSE = r"(?:[<>=!~]+\s*)?[A-Za-z0-9_.+!*-]+"
_REST = re.compile(rf"({_CLAUSE}(?:\s*[,|]\s*{_CLAUSE})*)(?:(?:\s*=\s*|\s+)(.*))?", re.DOTALL)
_BUILD = re.compile(r"[A-Za-z0-9_.+*]+|\^[^\s,]*\$")
# What no build's name has: a version that lost its comma.
_LOST_COMMA = re.compile(r"[<>!~]")


@dataclass(frozen=True)
class Asked:
    """What one line asks for: ``spec`` for the solver, without its channel.

    ``remarks`` say what of the line means nothing.
    """

    name: str
    version: str | None
    spec: str
    channel: str | None = None
    remarks: tuple[Message, ...] = ()


@dataclass
class _Parts:
    """A line in its parts, as conda takes it apart."""

    name: str = ""
    version: str | None = None
    build: str | None = None
    channel: str | None = None
    more: dict[str, str] = field(default_factory=dict)
    remarks: list[Message] = field(default_factory=list)


def read(text: str) -> Asked:
    """What a line asks for. Raises SpecError with cause and remedy, without a place."""
    parts = _file(text) or _take_apart(text)
    name = parts.name.lower()
    if name.endswith((".conda", ".tar.bz2")):
        raise SpecError(texts.PACKAGE_URL(text=text))
    if not _NAME.fullmatch(name) or _NUMBER.fullmatch(name) or len(name) > 128:
        raise SpecError(texts.PACKAGE_NAME(name=parts.name[:130]))
    if name.startswith("__"):
        virtual = texts.VIRTUAL_CUDA if name == "__cuda" else texts.VIRTUAL
        raise SpecError(virtual(name=name, file=WORDS_FILE))
    subdir = parts.more.get("subdir", "")
    if subdir and subdir not in _HERE:
        raise SpecError(texts.OTHER_PLATFORM(text=text, subdir=subdir))
    more = dict(parts.more)
    said = " ".join(filter(None, (name, parts.version, parts.build if parts.version else None)))
    if more:
        said += "[" + ",".join(f'{key}="{value}"' for key, value in more.items()) + "]"
    try:
        match = MatchSpec(said)
    except (InvalidMatchSpecError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(texts.NO_SPEC(text=text, reason=reason)) from error
    return Asked(name, match.version, str(match), parts.channel, tuple(parts.remarks))


def _file(text: str) -> _Parts | None:
    """A package's file in a channel: exactly that package."""
    found = conda_file(text)
    if found is None:
        return None
    more = {"subdir": found.subdir, "sha256": found.sha256, "md5": found.md5}
    more = {key: value for key, value in more.items() if value}
    return _Parts(found.name, f"=={found.version}", found.build, found.channel, more)


def _take_apart(text: str) -> _Parts:
    parts = _Parts()
    # A selector of conda's own ("numpy if linux") counts for nothing there, either.
    rest = re.split(r"\s+if\s+|#", text, maxsplit=1)[0].strip()
    rest, brackets = _brackets(rest, text)
    head, colons, after = rest.rpartition("::")
    if colons:
        _set_channel(parts, head)
        rest = after.strip()
    if "/" in rest.partition(" ")[0] and "=" not in rest.partition("/")[0]:
        raise SpecError(texts.PACKAGE_URL(text=text))
    before, colon, after = rest.rpartition(":")
    if colon:
        channel, _, namespace = before.rpartition(":")
        if channel and parts.channel is None:
            _set_channel(parts, channel)
        rest = after.strip()
        parts.remarks.append(texts.ONE_COLON(text=text, channel=namespace, rest=rest))
    found = re.match(r"([^\s=<>!~(]+)\s*(.*)", rest, re.DOTALL)
    if found is None:
        raise SpecError(texts.PACKAGE_NAME(name=rest[:130]))
    parts.name = found[1]
    if found[2]:
        _versions(parts, found[2].strip(), text)
    _from_brackets(parts, brackets, text)
    return parts


def _set_channel(parts: _Parts, text: str) -> None:
    channel = text.strip().strip(":")
    if channel in ("", "*"):  # any channel
        return
    above, _, last = channel.rpartition("/")
    if above and SUBDIR.fullmatch(last):
        channel, parts.more["subdir"] = above, last
    parts.channel = channel


def _brackets(rest: str, text: str) -> tuple[str, str]:
    """A line without what stands in brackets, and that."""
    found = re.fullmatch(r"([^\[\]]*)\[([^\[\]]*)\]\s*([^\[\]]*)", rest, re.DOTALL)
    if found:
        return f"{found[1].strip()} {found[3]}".strip(), found[2]
    if "[" in rest or "]" in rest:
        raise SpecError(texts.NO_SPEC(text=text, reason=texts.BRACKETS_OPEN()))
    return rest, ""


def _from_brackets(parts: _Parts, inside: str, text: str) -> None:
    matches = _IN_BRACKETS.finditer(inside)
    found = {m[1]: (m[2] or m[3] or m[4] or "").strip() for m in matches}
    left = _IN_BRACKETS.sub("", inside).strip(" ,")
    if "=" in left:
        raise SpecError(texts.BRACKETS(text=text, known=_KEYS))
    if left:
        parts.remarks.append(texts.IN_BRACKETS(text=text, part=left[:80]))
    found.pop("name", None)  # what stands before the brackets counts
    for key, value in found.items():
        if key not in _KEYS or '"' in value:
            raise SpecError(texts.BRACKETS(text=text, known=_KEYS))
        if key == "version":
            parts.version = _version(value, text)
        elif key == "build":
            # Beside a version of the line itself, which is no exact one for it: "=2.1[build=x]".
            _check_build(value, text)
            parts.build = None
            parts.more = {"build": value, **parts.more}
        elif key == "channel":
            _set_channel(parts, value)
        else:
            parts.more[key] = value


def _versions(parts: _Parts, rest: str, text: str) -> None:
    """Version and build, which follow the name."""
    if rest in ("=", ">", "<"):  # conda takes it for nothing
        return
    inner = re.fullmatch(r"\(([^()]*)\)", rest)
    if inner:  # conda drops it, though a version was meant
        rest = inner[1].strip()
        if not rest:
            return
    found = _REST.fullmatch(rest)
    if found is None:
        if lost := re.fullmatch(rf"{_CLAUSE}([<>!~].*)", rest):
            raise SpecError(texts.COMMA(text=text, build=lost[1][:80]))
        raise SpecError(texts.NO_SPEC(text=text, reason=texts.NO_VERSION_SPEC(version=rest[:80])))
    build = (found[2] or "").strip()
    if build:
        _check_build(build, text)
    parts.version, parts.build = _version(found[1], text), build or None


def _check_build(build: str, text: str) -> None:
    if _BUILD.fullmatch(build):
        return
    if _LOST_COMMA.search(build):
        raise SpecError(texts.COMMA(text=text, build=build[:80]))
    raise SpecError(texts.NO_SPEC(text=text, reason=texts.NO_BUILD_NAME(build=build[:80])))


def _version(said: str, text: str) -> str:
    """A version spec as py-rattler takes it."""
    clauses = re.split(r"([,|])", re.sub(r"\s", "", said))
    return "".join(part if part in ",|" else _clause(part, text) for part in clauses)


def _clause(clause: str, text: str) -> str:
    found = re.fullmatch(r"([<>=!~]*)(.*)", clause)
    operator, version = (found[1], found[2]) if found else ("", clause)
    if re.fullmatch("={3,}", operator):
        operator = "=="
    elif operator in ("=>", "=<"):  # conda reads the sign alone, and so a strict one
        operator = operator[1]
    if operator in ("<", "<=", ">", ">=") and version != "*":
        version = re.sub(r"\.?\*$", "", version)  # conda, too, goes without it
    if not version:
        raise SpecError(texts.NO_SPEC(text=text, reason=texts.NO_VERSION_SPEC(version=clause[:80])))
    return operator + version
