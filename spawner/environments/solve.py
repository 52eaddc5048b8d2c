"""Choosing packages: conda's by py-rattler, those of the ``pip:`` section by pip on top of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hub_ext.site import Environments
from spawner.environments import pip_section, worker
from spawner.environments.channel import NO_CREDENTIALS, Source
from spawner.environments.credentials import Credentials
from spawner.environments.errors import BuildError, LockError
from spawner.environments.install import install
from spawner.environments.lock import Lock, PipPackage, complete, read_lock
from spawner.environments.spec import EnvironmentSpec

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
) -> Lock:
    """Solve a spec into a lock file, which is replaced only by a whole one.

    ``index`` is the digest of the offline channel's index where it is among the sources;
    ``packages`` the cache for packages that pip has to know of, where it is another one.
    Raises LockError with the solver's reason, BuildError where a channel or an index fails.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    try:
        lock = _solve_conda(spec, sources, partial, cache, wanted_cuda(spec, settings), credentials)
        pip = _solve_pip(spec, lock, sources, packages or cache, settings, credentials)
        return complete(spec, partial, target, pip, index)
    finally:
        partial.unlink(missing_ok=True)


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
        raise LockError(
            f"{spec.name}: pip chooses wheels for the machine it runs on, so an environment with "
            "a 'pip:' section is locked for one platform; remove it, or the other platform"
        )
    if lock.version_of("python") is None:
        raise LockError(
            f"{spec.name}: a 'pip:' section needs a Python; add '- python' to {spec.where}"
        )
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
    }
    try:
        worker.call(
            "solve",
            request,
            SOLVE_TIMEOUT,
            logins=credentials.of(source.place for source in sources),
        )
    except LockError as error:
        raise LockError(
            f"{spec.name}: these packages cannot be had together:\n{error}\n"
            f"{_hint(str(error), spec, cuda)}Change the dependencies in {spec.where}."
        ) from error
    except BuildError as error:
        raise BuildError(f"{spec.name}: the packages cannot be looked up: {error}") from error
    return read_lock(target, spec.platforms[0])


def _hint(reason: str, spec: EnvironmentSpec, cuda: str | None) -> str:
    """The solver's words about what a machine must have, in plain ones."""
    if "__cuda" in reason:
        have = f"CUDA {cuda}" if cuda else "no CUDA"
        return (
            f"Some of them need CUDA, and it is solved for {have}: write 'cuda: \"12.4\"' (what "
            "the servers' driver has) into labcommons.yml.\n"
        )
    if "No candidates were found" in reason:
        return (
            f"What has no candidates is in none of the channels {', '.join(spec.all_channels)}, "
            "or not in that version.\n"
        )
    return ""
