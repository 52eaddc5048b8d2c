"""Notebooks made elsewhere: which kernel of this list is meant by a name that is not in it.

Pure. A notebook names the kernel that it was last run with. Where that was no environment of this
list but Jupyter's own ``python3``, conda's ``conda-env-NAME-py`` of nb_conda_kernels, an editor's
``.venv`` or none at all, it says no more than a language: the kernel is then that of the active
or chosen environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kernels.kernel_list import ListedKernel, Menu

# Names that say a language and no environment; the languages as kernelspecs have them.
_LANGUAGES = (
    (re.compile(r"i?r|irkernel|ir-?\d[\d.]*"), "R"),
    (re.compile(r"i?julia(?:-?\d[\d.]*)?"), "julia"),
    (
        re.compile(
            r"|python\d+(?:32|64)-?bit.*"  # of VS Code in its first years
            r"|i?python(?:kernel)?-?\d{0,2}(?:[.-]\d+){0,2}|py\d{1,3}|ipykernel|xpython|default"
            r"|\.?v?env(?:ironment)?|root|base|none|null|undefined"
        ),
        "python",
    ),
)
# nb_conda_kernels: conda-env-NAME-py, conda-env-NAME-r, conda-base-py, conda-root-py.
_NB_CONDA = re.compile(
    r"conda-(?:env-(?P<name>.+)|base|root)-(?P<kind>py|r|ir|jl|julia)(?:thon3?)?"
)
_KINDS = {"py": "python", "r": "R", "ir": "R", "jl": "julia", "julia": "julia"}
# What this list calls its kernels: of such a name it is known which environment was meant.
_OURS = re.compile(r"conda-(?:image|shared|personal|team-.+?|course-.+?)-.+-.+")


@dataclass(frozen=True)
class Taken:
    """The kernel that is taken for a name. ``exactly``: it is that kernel, by another name."""

    kernel: ListedKernel
    exactly: bool = False


def language_of(name: str) -> str | None:
    """The language that a name of elsewhere says; None where it says an environment of its own.

    >>> language_of("ir"), language_of("python2"), language_of("conda-env-foo-py")
    ('R', 'python', 'python')
    """
    name = name.lower()
    if match := _NB_CONDA.fullmatch(name):
        return _KINDS[match["kind"]]
    return next((language for form, language in _LANGUAGES if form.fullmatch(name)), None)


def taken(name: str, language: str, menu: Menu, preferred: Iterable[str]) -> Taken | None:
    """The kernel that a name means which is not in the list; None where no one is the right one.

    ``language`` is what the notebook says of itself, empty where it is not known; ``preferred``
    are prefixes or names of environments, the first of which that has a kernel of the language is
    taken: the active one, the chosen one. The only kernel of a language is it anyway.
    """
    name = name.lower()
    if (now := menu.earlier.get(name)) is not None:
        return Taken(menu.entries[now], True)
    if _OURS.fullmatch(name) and not _NB_CONDA.fullmatch(name):
        return None
    said = language_of(name)
    if said is None and not language:
        return None
    usable = [
        entry
        for entry in menu.entries.values()
        if entry.is_healthy and entry.document["language"].lower() == (said or language).lower()
    ]
    match = _NB_CONDA.fullmatch(name)
    wanted = [*([match["name"]] if match and match["name"] else []), *preferred]
    for environment in filter(None, wanted):
        fitting = [entry for entry in usable if _is_of(entry, environment)]
        if fitting:
            return Taken(min(fitting, key=_rank))
    return Taken(usable[0]) if len(usable) == 1 else None


def _is_of(entry: ListedKernel, environment: str) -> bool:
    place = entry.environment.place
    if environment.startswith("/"):
        return place.prefix == environment
    return place.environment.lower() == environment.partition(":")[0].lower()


def _rank(entry: ListedKernel) -> tuple[bool, bool, str]:
    """The image's first, which is what was chosen; then ipykernel, the usual one of Python."""
    return entry.environment.place.source != "image", entry.own_name != "python3", entry.name
