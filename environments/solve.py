"""Choosing packages: conda's by py-rattler, those of the ``pip:`` section by pip on top of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from commons.messages import Message
from commons.site import Environments
from environments import pip_section, worker
from environments.channel import NO_CREDENTIALS, Source, canonical_url
from environments.credentials import Credentials
from environments.errors import BuildError, LockError, NoSuchPackage
from environments.given import Given
from environments.install import install
from environments.lock import Lock, complete, read_lock
from environments.messages import making as texts
from environments.packages import PipPackage
from environments.spec import EnvironmentSpec

SOLVE_TIMEOUT = 600  # seconds, fetching the channels' indexes included
SOLVER_TIMEOUT = 120  # seconds for the solver alone

_NO_SETTINGS = Environments()


def solve(
    spec: EnvironmentSpec,
    sources: Sequence[Source],
    target: Path,
    cache: Path,
    index: str = "",
    settings: Environments = _NO_SETTINGS,
    credentials: Credentials = NO_CREDENTIALS,
    packages: Path | None = None,
    prefer: Path | None = None,
) -> Lock:
    """Solve a spec into a lock file, which is replaced only by a whole one.

    ``index`` is the digest of the offline channel's index where it is among the sources;
    ``packages`` the cache for packages that pip has to know of, where it is another one;
    ``prefer`` a lock whose packages are taken where the spec lets them be.
    Raises LockError with the solver's reason, BuildError where a channel or an index fails.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    try:
        if spec.given:
            _exactly(spec, spec.given, sources, partial, cache, credentials)
            return complete(spec, partial, target, spec.given.pip, index)
        cuda = wanted_cuda(spec, settings)
        lock = _solve_conda(spec, sources, partial, cache, cuda, credentials, prefer)
        pip = _solve_pip(spec, lock, sources, packages or cache, settings, credentials)
        return complete(spec, partial, target, pip, index)
    finally:
        partial.unlink(missing_ok=True)


def _exactly(
    spec: EnvironmentSpec,
    given: Given,
    sources: Sequence[Source],
    target: Path,
    cache: Path,
    credentials: Credentials,
) -> None:
    """Write the lock of packages that somebody's lock names. Raises LockError, BuildError."""
    urls = [source.url for source in sources]
    elsewhere = {item.channel for item in given.packages if canonical_url(item.channel) not in urls}
    if elsewhere:
        raise LockError(texts.GIVEN_CHANNELS(name=spec.name, channels=sorted(elsewhere)))
    request = {
        "sources": {source.url: source.place for source in sources},
        "packages": [
            {**asdict(item), "channel": canonical_url(item.channel)} for item in given.packages
        ],
        "platform": spec.platforms[0],
        "cache": str(cache),
        "lock": str(target),
    }
    logins = credentials.of(source.place for source in sources)
    try:
        answer = worker.call("exact", request, SOLVE_TIMEOUT, logins=logins)
    except BuildError as error:
        raise BuildError(texts.NOT_LOOKED_UP(name=spec.name, reason=error.message)) from error
    if answer["wrong"]:
        raise LockError(texts.GIVEN_HASHES(name=spec.name, files=answer["wrong"][:10]))
    if answer["unknown"]:
        raise LockError(texts.GIVEN_GONE(name=spec.name, files=answer["unknown"][:10]))


def wanted_cuda(spec: EnvironmentSpec, settings: Environments) -> str | None:
    """The CUDA version to solve for: the environment's own, else the site's, else none.

    Who says in labcommons.yml that no GPU is wanted gets the packages without CUDA.
    """
    if spec.about.cuda:
        return spec.about.cuda
    without = spec.words_text is not None and spec.about.gpu == "none"
    return None if without else settings.cuda or None


def _solve_pip(
    spec: EnvironmentSpec,
    lock: Lock,
    sources: Sequence[Source],
    cache: Path,
    settings: Environments,
    credentials: Credentials,
) -> list[PipPackage]:
    if not spec.pip:
        return []
    if len(spec.platforms) > 1:
        raise LockError(texts.PIP_ONE_PLATFORM(name=spec.name))
    if lock.version_of("python") is None:
        raise LockError(texts.PIP_NEEDS_PYTHON(name=spec.name, file=spec.where))
    with _scratch(cache) as folder:
        prefix = folder / "prefix"
        install(spec, lock, sources, str(prefix), prefix, cache, credentials)
        return pip_section.resolve(spec, lock, prefix, settings, credentials)


@contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """A folder on the cache's file system, so that packages are linked into it, not copied."""
    cache.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="scratch-", dir=cache))
    try:
        yield folder
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)


def _solve_conda(
    spec: EnvironmentSpec,
    sources: Sequence[Source],
    target: Path,
    cache: Path,
    cuda: str | None,
    credentials: Credentials,
    prefer: Path | None = None,
) -> Lock:
    """Solve a spec's conda packages into a lock file that ``complete`` has still to finish.

    Raises LockError with the solver's reason, BuildError where a channel fails.
    """
    urls: dict[str, str] = {}
    for source in sources:
        urls.setdefault(source.channel, source.url)
    specs = [
        f"{urls[item.channel]}::{item.spec}" if item.channel else item.spec
        for item in spec.dependencies
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    request = {
        "sources": {source.url: source.place for source in sources},
        "specs": specs,
        "cache": str(cache),
        "lock": str(target),
        "timeout": SOLVER_TIMEOUT,
        "platforms": list(spec.platforms),
        "cuda": cuda,
        "prefer": str(prefer) if prefer else None,
    }
    try:
        worker.call(
            "solve",
            request,
            SOLVE_TIMEOUT,
            logins=credentials.of(source.place for source in sources),
        )
    except worker.Unsolvable as error:
        if error.faults:
            problems = [_fault(fault, spec) for fault in error.faults]
            raise NoSuchPackage(
                texts.AT_FAULT(name=spec.name, problems=problems, file=spec.where)
            ) from error
        hint = _hint(str(error), spec, cuda)
        raise LockError(
            texts.UNSOLVABLE(name=spec.name, reason=error.message, hint=hint, file=spec.where)
        ) from error
    except BuildError as error:
        raise BuildError(texts.NOT_LOOKED_UP(name=spec.name, reason=error.message)) from error
    return read_lock(target, spec.platforms[0])


def _fault(fault: Mapping[str, Any], spec: EnvironmentSpec) -> Message:
    """What was asked for and is not there, and what is."""
    name, channels = fault["name"], spec.all_channels
    if versions := fault.get("versions"):
        return texts.NO_SUCH_VERSION(
            package=name, asked=fault["asked"], channels=channels, versions=versions
        )
    return texts.NO_SUCH_PACKAGE(
        package=name, channels=channels, near=tuple(fault.get("near") or ()) or None
    )


def _hint(reason: str, spec: EnvironmentSpec, cuda: str | None) -> Message | None:
    """The solver's words about what a machine must have, in plain ones."""
    if "__cuda" in reason:
        return texts.NEED_CUDA(cuda=cuda or None)
    if "No candidates were found" in reason:
        complete = {"conda-forge", "defaults"}.intersection(spec.all_channels)
        text = texts.NO_CANDIDATES if complete else texts.NO_CANDIDATES_NOR_DEFAULTS
        return text(channels=spec.all_channels)
    return None
