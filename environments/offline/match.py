"""Requirements of wheels as conda's match specs, so that both mean the same versions.

PEP 440 and conda order and compare versions by rules of their own: conda puts ``1.0.dev1`` after
``1.0a1`` and takes ``1.0a1`` and ``1.0.0a1`` for two versions, and ``1.0`` and ``1.0+local``, too.
What the channel has is known, so each version of it is asked for by name where the two disagree.
"""

from __future__ import annotations

from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from rattler import BuildString, MatchSpec, PackageRecord
from rattler.exceptions import InvalidMatchSpecError


def match_spec(requirement: Requirement, versions: Iterable[str] = ()) -> str:
    """A requirement as conda's match spec; right for each of the versions that the channel has.

    Of versions to come it says what conda's own reading of the requirement does. A version before
    its release counts where the specifiers let it: to prefer releases is the solver's work.
    """
    name = canonicalize_name(requirement.name)
    known = sorted(set(versions))
    opened = ",".join(sorted(filter(None, map(_clause, requirement.specifier))))
    meant = {version: _contains(requirement.specifier, version) for version in known}
    read = {version: _matches(f"{name} {opened}", name, version) for version in known}
    too_many = [f"!={version}" for version in known if read[version] and not meant[version]]
    too_few = [f"=={version}" for version in known if meant[version] and not read[version]]
    first = ",".join(filter(None, (opened, *too_many)))
    return f"{name} {'|'.join(filter(None, (first, *too_few)))}".strip()


def _contains(specifiers: SpecifierSet, version: str) -> bool:
    return specifiers.contains(version, prereleases=True)


def _matches(spec: str, name: str, version: str) -> bool:
    try:
        match = MatchSpec(spec.strip())
    except InvalidMatchSpecError:
        return False
    return bool(match.matches(PackageRecord(name, version, BuildString("0"), 0, "noarch")))


def _clause(specifier: Specifier) -> str:
    """One clause as conda writes it, versions in their normal form."""
    operator, version = specifier.operator, specifier.version
    prefix = version.endswith(".*")
    try:
        version = str(Version(version.removesuffix(".*")))
    except InvalidVersion:  # after ``===`` anything may stand, which no version here is
        return "==0.dev0"
    if prefix:
        return f"{'!=' if operator == '!=' else ''}{version}.*"
    return f"{'==' if operator == '===' else operator}{version}"
