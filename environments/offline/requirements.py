"""What an environment asks for, in the words of PyPI, and which of Debian's Pythons it gets."""

from __future__ import annotations

import re
from dataclasses import replace

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from rattler import BuildString, MatchSpec, PackageRecord

from commons.messages import Message
from environments.dependencies import Dependency
from environments.errors import BuildError
from environments.messages import making as texts
from environments.messages import steps
from environments.offline.debian import SUITES
from environments.offline.names import is_distribution, pypi_name
from environments.spec import EnvironmentSpec

# Without it an environment has no kernel.
_ALWAYS = "ipykernel"
_CLAUSE = re.compile(r"(~=|===?|!=|>=|<=|>|<|=?)(.*)", re.DOTALL)


def python_minor(spec: EnvironmentSpec) -> str:
    """The newest of Debian's Pythons that an environment accepts. Raises BuildError."""
    lines = [item.spec for item in spec.dependencies if item.name == "python"]
    wanted, matches = " ".join(lines), [MatchSpec(line) for line in lines]
    for minor in reversed(SUITES):
        # Debian's patch version is known only once it is fetched.
        versions = [minor, *(f"{minor}.{patch}" for patch in range(40))]
        records = map(_python_record, versions)
        if any(all(match.matches(record) for match in matches) for record in records):
            return minor
    raise BuildError(texts.OFFLINE_PYTHON(name=spec.name, known=tuple(SUITES), wanted=wanted))


def _python_record(version: str) -> PackageRecord:
    return PackageRecord("python", version, BuildString("0"), 0, "linux-64")


def pypi_requirements(spec: EnvironmentSpec) -> list[str]:
    """What an environment asks for, as pip takes it: sorted, with ipykernel, without Python.

    Raises BuildError for what is not Python's.
    """
    found: dict[str, list[str]] = {_ALWAYS: []}
    for item in spec.dependencies:
        if item.name != "python":
            found.setdefault(pypi_name(item.name).name, []).append(_pep440(item))
    return sorted(name + ",".join(filter(None, found[name])) for name in found)


def pythons_part(spec: EnvironmentSpec) -> EnvironmentSpec:
    """A spec without what is known to be no Python distribution."""
    kept = tuple(i for i in spec.dependencies if i.name == "python" or is_distribution(i.name))
    return replace(spec, dependencies=kept)


def remarks(spec: EnvironmentSpec) -> list[Message]:
    """What should be looked at: names that PyPI has for other ones, and names that nobody knows."""
    names = [item.name for item in spec.dependencies if item.name != "python"]
    found = {name: pypi_name(name) for name in names}
    guessed = [name for name, pypi in found.items() if not pypi.is_known]
    other = [
        steps.OFFLINE_ALIAS(name=name, pypi=pypi.name)
        for name, pypi in found.items()
        if pypi.is_known and pypi.name != canonicalize_name(name)
    ]
    said = [steps.OFFLINE_ALIASES(names=list(map(str, other)))] if other else []
    return [*said, steps.OFFLINE_GUESSED(names=guessed)] if guessed else said


def _pep440(item: Dependency) -> str:
    """conda's version as PEP 440 has it. What it cannot say (``|``) is left to the solver."""
    if item.version is None or re.search(r"[|()\s]", item.version):
        return ""
    parts = []
    for part in item.version.split(","):
        match = _CLAUSE.fullmatch(part)
        operator, version = match.groups() if match else ("", part)
        if version == "*":
            continue
        if operator in ("<", "<=", ">", ">=") or re.search(r"[a-z]", version):
            version = version.removesuffix(".*")
        parts.append(f"{'==' if operator in ('', '=') else operator}{version}")
    try:
        SpecifierSet(",".join(parts))
    except InvalidSpecifier as error:
        raise BuildError(texts.OFFLINE_VERSION(item=item)) from error
    return ",".join(parts)
