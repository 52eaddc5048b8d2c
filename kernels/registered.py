"""Kernels that a person registered: ``ipykernel install --user``, Julia, R, virtual environments.

They are folders in ``~/.local/share/jupyter/kernels`` with a kernel.json, which whatever ran as the
person may have written: it is checked as that of an environment is. They are called as they were
registered, never by a name that environments have, and start by our provisioner, within its limits.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kernels import files
from kernels.kernel_list import UNUSABLE
from kernels.kernelspec import (
    MAX_BYTES,
    PROVISIONER,
    CheckedSpec,
    SpecError,
    check_document,
    load_document,
)
from kernels.messages import Message, say, why
from kernels.prefix import Stamp, check_program, stamp_of

SOURCE = "registered"
# Past this many, the rest of a person's kernels are left out.
MAX_KERNELS = 100
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}|\.[a-z0-9][a-z0-9._-]{0,98}")
# A kernel.json that says no more than "python" means whichever environment is active.
_ANY_PYTHON = re.compile(r"python[\d.]*")
_OWN_PROGRAMS = os.path.realpath(f"{sys.prefix}/bin")


@dataclass(frozen=True)
class Registered:
    """One of them; ``document`` is its kernelspec as it is listed."""

    name: str
    resource_dir: str
    document: dict[str, Any]


def folder(environ: Mapping[str, str] = os.environ) -> str:
    """Where a person's are, by Jupyter's rules."""
    data = environ.get("JUPYTER_DATA_DIR") or os.path.join(
        environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "jupyter"
    )
    return os.path.join(data, "kernels")


class Registry:
    """The kernels of one folder; each kernel.json is read again only when it changes."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._known: dict[str, tuple[tuple[Stamp, Stamp], str, Registered | None]] = {}

    def look(self, language: str) -> dict[str, Registered]:
        """By name. Never raises for what is on disk."""
        try:
            names = sorted(files.names(self.root))
        except OSError:
            return {}
        known: dict[str, tuple[tuple[Stamp, Stamp], str, Registered | None]] = {}
        found: dict[str, Registered] = {}
        for own in names[: 10 * MAX_KERNELS]:
            name = own.lower()
            if name.startswith("conda-") or not _NAME.fullmatch(name) or name in found:
                continue
            path = f"{self.root}/{own}"
            before = self._known.get(own)
            program = before[2].document["argv"][0] if before and before[2] else path
            stamps = (stamp_of(f"{path}/kernel.json"), stamp_of(program))
            if stamps[0] is None:
                continue
            if before is None or before[:2] != (stamps, language):
                one = _listed(name, path, language)
                program = one.document["argv"][0] if one else path
                before = ((stamps[0], stamp_of(program)), language, one)
            known[own] = before
            if before[2] is not None:
                found[name] = before[2]
            if len(found) == MAX_KERNELS:
                break
        self._known = known
        return found


def _listed(name: str, path: str, language: str) -> Registered | None:
    """One as it is shown; None for one that is no kernel of its own."""
    file = f"{path}/kernel.json"
    mark: dict[str, Any] = {"source": SOURCE, "environment": name, "kernel": name, "file": file}
    problem: Message | None = None
    try:
        spec, is_any = _read(file)
        if is_any or os.path.realpath(os.path.dirname(spec.argv[0])) == _OWN_PROGRAMS:
            return None  # the server's own Python is not for people's work
        check_program(spec.argv[0])
    except SpecError as error:
        problem = error.message
    except OSError as error:
        problem = why(error)
    if problem is not None:
        spec = CheckedSpec((file,), name, UNUSABLE)
        mark |= {"state": "broken", "reason": problem.in_words(language)}
        mark["reasons"] = [problem.as_json(language)]
    shown = say(
        "registered_kernel", name="".join(filter(str.isprintable, spec.display_name or name))
    )
    title = shown.in_words(language)
    if problem is not None:
        title = f"{title} ({say('short_broken').in_words(language)})"
    document: dict[str, Any] = {
        "argv": list(spec.argv),
        "display_name": title,
        "language": UNUSABLE if problem is not None else spec.language,
        "env": dict(spec.env),
        "interrupt_mode": spec.interrupt_mode,
        "metadata": {
            **spec.metadata,
            "labcommons": mark,
            "kernel_provisioner": {"provisioner_name": PROVISIONER, "config": {}},
        },
    }
    if spec.protocol:
        document["kernel_protocol_version"] = spec.protocol
    return Registered(name, path if _is_plain(path) else "", document)


def _is_plain(path: str) -> bool:
    """Whether nothing in it leads elsewhere: its pictures go to browsers."""
    try:
        with os.scandir(path) as entries:
            return not os.path.islink(path) and not any(e.is_symlink() for e in entries)
    except OSError:
        return False


def _read(file: str) -> tuple[CheckedSpec, bool]:
    """A kernel.json with an absolute program, and whether it means any Python there is.

    Raises SpecError, OSError.
    """
    try:
        raw, _ = files.read(file, MAX_BYTES + 1)
    except files.NotAFileError as error:
        raise SpecError(say("not_a_file", name="kernel.json")) from error
    document = load_document(raw)
    argv = document.get("argv") if isinstance(document, Mapping) else None
    is_any = False
    if isinstance(document, Mapping) and isinstance(argv, list) and argv:
        program = argv[0]
        if isinstance(program, str) and program and "/" not in program and "\0" not in program:
            is_any = bool(_ANY_PYTHON.fullmatch(program))
            home = os.path.expanduser("~")
            path = f"{os.environ.get('PATH', '')}:{home}/.local/bin:{home}/bin:{home}/.juliaup/bin"
            there = shutil.which(program, path=path) or f"/usr/bin/{program}"
            document = {**document, "argv": [there, *argv[1:]]}
    return check_document(document, "/"), is_any


def program_of(mark: Mapping[str, Any]) -> tuple[str, ...]:
    """The argv of a registered kernel as its kernel.json is now. Raises SpecError, OSError."""
    spec, _ = _read(str(mark.get("file")))
    check_program(spec.argv[0])
    return spec.argv


def variables(program: str, base: Mapping[str, str]) -> dict[str, str]:
    """Those of a kernel outside conda; of a virtual environment as if it were active."""
    folder_of = os.path.dirname(program)
    root = os.path.dirname(folder_of)
    if not os.path.exists(f"{root}/pyvenv.cfg"):
        return dict(base)
    return {**base, "VIRTUAL_ENV": root, "PATH": f"{folder_of}:{base.get('PATH', '')}"}
