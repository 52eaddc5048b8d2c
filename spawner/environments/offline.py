"""The offline channel: a small conda channel made of PyPI wheels and Debian's Pythons.

For sites where no conda channel answers. It holds what the environments here ask for, and
grows when they ask for more: made once, reused from then on, also by the next environment.
Packages are written whole, the index after them, and the note of what is there last, so
that an interrupted run is simply continued.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version
from rattler import BuildString, MatchSpec, PackageRecord

from spawner.environments import worker
from spawner.environments.channel import Say
from spawner.environments.debian import SUITES, stage_python
from spawner.environments.dependencies import Dependency
from spawner.environments.errors import BuildError
from spawner.environments.package import Metadata, write_package
from spawner.environments.spec import EnvironmentSpec
from spawner.environments.wheel import Wheel

# Raise it when packages are made differently: they are all made anew then.
FORMAT = 1
NOTE = "made.json"
_INDEXES = ("noarch/repodata.json", "linux-64/repodata.json")
PIP_TIMEOUT = 1800  # seconds for one environment's wheels
INDEX_TIMEOUT = 300
EXTRACT_TIMEOUT = 120
_THREADS = 2
# A package that ``debian`` made.
_PYTHON = re.compile(r"python-(\d+\.\d+\.\d+)-debian_(\w+)\.conda")
# Without it an environment has no kernel.
_ALWAYS = "ipykernel"
# conda-forge's name -> PyPI's, where it is another one. What differs only in "-" and "_"
# is the same to PyPI.
_PYPI_NAMES = {
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "opencv": "opencv-python-headless",
    "pytables": "tables",
    "pytorch": "torch",
}


def index_digest(channel: Path) -> str | None:
    """SHA-256 of a channel's index; None where there is none."""
    digest = hashlib.sha256()
    try:
        for index in _INDEXES:
            digest.update((channel / index).read_bytes())
    except OSError:
        return None
    return digest.hexdigest()


def holds(channel: Path, spec: EnvironmentSpec) -> bool:
    """Whether the channel has what an environment needs, so that nothing need be written."""
    return _is_made(channel, _read_note(channel).get(_key(spec)))


def may_hold(channel: Path, spec: EnvironmentSpec) -> bool:
    """Whether all that an environment asks for was asked for before, if not together.

    Only the solver knows whether it can be had together from what the channel has.
    """
    minor, known = python_minor(spec), set[str]()
    for key, paths in _read_note(channel).items():
        if key.startswith(f"{minor} ") and _is_made(channel, paths):
            known.update(key.split(" ")[1:])
    return known.issuperset(pypi_requirements(spec))


def _key(spec: EnvironmentSpec) -> str:
    return f"{python_minor(spec)} {' '.join(pypi_requirements(spec))}"


def update(
    channel: Path, cache: Path, spec: EnvironmentSpec, report: Say, refresh: bool = False
) -> None:
    """Make sure that the channel holds what an environment needs.

    What is there already is neither fetched nor made again; ``refresh`` looks for newer
    wheels. Raises BuildError where PyPI or Debian's mirror do not answer or do not have it.
    """
    minor = python_minor(spec)
    requirements = pypi_requirements(spec)
    key = _key(spec)
    note = _read_note(channel)
    if not refresh and _is_made(channel, note.get(key)):
        return
    python = _python(channel, minor, cache / "python" / minor, report, refresh)
    made = {python.path}
    wheels = cache / "wheels" / spec.name
    try:
        report(f"offline channel: fetching {len(requirements)} packages and their needs from PyPI")
        _download(requirements, python.program, wheels, cache / "pip")
        made |= _make_packages(channel, wheels, python.version, spec, report)
    finally:
        shutil.rmtree(wheels, ignore_errors=True)
        shutil.rmtree(cache / "python" / minor, ignore_errors=True)
    (channel / "noarch").mkdir(exist_ok=True)
    worker.call("index", {"folder": str(channel)}, INDEX_TIMEOUT)
    _write_note(channel, {**note, key: sorted(made)})


@dataclass(frozen=True)
class _Python:
    """A Python that runs here; ``path`` is its package's in the channel."""

    program: Path
    version: str
    path: str


def _python(channel: Path, minor: str, work: Path, report: Say, refresh: bool) -> _Python:
    """The channel's Python, unpacked into ``work``; from Debian where it has none yet."""
    found = [
        (Version(match[1]), match[2], path)
        for path in (channel / "linux-64").glob(f"python-{minor}.*.conda")
        if (match := _PYTHON.fullmatch(path.name))
    ]
    if found and not refresh:
        version, _, package = max(found)
        shutil.rmtree(work, ignore_errors=True)
        place = {"package": str(package), "folder": str(work)}
        worker.call("extract", place, EXTRACT_TIMEOUT)
        program = work / "bin" / f"python{minor}"
        return _Python(program, str(version), str(package.relative_to(channel)))
    report(f"offline channel: fetching Python {minor} from Debian")
    python = stage_python(minor, work)
    if not (channel / python.metadata().path).exists():
        python.write(channel)
    return _Python(python.program, python.version, python.metadata().path)


