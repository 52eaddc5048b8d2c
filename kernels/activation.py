"""The variables of an activated conda environment, without calling conda.

In conda's order: PATH and conda's own variables, ``etc/conda/env_vars.d/*.json``, the
variables of ``conda-meta/state``, then the scripts of ``etc/conda/activate.d``. Values are
data and never pass through a shell. Only where there are scripts is bash run, once, and
what they changed is remembered until one of them changes. Nothing here runs while kernels
are listed: activation belongs to starting one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from kernels import beside, files
from kernels.kernelspec import default_environment_name
from kernels.messages import ToldError, say, why

# Seconds that all activation scripts of an environment may take together.
SCRIPT_TIMEOUT = 15.0
# What the terminal's ``conda activate`` has to undo; for that function alone.
UNDO = "_LABCOMMONS_CONDA_UNDO"
# A server's own part of PYTHONPATH (config/images/server/inside): what stands before pip and venv.
INSIDE = "/opt/labcommons/inside"
# What conda writes for a variable that was unset again.
UNSET = "***unset***"

_BASH = ("/bin/bash", "--noprofile", "--norc", "-c")
_MAX_BYTES = 1024 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A kernel's interpreter must not be pointed at another one's libraries.
_DROPPED = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")
# These are what activation itself decides; conda refuses PATH in env_vars.d as well.
_DECIDED = frozenset(
    ("PATH", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_SHLVL", "CONDA_PROMPT_MODIFIER")
)
# bash's own, and what differs from one kernel to the next without mattering to scripts.
_BASH_OWN = frozenset(("_", "SHLVL", "PWD", "OLDPWD"))
_VOLATILE = re.compile(r"JPY_.*|KERNEL_.*")

# Sources each script as an activation in a terminal would, then hands the variables over on a
# descriptor of their own, as scripts may print. One that fails does not stop the others.
_RUN_SCRIPTS = (
    'labcommons_scripts=("$@"); set --; '
    'for labcommons_script in "${{labcommons_scripts[@]}}"; do . "$labcommons_script"; done; '
    "exec /usr/bin/env -0 >&{descriptor}"
)


class ActivationError(ToldError):
    """An environment cannot be activated; ``message`` says why and what to do."""


@dataclass(frozen=True)
class _Difference:
    values: Mapping[str, str]
    removed: frozenset[str]


class Activator:
    """Activates environments, and remembers what their scripts did.

    Safe to use from several threads.
    """

    _REMEMBERED = 64

    def __init__(self) -> None:
        self._differences: OrderedDict[str, _Difference] = OrderedDict()
        self._lock = Lock()

    def activate(
        self,
        prefix: str,
        base: Mapping[str, str],
        timeout: float = SCRIPT_TIMEOUT,
        name: str | None = None,
    ) -> dict[str, str]:
        """The variables of a process in an environment; ``base`` are those of ours.

        ``name`` is what CONDA_DEFAULT_ENV says where the path does not tell it.

        Raises ActivationError when a script ends the shell, or when they take longer than
        ``timeout`` seconds.
        """
        variables = static_variables(prefix, base, name)
        scripts = activation_scripts(prefix)
        if not scripts:
            return variables
        steady = {k: v for k, v in variables.items() if not _VOLATILE.fullmatch(k)}
        key = _fingerprint(prefix, scripts, steady)
        with self._lock:
            difference = self._differences.get(key)
        if difference is None:
            difference = run_scripts(prefix, scripts, steady, timeout)
            with self._lock:
                self._differences[key] = difference
                while len(self._differences) > self._REMEMBERED:
                    self._differences.popitem(last=False)
        activated = {k: v for k, v in variables.items() if k not in difference.removed}
        activated.update(difference.values)
        return activated | beside.julia(prefix, activated)


def static_variables(
    prefix: str, base: Mapping[str, str], name: str | None = None
) -> dict[str, str]:
    """The variables of an environment as far as no script decides them."""
    name = name or default_environment_name(prefix)
    variables = {k: v for k, v in base.items() if k not in _DROPPED}
    variables |= beside.variables(prefix, base)
    before, behind = beside.path(prefix, base.get("HOME", ""))
    parts = (*before, f"{prefix}/bin", *behind, base.get("PATH"))
    variables |= {
        "PATH": ":".join(part for part in parts if part),
        "CONDA_PREFIX": prefix,
        "CONDA_DEFAULT_ENV": name,
        "CONDA_SHLVL": "1",
        "CONDA_PROMPT_MODIFIER": f"({name}) ",
    }
    for name, value in environment_variables(prefix).items():
        if name not in _DECIDED:
            variables[name] = value
    if INSIDE in base.get("PYTHONPATH", "").split(":"):
        theirs = variables.get("PYTHONPATH")
        variables["PYTHONPATH"] = f"{theirs}:{INSIDE}" if theirs else INSIDE
    return variables


def without_active(base: Mapping[str, str]) -> dict[str, str]:
    """Variables without the environment that is active in them, as far as that can be told."""
    variables = {
        key: value
        for key, value in base.items()
        if key not in (UNDO, *_DECIDED) and not beside.is_ours(key, value)
    }
    parts = base.get("PATH", "").split(":")
    if prefix := base.get("CONDA_PREFIX"):
        before, behind = beside.path(prefix, base.get("HOME", ""))
        for with_it in (*before, f"{prefix}/bin", *behind):
            if with_it in parts:
                parts.remove(with_it)
    return {**variables, "PATH": ":".join(parts)}


def environment_variables(prefix: str) -> dict[str, str]:
    """What packages (env_vars.d) and the person (conda-meta/state) set, as it is written.

    Files that are no JSON objects and entries that are no variables are left out, as a
    broken file of one package should not keep the kernel from starting.
    """
    root = Path(prefix)
    variables: dict[str, str] = {}
    for file in _sorted_files(root / "etc/conda/env_vars.d", ".json"):
        variables |= _texts(_read_json(file))
    state = _read_json(root / "conda-meta/state")
    chosen = _texts(state.get("env_vars")) if isinstance(state, dict) else {}
    for name, value in chosen.items():
        if value == UNSET:
            variables.pop(name, None)
        else:
            variables[name] = value
    return variables


def activation_scripts(prefix: str) -> list[Path]:
    """The environment's activation scripts for bash, in the order they run."""
    return _sorted_files(Path(prefix) / "etc/conda/activate.d", ".sh")


