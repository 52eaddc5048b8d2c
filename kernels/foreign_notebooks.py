"""Notebooks that scripts wrote: which kernel they want is said by halves, or not at all.

nbformat's schema asks for ``name`` and ``display_name`` of a kernelspec; nbconvert and others end
over one that is not whole in nbformat's words. Nobody's work hangs on what is missing.
"""

from __future__ import annotations

from typing import Any

import nbformat


def take_as_they_are() -> None:
    """From now on, whatever this process reads has a whole kernelspec, or none."""
    plain: Any = nbformat.convert

    def convert(notebook: Any, to_version: int) -> Any:
        return whole(plain(notebook, to_version))

    nbformat.convert = convert


def whole(notebook: Any) -> Any:
    """The same notebook; what is too little of ``kernelspec`` or ``language_info`` is taken out."""
    metadata = notebook.get("metadata") if isinstance(notebook, dict) else None
    if not isinstance(metadata, dict):
        return notebook
    for part in ("kernelspec", "language_info"):
        if part not in metadata:
            continue
        said = metadata[part]
        name = said.get("name") if isinstance(said, dict) else None
        if not isinstance(name, str) or not name:
            del metadata[part]
        elif part == "kernelspec" and not isinstance(said.get("display_name"), str):
            said["display_name"] = name
    return notebook
