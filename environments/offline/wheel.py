"""A wheel from PyPI, turned into a conda package.

Where files go is said by the wheel format (packaging.python.org, "Binary distribution
format") and by conda's layouts of noarch and of platform packages.
"""

from __future__ import annotations

import configparser
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from email.message import Message
from email.parser import BytesParser
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from environments.errors import BuildError
from environments.messages import making as texts
from environments.offline.package import PLACEHOLDER, Member, Metadata, write_package

_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_x86_64")
_ENTRY_POINT = re.compile(r"([\w.-]+) *= *([\w.]+):([\w.]+)")
_SCRIPT = """\
#!{prefix}/bin/python
import sys
from {module} import {first}
if __name__ == "__main__":
    sys.exit({function}())
"""


class Wheel:
    """One wheel file for one Python minor version. Raises BuildError where it is broken.

    ``python`` is a full version, such as 3.13.5, as markers are evaluated for it.
    """

    def __init__(self, path: Path, python: str) -> None:
        self.path, self.python = path, python
        self.minor = ".".join(python.split(".")[:2])
        try:
            self.name, self.version, _, tags = parse_wheel_filename(path.name)
            self._archive = zipfile.ZipFile(path)
            self._info = next(
                name.split("/")[0]
                for name in self._archive.namelist()
                if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)
            )
            self._metadata = self._message("METADATA")
            self.requires = [
                Requirement(text) for text in self._metadata.get_all("Requires-Dist", [])
            ]
            self._python_range = SpecifierSet(self._metadata.get("Requires-Python") or ">=3")
        except (InvalidWheelFilename, zipfile.BadZipFile, StopIteration, KeyError) as error:
            raise BuildError(texts.NOT_A_WHEEL(file=path.name, reason=error)) from error
        except (InvalidRequirement, ValueError) as error:
            raise BuildError(texts.WHEEL_METADATA(file=path.name, reason=error)) from error
        self._platforms = {tag.platform for tag in tags}
        self.is_pure = self._platforms == {"any"}
        # What depends on the Python version has to be made for each one.
        self.is_noarch = self.is_pure and not any(
            requirement.marker and "python" in str(requirement.marker)
            for requirement in self.requires
        )

    def _message(self, name: str) -> Message:
        return BytesParser().parsebytes(self._archive.read(f"{self._info}/{name}"))

    def metadata(self, wheels: Mapping[str, Wheel]) -> Metadata:
        """The package's metadata; ``wheels`` by normalised name say what extras need."""
        requires = {f"{item.name}{item.specifier}" for item in self._needs("", wheels)}
        depends = set()
        if self.is_noarch:
            requires.add(f"python{self._python_range}")
        else:
            major, minor = self.minor.split(".")
            depends.add(f"python >={self.minor},<{major}.{int(minor) + 1}.0a0")
        if glibc := self._glibc():
            depends.add(f"__glibc >={glibc}")
        return Metadata(
            name=self.name,
            version=str(self.version),
            build="pyh0_0" if self.is_noarch else f"py{self.minor.replace('.', '')}h0_0",
            depends=tuple(sorted(depends)),
            requires=tuple(sorted(requires)),
            noarch="python" if self.is_noarch else "",
            license=self._metadata.get("License-Expression") or "",
            prerelease=self.version.is_prerelease,
        )

    def _needs(
        self, extra: str, wheels: Mapping[str, Wheel], depth: int = 8
    ) -> Iterable[Requirement]:
        """What it needs, and what the extras that it names of others need: conda has none."""
        environment = {
            "python_version": self.minor,
            "python_full_version": self.python,
            "implementation_version": self.python,
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "x86_64",
            "extra": extra,
        }
        for requirement in self.requires:
            if requirement.marker and not requirement.marker.evaluate(environment):
                continue
            if canonicalize_name(requirement.name) == self.name:
                yield from self._extras(self, requirement, wheels, depth)
                continue
            yield requirement
            other = wheels.get(canonicalize_name(requirement.name))
            if other is not None:
                yield from self._extras(other, requirement, wheels, depth)

    @staticmethod
    def _extras(
        other: Wheel, requirement: Requirement, wheels: Mapping[str, Wheel], depth: int
    ) -> Iterable[Requirement]:
        for extra in sorted(requirement.extras) if depth else ():
            yield from other._needs(extra, wheels, depth - 1)

    def _glibc(self) -> str | None:
        found = [_MANYLINUX.fullmatch(platform) for platform in self._platforms]
        versions = [(int(match[1]), int(match[2])) for match in found if match]
        return "{}.{}".format(*min(versions)) if versions else None

    def write(self, channel: Path, metadata: Metadata) -> Path:
        """Write the package into a channel's folder."""
        points = [(m[1], m[2], m[3]) for m in self._entry_points()]
        texts = [f"{name} = {module}:{function}" for name, module, function in points]
        scripts = [] if self.is_noarch else [_script(*point) for point in points]
        members = (*self._members(), *scripts)
        return write_package(channel, metadata, members, texts)

    def _entry_points(self) -> list[re.Match[str]]:
        try:
            text = self._archive.read(f"{self._info}/entry_points.txt").decode()
        except (KeyError, UnicodeDecodeError):
            return []
        parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
        parser.optionxform = str  # type: ignore[assignment]  # programs' names keep their case
        try:
            parser.read_string(text)
        except configparser.Error as error:
            raise BuildError(texts.WHEEL_ENTRY_POINTS(file=self.path.name)) from error
        items = parser["console_scripts"].items() if "console_scripts" in parser else []
        found = [_ENTRY_POINT.match(f"{name} = {value}") for name, value in items]
        return [match for match in found if match]

    def _members(self) -> Iterator[Member]:
        site = "site-packages" if self.is_noarch else f"lib/python{self.minor}/site-packages"
        for entry in sorted(self._archive.infolist(), key=lambda entry: entry.filename):
            parts = PurePosixPath(entry.filename).parts
            if entry.is_dir():
                continue
            if ".." in parts or entry.filename.startswith("/") or "\n" in entry.filename:
                raise BuildError(texts.WHEEL_OUTSIDE(file=self.path.name, name=entry.filename))
            data = self._archive.read(entry)
            mode = 0o755 if entry.external_attr >> 16 & 0o100 else 0o644
            if len(parts) < 3 or not parts[0].endswith(".data"):
                yield Member(f"{site}/{entry.filename}", data, mode)
                continue
            rest = "/".join(parts[2:])
            if parts[1] == "scripts":
                folder = "python-scripts" if self.is_noarch else "bin"
                yield _program(f"{folder}/{rest}", data)
                continue
            folders = {
                "data": "",
                "headers": f"include/python{self.minor}/",
                "purelib": f"{site}/",
                "platlib": f"{site}/",
            }
            if parts[1] not in folders:
                raise BuildError(texts.WHEEL_PLACE(file=self.path.name, place=parts[1]))
            yield Member(f"{folders[parts[1]]}{rest}", data, mode)
        yield Member(f"{site}/{self._info}/INSTALLER", b"conda\n")


def _program(path: str, data: bytes) -> Member:
    """A script; the wheel format's ``#!python`` becomes the environment's Python."""
    if not data.startswith(b"#!python"):
        return Member(path, data, 0o755)
    _, _, body = data.partition(b"\n")
    return Member(path, f"#!{PLACEHOLDER}/bin/python\n".encode() + body, 0o755, has_prefix=True)


def _script(name: str, module: str, function: str) -> Member:
    text = _SCRIPT.format(
        prefix=PLACEHOLDER, module=module, first=function.partition(".")[0], function=function
    )
    return Member(f"bin/{name}", text.encode(), 0o755, has_prefix=True)
