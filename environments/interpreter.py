"""Running the Python of an environment, with none of the variables of this process."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from environments.child import ENDING_WITH_US
from environments.errors import BuildError
from environments.messages import making as texts

_NOT_STARTED = (126, 127)  # exit codes for a program that cannot be executed, or is not there
NO_VARIABLES: Mapping[str, str] = {}


def run_python(
    prefix: Path,
    arguments: Sequence[str],
    timeout: float,
    variables: Mapping[str, str] = NO_VARIABLES,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run it and wait for its end, whatever its status. Raises BuildError after ``timeout`` s."""
    try:
        done = subprocess.run(
            [*ENDING_WITH_US, str(prefix / "bin" / "python"), "-I", "-B", *arguments],
            env={
                **variables,
                "PATH": f"{prefix}/bin:/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "HOME": "/nonexistent",
                "CONDA_PREFIX": str(prefix),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            input=stdin,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(texts.PYTHON_GAVE_UP(seconds=f"{timeout:g}")) from error
    if done.returncode in _NOT_STARTED and done.stderr.startswith(f"{ENDING_WITH_US[0]}: "):
        raise BuildError(texts.PYTHON_NOT_STARTED(reason=done.stderr.strip()))
    return done
