"""What ``pip install --user`` once put into a home (~/.local), and the way out of it.

Kernels, terminals and scripts do not look there (PYTHONNOUSERSITE): one such package would be in
every environment of its Python, and no lock would be true.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

_MOST = 500  # packages that are named


@dataclass(frozen=True)
class Found:
    """One Python's packages in a home.

    Attributes:
        python: major and minor version, such as 3.13.
        packages: ``name==version``.
    """

    python: str
    folder: str
    packages: tuple[str, ...]


def look(home: str = "~") -> list[Found]:
    """What is there, by Python; empty where there is nothing."""
    found = []
    for site in sorted(Path(home).expanduser().glob(".local/lib/python*/site-packages")):
        names: set[str] = set()
        try:
            for item in distributions(path=[str(site)]):
                if (name := item.metadata["Name"]) and len(names) < _MOST:
                    names.add(f"{name}=={item.version}")
            there = any(site.iterdir())
        except (OSError, ValueError, KeyError):
            continue
        if there:
            python = site.parent.name.removeprefix("python")
            found.append(Found(python, str(site), tuple(sorted(names, key=str.lower))))
    return found


def move_aside(home: str = "~") -> str:
    """Take it out of the way, in one step each, nothing is removed; where it is now.

    Raises OSError.
    """
    base = Path(home).expanduser() / ".local"
    aside = base / f"packages-of-{time.strftime('%Y%m%d-%H%M%S')}"
    for one in look(home):
        target = aside / Path(one.folder).parent.name
        target.mkdir(parents=True)
        os.rename(one.folder, target / "site-packages")
    return str(aside)
