"""Installing a lock into a staging folder, and making it ready for an image.

Nothing leaves the staging folder before it was checked, so an interrupted or failed
installation is simply thrown away.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commons.messages import Message
from environments.channel import NO_CREDENTIALS, Source
from environments.credentials import Credentials
from environments.errors import BuildError
from environments.files import PRIVATE
from environments.interpreter import run_python
from environments.lock import Lock
from environments.messages import making as texts
from environments.offline import named_in
from environments.offline.package import EPOCH
from environments.spec import EnvironmentSpec
from environments.stamp import Stamp, keep_sources, write_stamp

if TYPE_CHECKING:
    from environments.inventory import Installed
    from environments.worker import OnPart

INSTALL_TIMEOUT = 1800  # seconds, downloads included
CHECK_TIMEOUT = 120
# Seconds for a killed process to be gone, and from one try to remove its folder to the next.
_ENDING, _AGAIN = 10, 0.05
_CHANGED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)
_MAX_KERNEL_JSON = 64 * 1024
_MAX_KERNELS = 20
_LITTLE_ROOM = 32 * 2**20  # bytes
_FROZEN = (
    "This environment was built by LabCommons from an environment.yml. Versions are not changed: "
    "change that file and build a new one."
)
# Imports every module named, and says on its last line which ones do not.
TRY = """
import importlib, json, sys
failed = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed[name] = f"{type(error).__name__}: {error}"[:300]
print()
print(json.dumps({"prefix": sys.prefix, "failed": failed}))
"""
# What a conda-meta record says of the machine that installed it, and nobody needs.
_OF_THIS_MACHINE = ("extracted_package_dir", "package_tarball_full_path")


@dataclass(frozen=True)
class Staged:
    """A checked environment, ready to be copied to where it belongs.

    Attributes:
        folder: where its files are now.
        prefix: where they will be.
        python: full version of its Python, or None.
        kernelspecs: kernel.json contents by the kernel's own name.
        remarks: what does not fit together but works, one sentence each.
        size: bytes of its files.
    """

    folder: Path
    prefix: str
    python: str | None
    kernelspecs: dict[str, Any]
    remarks: tuple[str, ...] = ()
    size: int = 0


def install(
    spec: EnvironmentSpec,
    lock: Lock,
    sources: Sequence[Source],
    prefix: str,
    staging: Path,
    cache: Path,
    credentials: Credentials = NO_CREDENTIALS,
    on_part: OnPart | None = None,
) -> None:
    """Install a lock's conda packages, each checked against its sha256. Raises BuildError."""
    from environments import worker

    remove(staging)
    staging.parent.mkdir(parents=True, exist_ok=True)
    _only_ours(cache)
    request = {
        "lock": str(lock.path),
        "sources": {source.url: source.place for source in sources},
        "specs": [item.spec for item in spec.dependencies],
        "cache": str(cache),
        "staging": str(staging),
        "prefix": prefix,
        "platform": lock.platform,
    }
    try:
        worker.call(
            "install",
            request,
            INSTALL_TIMEOUT,
            logins=credentials.of(source.place for source in sources),
            on_part=on_part,
        )
    except BuildError as error:
        more = [one for one in (_room(staging), _gone(spec, lock, sources)) if one]
        raise BuildError(
            texts.NOT_INSTALLED(name=spec.name, reason=error.message, more=more)
        ) from error
    _open_packages(cache)
    # Written at the very end only (``history``): it is what makes a folder an environment.
    _only_records(spec, lock, staging)


def _gone(spec: EnvironmentSpec, lock: Lock, sources: Sequence[Source]) -> Message | None:
    """A word about packages that went from the offline channel, which is kept within a bound."""
    place = next((Path(source.place) for source in sources if source.is_offline), None)
    if place is None:
        return None
    paths = named_in(item.url for item in lock.packages)
    names = sorted(Path(path).name for path in paths if not (place / path).exists())
    return texts.OFFLINE_GONE(names=names[:5], name=spec.name) if names else None


def _only_ours(cache: Path) -> None:
    """Take away the package cache's lock files that others can open: who can open can lock.

    The worker makes new ones that are ours alone. Everybody's server has the packages.
    """
    cache.mkdir(0o755 if cache.name != PRIVATE else 0o700, parents=True, exist_ok=True)
    for path in (cache / "packages").glob("*.lock"):
        if path.lstat().st_mode & 0o077:
            path.unlink(missing_ok=True)


