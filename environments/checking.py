"""What is wrong with a repository of environments, found without a network and without a site.

For a site's own CI: files are read and nothing of what they ask for is fetched, installed or run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from commons.messages import Message
from commons.signatures import dsse
from commons.signatures.check import ENVELOPE, Trusted, judge, read_file
from commons.site import Environments
from environments import policy, scan
from environments.errors import BuildError, LockError
from environments.files import LOCK_FILE, SPEC_FILE
from environments.inventory import Installed
from environments.lock import Lock, changes, read_lock
from environments.messages import check as texts
from environments.offline.names import pypi_name
from environments.spec import EnvironmentSpec, load_spec

Level = Literal["error", "warning"]
# What is looked at, in this order; findings of rules are told by the rules' own names.
RULES = ("spec", "names", "lock", "policy", "advisories", "signatures")
MAX_DEPTH, MAX_FOLDERS, MAX_FOUND = 8, 20_000, 2000
_LINE = re.compile(r"/([a-z]+\.yml), line (\d{1,7})")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what to do.

    Attributes:
        rule: one of RULES; ``code``: more exactly, for programs.
        file: below the repository's folder, with ``/``.
        line: 1 where it is of the whole file.
    """

    level: Level
    rule: str
    code: str
    file: str
    what: Message
    advice: Message | None = None
    line: int = 1

    def as_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "level": self.level,
            "rule": self.rule,
            "code": self.code,
            "file": self.file,
            "line": self.line,
            "message": str(self.what),
            "remedy": str(self.advice) if self.advice else "",
        }


@dataclass(frozen=True)
class Result:
    """An environment of the repository, and all that was found of it."""

    name: str
    file: str
    problems: tuple[Problem, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "name": self.name,
            "file": self.file,
            "problems": [problem.as_json() for problem in self.problems],
        }


@dataclass(frozen=True)
class Rules:
    """By what it is checked.

    Attributes:
        documents: advisories (OSV), read once.
        keys: by which a statement beside an environment may be signed.
    """

    settings: Environments
    today: date
    documents: Sequence[Mapping[str, Any]] = ()
    keys: tuple[Trusted, ...] = ()


def check(root: Path, rules: Rules) -> list[Result]:
    """Look at all environments below a folder. Raises BuildError where it cannot be read."""
    found = list(folders(root))
    first: dict[str, str] = {}
    results = []
    for folder in found:
        where = _Where(root, folder)
        problems = list(_problems(where, rules))
        if (other := first.setdefault(folder.name, where.spec)) != where.spec:
            what = texts.NAME_TWICE(name=folder.name, other=other)
            problems.append(where.problem("error", "names", "twice", what, texts.RENAME()))
        results.append(Result(folder.name, where.spec, tuple(problems)))
    return results


def folders(root: Path) -> Iterator[Path]:
    """Folders with an environment.yml, sorted; hidden ones and links are left out.

    Raises BuildError beyond MAX_FOLDERS or MAX_FOUND.
    """
    if not root.is_dir():
        raise BuildError(texts.NO_FOLDER(folder=root))
    found = 0
    for seen, (path, names, files) in enumerate(os.walk(root), 1):
        here = Path(path)
        depth = len(here.relative_to(root).parts)
        names[:] = sorted(n for n in names if not n.startswith(".")) if depth < MAX_DEPTH else []
        if SPEC_FILE in files:
            found += 1
            yield here.resolve() if here == root else here
        if seen > MAX_FOLDERS or found > MAX_FOUND:
            raise BuildError(texts.TOO_MANY(folder=root, folders=MAX_FOLDERS, most=MAX_FOUND))


@dataclass(frozen=True)
class _Where:
    root: Path
    folder: Path

    def file(self, name: str) -> str:
        path = self.folder / name
        try:
            return path.relative_to(self.root).as_posix()
        except ValueError:
            return name

    @property
    def spec(self) -> str:
        return self.file(SPEC_FILE)

    def problem(
        self,
        level: Level,
        rule: str,
        code: str,
        what: Message,
        advice: Message | None = None,
        file: str = SPEC_FILE,
        line: int = 1,
    ) -> Problem:
        return Problem(level, rule, code, self.file(file), what, advice, line)


