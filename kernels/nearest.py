"""Which kernel is nearest to one that a notebook names and that is not there."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher

from kernels.kernelspec import short_version
from kernels.messages import Message, say

# Of this many, the best by name and Python, the packages are looked at.
_LOOKED_AT = 20
_SUFFIX = re.compile(r"\.(?:py|dist-info|egg-info|cpython-[^.]*\.so|abi3\.so|so)$")


@dataclass(frozen=True)
class Wanted:
    """A kernel by what its notebook says: ``packages`` are those that it imports."""

    name: str
    language: str = "python"
    python: str = ""
    packages: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Candidate:
    """A kernel that could take its place."""

    name: str
    shown: str
    language: str
    python: str
    environment: str
    prefix: str


@dataclass(frozen=True)
class Nearest:
    """The nearest, and those of the wanted packages that it has and lacks."""

    candidate: Candidate
    has: tuple[str, ...]
    lacks: tuple[str, ...]

    def message(self, wanted: Wanted) -> Message:
        """What to tell the person."""
        near: str | Message = self.candidate.shown
        if self.lacks:
            near = say("kernel_without_packages", kernel=near, packages=self.lacks)
        elif self.has:
            near = say("kernel_with_packages", kernel=near, packages=self.has)
        if not wanted.name.startswith("conda-"):
            return say("kernel_unknown", name=wanted.name, near=near)
        return say(
            "kernel_not_found",
            name=wanted.name,
            near=near,
        )


def nearest(wanted: Wanted, candidates: Iterable[Candidate]) -> Nearest | None:
    """The candidate nearest by language, Python, packages and name; None where none fits."""
    wanted_python = short_version(wanted.python) or python_in(wanted.name)
    packages = wanted.packages or packages_in(wanted.name)
    ranked = sorted(
        (each for each in candidates if each.language.lower() == wanted.language.lower()),
        key=lambda each: (-_likeness(wanted, wanted_python, each), each.name),
    )[:_LOOKED_AT]
    best: tuple[float, Nearest] | None = None
    for each in ranked:
        there = installed(each.prefix) if packages else frozenset()
        has = tuple(sorted(package for package in packages if package.lower() in there))
        # What a name seems to say of packages proves nothing when it is not found.
        lacks = tuple(sorted(wanted.packages.difference(has)))
        share = len(has) / len(packages) if packages else 0.0
        score = _likeness(wanted, wanted_python, each) + 3 * share
        if best is None or score > best[0]:
            best = (score, Nearest(each, has, lacks))
    return best[1] if best else None


def _likeness(wanted: Wanted, python: str | None, candidate: Candidate) -> float:
    """Between 0 and 4: half for the Python, half for the name."""
    alike = SequenceMatcher(None, wanted.name, candidate.name).ratio()
    theirs = short_version(candidate.python)
    if python is None or theirs is None:
        return 2 * alike
    major, minor = map(int, python.split("."))
    their_major, their_minor = map(int, theirs.split("."))
    if major != their_major:
        return 2 * alike
    return 2 * alike + 2 / (1 + abs(minor - their_minor))


def python_in(name: str) -> str | None:
    """The Python that a name tells: ``conda-image-py311-torch`` -> ``3.11``."""
    match = re.search(r"py(?:thon)?-?([23])[._]?(\d{1,2})", name)
    return f"{match[1]}.{match[2]}" if match else None


def packages_in(name: str) -> frozenset[str]:
    """Words of a name that may be packages: ``conda-image-py311-torch20-python3`` -> torch."""
    words = re.split(r"[-_.]", name)[2:-1]
    return frozenset(
        word
        for each in words
        if len(word := each.rstrip("0123456789")) > 2 and not each.startswith("py")
    )


def installed(prefix: str) -> Collection[str]:
    """Names, in lower case, of what is installed in a prefix: conda's packages and modules."""
    names: set[str] = set()
    try:
        for record in os.listdir(f"{prefix}/conda-meta"):
            if record.endswith(".json") and record.count("-") >= 2:
                names.add(record.rsplit("-", 2)[0].lower())
        for folder in os.listdir(f"{prefix}/lib"):
            if folder.startswith("python3."):
                for module in os.listdir(f"{prefix}/lib/{folder}/site-packages"):
                    names.add(_SUFFIX.sub("", module).partition("-")[0].lower())
    except OSError:
        pass
    return names