def _open_packages(cache: Path) -> None:
    """Let others into the folders of new packages, where this process lets others read."""
    mask = os.umask(0o077)
    os.umask(mask)
    for path in (cache, cache / "packages") if not mask & 0o055 else ():
        if path.name != PRIVATE:
            path.chmod(0o755)
    for package in os.scandir(cache / "packages") if not mask & 0o055 else ():
        if package.is_dir(follow_symlinks=False) and not package.stat().st_mode & 0o055:
            for folder, _, _ in os.walk(package.path, topdown=False):
                os.chmod(folder, 0o755)  # noqa: S103  (as all folders of the cache)


def remove(folder: Path) -> None:
    """Remove a folder of our own, whatever is in it; nothing where there is none.

    A process that was killed may still be in its last write: what grows while it is removed is
    given some seconds. Raises BuildError.
    """
    if folder.is_symlink():
        folder.unlink()
    deadline = time.monotonic() + _ENDING
    while os.path.lexists(folder):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            if error.errno not in _CHANGED or time.monotonic() > deadline:
                raise BuildError(texts.NOT_REMOVED(folder=folder)) from error
            time.sleep(_AGAIN)


def _room(folder: Path) -> Message | None:
    """A word about the disk where it is (nearly) full."""
    try:
        usage = shutil.disk_usage(folder.parent)
    except OSError:
        return None
    if usage.free > _LITTLE_ROOM:
        return None
    return texts.LITTLE_ROOM(folder=folder.parent, left=usage.free >> 20)


def finish(
    spec: EnvironmentSpec,
    lock: Lock,
    prefix: str,
    staging: Path,
    stamp: Stamp | None = None,
    runs: bool = True,
) -> Staged:
    """Check and freeze an installed environment. Raises BuildError with the remedy.

    It is complete (``conda-meta/history``) only when this is over. ``stamp`` is what it says of
    itself; without one it says nothing. ``runs``: its Python is tried here; else nothing of it is.
    """
    from environments import pip_section
    from environments.inventory import doubles, inventory

    version = lock.version_of("python")
    _only_records(spec, lock, staging)
    with ThreadPoolExecutor(2) as pool:
        # Both are Pythons of their own, and take longer than all else here.
        fits = pool.submit(pip_section.check, lock, staging) if version else None
        tried = pool.submit(_try_python, spec, lock, staging) if version and runs else None
        packages = inventory(staging)
        sbom = _bill_of_materials(spec, lock, packages, stamp)
        if tried:
            tried.result()
        kernels = kernelspecs(staging)
        if not kernels:
            raise BuildError(texts.NO_KERNEL(name=spec.name, file=spec.where))
        _try_kernels(spec, kernels, prefix, staging)
        remarks = [*(fits.result() if fits else ()), *doubles(packages)]
    if runs:
        _only_records(spec, lock, staging)  # whatever it has done to them
    _set_variables(spec, staging)
    _clean_records(staging)
    if stamp is not None:
        keep_sources(staging, spec, lock.path, sbom)
        write_stamp(staging, stamp)
    _freeze(staging, lock)
    return Staged(staging, prefix, version, kernels, tuple(remarks), _size(staging))


def _only_records(spec: EnvironmentSpec, lock: Lock, staging: Path) -> None:
    """Leave in ``conda-meta`` the records of the lock's packages, each a file, and nothing else.

    What is written there next is ours: a package could have put a link in its place.
    """
    meta = staging / "conda-meta"
    if meta.is_symlink() or not meta.is_dir():
        raise BuildError(texts.NO_RECORDS(name=spec.name))
    known = {item.record for item in lock.packages}
    for entry in list(os.scandir(meta)):
        if entry.name in known and entry.is_file(follow_symlinks=False):
            known.discard(entry.name)
        elif entry.is_dir(follow_symlinks=False):
            remove(Path(entry.path))
        else:
            os.unlink(entry.path)
    if known:
        raise BuildError(texts.PACKAGE_MISSING(name=spec.name, package=min(known)))


def _bill_of_materials(
    spec: EnvironmentSpec, lock: Lock, packages: Sequence[Installed], stamp: Stamp | None
) -> str:
    from environments.sbom import of_packages  # large, and only needed here

    if stamp is None:
        return ""
    return of_packages(packages, spec.name, stamp.version, lock.locked, lock.pip)


