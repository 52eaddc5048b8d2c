"""A conda package of a folder with a pyproject.toml: built as a wheel, and that made into one.

It is for every machine (``noarch``). The project's own code runs to build it, so this is done with
the rights of who asks, and nowhere near the site's folders (``deploy.builder``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from packaging.requirements import Requirement

from environments.errors import BuildError
from environments.messages import channels as texts
from environments.offline.match import match_spec
from environments.offline.names import conda_name
from environments.offline.package import Metadata
from environments.offline.wheel import Wheel

TIMEOUT = 900  # seconds
# What pip need not see, and would take long to copy.
_LEFT = shutil.ignore_patterns(".venv", "venv", "node_modules", "__pycache__", ".tox", ".nox")
_MAX_WORDS = 3000  # characters of what pip says


def build(folder: Path, output: Path, python: str) -> Path:
    """Build the project in ``folder``; the package's path below ``output``.

    ``python``: a full version; markers of requirements are evaluated for it, and for Linux.
    Raises BuildError.
    """
    if not (folder / "pyproject.toml").is_file():
        raise BuildError(texts.NO_PROJECT(folder=folder))
    with tempfile.TemporaryDirectory(prefix="labcommons-package-") as scratch:
        wheel = Wheel(_wheel(folder, Path(scratch)), python)
        if not wheel.is_pure:
            raise BuildError(texts.NOT_PURE(file=wheel.path.name))
        wheel.is_noarch = True
        channel = Path(scratch, "channel")
        made = wheel.write(channel, _called_as_by_conda(wheel.metadata({wheel.name: wheel})))
        output.mkdir(parents=True, exist_ok=True)
        target = output / made.name
        partial = output / f".{made.name}.part"
        shutil.copyfile(made, partial)
        os.replace(partial, target)
    return target


def _wheel(folder: Path, scratch: Path) -> Path:
    """By pip, of a copy: building leaves things beside what it builds."""
    source, wheels = scratch / "source", scratch / "wheels"
    shutil.copytree(folder, source, symlinks=True, ignore=_LEFT)
    command = [
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--no-input"),
        *("--disable-pip-version-check", "--no-cache-dir", "--wheel-dir", str(wheels), str(source)),
    ]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(texts.BUILD_LONG(folder=folder, seconds=TIMEOUT)) from error
    found = sorted(wheels.glob("*.whl"))
    if done.returncode or len(found) != 1:
        words = done.stderr.decode("utf-8", "replace").strip()[-_MAX_WORDS:]
        raise BuildError(texts.NOT_BUILT(folder=folder, words=words or f"pip: {done.returncode}"))
    return found[0]


def _called_as_by_conda(metadata: Metadata) -> Metadata:
    """With what conda calls the packages that it needs, as far as one knows."""
    depends = set(metadata.depends)
    for text in metadata.requires:
        name, _, rest = match_spec(Requirement(text)).partition(" ")
        depends.add(f"{conda_name(name)} {rest}".strip())
    return replace(metadata, depends=tuple(sorted(depends)), requires=())