def python_minor(spec: EnvironmentSpec) -> str:
    """The newest of Debian's Pythons that an environment accepts. Raises BuildError."""
    wanted = next((item.spec for item in spec.dependencies if item.name == "python"), "python")
    match = MatchSpec(wanted)
    for minor in reversed(SUITES):
        # Debian's patch version is known only once it is fetched.
        versions = [minor, *(f"{minor}.{patch}" for patch in range(40))]
        if any(match.matches(_python_record(version)) for version in versions):
            return minor
    raise BuildError(
        f"{spec.name}: no conda channel answers, and the offline channel has Python "
        f"{' and '.join(SUITES)} only, not {wanted!r}; change it, or set environments.mirrors "
        "in the site file"
    )


def _python_record(version: str) -> PackageRecord:
    return PackageRecord("python", version, BuildString("0"), 0, "linux-64")


def pypi_requirements(spec: EnvironmentSpec) -> list[str]:
    """What an environment asks for, as pip takes it: sorted, with ipykernel, without Python."""
    found = {_ALWAYS: _ALWAYS}
    for item in spec.dependencies:
        if item.name != "python":
            name = pypi_name(item.name)
            found[name] = f"{name}{_pep440(item)}"
    return sorted(found.values())


def pypi_name(conda_name: str) -> str:
    """PyPI's normalised name of a conda package."""
    return canonicalize_name(_PYPI_NAMES.get(conda_name, conda_name))


def _pep440(item: Dependency) -> str:
    """conda's version as PEP 440 has it. What it cannot say (``|``) is left to the solver."""
    if item.version is None or re.search(r"[|()\s]", item.version):
        return ""
    parts = []
    for part in item.version.split(","):
        operator, version = re.fullmatch(r"(~=|==|!=|>=|<=|>|<|=?)(.*)", part, re.S).groups()  # type: ignore[union-attr]
        if version == "*":
            continue
        if not re.fullmatch(r"[0-9][0-9A-Za-z.+!_-]*(\.\*)?", version):
            raise BuildError(f"{item}: the offline channel cannot read this version; write 'x >=1'")
        if operator in ("", "="):
            operator = "=="
        parts.append(f"{operator}{version}")
    return ",".join(parts)


def _download(requirements: list[str], python: Path, wheels: Path, cache: Path) -> None:
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
        raise BuildError(f"PyPI: pip gave up after {PIP_TIMEOUT} s") from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = "\n".join(errors or done.stderr.splitlines())[-1500:]
        raise BuildError(
            f"the offline channel cannot get {', '.join(requirements)} for "
            f"{python.name} as wheels from PyPI (PIP_INDEX_URL chooses another index):\n{reason}"
        )


def _make_packages(
    channel: Path, folder: Path, python: str, spec: EnvironmentSpec, report: Say
) -> set[str]:
    """Turn wheels into packages, and give them the names that the spec has for them."""
    found = [Wheel(path, python) for path in sorted(folder.glob("*.whl"))]
    wheels: dict[str, Wheel] = {wheel.name: wheel for wheel in found}
    packages = {name: wheel.metadata(wheels) for name, wheel in wheels.items()}
    missing = [name for name, item in packages.items() if not (channel / item.path).exists()]
    report(f"offline channel: making {len(missing)} of {len(packages)} packages")
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda name: wheels[name].write(channel, packages[name]), missing))
    made = {item.path for item in packages.values()}
    for dependency in spec.dependencies:
        target = packages.get(pypi_name(dependency.name))
        if target is not None and dependency.name != target.name:
            alias = Metadata(
                name=dependency.name,
                version=target.version,
                build="alias_0",
                depends=(f"{target.name} =={target.version}",),
                noarch="generic",
            )
            if not (channel / alias.path).exists():
                write_package(channel, alias, ())
            made.add(alias.path)
    return made


def _is_made(channel: Path, paths: list[str] | None) -> bool:
    return bool(paths) and all((channel / path).is_file() for path in [*(paths or []), *_INDEXES])


def _read_note(channel: Path) -> dict[str, list[str]]:
    try:
        note = json.loads((channel / NOTE).read_bytes())
        made = note["made"] if note["format"] == FORMAT else {}
        return {str(key): [str(path) for path in paths] for key, paths in made.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # it says only what need not be done again


def _write_note(channel: Path, made: Mapping[str, Iterable[str]]) -> None:
    partial = channel / f"{NOTE}.part"
    partial.write_text(json.dumps({"format": FORMAT, "made": made}, indent=1, sort_keys=True))
    partial.rename(channel / NOTE)
