"""Growing the channel: what an environment asks for is fetched and made into packages.

What is there already is neither fetched nor made again. Packages are written whole, the index
after them and the note last.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from environments import pip_words, worker
from environments.channel import Say
from environments.errors import BuildError
from environments.messages import making as texts
from environments.messages import steps
from environments.offline.debian import stage_python
from environments.offline.index import write_index
from environments.offline.names import pypi_name, pypi_names
from environments.offline.note import Kept, Note, key
from environments.offline.package import Metadata, write_package
from environments.offline.requirements import pypi_requirements, python_minor
from environments.offline.room import touch
from environments.offline.wheel import Wheel
from environments.spec import EnvironmentSpec

PIP_TIMEOUT = 1800  # seconds for one environment's wheels
EXTRACT_TIMEOUT = 120
_THREADS = 2
# A package that ``debian`` made.
_PYTHON = re.compile(r"python-(\d+\.\d+\.\d+)-debian_(\w+)\.conda")


def update(
    channel: Path, cache: Path, spec: EnvironmentSpec, report: Say, refresh: bool = False
) -> None:
    """Make sure that the channel holds what an environment needs.

    ``refresh`` looks for newer wheels. Raises BuildError where PyPI or Debian's mirror do not
    answer or do not have it.
    """
    minor, requirements = python_minor(spec), pypi_requirements(spec)
    note = Note.read(channel)
    if not refresh and note.has(channel, note.asked.get(key(spec))):
        return
    python = _python(channel, minor, cache / "python" / minor, report, refresh)
    wheels = cache / "wheels" / spec.name
    try:
        report(steps.OFFLINE_FETCHING(count=len(requirements)))
        _download(spec.name, requirements, python.program, wheels, cache / "pip")
        made = {python.metadata.path: python.metadata}
        made |= _make_packages(channel, wheels, python.metadata.version, spec, report)
    finally:
        shutil.rmtree(wheels, ignore_errors=True)
        shutil.rmtree(cache / "python" / minor, ignore_errors=True)
    note.packages = {path: one for path, one in note.packages.items() if (channel / path).is_file()}
    for path, metadata in made.items():
        note.packages[path] = Kept.of(channel / path, metadata)
    note.asked[key(spec)] = sorted(made)
    touch(channel, made)
    write_index(channel, note.packages)
    note.write(channel)


@dataclass(frozen=True)
class _Python:
    """A Python that runs here, and its package in the channel."""

    program: Path
    metadata: Metadata


def _python(channel: Path, minor: str, work: Path, report: Say, refresh: bool) -> _Python:
    """The channel's Python, unpacked into ``work``; from Debian where it has none yet."""
    found = [
        (Version(match[1]), match[2], path)
        for path in (channel / "linux-64").glob(f"python-{minor}.*.conda")
        if (match := _PYTHON.fullmatch(path.name))
    ]
    if found and not refresh:
        _, _, package = max(found)
        shutil.rmtree(work, ignore_errors=True)
        place = {"package": str(package), "folder": str(work)}
        worker.call("extract", place, EXTRACT_TIMEOUT)
        return _Python(work / "bin" / f"python{minor}", Metadata.read(work))
    report(steps.OFFLINE_PYTHON(python=minor))
    python = stage_python(minor, work)
    if not (channel / python.metadata().path).exists():
        python.write(channel)
    return _Python(python.program, python.metadata())


def _download(name: str, requirements: list[str], python: Path, wheels: Path, cache: Path) -> None:
    # By the environment's own Python: pip evaluates markers for the one that runs it.
    command = [
        *(sys.executable, "-m", "pip", "--python", str(python), "download"),
        *("--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"),
        *("--only-binary", ":all:", "--cache-dir", str(cache), "--dest", str(wheels)),
        *requirements,
    ]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=PIP_TIMEOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(texts.PYPI_GAVE_UP(seconds=PIP_TIMEOUT)) from error
    if done.returncode:
        python_name = python.name.replace("python", "Python ")
        raise pip_words.explain(name, done.stderr, python_name, pypi_names())


def _make_packages(
    channel: Path, folder: Path, python: str, spec: EnvironmentSpec, report: Say
) -> dict[str, Metadata]:
    """Turn wheels into packages, and give them the names that the spec has for them; by path."""
    found = [Wheel(path, python) for path in sorted(folder.glob("*.whl"))]
    wheels: dict[str, Wheel] = {wheel.name: wheel for wheel in found}
    packages = {name: wheel.metadata(wheels) for name, wheel in wheels.items()}
    missing = [name for name, item in packages.items() if not (channel / item.path).exists()]
    report(steps.OFFLINE_MAKING(count=len(missing), total=len(packages)))
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda name: wheels[name].write(channel, packages[name]), missing))
    aliases = list(_aliases(spec, packages))
    for alias in aliases:
        if not (channel / alias.path).exists():
            write_package(channel, alias, ())
    return {item.path: item for item in (*packages.values(), *aliases)}


def _aliases(spec: EnvironmentSpec, packages: dict[str, Metadata]) -> Iterator[Metadata]:
    """Empty packages with the spec's names, each of which needs the one that is meant."""
    for dependency in spec.dependencies:
        if dependency.name == "python":
            continue
        target = packages.get(pypi_name(dependency.name).name)
        if target is not None and dependency.name != target.name:
            yield Metadata(
                name=dependency.name,
                version=target.version,
                build="alias_0",
                requires=(f"{target.name}==={target.version}",),
                noarch="generic",
                prerelease=target.prerelease,
            )
