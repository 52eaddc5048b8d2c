"""The ``pip:`` section of an environment: resolved to wheels with hashes, fetched, installed.

pip resolves as the environment's own Python would, with what conda's packages say of themselves,
so that what conda brought counts as there. That Python is described to pip (``pip_as``), not run:
pip has the site's logins. Only wheels are taken: a source package would run its own program at
build time and give another result each time. Wheels are installed by pypa's ``installer``, which
writes programs for the prefix that they will have.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from packaging.utils import canonicalize_name

from commons.site import Environments, mirror
from environments import pip_words
from environments.child import ENDING_WITH_US
from environments.credentials import Credentials
from environments.errors import BuildError, LockError
from environments.lock import Lock
from environments.messages import making as texts
from environments.offline.names import pypi_names
from environments.offline.package import EPOCH
from environments.packages import PipPackage
from environments.spec import EnvironmentSpec

TIMEOUT = 1800  # seconds for one run of pip
# How PyPI and its mirrors lay out their files.
_PYPI_PATH = re.compile(r"/packages/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{60}/[^/]+$")
_LOCAL = "https://local.labcommons.invalid"
_PIP_AS = Path(__file__).with_name("pip_as.py")


def resolve(
    spec: EnvironmentSpec,
    lock: Lock,
    prefix: Path,
    settings: Environments,
    credentials: Credentials,
) -> list[PipPackage]:
    """Wheels for the spec's ``pip:`` section, on top of the lock's conda packages in ``prefix``.

    Raises LockError where they cannot be had together or would replace a conda package.
    """
    with tempfile.TemporaryDirectory(prefix="labcommons-pip-") as folder:
        report = Path(folder, "report.json")
        arguments = ("install", "--dry-run", "--report", str(report), *_wheels_for(lock))
        with _described(lock, prefix) as described:
            indexes = _indexes(settings, credentials)
            done = _pip((*arguments, "--", *spec.pip), indexes, described)
        if done.returncode:
            python = f"Python {'.'.join((lock.version_of('python') or '').split('.')[:2])}"
            raise pip_words.explain(spec.name, done.stderr, python, pypi_names())
        document = json.loads(report.read_bytes())
    found = [_package(item, settings.pip_files) for item in document["install"]]
    conda = _installed(prefix)
    for item in found:
        if item.name in conda:
            raise LockError(
                texts.PIP_REPLACES(
                    name=spec.name,
                    package=item.name,
                    conda=conda[item.name],
                    version=item.version,
                )
            )
    return sorted(found, key=lambda item: item.name)


def _package(item: Mapping[str, Any], files: str) -> PipPackage:
    metadata, info = item["metadata"], item["download_info"]
    hashes = info.get("archive_info", {}).get("hashes", {})
    name = canonicalize_name(metadata["name"])
    if "sha256" not in hashes:
        raise LockError(texts.PIP_NO_HASH(package=name, version=metadata["version"]))
    return PipPackage(
        name,
        metadata["version"],
        canonical_url(info["url"], files),
        hashes["sha256"],
        tuple(metadata.get("requires_dist") or ()),
        metadata.get("requires_python") or "",
    )


def canonical_url(url: str, files: str = "") -> str:
    """What a lock keeps of a wheel's URL: never a secret, and for a mirror's file the original's.

    ``files`` is where the mirrored index itself has its files.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return f"{_LOCAL}{quote(unquote(parts.path))}"
    if files and (found := _PYPI_PATH.search(parts.path)):
        return f"{files.rstrip('/')}{found[0]}"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def fetch(
    name: str, lock: Lock, cache: Path, settings: Environments, credentials: Credentials
) -> list[Path]:
    """The wheels of a lock, from the cache where they are there; each checked. BuildError."""
    places = [cache / "wheels" / item.sha256 / item.filename for item in lock.pip]
    missing = [
        item for item, path in zip(lock.pip, places, strict=True) if not _is_good(path, item)
    ]
    if missing:
        _download(name, missing, lock, cache, settings, credentials)
    return places


