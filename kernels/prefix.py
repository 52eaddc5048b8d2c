"""One prefix: what it is, which kernels it has, and why it cannot be used.

Read with the rights of the process; nothing of it is run.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import shlex
import shutil
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from kernels import files
from kernels.kernelspec import (
    MAX_BYTES,
    CheckedSpec,
    Place,
    SpecError,
    check_document,
    load_document,
)
from kernels.messages import Message, in_one, say, why

_INSTALLERS = ("conda", "mamba", "micromamba")
# The end of where the server's own program of these names is (config/images/server/command).
SERVERS_PROGRAM = "/labcommons/bin/command"
# Past this many, the rest of an environment's kernels are left out.
MAX_KERNELS = 100

_PYTHON_RECORD = re.compile(r"python-(\d+\.\d+(?:\.[^-]+)?)-[^-]+\.json")
_PYTHON_PROGRAM = re.compile(r"python(\d+\.\d+)")
# What storage that went away answers with.
_LOST = frozenset(
    (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EREMOTEIO)
)
# A file system's clock ticks every few milliseconds: what has a time as young as this, in
# seconds, may change once more without its time telling.
_YOUNG = 2.0


class State(StrEnum):
    """Whether an environment can be used as a kernel."""

    HEALTHY = "healthy"
    NO_KERNEL = "no_kernel"
    INCOMPLETE = "incomplete"
    BROKEN = "broken"
    UNREADABLE = "unreadable"
    WITHDRAWN = "withdrawn"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class FoundKernel:
    """A usable kernelspec of an environment; ``own_name`` is its folder's name."""

    own_name: str
    resource_dir: str
    spec: CheckedSpec


@dataclass(frozen=True)
class Environment:
    """One environment as it was found. ``reason`` says why it is not healthy and what to do.

    ``problems`` are kernels of it that cannot be used, as (own name, reason). ``deprecated``
    is the date (ISO 8601) since which it should not be chosen any more. ``identity`` is the
    device and inode of its folder, equal for two paths of one environment, and ``also`` its places
    by those other paths. ``titles`` are by language. ``changed`` is when it was last
    seen to change, in seconds since the epoch.
    """

    place: Place
    state: State
    reason: Message | None = None
    kernels: tuple[FoundKernel, ...] = ()
    problems: tuple[tuple[str, Message], ...] = ()
    deprecated: str | None = None
    identity: tuple[int, int] | None = None
    changed: float = 0.0
    also: tuple[Place, ...] = ()
    titles: tuple[tuple[str, str], ...] = ()

    def title(self, language: str) -> str:
        """What people call it, in a language where it is said in that one; "" without a title."""
        titles = dict(self.titles)
        return titles.get(language) or titles.get("en") or next(iter(titles.values()), "")


_MAX_TITLE = 80  # characters of what a kernel is called by
# What was seen of one path: None where there is nothing, else what changes when it changes.
Stamp = tuple[int, int, int] | None


@dataclass
class Known:
    """An environment with the stamps of all that the answer rests on.

    ``folders`` are looked at in every pass, ``files`` by turns. ``settled`` is False as long
    as something of it is so young that a change might not show.
    """

    environment: Environment
    folder: str
    folders: list[tuple[str, Stamp]]
    files: list[tuple[str, Stamp]]
    settled: bool


def away(folder: str) -> Message:
    """What to tell of an environment whose storage is gone."""
    return say(
        "storage_away",
        folder=folder,
    )


