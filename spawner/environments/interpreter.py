"""Running the Python of an environment, with none of the variables of this process."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from spawner.environments.errors import BuildError

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
        return subprocess.run(
            [str(prefix / "bin" / "python"), "-I", "-B", *arguments],
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
        raise BuildError(f"the environment's Python gave up after {timeout:g} s") from error
    except OSError as error:
        raise BuildError(f"the environment's Python does not start: {error}") from error