def given(lock: Lock, folder: Path) -> list[Path]:
    """The wheels of a lock in another cache, which is only read; none where one is missing."""
    places = [folder / "wheels" / item.sha256 / item.filename for item in lock.pip]
    whole = all(_is_good(path, item) for path, item in zip(places, lock.pip, strict=True))
    return places if whole else []


def _is_good(path: Path, item: PipPackage) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == item.sha256
    except OSError:
        return False


def _download(
    name: str,
    packages: Sequence[PipPackage],
    lock: Lock,
    cache: Path,
    settings: Environments,
    credentials: Credentials,
) -> None:
    (cache / "wheels").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache / "wheels") as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(requirements(packages))
        wheels = Path(folder, "wheels")
        arguments = ("download", "--no-deps", "--require-hashes", *_wheels_for(lock))
        places = ("--dest", str(wheels), "--cache-dir", str(cache / "pip"), "-r", str(wanted))
        done = _pip((*arguments, *places), _indexes(settings, credentials))
        if done.returncode:
            raise BuildError(texts.PIP_NOT_FETCHED(name=name, reason=pip_words.plain(done.stderr)))
        for item in packages:
            path = wheels / item.filename
            if not _is_good(path, item):
                raise BuildError(texts.PIP_HASH(name=name, file=item.filename))
            target = cache / "wheels" / item.sha256 / item.filename
            target.parent.mkdir(exist_ok=True)
            path.rename(target)


def requirements(packages: Sequence[PipPackage]) -> str:
    """The packages as a requirements file with hashes."""
    return "".join(
        f"{item.name}=={item.version} --hash=sha256:{item.sha256}\n" for item in packages
    )