def _size(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(
        os.lstat(os.path.join(here, name)).st_size
        for here, _, names in os.walk(folder)
        for name in names
    )


def _set_variables(spec: EnvironmentSpec, staging: Path) -> None:
    """The spec's variables, where conda keeps those of an environment."""
    if spec.variables:
        state = {"env_vars": dict(spec.variables), "version": 1}
        (staging / "conda-meta" / "state").write_text(json.dumps(state, indent=1, sort_keys=True))


def _try_python(spec: EnvironmentSpec, lock: Lock, staging: Path) -> None:
    """Start its Python and import what must import."""
    modules = must_import(spec, lock)
    tried = run_python(staging, ["-c", TRY, *modules], CHECK_TIMEOUT, spec.variables)
    judge(spec, modules, tried.stdout, tried.stderr, os.path.realpath(staging))


def must_import(spec: EnvironmentSpec, lock: Lock) -> list[str]:
    """The modules that an environment must import before it is offered."""
    return [*(["ipykernel"] if lock.has_ipykernel else []), *spec.about.imports]


def judge(
    spec: EnvironmentSpec, modules: Sequence[str], said: str, errors: str, prefix: str
) -> None:
    """Raises BuildError where TRY, run by the Python in ``prefix``, says what is wrong."""
    try:
        answer = json.loads(said.splitlines()[-1])
        found, failed = str(answer["prefix"]), dict(answer["failed"])
    except (IndexError, ValueError, KeyError, TypeError, RecursionError) as error:
        words = errors[-800:].strip() or said[-800:].strip()
        raise BuildError(
            texts.PYTHON_ENDS(name=spec.name, modules=list(modules) or texts.NOTHING(), words=words)
        ) from error
    if os.path.realpath(found) != prefix:
        raise BuildError(texts.OTHER_PREFIX(name=spec.name, found=found, prefix=prefix))
    if failed:
        lines = [f"{module}: {reason}" for module, reason in failed.items()]
        raise BuildError(texts.NOT_IMPORTED(name=spec.name, modules=lines, file=spec.where))


def _try_kernels(
    spec: EnvironmentSpec, kernels: Mapping[str, Any], prefix: str, staging: Path
) -> None:
    """Each kernel's program must be there."""
    for name, kernel in kernels.items():
        argv = kernel.get("argv") if isinstance(kernel, dict) else None
        program = str(argv[0]) if isinstance(argv, list) and argv else ""
        place = staging / "bin" / program
        if program.startswith(f"{prefix}/"):
            place = staging / program.removeprefix(f"{prefix}/")
        if not program or not os.access(place, os.X_OK):
            raise BuildError(
                texts.KERNEL_PROGRAM(
                    name=spec.name, kernel=name, program=program or "nothing", file=spec.where
                )
            )


def _clean_records(staging: Path) -> None:
    """Take out of conda's records what is only true of the machine that installed them."""
    from environments.inventory import records

    for path, record in records(staging):
        for key in _OF_THIS_MACHINE:
            record[key] = ""
        if isinstance(record.get("link"), dict):
            record["link"]["source"] = ""
        # Another file in its place: this one may be the package cache's, too.
        partial = path.with_name(f".{path.name}.part")
        partial.write_text(json.dumps(record, sort_keys=True))
        partial.rename(path)


def _freeze(staging: Path, lock: Lock) -> None:
    """Say in conda's words what is here and that it is not to be changed (CEP 22)."""
    meta = staging / "conda-meta"
    when = datetime.fromtimestamp(EPOCH, UTC)  # one time for all, so that equal locks are equal
    packages = "".join(f"+{item.channel}::{item.name}-{item.version}\n" for item in lock.packages)
    (meta / "frozen").write_text(json.dumps({"message": _FROZEN}))
    partial = meta / ".history.part"
    partial.write_text(f"==> {when:%Y-%m-%d %H:%M:%S} <==\n{packages}")
    partial.rename(meta / "history")


def kernelspecs(prefix: Path) -> dict[str, Any]:
    """The kernel.json contents of a prefix by the kernel's own name; broken ones are left out."""
    found: dict[str, Any] = {}
    inside = os.path.realpath(prefix)
    for path in sorted((prefix / "share" / "jupyter" / "kernels").glob("*/kernel.json")):
        place = os.path.realpath(path)
        try:
            # Shown to others: it must not be a link to what only a builder may read.
            if not place.startswith(f"{inside}/") or not stat.S_ISREG(os.lstat(place).st_mode):
                continue
            if os.path.getsize(place) <= _MAX_KERNEL_JSON and len(found) < _MAX_KERNELS:
                found[path.parent.name] = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue  # a broken one is none; without any the build fails
    return found
