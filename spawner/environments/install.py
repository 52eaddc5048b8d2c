"""Installing a lock into a staging folder, and making it ready for an image.

Nothing leaves the staging folder before it was checked, so an interrupted or failed
installation is simply thrown away.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spawner.environments import worker
from spawner.environments.channel import Source
from spawner.environments.errors import BuildError
from spawner.environments.lock import Lock
from spawner.environments.package import EPOCH
from spawner.environments.spec import EnvironmentSpec

INSTALL_TIMEOUT = 1800  # seconds, downloads included
COMPILE_TIMEOUT = 900
CHECK_TIMEOUT = 120
_MAX_KERNEL_JSON = 64 * 1024
_FROZEN = "This environment is part of an image of LabCommons; its environment.yml changes it."
# What a conda-meta record says of the machine that installed it, and nobody needs.
_OF_THIS_MACHINE = ("extracted_package_dir", "package_tarball_full_path")


@dataclass(frozen=True)
class Staged:
    """A checked environment, ready to be copied to where it belongs.

    Attributes:
        folder: where its files are now.
        prefix: where they will be.
        python: full version of its Python.
        kernelspecs: kernel.json contents by the kernel's own name.
    """

    folder: Path
    prefix: str
    python: str
    kernelspecs: dict[str, Any]


def install(
    spec: EnvironmentSpec,
    lock: Lock,
    sources: Sequence[Source],
    prefix: str,
    staging: Path,
    cache: Path,
) -> None:
    """Install a lock's packages, each checked against its sha256. Raises BuildError."""
    shutil.rmtree(staging, ignore_errors=True)
    staging.parent.mkdir(parents=True, exist_ok=True)
    request = {
        "lock": str(lock.path),
        "sources": {source.url: source.place for source in sources},
        "specs": [item.spec for item in spec.dependencies],
        "cache": str(cache),
        "staging": str(staging),
        "prefix": prefix,
    }
    try:
        worker.call("install", request, INSTALL_TIMEOUT)
    except BuildError as error:
        raise BuildError(f"{spec.name}: the packages cannot be installed: {error}") from error
    for package in lock.packages:
        record = f"{package.name}-{package.version}-{package.build}.json"
        if not (staging / "conda-meta" / record).is_file():
            raise BuildError(f"{spec.name}: {package.name} was not installed; try again")


def finish(spec: EnvironmentSpec, lock: Lock, prefix: str, staging: Path) -> Staged:
    """Compile, freeze and check an installed environment. Raises BuildError with the remedy."""
    version = lock.version_of("python")
    if version is None or lock.version_of("ipykernel") is None:
        raise BuildError(
            f"{spec.name}: an environment needs python and ipykernel to have a kernel; add "
            f"'- python' and '- ipykernel' to the dependencies in {spec.folder / 'environment.yml'}"
        )
    minor = ".".join(version.split(".")[:2])
    _compile(staging, prefix, minor)
    _freeze(staging, lock)
    started = _python(staging, ["-c", "import ipykernel, sys; print(sys.prefix)"], CHECK_TIMEOUT)
    if started.returncode or not os.path.samefile(started.stdout.strip(), staging):
        raise BuildError(
            f"{spec.name}: its Python does not start or cannot import ipykernel: "
            f"{started.stderr[-800:].strip() or started.stdout[:200]}"
        )
    kernelspecs = _kernelspecs(staging)
    if not kernelspecs:
        raise BuildError(f"{spec.name}: no kernel was found in share/jupyter/kernels")
    return Staged(staging, prefix, version, kernelspecs)


def _compile(staging: Path, prefix: str, minor: str) -> None:
    """Bytecode for all modules: without it each kernel's start takes a second longer.

    Unchecked-hash, as copies and layers change times, and nobody may change the sources.
    What does not compile is left alone, as some packages carry templates; tests are left
    out, as few will ever import them.
    """
    arguments = [
        *("-m", "compileall", "-qq", "-f", "-j", "2", "--invalidation-mode", "unchecked-hash"),
        *(
            "-x",
            "/tests/",
            "-s",
            str(staging),
            "-p",
            prefix,
            str(staging / "lib" / f"python{minor}"),
        ),
    ]
    _python(staging, arguments, COMPILE_TIMEOUT)


def _python(
    staging: Path, arguments: Sequence[str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run the environment's own Python, with none of the variables of this process."""
    try:
        return subprocess.run(
            [str(staging / "bin" / "python"), "-I", *arguments],
            env={"PATH": f"{staging}/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"the environment's Python gave up after {timeout:g} s") from error
    except OSError as error:
        raise BuildError(f"the environment's Python does not start: {error}") from error


def _freeze(staging: Path, lock: Lock) -> None:
    """Say in conda's words what is here and that it is not to be changed (CEP 22)."""
    meta = staging / "conda-meta"
    for path in meta.glob("*.json"):
        record = json.loads(path.read_bytes())
        for key in _OF_THIS_MACHINE:
            record[key] = ""
        if isinstance(record.get("link"), dict):
            record["link"]["source"] = ""
        path.write_text(json.dumps(record, indent=1, sort_keys=True))
    when = datetime.fromtimestamp(EPOCH, UTC)  # one time for all, so that equal locks are equal
    packages = "".join(f"+{item.channel}::{item.name}-{item.version}\n" for item in lock.packages)
    (meta / "history").write_text(f"==> {when:%Y-%m-%d %H:%M:%S} <==\n{packages}")
    (meta / "frozen").write_text(json.dumps({"message": _FROZEN}))


def _kernelspecs(staging: Path) -> dict[str, Any]:
    found = {}
    for path in sorted((staging / "share" / "jupyter" / "kernels").glob("*/kernel.json")):
        try:
            if path.stat().st_size <= _MAX_KERNEL_JSON:
                found[path.parent.name] = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue  # a broken one is none; without any the build fails
    return found
