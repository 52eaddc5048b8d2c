"""Known holes in what is installed: a scanner of the site's choice, and a local OSV database.

The command prints Trivy's JSON (``Results[].Vulnerabilities[]``). Advisories are OSV documents
(ossf.github.io/osv-schema) in a file or folder, matched here without any network: for PyPI by
PEP 440 versions, as the schema's ``ECOSYSTEM`` ranges say. An advisory without a rating counts
as high: nobody has said that it is harmless.
"""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from commons.site import EnvironmentScan, Severity
from environments.errors import BuildError
from environments.files import FOLDER, SBOM_FILE
from environments.inventory import inventory
from environments.messages import making as texts
from environments.messages import rules
from environments.policy import Finding, Level

SEVERITIES: tuple[str, ...] = get_args(Severity)  # mildest first
_UNRATED = "high"
_WORDS = {"moderate": "medium", "negligible": "low", "important": "high"}
_MAX_BYTES = 64 * 2**20  # one answer, or one document


@dataclass(frozen=True)
class Hole:
    """One known vulnerability of one package; ``severity`` is one of SEVERITIES."""

    id: str
    package: str
    version: str
    severity: str
    title: str
    fixed: str = ""


def scan(prefix: Path, settings: EnvironmentScan) -> list[Finding]:
    """Look for known holes in a prefix. Raises BuildError where the scanner itself fails."""
    holes: dict[tuple[str, str], Hole] = {}
    if settings.advisories:
        for hole in match(inventory(prefix), advisories(settings.advisories)):
            holes.setdefault((hole.id, hole.package), hole)
    if settings.command:
        for hole in _command(prefix, settings):
            holes.setdefault((hole.id, hole.package), hole)
    return [finding for hole in holes.values() for finding in finding_of(hole, settings)]


def finding_of(hole: Hole, settings: EnvironmentScan) -> list[Finding]:
    """What the site's rules say of a hole: one finding, or none where it is let be."""
    if hole.id in settings.ignore:
        return []
    limit = settings.threshold
    blocks = limit != "never" and SEVERITIES.index(hole.severity) >= SEVERITIES.index(limit)
    level: Level = "refuse" if blocks else "warn"
    return [
        Finding(
            level,
            "hole",
            rules.HOLE(
                package=hole.package,
                version=hole.version,
                id=hole.id,
                severity=hole.severity,
                title=hole.title or None,
            ),
            rules.ASK_FIXED(package=hole.package, fixed=hole.fixed)
            if hole.fixed
            else rules.IGNORE_HOLE(id=hole.id),
        )
    ]


# A scanner of the site's choice ------------------------------------------------------------------