def _sorted_files(folder: Path, suffix: str) -> list[Path]:
    try:
        names = sorted(name for name in files.names(folder) if name.endswith(suffix))
    except OSError:
        return []
    return [folder / name for name in names]


def _read_json(file: Path) -> object:
    try:
        raw, _ = files.read(file, _MAX_BYTES + 1)
        return None if len(raw) > _MAX_BYTES else json.loads(raw.decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _texts(document: object) -> dict[str, str]:
    if not isinstance(document, dict):
        return {}
    return {
        name: value
        for name, value in document.items()
        if isinstance(value, str) and _NAME.fullmatch(name) and _is_usable(value)
    }


def _is_usable(value: str) -> bool:
    """Whether a process can be given this value: no NUL, nothing that has no bytes."""
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _fingerprint(prefix: str, scripts: list[Path], variables: Mapping[str, str]) -> str:
    stamps: list[object] = [prefix]
    for script in scripts:
        try:
            found = script.stat()
        except OSError:
            stamps.append((str(script), None))
        else:
            stamps.append((str(script), found.st_mtime_ns, found.st_size, found.st_ino))
    stamps.append(sorted(variables.items()))
    return hashlib.sha256(repr(stamps).encode("utf-8", "surrogateescape")).hexdigest()


def run_scripts(
    prefix: str, scripts: list[Path], variables: Mapping[str, str], timeout: float
) -> _Difference:
    """Run activation scripts in one bash, in its own process group, and see what they change."""
    # A file in memory: a pipe would stay open as long as anything a script left behind.
    output = os.memfd_create("activation")
    try:
        try:
            process = subprocess.Popen(
                [*_BASH, _RUN_SCRIPTS.format(descriptor=output), "activate", *map(str, scripts)],
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(output,),
                start_new_session=True,
            )
        except OSError as error:
            raise ActivationError(
                say("activation_bash", prefix=prefix, error=why(error))
            ) from error
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise ActivationError(
                say(
                    "activation_hangs",
                    prefix=prefix,
                    folder=scripts[0].parent,
                    seconds=f"{timeout:g}",
                )
            ) from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        after = _parse_variables(output)
    finally:
        os.close(output)
    if not after:
        raise ActivationError(
            say(
                "activation_exits",
                prefix=prefix,
                folder=scripts[0].parent,
            )
        )
    changed = {k: v for k, v in after.items() if variables.get(k) != v and k not in _BASH_OWN}
    removed = frozenset(variables) - frozenset(after) - _BASH_OWN
    return _Difference(changed, removed)


def _parse_variables(descriptor: int) -> dict[str, str]:
    size = min(os.fstat(descriptor).st_size, _MAX_BYTES)
    raw = os.pread(descriptor, size, 0)
    pairs = (item.partition("=") for item in os.fsdecode(raw).split("\0"))
    # Functions that a script exports ("BASH_FUNC_x%%") are the shell's, not a kernel's.
    return {name: value for name, _, value in pairs if _NAME.fullmatch(name)}