def _problems(where: _Where, rules: Rules) -> Iterator[Problem]:
    try:
        spec = load_spec(where.folder, rules.settings.default_channels)
    except BuildError as error:
        rule = "names" if error.code == "spec_folder_name" else "spec"
        yield where.problem("error", rule, error.code, error.message, None, *_place(error))
        return
    lock = None
    try:
        lock, found = _lock(where, spec, rules.settings)
        yield from found
    except LockError as error:
        yield where.problem("error", "lock", error.code, error.message, file=LOCK_FILE)
    for one in policy.check(spec, lock, rules.settings, rules.today):
        level: Level = "error" if one.level == "refuse" else "warning"
        yield where.problem(level, "policy", one.code, one.what, one.advice)
    if lock is not None:
        yield from _holes(where, lock, rules)
        yield from _signature(where, lock, rules)


def _lock(
    where: _Where, spec: EnvironmentSpec, settings: Environments
) -> tuple[Lock | None, list[Problem]]:
    """The committed lock, where it answers; else what to say. Raises LockError."""
    path = where.folder / LOCK_FILE
    commit = texts.MAKE_LOCK(name=spec.name)
    if not path.exists():
        if settings.policy.unlocked == "allow":
            return None, []
        level: Level = "error" if settings.policy.unlocked == "refuse" else "warning"
        return None, [where.problem(level, "lock", "no-lock", texts.NO_LOCK(), commit)]
    lock = read_lock(path, spec.platforms[0])
    if lock.spec_digest != spec.digest:
        differs = changes(spec, lock)[:20]
        what = texts.STALE_WITH(changes=differs) if differs else texts.STALE()
        return None, [where.problem("error", "lock", "stale", what, commit, LOCK_FILE)]
    return lock, []


def _holes(where: _Where, lock: Lock, rules: Rules) -> Iterator[Problem]:
    settings = rules.settings.scan
    for hole in scan.match(of_lock(lock), rules.documents):
        for one in scan.finding_of(hole, settings):
            level: Level = "error" if one.level == "refuse" else "warning"
            yield where.problem(level, "advisories", hole.id, one.what, one.advice, LOCK_FILE)


def of_lock(lock: Lock) -> list[Installed]:
    """What a lock will install, as far as advisories know it."""
    names = [(item.name, item.version, False) for item in lock.packages]
    names += [(item.name, item.version, True) for item in lock.pip]
    return known_as(names)


def known_as(packages: Iterable[tuple[str, str, bool]]) -> list[Installed]:
    """Packages by PyPI's names; (name, version, whether that name is PyPI's already)."""
    found = []
    for name, version, is_pypi in packages:
        try:
            known = name if is_pypi else pypi_name(name).name
        except BuildError:  # none of Python's
            continue
        kind = "pip" if is_pypi else "conda"
        found.append(Installed(kind, name, version, distributions=((known, version),)))
    return found


def _signature(where: _Where, lock: Lock, rules: Rules) -> Iterator[Problem]:
    """Of a statement that an export has laid there: whether it is signed, and about this lock."""
    path = where.folder / ENVELOPE
    if not path.exists():
        return
    try:
        verdict = judge(read_file(path, dsse.MAX_BYTES), rules.keys, rules.today)
    except (OSError, ValueError) as error:
        what = texts.NO_ENVELOPE(reason=error)
        yield where.problem("error", "signatures", "unreadable", what, None, ENVELOPE)
        return
    if verdict.facts is None:
        what = verdict.why or texts.NO_ENVELOPE(reason="?")
        yield where.problem("error", "signatures", "wrong", what, texts.KEYS(), ENVELOPE)
    elif verdict.facts.lock_digest != lock.digest:
        said = f"{verdict.facts.name}:{verdict.facts.version}"
        what = texts.OTHER_LOCK(version=said)
        yield where.problem("warning", "signatures", "other-lock", what, texts.EXPORT(), ENVELOPE)


def _place(error: BuildError) -> tuple[str, int]:
    """File and line that an error names."""
    found = _LINE.search(str(error))
    return (found[1], int(found[2])) if found else (SPEC_FILE, 1)
