"""Reading the trail: events by filters, and whether the chains are whole."""

from __future__ import annotations

import base64
import heapq
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from commons.audit.chain import MAX_LINE, Head, digest, encode, files, last, parse

# The chain of the service that signs; and where events of before there were chains are.
SIGNER, BEFORE = "audit", "before"

Kind = Literal["changed", "removed", "added", "truncated", "rewritten", "unsigned", "torn"]
# What happens to every trail some day, and is no sign of a hand in it.
HARMLESS: frozenset[Kind] = frozenset({"torn"})
Check = Callable[[bytes, bytes], bool]  # signature, what was signed


@dataclass(frozen=True)
class Finding:
    """Where a chain is not whole.

    Attributes:
        kind: "changed" (a line is another than the next one says), "removed" (lines are missing),
            "added" (a line that belongs to no chain), "truncated" (lines are missing at the end
            that a checkpoint has seen), "rewritten" (a line is another than a checkpoint has seen),
            "unsigned" (a checkpoint is not the signer's), "torn" (a writer was killed in a line).
        line: in the file, from 1.
        about: how many lines, or which numbers.
    """

    kind: Kind
    file: str
    line: int
    about: str = ""

    @property
    def harmless(self) -> bool:
        return self.kind in HARMLESS


@dataclass
class Verified:
    """What ``verify`` found: lines of each writer, and what is wrong."""

    lines: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    checkpoints: int = 0

    @property
    def whole(self) -> bool:
        return all(finding.harmless for finding in self.findings)


@dataclass(frozen=True)
class Filter:
    """Which events; what is not said lets all pass.

    Attributes:
        since, until: ISO 8601 in UTC, as ``@timestamp`` has it; ``until`` is not in it.
        about: a word somewhere in the event's details, such as a server, lease or environment.
    """

    person: str = ""
    action: str = ""
    outcome: str = ""
    writer: str = ""
    about: str = ""
    since: str = ""
    until: str = ""

    def lets(self, event: dict[str, Any]) -> bool:
        said = event["event"]
        at = str(event.get("@timestamp", ""))
        return (
            (not self.person or event.get("user", {}).get("name") == self.person)
            and (not self.action or said.get("action") == self.action)
            and (not self.outcome or said.get("outcome") == self.outcome)
            and (not self.since or at >= self.since)
            and (not self.until or at < self.until)
            and (not self.about or self.about in json.dumps(_details(event), ensure_ascii=False))
        )


def _details(event: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.get("labcommons", {}).items() if key != "chain"}


def writers(root: Path) -> list[str]:
    """Whose chains there are."""
    try:
        return sorted(path.name for path in root.iterdir() if path.is_dir() and _files(path))
    except FileNotFoundError:
        return []


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl")) if folder.name == BEFORE else files(folder)


def events(
    root: Path, wanted: Filter, newest: bool = False, since: str = ""
) -> Iterator[dict[str, Any]]:
    """The events that a filter lets pass, of all writers, by time; ``newest``: backwards.

    ``since``: of files with nothing later, nothing is read.
    """
    found = [name for name in writers(root) if wanted.writer in ("", name)]
    chains = [_of_writer(root / name, since or wanted.since, newest) for name in found]
    key: Callable[[dict[str, Any]], str] = lambda event: str(event.get("@timestamp", ""))  # noqa: E731
    yield from filter(wanted.lets, heapq.merge(*chains, key=key, reverse=newest))


def _of_writer(folder: Path, since: str, newest: bool) -> Iterator[dict[str, Any]]:
    names = _files(folder)
    # A day's file has that day's events, and later ones after a clock went back.
    if since and folder.name != BEFORE:
        names = [path for path in names if f"{path.stem}T99" >= since]
    for path in reversed(names) if newest else names:
        day = [event for line in _lines(path) if (event := _lenient(line)) is not None]
        yield from reversed(day) if newest else day