def _command(prefix: Path, settings: EnvironmentScan) -> list[Hole]:
    values = {"sbom": str(prefix / FOLDER / SBOM_FILE), "prefix": str(prefix)}
    command = [part.format_map(values) for part in settings.command]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            timeout=settings.timeout,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(
            texts.SCAN_GAVE_UP(command=command[0], seconds=settings.timeout)
        ) from error
    except OSError as error:
        raise BuildError(
            texts.SCAN_NOT_STARTED(command=command[0], reason=error.strerror)
        ) from error
    try:
        if len(done.stdout) > _MAX_BYTES:
            raise ValueError("too long an answer")
        return list(trivy(json.loads(done.stdout)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = done.stderr.decode("utf-8", "replace")[-500:].strip()
        raise BuildError(
            texts.SCAN_UNCLEAR(command=command[0], status=done.returncode, words=said or error)
        ) from error


def trivy(document: Mapping[str, Any]) -> Iterator[Hole]:
    """The vulnerabilities in Trivy's JSON. Raises ValueError where it is something else."""
    if "SchemaVersion" not in document:
        raise ValueError("no SchemaVersion")
    for result in document.get("Results") or ():
        for item in result.get("Vulnerabilities") or ():
            yield Hole(
                str(item["VulnerabilityID"]),
                str(item["PkgName"]),
                str(item["InstalledVersion"]),
                _severity(item.get("Severity")),
                str(item.get("Title") or "")[:200],
                str(item.get("FixedVersion") or "").split(",")[0].strip(),
            )


def _severity(word: object) -> str:
    text = str(word or "").lower()
    text = _WORDS.get(text, text)
    return text if text in SEVERITIES else _UNRATED


# A local OSV database ----------------------------------------------------------------------------


def advisories(place: Path) -> Iterator[Mapping[str, Any]]:
    """The OSV documents in a JSON file, a zip of them, or a folder of either.

    A file's JSON may be one document or a list. Raises BuildError where one cannot be read: a
    database that is half read would let holes through.
    """
    if not place.exists():
        raise BuildError(texts.NO_ADVISORIES(file=place))
    paths = sorted(place.rglob("*")) if place.is_dir() else [place]
    for path in paths:
        if path.suffix == ".json":
            yield from _documents(path.read_bytes, str(path))
        elif path.suffix == ".zip":
            try:
                with zipfile.ZipFile(path) as archive:
                    for entry in archive.infolist():
                        if entry.filename.endswith(".json") and entry.file_size <= _MAX_BYTES:
                            yield from _documents(
                                lambda entry=entry: archive.read(entry), f"{path}: {entry.filename}"
                            )
            except zipfile.BadZipFile as error:
                raise BuildError(texts.ADVISORIES_NO_ZIP(file=path)) from error


def _documents(read: Any, where: str) -> Iterator[Mapping[str, Any]]:
    try:
        document = json.loads(read())
        items = document if isinstance(document, list) else [document]
        for item in items:
            if not isinstance(item["id"], str) or not isinstance(item.get("affected", []), list):
                raise TypeError("no OSV document")
            yield item
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BuildError(texts.ADVISORIES_UNREADABLE(file=where, reason=error)) from error


class Known(Protocol):
    """What Python may know by other names: an installed package, or one that is uploaded."""

    @property
    def distributions(self) -> tuple[tuple[str, str], ...]: ...


def match(packages: Sequence[Known], documents: Iterable[Mapping[str, Any]]) -> list[Hole]:
    """The advisories that hit what is installed, one for each hole and package.

    Databases describe one hole under several names (``aliases``); the rated one is kept.
    """
    versions: dict[str, list[str]] = {}
    for item in packages:
        for name, version in item.distributions:
            versions.setdefault(name, []).append(version)
    hits: dict[tuple[str, str], list[_Hit]] = {}
    for document in documents:
        if document.get("withdrawn"):
            continue
        for affected in document.get("affected", []):
            package = affected.get("package", {})
            name = canonicalize_name(str(package.get("name", "")))
            if package.get("ecosystem") == "PyPI" and name in versions:
                for version in versions[name]:
                    if hit := _hit(document, affected, name, version):
                        _add(hits.setdefault((name, version), []), hit)
    return [hit.hole for of_package in hits.values() for hit in of_package]


@dataclass(frozen=True)
class _Hit:
    names: frozenset[str]
    hole: Hole
    is_rated: bool


def _add(hits: list[_Hit], hit: _Hit) -> None:
    """``hits`` are those of one version of one package."""
    for index, other in enumerate(hits):
        if other.names & hit.names:
            better = hit if hit.is_rated and not other.is_rated else other
            hits[index] = _Hit(other.names | hit.names, better.hole, better.is_rated)
            return
    hits.append(hit)


def _hit(
    document: Mapping[str, Any], affected: Mapping[str, Any], name: str, version: str
) -> _Hit | None:
    try:
        installed = Version(version)
    except InvalidVersion:
        return None
    fixes = [
        str(event["fixed"])
        for reach in affected.get("ranges") or ()
        for event in reach.get("events") or ()
        if "fixed" in event and reach.get("type") == "ECOSYSTEM"
    ]
    if version not in (affected.get("versions") or ()) and not any(
        _within(installed, reach.get("events") or ())
        for reach in affected.get("ranges") or ()
        if reach.get("type") == "ECOSYSTEM"
    ):
        return None
    rating = _rating(document, affected)
    later = sorted(fix for fix in map(_version, fixes) if fix and fix > installed)
    hole = Hole(
        str(document["id"]),
        name,
        version,
        _severity(rating),
        str(document.get("summary") or "")[:200],
        str(later[0]) if later else "",
    )
    names = frozenset({hole.id, *map(str, document.get("aliases") or ())})
    return _Hit(names, hole, bool(rating))


def _within(installed: Version, events: Iterable[Mapping[str, Any]]) -> bool:
    """OSV's own evaluation: events in the order of versions, the last one before it counts."""
    inside = False
    ordered = []
    for event in events:
        kind, text = next(iter(event.items()))
        version = Version("0.dev0") if text == "0" else _version(str(text))
        if version is not None:
            ordered.append((version, kind))
    for version, kind in sorted(ordered):
        if kind == "introduced" and installed >= version:
            inside = True
        elif (kind == "fixed" and installed >= version) or (
            kind == "last_affected" and installed > version
        ):
            inside = False
    return inside


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _rating(document: Mapping[str, Any], affected: Mapping[str, Any]) -> str:
    """The databases' own word; a CVSS vector alone is no rating here."""
    for place in (affected, document):
        for key in ("ecosystem_specific", "database_specific"):
            word = (place.get(key) or {}).get("severity")
            if isinstance(word, str) and word:
                return word
    return ""
