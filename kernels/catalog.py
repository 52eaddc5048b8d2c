"""The store's side of the registry: built environments in, the table of kernels out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub_ext.store import EnvironmentVersion, Kernel
from kernels.registry import CatalogEntry, RegisteredKernel


def read_catalog(session: Session) -> list[CatalogEntry]:
    """All built environments, by name and version; without their long lists of packages."""
    rows = session.execute(
        select(
            EnvironmentVersion.name,
            EnvironmentVersion.version,
            EnvironmentVersion.prefix,
            EnvironmentVersion.python,
            EnvironmentVersion.kernelspecs,
        ).order_by(EnvironmentVersion.name, EnvironmentVersion.version)
    )
    return [CatalogEntry(*row) for row in rows]


def kernels_in_step(session: Session, kernels: Sequence[RegisteredKernel]) -> bool:
    """Whether the table already says what these kernels say; for a transaction that only reads."""
    wanted = {_key(kernel): _columns(kernel) for kernel in kernels}
    found = {
        (row.name, row.version): {name: getattr(row, name) for name in _COLUMNS}
        for row in session.scalars(select(Kernel))
    }
    return wanted == found


def store_kernels(session: Session, kernels: Sequence[RegisteredKernel]) -> None:
    """Make the table of kernels agree, touching only rows that differ."""
    wanted = {_key(kernel): _columns(kernel) for kernel in kernels}
    for row in session.scalars(select(Kernel)):
        columns = wanted.pop((row.name, row.version), None)
        if columns is None:
            session.delete(row)
            continue
        for name, value in columns.items():
            if getattr(row, name) != value:
                setattr(row, name, value)
    for (name, version), columns in wanted.items():
        session.add(Kernel(name=name, version=version, **columns))


def without_doubles(
    kernels: Sequence[RegisteredKernel],
) -> tuple[list[RegisteredKernel], list[str]]:
    """The kernels whose name and version are theirs alone, and a sentence for each other one.

    ``a-b`` with kernel ``c`` and ``a`` with kernel ``b-c`` are both ``conda-image-a-b-c``; of
    two such environments of one version the first by name keeps it.
    """
    first: dict[tuple[str, str], RegisteredKernel] = {}
    problems = []
    for kernel in kernels:
        other = first.setdefault(_key(kernel), kernel)
        if other is not kernel:
            problems.append(
                f"environment {kernel.place.environment!r}: its kernel {kernel.name} has the name "
                f"of one of environment {other.place.environment!r}; rename one environment"
            )
    return list(first.values()), problems


_COLUMNS = ("source", "environment", "display_name", "language", "prefix")


def _key(kernel: RegisteredKernel) -> tuple[str, str]:
    return kernel.name, kernel.place.version or ""


def _columns(kernel: RegisteredKernel) -> dict[str, Any]:
    return {
        "source": kernel.place.source,
        "environment": kernel.place.environment,
        "display_name": kernel.display_name,
        "language": kernel.language,
        "prefix": kernel.place.prefix,
    }
