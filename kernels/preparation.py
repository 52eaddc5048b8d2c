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

from kernels.activation import ActivationError, Activator
from kernels.kernelspec import SpecError, default_environment_name
from kernels.prefix import check_program, how_to_install, read_notes, read_spec, withdrawal
from kernels.words import say

# The module that ipykernel's kernelspec starts: python -m ipykernel_launcher.
_LAUNCHER = "ipykernel_launcher"
_MAX_LINKS = 8
# Seconds that importing ipykernel may take when a kernel has just died of something.
_IMPORT_TIMEOUT = 30.0
_LAST_LINES, _LONGEST_LINE = 12, 300
# Shared by all kernels of the process, for what it remembers.
_ACTIVATOR = Activator()


class KernelCannotStart(RuntimeError):
    """Why a kernel cannot start and what to do, in words that the notebook shows."""


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
    prefix = mark.get("prefix") if isinstance(mark, Mapping) else None
    if not isinstance(mark, Mapping) or not isinstance(prefix, str) or not os.path.isabs(prefix):
        raise KernelCannotStart(
            say("The kernel's kernelspec names no environment to start in. Choose another kernel.")
        )
    _check_there(prefix)
    if reason := withdrawal(read_notes(f"{prefix}/conda-meta/labcommons/version.json")):
        raise KernelCannotStart(
            say("The environment {prefix} cannot be used: {reason}.", prefix=prefix, reason=reason)
        )
    argv = _argv_now(prefix, mark.get("kernel"), argv)
    # A link is followed once, so that a running kernel keeps to the version that it began with.
    real = follow(prefix)
    program = argv[0]
    if program.startswith(f"{prefix}/"):
        program = real + program.removeprefix(prefix)
    try:
        variables = _ACTIVATOR.activate(real, base, timeout, default_environment_name(prefix))
    except ActivationError as error:
        raise KernelCannotStart(say("The kernel cannot start: {error}.", error=error)) from error
    if _LAUNCHER in argv and "PYTHONPATH" not in variables and not may_have_ipykernel(real):
        raise KernelCannotStart(
            say(
                "The environment {prefix} has a kernelspec, but no ipykernel to run it; {remedy}",
                prefix=prefix,
                remedy=how_to_install(prefix),
            )
        )
    return Start((program, *argv[1:]), variables)


def _check_there(prefix: str) -> None:
    try:
        os.stat(f"{prefix}/conda-meta")
    except PermissionError as error:
        raise KernelCannotStart(_not_readable(prefix)) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise KernelCannotStart(
            say(
                "The environment {prefix} is gone. Choose another kernel, or create it again.",
                prefix=prefix,
            )
        ) from error
    except OSError as error:
        raise KernelCannotStart(
            say(
                "The environment {prefix} cannot be reached at the moment ({error}). Wait a little "
                "and try again; if it stays so, tell an administrator.",
                prefix=prefix,
                error=error.strerror,
            )
        ) from error


def _argv_now(prefix: str, own_name: object, argv: Sequence[str]) -> Sequence[str]:
    """The argv of the kernel.json as it is now: a restart comes here too, after a repair."""
    try:
        if not isinstance(own_name, str) or "/" in own_name:
            if not argv:
                raise SpecError(say("its kernelspec has no argv"))
            check_program(argv[0])
            return argv
        return read_spec(f"{prefix}/share/jupyter/kernels/{own_name}/kernel.json", prefix).argv
    except SpecError as error:
        raise KernelCannotStart(
            say(
                "The kernel of {prefix} cannot start: {error}. To repair it, {remedy}",
                prefix=prefix,
                error=error,
                remedy=how_to_install(prefix),
            )
        ) from error
    except PermissionError as error:
        raise KernelCannotStart(_not_readable(prefix)) from error
    except OSError as error:
        told = {"prefix": prefix, "remedy": how_to_install(prefix)}
        done = os.path.exists(f"{prefix}/conda-meta/history")
        sentence = (
            say("The environment {prefix} has no kernel. To repair it, {remedy}", **told)
            if done
            else say(
                "The environment {prefix} is not completely installed. To repair it, {remedy}",
                **told,
            )
        )
        raise KernelCannotStart(sentence) from error


def _not_readable(prefix: str) -> str:
    return say(
        "You may not read the environment {prefix}. Ask whoever maintains it for access, or choose "
        "another kernel.",
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
    from kernels import standin  # its sockets are nothing to who only starts kernels

    argv = (sys.executable, "-I", standin.__file__, "{connection_file}")
    return Start(argv, {**base, standin.VARIABLE: explanation})


def why_it_died(start: Start, status: int, deaths: int) -> str:
    """Why a kernel ended before it was ready; empty where it may just be started again.

    ``status`` is its exit status (negative: a signal), ``deaths`` how often in a row it ended
    early. An ipykernel is asked by importing it once more, with its last words kept.
    """
    ended = (
        say("signal {name}", name=_signal_name(-status))
        if status < 0
        else say("exit status {number}", number=status)
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
                "The kernel ended at once ({ended}); {command}: {error}.",
                ended=ended,
                command=shlex.join(command),
                error=error,
            )
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
            return say(
                "The kernel ended at once ({ended}). {command} says:\n{words}\n"
                "The environment's packages do not fit together; {remedy}",
                ended=ended,
                command=shlex.join(command),
                words="\n".join(f"    {line[:_LONGEST_LINE]}" for line in lines),
                remedy=_repair(start),
            )
    if deaths < 2:
        return ""
    if status == -signal.SIGKILL:
        return say(
            "The kernel ended {times} times within seconds of its start ({ended}). Perhaps it "
            "needed more memory than the server has. The server's log has what it said; ask "
            "whoever maintains the environment.",
            times=deaths,
            ended=ended,
        )
    return say(
        "The kernel ended {times} times within seconds of its start ({ended}). The server's log "
        "has what it said; ask whoever maintains the environment.",
        times=deaths,
        ended=ended,
    )


def _repair(start: Start) -> str:
    prefix = os.path.dirname(os.path.dirname(start.argv[0]))
    return how_to_install(prefix, again=True)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