def look(place: Place, folder: str) -> Known | None:
    """One prefix, with the stamps of all that the answer rests on; None for no environment."""
    prefix = place.prefix
    meta, kernel_root = f"{prefix}/conda-meta", f"{prefix}/share/jupyter/kernels"
    notes_file = f"{meta}/labcommons/version.json"
    # Stamped before it is read, so that a change in between is seen the next time.
    meta_stamp, kernels_stamp, notes_stamp = map(stamp_of, (meta, kernel_root, notes_file))
    looked = [(notes_file, notes_stamp)]
    identity: tuple[int, int] | None = None
    try:
        seen = files.status(prefix)
        if not stat.S_ISDIR(seen.st_mode) or (meta_stamp is None and not _exists(meta)):
            return None
        identity = (seen.st_dev, seen.st_ino)
        history = f"{meta}/history"
        if not _exists(history) and not _exists(f"{meta}/pixi"):
            reason = say(
                "not_installed",
                history=history,
                prefix=prefix,
            )
            environment = Environment(place, State.INCOMPLETE, reason)
        else:
            notes = read_notes(notes_file) if notes_stamp is not None else {}
            python = _python(prefix, notes.get("python"))
            place = replace(place, version=notes.get("version"), python=python)
            environment = _annotated(_with_kernels(place, kernel_root, looked), notes)
    except files.OutsideError as error:
        reason = say(
            "outside",
            error=why(error),
        )
        environment = Environment(place, State.BROKEN, reason)
    except PermissionError:
        reason = say("not_readable")
        environment = Environment(place, State.UNREADABLE, reason)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in _LOST:
            environment = Environment(place, State.UNAVAILABLE, away(prefix))
        else:
            reason = say("not_read", error=why(error))
            environment = Environment(place, State.BROKEN, reason)
    folders = [(meta, meta_stamp)]
    # conda's work always changes conda-meta. Only pip's does not: that is waited for where there
    # is no kernel yet.
    healthy = environment.state is State.HEALTHY
    (looked if healthy else folders).append((kernel_root, kernels_stamp))
    newest = max(
        (stamp[0] / 1e9 for _, stamp in (*folders, *looked) if stamp and stamp[1]), default=0.0
    )
    environment = replace(environment, identity=identity, changed=newest)
    settled = not is_young(newest) and environment.state is not State.INCOMPLETE
    return Known(environment, folder, folders, looked, settled)


def is_young(modified: float) -> bool:
    """Whether something of this time, in seconds since the epoch, may change unseen."""
    # A time in the future (a clock that was set back) tells nothing, so it counts as young.
    return modified > time.time() - _YOUNG


