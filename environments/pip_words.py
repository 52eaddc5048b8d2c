"""Why pip did not find packages: its words, read once, as what people are told.

The package at fault is named, not its innocent neighbours, and nothing that only an administrator
can set. What pip says otherwise is left in its own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from commons.messages import Message
from environments.errors import BuildError, ChannelError, LockError, NoSuchPackage
from environments.messages import making as texts
from environments.package_names import near

MAX_WORDS = 1500
_VERSIONS = 5  # that are told
_NOT_FOUND = re.compile(
    r"Could not find a version that satisfies the requirement ([^\n]+?)"
    r"(?: \(from [^()\n]*\))? \(from versions: ([^)\n]*)\)"
)
_NO_ANSWER = re.compile(r"Retrying \(Retry\(|HTTP error|Could not fetch URL|ProxyError")
_CAUSED = re.compile(r"The conflict is caused by:\n((?:[ \t]+\S[^\n]*\n?)+)")


def explain(name: str, said: str, python: str, known: Iterable[str]) -> BuildError:
    """The error that pip's error output stands for, of the environment ``name``.

    ``python`` is the Python that it was asked for, such as ``Python 3.13``; ``known`` are names of
    packages that one may have meant.
    """
    found = _NOT_FOUND.search(said)
    if found and found[2].strip() == "none" and _NO_ANSWER.search(said):
        return ChannelError(texts.INDEX_SILENT())
    if found:
        return NoSuchPackage(_not_found(found[1].strip(), found[2], python, known))
    if caused := _CAUSED.search(said):
        reason = "\n".join(line.strip() for line in caused[1].splitlines() if line.strip())
        return LockError(texts.PIP_CONFLICT(reason=reason[:MAX_WORDS]))
    if _NO_ANSWER.search(said):
        return ChannelError(texts.INDEX_SILENT())
    return LockError(texts.PIP_UNSOLVABLE(name=name, reason=plain(said)))


def plain(said: str) -> str:
    """pip's errors, without secrets that a URL might carry."""
    begin = said.find("ERROR")
    text = said[max(begin, 0) :].strip()[-MAX_WORDS:]
    return re.sub(r"://[^/@\s]+@", "://", text)


def _not_found(asked: str, versions: str, python: str, known: Iterable[str]) -> Message:
    asked = re.sub(r" \(from .*", "", asked)
    package: str
    try:
        package = canonicalize_name(Requirement(asked).name)
    except InvalidRequirement:
        package = asked
    there = [one.strip() for one in versions.split(",") if one.strip() not in ("", "none")]
    if there:
        newest = sorted(there, key=_version, reverse=True)[:_VERSIONS]
        return texts.PIP_NO_VERSION(asked=asked, package=package, versions=newest, python=python)
    names = {canonicalize_name(one) for one in known}
    # Known, and without a wheel: an old version, another Python, or a source package alone.
    if package in names:
        return texts.PIP_NO_WHEEL(package=package, python=python)
    return texts.PIP_UNKNOWN(package=package, python=python, near=near(package, names) or None)


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")