def _lenient(line: bytes) -> dict[str, Any] | None:
    """Also of before there were chains."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    right = isinstance(event, dict) and isinstance(event.get("event"), dict)
    right = right and isinstance(event.get("labcommons", {}), dict)
    return event if right and isinstance(event.get("user", {}), dict) else None


def _lines(path: Path) -> Iterator[bytes]:
    """Lines without their newlines, in pieces of a limit: what has none may be of any size."""
    try:
        file = path.open("rb")
    except FileNotFoundError:  # it was older than the site keeps them
        return
    with file:
        while line := file.readline(4 * MAX_LINE):
            yield line.removesuffix(b"\n")


def verify(root: Path, check: Check | None = None) -> Verified:
    """Go through all chains. ``check`` tells whether a checkpoint's signature is the signer's."""
    result = Verified()
    seen: dict[str, dict[int, str]] = {}  # by writer: hashes by number, as checkpoints have them
    retired: dict[str, Head] = {}
    signed = root / SIGNER
    for path, number, line in _numbered(signed):
        event = parse(line)
        if event is None or event["event"].get("action") not in (
            "audit-checkpoint",
            "audit-retire",
        ):
            continue
        if check is not None and not _is_signed(event, check):
            result.findings.append(Finding("unsigned", _name(path), number))
            continue
        result.checkpoints += 1
        said = event["labcommons"]
        for writer, head in said.get("heads", {}).items():
            seen.setdefault(writer, {})[head["sequence"]] = head["hash"]
        for writer, head in said.get("retired", {}).items():
            retired[writer] = Head(head["sequence"], head["hash"])
    for writer in writers(root):
        if writer != BEFORE:
            _verify(root / writer, retired.get(writer, Head()), seen.get(writer, {}), result)
    for writer in sorted(seen.keys() - result.lines.keys()):
        newest = max(seen[writer])
        if newest and newest > retired.get(writer, Head()).sequence:
            result.findings.append(Finding("truncated", writer, 0, f"all up to {newest}"))
    return result


def _is_signed(event: dict[str, Any], check: Check) -> bool:
    said = dict(event["labcommons"])
    try:
        signature = base64.b64decode(said.pop("signature"), validate=True)
    except (KeyError, TypeError, ValueError):
        return False
    return check(signature, encode({**event, "labcommons": said}))


def _verify(folder: Path, before: Head, seen: dict[int, str], result: Verified) -> None:
    head, count = before, 0
    file, number = folder.name, 0
    found: list[Finding] = []
    for path, number, line in _numbered(folder):
        file = _name(path)
        event = parse(line)
        if event is None:
            if line:
                found.append(Finding("torn", file, number))
            continue
        sequence, previous = event["event"]["sequence"], event["labcommons"]["chain"]["previous"]
        if count == 0 and sequence <= before.sequence:
            continue  # it was to be removed, and is not yet
        if event["labcommons"]["chain"]["writer"] != folder.name or sequence <= head.sequence:
            found.append(Finding("added", file, number, str(sequence)))
            continue
        if sequence > head.sequence + 1:
            found.append(Finding("removed", file, number, f"{head.sequence + 1}-{sequence - 1}"))
        elif previous != head.hash:
            found.append(Finding("changed", file, max(1, number - 1), str(head.sequence)))
        head = Head(sequence, digest(line))
        if seen.get(sequence, head.hash) != head.hash:
            found.append(Finding("rewritten", file, number, str(sequence)))
        count += 1
    newest = max(seen, default=0)
    if newest > head.sequence:
        found.append(Finding("truncated", file, number, f"{head.sequence + 1}-{newest}"))
    result.lines[folder.name] = count
    result.findings += found


def _numbered(folder: Path) -> Iterator[tuple[Path, int, bytes]]:
    for path in files(folder):
        for number, line in enumerate(_lines(path), 1):
            yield path, number, line


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def heads(root: Path) -> dict[str, Head]:
    """The last line of each chain."""
    return {writer: last(root / writer)[0] for writer in writers(root) if writer != BEFORE}