def _exists(path: str) -> bool:
    """Whether there is something. Raises PermissionError where that cannot be known."""
    try:
        files.status(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def stamp_of(path: str) -> Stamp:
    """What changes when what is at a path does."""
    try:
        found = files.status(path)
    except OSError as error:
        # "Not allowed" and "not there" must differ, or a granted right would go unseen.
        return None if error.errno == errno.ENOENT else (error.errno or 0, 0, 0)
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def read_notes(path: str) -> dict[str, str]:
    """The texts of conda-meta/labcommons/version.json, written by who built the environment."""
    try:
        document: Any = json.loads(_read(path)[0])
    except (OSError, SpecError, ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    title = document.get("title")
    titles = title if isinstance(title, dict) else {"en": title}
    keys = ("name", "version", "python", "deprecated", "withdrawn")
    said = {key: document.get(key) for key in keys}
    said |= {f"title:{language}": titles.get(language) for language in ("en", "zh_CN")}
    return {
        key: value[: _MAX_TITLE if key.startswith("title:") else 500]
        for key, value in said.items()
        if isinstance(value, str) and value.strip() and value.isprintable()
    }


def _annotated(environment: Environment, notes: dict[str, str]) -> Environment:
    if reason := withdrawal(notes):
        environment = replace(environment, state=State.WITHDRAWN, reason=reason)
    # A folder that somebody copied is not what the title was given to.
    own = notes.get("name", environment.place.environment) == environment.place.environment
    titles = tuple(
        (key.partition(":")[2], text)
        for key, text in notes.items()
        if own and key.startswith("title:")
    )
    return replace(environment, deprecated=notes.get("deprecated"), titles=titles)


def withdrawal(notes: dict[str, str]) -> Message | None:
    """Why an environment must not be used any more and what to do; None where it may."""
    if "withdrawn" not in notes:
        return None
    reason = notes["withdrawn"] or say("no_reason")
    if version := notes.get("version"):
        return say("version_withdrawn", version=version, reason=reason)
    return say("withdrawn", reason=reason)


def _python(prefix: str, noted: str | None) -> str | None:
    """The version of Python, ``3.13.5`` or ``3.13``, by what costs least to look at."""
    if noted:
        return noted
    try:
        if match := _PYTHON_PROGRAM.fullmatch(files.link(f"{prefix}/bin/python")):
            return match[1]
    except OSError:
        pass
    records = map(_PYTHON_RECORD.fullmatch, files.names(f"{prefix}/conda-meta"))
    return next((match[1] for match in records if match), None)


def _with_kernels(place: Place, kernel_root: str, looked: list[tuple[str, Stamp]]) -> Environment:
    try:
        names = sorted(files.names(kernel_root))[:MAX_KERNELS]
    except (FileNotFoundError, NotADirectoryError):
        return Environment(place, State.NO_KERNEL, _no_kernel(place.prefix))
    kernels: list[FoundKernel] = []
    problems: list[tuple[str, Message]] = []
    for name in names:
        folder = f"{kernel_root}/{name}"
        path = f"{folder}/kernel.json"
        stamp: Stamp = None
        try:
            raw, stamp = _read(path)
            kernels.append(FoundKernel(name, folder, _checked(raw, place.prefix)))
        except (FileNotFoundError, NotADirectoryError):
            pass
        except SpecError as error:
            problems.append((name, error.message))
        except OSError as error:
            problems.append((name, say("file_not_read", path=path, error=why(error))))
        looked.append((path, stamp or stamp_of(path)))
    if kernels:
        return Environment(place, State.HEALTHY, None, tuple(kernels), tuple(problems))
    if problems:
        return Environment(place, State.BROKEN, of_kernels(problems), (), tuple(problems))
    return Environment(place, State.NO_KERNEL, _no_kernel(place.prefix))


def of_kernels(problems: Iterable[tuple[str, Message]]) -> Message:
    """The problems of some kernels, as (own name, reason), in one."""
    return in_one(say("kernel_problem", name=name, why=reason) for name, reason in problems)


def read_spec(path: str, prefix: str) -> CheckedSpec:
    """Read and check one kernel.json. Raises SpecError, or OSError where it cannot be read."""
    return _checked(_read(path)[0], prefix)


def _checked(raw: bytes, prefix: str) -> CheckedSpec:
    document = load_document(raw)
    try:
        spec = check_document(document, prefix)
    except SpecError:
        # Written with the path behind a symlink, perhaps; following it costs too much to do always.
        spec = check_document(document, prefix, os.path.realpath(prefix))
    check_program(spec.argv[0])
    return spec


def _read(path: str) -> tuple[bytes, Stamp]:
    """A file as far as it is not larger than may be. Raises OSError, SpecError."""
    try:
        raw, seen = files.read(path, MAX_BYTES + 1)
    except files.NotAFileError as error:
        raise SpecError(say("not_a_file", name=os.path.basename(path))) from error
    return raw, (seen.st_mtime_ns, seen.st_ino, seen.st_size)


def check_program(program: str) -> None:
    """Raise SpecError unless the program of a kernel is there and may be run."""
    try:
        mode = files.status(program).st_mode
    except OSError as error:
        raise SpecError(_not_started(program, why(error))) from error
    runs = mode & 0o111 == 0o111 or os.access(program, os.X_OK)
    if not stat.S_ISREG(mode) or not runs:
        raise SpecError(_not_started(program, say("not_executable")))


def _not_started(program: str, error: Message) -> Message:
    return say("program_not_started", program=program, error=error)


def _no_kernel(prefix: str) -> Message:
    return say("no_kernel", remedy=how_to_install(prefix))


def _has_program(prefix: str, name: str) -> bool:
    try:
        return _exists(f"{prefix}/bin/{name}")
    except OSError:
        return False


def _is_there(name: str) -> bool:
    """Whether a real one is on the PATH: the server's own (kernels.terminal) has the site build."""
    found = shutil.which(name)
    return bool(found) and not os.path.realpath(found or "").endswith(SERVERS_PROGRAM)


def how_to_install(prefix: str, again: bool = False) -> Message:
    """What gives an environment a kernel, with the exact command, for who may do it.

    ``again``: what is there does not work, and is to be installed once more.
    """
    has = functools.partial(_has_program, prefix)
    program = next((name for name in _INSTALLERS if has(name) or _is_there(name)), None)
    what = "--force-reinstall ipykernel" if again else "ipykernel"
    if program is None and has("pip"):
        command = f"{shlex.quote(prefix)}/bin/python -m pip install {what}"
    else:
        command = f"{program or 'conda'} install --prefix {shlex.quote(prefix)} {what}"
        if program is None and os.access(prefix, os.W_OK):
            return say(
                "remedy_build",
                command=command,
            )
    if os.access(prefix, os.W_OK):
        return say("remedy_run", command=command)
    return say(
        "remedy_ask",
        command=command,
    )
