"""conda's names of Python's packages, and what PyPI calls the same software.

A name can mean two things: conda's ``graphviz`` is the program ``dot``, PyPI's is a Python package
that calls it. So a name that is known to be no Python distribution is refused, and one that nobody
knows is taken for PyPI's only with a word about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from packaging.utils import canonicalize_name

from environments.errors import BuildError
from environments.messages import making as texts

_TABLE = "names.txt"


@dataclass(frozen=True)
class PyPIName:
    """What PyPI calls a conda package; ``is_known``: whether that is more than a guess."""

    name: str
    is_known: bool


@lru_cache(maxsize=1)
def _exact() -> dict[str, str]:
    """PyPI's normalised names by conda's names, as these are written; "" for none."""
    text = resources.files(__package__).joinpath(_TABLE).read_text("utf-8")
    exact: dict[str, str] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, differs, other = line.partition("=")
            exact[name] = other if differs else canonicalize_name(name)
    return exact


@lru_cache(maxsize=1)
def _table() -> dict[str, str]:
    """As ``_exact``, by normalised names after these."""
    return {canonicalize_name(name): other for name, other in _exact().items()} | _exact()


def pypi_names() -> set[str]:
    """PyPI's names of all that is in the table."""
    return set(_table().values()) - {""}


def is_distribution(conda_name: str) -> bool:
    """Whether a conda package is, as far as one knows, a Python distribution."""
    return _found(conda_name) != ""


def pypi_name(conda_name: str) -> PyPIName:
    """PyPI's normalised name of a conda package. Raises BuildError for what is not Python's."""
    found, normal = _found(conda_name), canonicalize_name(conda_name)
    if found == "":
        others = [name for name, pypi in _table().items() if pypi == normal and name != normal]
        other = min(others) if others else None
        raise BuildError(texts.OTHER_SOFTWARE(name=conda_name, pypi=normal, other=other))
    return PyPIName(found or normal, found is not None)


def conda_name(pypi: str) -> str:
    """What conda calls a distribution of PyPI's, by its normalised name; else just that."""
    known = _exact()
    if known.get(pypi) == pypi:
        return pypi
    found = [name for name, other in known.items() if other == pypi]
    alike = [name for name in found if canonicalize_name(name) == pypi]
    return min(alike or found, key=lambda name: ("_" in name, len(name), name), default=pypi)


def _found(conda_name: str) -> str | None:
    """PyPI's name, "" where it has none, None where nobody knows."""
    table, family = _table(), f"{conda_name.partition('-')[0]}-*"
    return table.get(conda_name, table.get(canonicalize_name(conda_name), table.get(family)))
