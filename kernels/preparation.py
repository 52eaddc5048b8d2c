"""Whether a kernel can start in its environment, and how; else why not, for the person.

Looks at the disk and may run activation scripts: not for an event loop.
"""

from __future__ import annotations

import glob
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kernels import registered
from kernels.activation import INSIDE, ActivationError, Activator, without_active
from kernels.kernelspec import SpecError, default_environment_name
from kernels.messages import Message, ToldError, say, why
from kernels.prefix import check_program, how_to_install, read_notes, read_spec, withdrawal

# The module that ipykernel's kernelspec starts: python -m ipykernel_launcher.
_LAUNCHER = "ipykernel_launcher"
_MAX_LINKS = 8
# Seconds that importing ipykernel may take when a kernel has just died of something.
_IMPORT_TIMEOUT = 30.0
_LAST_LINES, _LONGEST_LINE = 12, 300
# Shared by all kernels of the process, for what it remembers.
_ACTIVATOR = Activator()


class KernelCannotStart(ToldError, RuntimeError):
    """Why a kernel cannot start and what to do; the notebook shows it."""


@dataclass(frozen=True)
class Start:
    """How a kernel is started. ``{connection_file}`` in ``argv`` is still to be filled in."""

    argv: Sequence[str]
    env: Mapping[str, str]


def prepare(
    metadata: Mapping[str, Any], argv: Sequence[str], base: Mapping[str, str], timeout: float
) -> Start:
    """The start of a kernel by its kernelspec's metadata and argv, as its environment is now.

    ``base`` are our own variables, ``timeout`` the seconds that activation scripts may take.
    Raises KernelCannotStart with cause and remedy.
    """
    mark = metadata.get("labcommons")
    if isinstance(mark, Mapping) and mark.get("source") == registered.SOURCE:
        return _registered(mark, base, timeout)
    prefix = mark.get("prefix") if isinstance(mark, Mapping) else None
    if not isinstance(mark, Mapping) or not isinstance(prefix, str) or not os.path.isabs(prefix):
        raise KernelCannotStart(say("kernelspec_without_environment"))
    _check_there(prefix)
    if reason := withdrawal(read_notes(f"{prefix}/conda-meta/labcommons/version.json")):
        raise KernelCannotStart(say("environment_unusable", prefix=prefix, reason=reason))
    argv = _argv_now(prefix, mark.get("kernel"), argv)
    # A link is followed once, so that a running kernel keeps to the version that it began with.
    real = follow(prefix)
    program = argv[0]
    if program.startswith(f"{prefix}/"):
        program = real + program.removeprefix(prefix)
    try:
        variables = _ACTIVATOR.activate(real, base, timeout, default_environment_name(prefix))
    except ActivationError as error:
        raise KernelCannotStart(say("kernel_cannot_start", error=error.message)) from error
    own_path = variables.get("PYTHONPATH") in (None, INSIDE)
    if _LAUNCHER in argv and own_path and not may_have_ipykernel(real):
        raise KernelCannotStart(
            say(
                "ipykernel_missing",
                prefix=prefix,
                remedy=how_to_install(prefix),
            )
        )
    return Start((program, *argv[1:]), variables)


def _registered(mark: Mapping[str, Any], base: Mapping[str, str], timeout: float) -> Start:
    """The start of a kernel that the person registered; in an environment, activated as such."""
    try:
        argv = registered.program_of(mark)
        prefix = os.path.dirname(os.path.dirname(argv[0]))
        if os.path.exists(f"{prefix}/conda-meta/history"):
            name = default_environment_name(prefix)
            return Start(argv, _ACTIVATOR.activate(prefix, base, timeout, name))
        return Start(argv, registered.variables(argv[0], without_active(base)))
    except (SpecError, ActivationError, OSError) as error:
        name, file = str(mark.get("kernel")), str(mark.get("file"))
        told = say("registered_unusable", name=name, file=file, error=why(error))
        raise KernelCannotStart(told) from error


def _check_there(prefix: str) -> None:
    try:
        os.stat(f"{prefix}/conda-meta")
    except PermissionError as error:
        raise KernelCannotStart(_not_readable(prefix)) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise KernelCannotStart(
            say(
                "environment_gone",
                prefix=prefix,
            )
        ) from error
    except OSError as error:
        raise KernelCannotStart(
            say(
                "environment_away",
                prefix=prefix,
                error=why(error),
            )
        ) from error