def install(
    name: str, wheels: Sequence[Path], packages: Sequence[PipPackage], staging: Path, prefix: str
) -> None:
    """Install wheels into ``staging``, as if it were ``prefix``. Raises BuildError.

    A file that conda's packages brought already is not replaced but refused.
    """
    from installer import install as install_wheel
    from installer.destinations import SchemeDictionaryDestination
    from installer.exceptions import InstallerError
    from installer.sources import WheelFile

    minor = python_minor(staging)
    site = f"lib/python{minor}/site-packages"
    for wheel, item in zip(wheels, packages, strict=True):
        folders = {
            "purelib": site,
            "platlib": site,
            "headers": f"include/python{minor}/{item.name}",
            "scripts": "bin",
            "data": "",
        }
        destination = SchemeDictionaryDestination(
            {scheme: str(staging / folder) for scheme, folder in folders.items()},
            interpreter=f"{prefix}/bin/python",
            script_kind="posix",
        )
        try:
            with WheelFile.open(wheel) as source:
                install_wheel(source, destination, {"INSTALLER": b"pip\n"})
        except FileExistsError as error:
            raise BuildError(
                texts.PIP_REPLACES_FILE(
                    name=name, package=item.name, file=str(error).replace(str(staging), prefix)
                )
            ) from error
        except (InstallerError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise BuildError(
                texts.PIP_BAD_WHEEL(name=name, file=wheel.name, reason=error)
            ) from error


def python_minor(prefix: Path) -> str:
    """Major and minor version of a prefix's Python, such as 3.13. Raises BuildError."""
    found = sorted(path.name[6:] for path in (prefix / "lib").glob("python3.*") if path.is_dir())
    if not found:
        raise BuildError(texts.NO_PYTHON(prefix=prefix))
    return found[-1]


def check(lock: Lock, prefix: Path) -> list[str]:
    """What ``pip check`` complains of, one line each; empty where all fits together."""
    with _described(lock, prefix) as described:
        done = _pip(("check",), {}, described)
    return [line for line in done.stdout.splitlines() if line.strip()] if done.returncode else []


def _wheels_for(lock: Lock) -> list[str]:
    """Wheels alone, for the Python of a lock."""
    minor = "".join(_python(lock).split(".")[:2])
    free = any(item.name == "python_abi" and item.build.endswith("t") for item in lock.packages)
    abi = ["--abi", f"cp{minor}t"] if free else []
    return ["--only-binary", ":all:", "--python-version", _python(lock), *abi]


def _python(lock: Lock) -> str:
    found = re.match(r"\d+(\.\d+){1,2}", lock.version_of("python") or "")
    return found[0] if found else ""


def markers(version: str) -> dict[str, str]:
    """What PEP 508 asks of a CPython of that version on this machine."""
    return {
        "implementation_name": "cpython",
        "implementation_version": version,
        "os_name": "posix",
        "platform_machine": platform.machine(),
        "platform_python_implementation": "CPython",
        "platform_release": platform.release(),
        "platform_system": "Linux",
        "platform_version": platform.version(),
        "python_full_version": version,
        "python_version": ".".join(version.split(".")[:2]),
        "sys_platform": "linux",
    }


def _folder(name: str, version: str) -> str:
    # "-" divides the two, so that newer pips read the name from it.
    return "-".join(quote(word.replace("-", "_"), "") for word in (name, version)) + ".dist-info"


def _metadata(item: Distribution) -> str:
    """What pip wants to know of a distribution that is there."""
    lines = [
        ("Metadata-Version", "2.1"),
        ("Name", item.metadata["Name"]),
        ("Version", item.version),
    ]
    lines += [("Requires-Dist", need) for need in item.requires or ()]
    for key in ("Requires-Python", "Provides-Extra"):
        lines += [(key, value) for value in item.metadata.get_all(key) or ()]
    return "".join(f"{key}: {' '.join(value.split())}\n" for key, value in lines)


@contextmanager
def _described(lock: Lock, prefix: Path) -> Iterator[Path]:
    """A file for ``pip_as``: the Python of a lock, and what is in its prefix, as data alone."""
    with tempfile.TemporaryDirectory(prefix="labcommons-pip-") as folder:
        site = prefix / "lib" / f"python{python_minor(prefix)}" / "site-packages"
        installed, file = Path(folder, "installed"), Path(folder, "python.json")
        for item in distributions(path=[str(site)]):
            if name := item.metadata["Name"]:
                place = installed / _folder(name, item.version)
                place.mkdir(parents=True, exist_ok=True)
                (place / "METADATA").write_text(_metadata(item), "utf-8", "replace")
        document = {"markers": markers(_python(lock)), "installed": str(installed)}
        file.write_text(json.dumps(document))
        yield file


def _installed(prefix: Path) -> dict[str, str]:
    folder = prefix / "lib" / f"python{python_minor(prefix)}" / "site-packages"
    found: dict[str, str] = {}
    for item in distributions(path=[str(folder)]):
        if name := item.metadata["Name"]:
            found[canonicalize_name(name)] = item.version
    return found


def _indexes(settings: Environments, credentials: Credentials) -> dict[str, str]:
    """Variables that say where pip looks: with logins, so not on its command line."""
    own = settings.pip_index or os.environ.get("PIP_INDEX_URL", "")
    extra = settings.pip_extra_indexes or os.environ.get("PIP_EXTRA_INDEX_URL", "").split()
    found = {
        "PIP_INDEX_URL": credentials.in_url(own),
        "PIP_EXTRA_INDEX_URL": " ".join(map(credentials.in_url, extra)),
        **mirror.pip_words(own),
    }
    return {key: value for key, value in found.items() if value}


def _pip(
    arguments: Sequence[str], indexes: Mapping[str, str], described: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Our pip; as if run by the Python that ``described`` tells of. BuildError when it hangs."""
    program = [str(_PIP_AS), str(described)] if described else ["-m", "pip"]
    command = [
        *(*ENDING_WITH_US, sys.executable, "-I", *program),
        # Not --quiet: with it, `check` would not say what it found.
        *("--no-input", "--disable-pip-version-check", "--no-color"),
        *arguments,
    ]
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
            env={
                **os.environ,
                **indexes,
                "PYTHONWARNINGS": "ignore",
                "PYTHONDONTWRITEBYTECODE": "1",
                "PIP_REQUIRE_VIRTUALENV": "0",
                "SOURCE_DATE_EPOCH": str(EPOCH),
            },
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(texts.PIP_GAVE_UP(seconds=TIMEOUT)) from error
