"""The ``pip:`` section of an environment: resolved to wheels with hashes, fetched, installed.

pip resolves against the environment's own Python with conda's packages in place, so that
what conda brought counts as there. Only wheels are taken: a source package would run its own
program at build time and give another result each time. Wheels are installed by pypa's
``installer``, which writes programs for the prefix that they will have.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from packaging.utils import canonicalize_name

from hub_ext.site import Environments
from spawner.environments.credentials import Credentials
from spawner.environments.errors import BuildError, LockError
from spawner.environments.lock import PipPackage
from spawner.environments.package import EPOCH
from spawner.environments.spec import EnvironmentSpec

TIMEOUT = 1800  # seconds for one run of pip
# How PyPI and its mirrors lay out their files.
_PYPI_PATH = re.compile(r"/packages/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{60}/[^/]+$")
_LOCAL = "https://local.labcommons.invalid"


def resolve(
    spec: EnvironmentSpec, prefix: Path, settings: Environments, credentials: Credentials
) -> list[PipPackage]:
    """Wheels for the spec's ``pip:`` section, on top of the conda packages in ``prefix``.

    Raises LockError where they cannot be had together or would replace a conda package.
    """
    with tempfile.TemporaryDirectory(prefix="labcommons-pip-") as folder:
        report = Path(folder, "report.json")
        arguments = ("install", "--dry-run", "--report", str(report), "--only-binary", ":all:")
        done = _pip(prefix, (*arguments, *_indexes(settings), "--", *spec.pip), credentials)
        if done.returncode:
            raise LockError(
                f"{spec.name}: pip cannot have these together with conda's packages:\n"
                f"{_reason(done.stderr)}\n"
                "Only wheels are taken: where a package has none for this Python, take it from "
                "a conda channel, or put a wheel into the site's package index."
            )
        document = json.loads(report.read_bytes())
    found = [_package(item, settings.pip_files) for item in document["install"]]
    conda = _installed(prefix)
    for item in found:
        if item.name in conda:
            raise LockError(
                f"{spec.name}: pip would replace {item.name} {conda[item.name]} of conda by "
                f"{item.version}, and both would be broken; ask conda for '{item.name} "
                f"=={item.version}', or loosen what the 'pip:' section asks for"
            )
    return sorted(found, key=lambda item: item.name)


def _package(item: Mapping[str, Any], files: str) -> PipPackage:
    metadata, info = item["metadata"], item["download_info"]
    hashes = info.get("archive_info", {}).get("hashes", {})
    name = canonicalize_name(metadata["name"])
    if "sha256" not in hashes:
        raise LockError(f"pip: {name} {metadata['version']} has no sha256 in the package index")
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
    name: str,
    packages: Sequence[PipPackage],
    prefix: Path,
    cache: Path,
    settings: Environments,
    credentials: Credentials,
) -> list[Path]:
    """The wheels of a lock, from the cache where they are there; each checked. BuildError."""
    places = [cache / "wheels" / item.sha256 / item.filename for item in packages]
    missing = [
        item for item, path in zip(packages, places, strict=True) if not _is_good(path, item)
    ]
    if missing:
        _download(name, missing, prefix, cache, settings, credentials)
    return places


def _is_good(path: Path, item: PipPackage) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == item.sha256
    except OSError:
        return False


def _download(
    name: str,
    packages: Sequence[PipPackage],
    prefix: Path,
    cache: Path,
    settings: Environments,
    credentials: Credentials,
) -> None:
    (cache / "wheels").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache / "wheels") as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(requirements(packages))
        wheels = Path(folder, "wheels")
        arguments = ("download", "--no-deps", "--require-hashes", "--only-binary", ":all:")
        places = ("--dest", str(wheels), "--cache-dir", str(cache / "pip"), "-r", str(wanted))
        done = _pip(prefix, (*arguments, *_indexes(settings), *places), credentials)
        if done.returncode:
            raise BuildError(f"{name}: the pip packages cannot be fetched:\n{_reason(done.stderr)}")
        for item in packages:
            path = wheels / item.filename
            if not _is_good(path, item):
                raise BuildError(f"{name}: {item.filename} has another sha256 than the lock says")
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
                f"{name}: {item.name} of pip would replace a file of conda's: "
                f"{str(error).replace(str(staging), prefix)}; keep one of the two packages"
            ) from error
        except (InstallerError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise BuildError(f"{name}: {wheel.name} is not a good wheel: {error}") from error


def python_minor(prefix: Path) -> str:
    """Major and minor version of a prefix's Python, such as 3.13. Raises BuildError."""
    found = sorted(path.name[6:] for path in (prefix / "lib").glob("python3.*") if path.is_dir())
    if not found:
        raise BuildError(f"there is no Python in {prefix}")
    return found[-1]


def check(prefix: Path) -> list[str]:
    """What ``pip check`` complains of, one line each; empty where all fits together."""
    done = _pip(prefix, ("check",), Credentials())
    return [line for line in done.stdout.splitlines() if line.strip()] if done.returncode else []


def _installed(prefix: Path) -> dict[str, str]:
    folder = prefix / "lib" / f"python{python_minor(prefix)}" / "site-packages"
    found: dict[str, str] = {}
    for item in distributions(path=[str(folder)]):
        if name := item.metadata["Name"]:
            found[canonicalize_name(name)] = item.version
    return found


def _indexes(settings: Environments) -> list[str]:
    own = ["--index-url", settings.pip_index] if settings.pip_index else []
    return own + [part for url in settings.pip_extra_indexes for part in ("--extra-index-url", url)]


def _pip(
    prefix: Path, arguments: Sequence[str], credentials: Credentials
) -> subprocess.CompletedProcess[str]:
    """Our pip, for the Python of a prefix. Raises BuildError when it hangs."""
    command = [
        *(sys.executable, "-m", "pip", "--python", str(prefix / "bin" / "python")),
        # Not --quiet: with it, `check` would not say what it found.
        *("--no-input", "--disable-pip-version-check", "--no-color"),
        *arguments,
    ]
    with credentials.for_pip() as secrets:
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
                    **secrets,
                    "PYTHONWARNINGS": "ignore",
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PIP_REQUIRE_VIRTUALENV": "0",
                    "SOURCE_DATE_EPOCH": str(EPOCH),
                },
            )
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"pip gave up after {TIMEOUT} s") from error


def _reason(said: str) -> str:
    """pip's errors, without secrets that a URL might carry."""
    begin = said.find("ERROR")
    text = said[max(begin, 0) :].strip()[-1500:]
    return re.sub(r"://[^/@\s]+@", "://", text)