def _argv_now(prefix: str, own_name: object, argv: Sequence[str]) -> Sequence[str]:
    """The argv of the kernel.json as it is now: a restart comes here too, after a repair."""
    try:
        if not isinstance(own_name, str) or "/" in own_name:
            if not argv:
                raise SpecError(say("kernelspec_without_argv"))
            check_program(argv[0])
            return argv
        return read_spec(f"{prefix}/share/jupyter/kernels/{own_name}/kernel.json", prefix).argv
    except SpecError as error:
        raise KernelCannotStart(
            say(
                "kernelspec_unusable",
                prefix=prefix,
                error=error.message,
                remedy=how_to_install(prefix),
            )
        ) from error
    except PermissionError as error:
        raise KernelCannotStart(_not_readable(prefix)) from error
    except OSError as error:
        told = {"prefix": prefix, "remedy": how_to_install(prefix)}
        done = os.path.exists(f"{prefix}/conda-meta/history")
        sentence = (
            say("environment_without_kernel", **told)
            if done
            else say(
                "environment_incomplete",
                **told,
            )
        )
        raise KernelCannotStart(sentence) from error


def _not_readable(prefix: str) -> Message:
    return say(
        "environment_not_readable",
        prefix=prefix,
    )


def follow(prefix: str) -> str:
    """Where a prefix that is a symlink leads; folders above it stay as they are written.

    What is compiled into an environment is the path that its installer saw.
    """
    for _ in range(_MAX_LINKS):
        try:
            target = os.readlink(prefix)
        except OSError:
            return prefix
        prefix = os.path.normpath(os.path.join(os.path.dirname(prefix), target))
    return prefix


def may_have_ipykernel(prefix: str) -> bool:
    """False only where its own packages are plainly without ipykernel.

    A ``.pth`` file or a ``pyvenv.cfg`` can bring packages from elsewhere.
    """
    if os.path.exists(f"{prefix}/pyvenv.cfg"):
        return True
    for folder in glob.glob(f"{glob.escape(prefix)}/lib/python3*/site-packages"):
        if os.path.exists(f"{folder}/{_LAUNCHER}.py") or glob.glob(f"{glob.escape(folder)}/*.pth"):
            return True
    return False


def stand_in(explanation: str, base: Mapping[str, str]) -> Start:
    """How to start what explains, with the server's own Python."""
    from kernels import error_kernel  # its sockets are nothing to who only starts kernels

    argv = (sys.executable, "-I", error_kernel.__file__, "{connection_file}")
    return Start(argv, {**base, error_kernel.VARIABLE: explanation})


def why_it_died(start: Start, status: int, deaths: int) -> Message | None:
    """Why a kernel ended before it was ready; None where it may just be started again.

    ``status`` is its exit status (negative: a signal), ``deaths`` how often in a row it ended
    early. An ipykernel is asked by importing it once more, with its last words kept.
    """
    ended = (
        say("signal", name=_signal_name(-status))
        if status < 0
        else say("exit_status", number=status)
    )
    if _LAUNCHER in start.argv:
        command = [start.argv[0], "-c", f"import {_LAUNCHER}, ipykernel.kernelapp"]
        try:
            done = subprocess.run(
                command,
                env=dict(start.env),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_IMPORT_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return say(
                "kernel_ended",
                ended=ended,
                command=shlex.join(command),
                error=why(error),
            )
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
            return say(
                "packages_do_not_fit",
                ended=ended,
                command=shlex.join(command),
                words="\n".join(f"    {line[:_LONGEST_LINE]}" for line in lines),
                remedy=_repair(start),
            )
    if deaths < 2:
        return None
    if status == -signal.SIGKILL:
        return say(
            "kernel_ends_of_memory",
            times=deaths,
            ended=ended,
        )
    return say(
        "kernel_ends_again",
        times=deaths,
        ended=ended,
    )


def _repair(start: Start) -> Message:
    prefix = os.path.dirname(os.path.dirname(start.argv[0]))
    return how_to_install(prefix, again=True)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
