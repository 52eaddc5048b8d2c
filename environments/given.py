"""Locks that people bring along (conda-lock's, pixi's, conda's explicit lists), as exact packages.

They were made elsewhere and are hostile until checked: what is taken from them is each package's
place and hash, both of a known form. The policy, the channels and the hashes are looked at as for
a lock of our own.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rattler
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from commons.messages import Message
from environments.channel_names import channel_problem
from environments.encoding import in_file, shown
from environments.errors import SpecError
from environments.files import DEFAULT_ENVIRONMENT
from environments.kinds import Kind
from environments.messages import spec as texts
from environments.packages import CondaFile, PipPackage, conda_file

MAX_PACKAGES = 5000  # as a version's record
_LOCAL = "https://local.labcommons.invalid/"  # what locks call folders, here and elsewhere


@dataclass(frozen=True)
class Given:
    """The packages of a lock, for one platform."""

    packages: tuple[CondaFile, ...]
    pip: tuple[PipPackage, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over places and hashes."""
        lines = [*map(str, self.packages), *(f"{item.url}#{item.sha256}" for item in self.pip)]
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()

    @property
    def channels(self) -> tuple[str, ...]:
        """Where the packages are from, in the order in which they first come."""
        return tuple(dict.fromkeys(item.channel for item in self.packages))


def read(text: str, kind: Kind, file: str, platform: str) -> Given:
    """The packages of a lock. Raises SpecError with file, where it is known line, and remedy."""
    given = (_explicit if kind is Kind.EXPLICIT else _lock)(text, file, platform)
    if not given.packages:
        raise in_file(file, texts.GIVEN_EMPTY(platform=platform))
    if len(given.packages) + len(given.pip) > MAX_PACKAGES:
        raise in_file(file, texts.DEPENDENCIES(most=MAX_PACKAGES))
    names = [item.name for item in given.packages] + [item.name for item in given.pip]
    if len({*names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise in_file(file, texts.GIVEN_TWICE(name=twice))
    return given


def _explicit(text: str, file: str, platform: str) -> Given:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        url = line.strip()
        if not url or url.startswith("#") or url == "@EXPLICIT":
            continue
        package = conda_file(url)
        problem = _problem(package, platform) if package else None
        if package is None or problem:
            raise in_file(file, problem or texts.EXPLICIT_LINE(text=shown(url)), number)
        found.append(_local(package))
    return Given(tuple(found))


def _problem(package: CondaFile, platform: str) -> Message | None:
    if package.subdir not in (platform, "noarch"):
        return texts.GIVEN_OTHER_PLATFORM(subdir=package.subdir, platform=platform)
    return channel_problem(package.channel)


def _local(package: CondaFile) -> CondaFile:
    """A folder of this machine, where an export of ours names one."""
    if not f"{package.channel}/".startswith(_LOCAL):
        return package
    return replace(package, channel=f"/{package.channel.removeprefix(_LOCAL)}")


def _lock(text: str, file: str, platform: str) -> Given:
    environment = _environment(text, file)
    here = next((item for item in environment.platforms() if item.name == platform), None)
    if here is None:
        known = [item.name for item in environment.platforms()]
        raise in_file(file, texts.GIVEN_PLATFORM(known=known, platform=platform))
    try:
        locked = environment.packages(here) or []
    except Exception as error:  # py-rattler raises many kinds
        raise in_file(file, texts.GIVEN_UNREADABLE(reason=_first_line(error))) from error
    conda: list[CondaFile] = []
    pip: list[PipPackage] = []
    for item in locked:
        try:
            if isinstance(item, rattler.PypiLockedPackage):
                pip.append(_wheel(item))
            else:
                conda.append(_conda(item, platform))
        except SpecError as error:
            raise in_file(file, error.message) from error
        except Exception as error:
            raise in_file(file, texts.GIVEN_UNREADABLE(reason=_first_line(error))) from error
    return Given(tuple(conda), tuple(pip))


def _environment(text: str, file: str) -> Any:
    with tempfile.TemporaryDirectory(prefix="labcommons-lock-") as folder:
        path = Path(folder, "given.lock")
        path.write_text(text, "utf-8")
        try:
            found = dict(rattler.LockFile.from_path(path).environments())
        except Exception as error:
            raise in_file(file, texts.GIVEN_UNREADABLE(reason=_first_line(error))) from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            raise in_file(file, texts.GIVEN_UNREADABLE(reason=_first_line(error))) from error
    if DEFAULT_ENVIRONMENT in found:
        return found[DEFAULT_ENVIRONMENT]
    if len(found) != 1:
        raise in_file(
            file, texts.GIVEN_ENVIRONMENTS(known=[shown(name) for name in sorted(found)[:20]])
        )
    return next(iter(found.values()))


def _first_line(error: BaseException) -> str:
    return shown(next(iter(str(error).splitlines()), type(error).__name__), 200)


def _conda(item: Any, platform: str) -> CondaFile:
    package = conda_file(str(item.location))
    if package is None:
        raise SpecError(texts.GIVEN_SOURCE(text=shown(str(item.location), 200)))
    if problem := _problem(package, platform):
        raise SpecError(problem)
    record, hashes = item.package_record, item.hashes
    return _local(
        replace(
            package,
            sha256=hashes.sha256.hex() if hashes and hashes.sha256 else "",
            md5=hashes.md5.hex() if hashes and hashes.md5 else "",
            depends=tuple(record.depends),
            license=record.license or "",
        )
    )


def _wheel(item: Any) -> PipPackage:
    """A wheel; its name and version are those of its file, of a form that pip can be told."""
    url, digest = str(item.location), item.hashes.sha256 if item.hashes else None
    if not url.startswith("https://") or not url.endswith(".whl"):
        raise SpecError(texts.GIVEN_NO_WHEEL(text=shown(url, 200)))
    if not digest:
        raise SpecError(texts.GIVEN_NO_HASH(name=shown(item.name)))
    try:
        name, version, _, _ = parse_wheel_filename(url.rpartition("/")[2])
    except InvalidWheelFilename as error:
        raise SpecError(texts.GIVEN_NO_WHEEL(text=shown(url, 200))) from error
    return PipPackage(
        canonicalize_name(name),
        str(version),
        url,
        digest.hex(),
        tuple(item.requires_dist),
        item.requires_python or "",
    )
