"""The table of conda's names and PyPI's, made from where that is known.

    python3 -m deploy.conda_names CHECKOUT DATE >environments/offline/names.txt

CHECKOUT is one of github.com/prefix-dev/parselmouth (BSD-3-Clause), which looks into each package
of conda-forge, bioconda and pytorch for the distributions in it. The table has their names and no
more.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

# Where channels disagree, the first is right.
CHANNELS = ("conda-forge", "pytorch", "bioconda")
# Packages of other languages and systems by the hundred; never a Python distribution.
FAMILIES = ("bioconductor", "m2", "m2w64", "perl", "r", "rb", "ucsc", "xcb", "xorg")
# What conda's package puts together of others, a name of the past beside that of now, and what
# calls itself as something else on PyPI. "": nothing there is the same.
DECIDED = {
    "airflow": "apache-airflow",
    "docker-py": "docker",
    "faiss": "faiss-cpu",
    "faiss-cpu": "faiss-cpu",
    "faiss-gpu": "",
    "faiss-gpu-cuvs": "",
    "faiss-gpu-raft": "",
    "msgpack-python": "msgpack",
    "opencv": "opencv-python-headless",
    "py-opencv": "opencv-python-headless",
    "pyqt": "pyqt5",
    "pytorch-gpu": "torch",
    "ray-core": "ray",
    "ray-default": "ray",
    "tensorflow-cpu": "tensorflow-cpu",
    "tensorflow-gpu": "tensorflow",
}
_HEAD = """\
# conda's names and PyPI's names of the same software. NAME: the same name there; NAME=OTHER: that
# one; NAME=: no Python distribution, or several; NAME-*=: a family of such, but for listed names.
# Facts from github.com/prefix-dev/parselmouth, files/v0, {date}: {channels}.
# Made by `python3 -m deploy.conda_names`; not edited by hand.
"""


def table(mappings: list[dict[str, list[str] | None]]) -> list[str]:
    """The lines, of mappings from conda's names to distributions, the first the most trusted."""
    known: dict[str, list[str] | None] = {}
    for mapping in mappings:
        for name, found in mapping.items():
            known.setdefault(name, found)
    _fill_empty(known)
    lines = {f"{family}-*=" for family in FAMILIES}
    for name, found in known.items():
        family = name.partition("-")[0]
        if not found and "-" in name and family in FAMILIES:
            continue
        lines.add(f"{name}{_other(name, found or [])}")
    return sorted(lines)


def _fill_empty(known: dict[str, list[str] | None]) -> None:
    """A package that only needs one with the distribution is of the same software.

    It is spelled alike but for "-" and "_", or that one is called ``NAME-base`` or ``NAME-core``.
    """
    there = {name: {_normal(each) for each in found} for name, found in known.items() if found}
    spelled: dict[str, set[str]] = {}
    for name, names in there.items():
        spelled.setdefault(_normal(name), set()).update(names)
    for name in [name for name, found in known.items() if not found]:
        normal = _normal(name)
        beside = (there.get(f"{name}{end}", set()) for end in ("-base", "-core"))
        if normal in set.union(spelled.get(normal, set()), *beside):
            known[name] = [normal]


def _other(name: str, found: list[str]) -> str:
    if name in DECIDED:
        return f"={DECIDED[name]}"
    names = Counter(_normal(each) for each in found if each != "unknown")
    if _normal(name) in names:
        return ""
    return f"={next(iter(names))}" if len(names) == 1 else "="


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main(checkout: str, date: str) -> None:
    """Print the table."""
    files = (Path(checkout, "files/v0", name, "compressed_mapping.json") for name in CHANNELS)
    lines = table([json.loads(path.read_bytes()) for path in files])
    print(_HEAD.format(date=date, channels=", ".join(CHANNELS)) + "\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
