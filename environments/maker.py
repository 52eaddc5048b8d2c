"""From a spec to a checked prefix: what every scope shares, whoever it runs as.

Nothing is half-made: work goes on in a folder beside the target, which is renamed to it when
everything passed. What a killed run left is removed by the next one.

What only a build needs is imported where it needs it, as most runs find nothing to do.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from commons.messages import verbatim
from commons.site import Environments
from commons.units import amount
from environments import own_channels as names
from environments import policy
from environments.channel import OFFLINE_URL, Source, choose
from environments.credentials import Credentials
from environments.errors import BuildError, LockError, NoKernel, PolicyError
from environments.files import PRIVATE
from environments.install import Staged, finish, install, kernelspecs, remove
from environments.lock import Lock, answering, committed_lock
from environments.messages import making as texts
from environments.messages import rules, steps
from environments.policy import Finding
from environments.progress import Meter, Report
from environments.spec import EnvironmentSpec
from environments.stamp import Stamp, iso, read_stamp

if TYPE_CHECKING:
    from environments.bytecode import CompileWith

# Raise it when prefixes are made differently: every environment gets a new version then.
RECIPE = 3
# Steps: channels, versions, conda's packages, pip's, checks, and the end (an image takes two).
WEIGHTS = (3, 12, 55, 10, 18, 2)
IMAGE_WEIGHTS = (2, 8, 40, 8, 12, 20, 10)
# Packages that say which CUDA an environment is made for, the plainest first.
_CUDA_PACKAGES = ("cuda-version", "cudatoolkit", "pytorch-cuda", "cuda-runtime")


@dataclass(frozen=True)
class Locked:
    """A lock, and where its packages come from."""

    lock: Lock
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Made:
    """A finished prefix, what it says of itself, and what the site's rules say of it."""

    staged: Staged
    stamp: Stamp
    findings: tuple[Finding, ...]


class Maker:
    """Locks environments and installs them into prefixes.

    ``channel`` is the folder of the offline channel, ``cache`` that of packages; ``lent`` is
    another user's cache, which is only read; ``report`` is told what happens. With
    ``compile_with`` no program of an environment runs here: that compiles, and who calls tries it.
    Every method raises BuildError, with cause and remedy.
    """

    def __init__(
        self,
        settings: Environments,
        channel: Path,
        cache: Path,
        report: Report,
        lent: Path | None = None,
        compile_with: CompileWith | None = None,
    ) -> None:
        self.settings, self.report = settings, report
        # The child processes know nothing of where this one stands.
        self.channel, self.cache = channel.absolute(), cache.absolute()
        self.lent, self.compile_with = lent, compile_with
        self.apart = False  # whether packages are kept where only our services see them
        self.prefer: Path | None = None  # a lock whose packages are taken where they will do
        self.own: Collection[str] = (names.SITE_CHANNEL,)  # the site's channels that may be used
        self.given: Path | None = None  # a folder with pip's wheels, as a cache has them
        self.credentials = Credentials.load(settings.credentials)

    def meter(self, spec: EnvironmentSpec, weights: Sequence[int] = WEIGHTS) -> Meter:
        """A new count of steps."""
        return Meter(spec.name, self.report, weights)

    # Locking -----------------------------------------------------------------------------------

    def lock(
        self,
        spec: EnvironmentSpec,
        target: Path,
        update: bool = False,
        meter: Meter | None = None,
    ) -> Locked:
        """Steps 1 and 2: where packages come from, and which ones.

        A lock beside environment.yml or in ``target`` that answers the spec is taken; else, and
        where ``update`` asks for newer packages, one is made in ``target``.
        """
        meter = meter or self.meter(spec)
        locked = self._lock(spec, target, update, meter)
        self.note_use(locked.lock)
        return locked

    def _lock(self, spec: EnvironmentSpec, target: Path, update: bool, meter: Meter) -> Locked:
        policy.enforce(policy.check(spec, None, self.settings, _today()))
        self.check_channels(spec.all_channels)
        for remark in spec.remarks:
            meter.remark(remark)
        meter.step(1, steps.LOOKING(channels=spec.all_channels))
        sources = choose(
            spec.all_channels,
            self.settings,
            self.channel,
            meter.remark,
            self.credentials,
            spec.optional_channels,
        )
        index = self._offline_index(spec, sources, update, meter)
        urls = tuple(dict.fromkeys(source.url for source in sources))
        if not update:
            committed = committed_lock(spec)
            kept = answering(spec, target)
            for lock in (committed, kept):
                if lock is None or lock.channels != urls:
                    continue
                if lock is committed or lock.index_digest == index:
                    meter.step(2, steps.USING_LOCK(path=lock.path))
                    return Locked(lock, tuple(sources))
        meter.step(2, steps.CHOOSING(count=len(spec.dependencies)))
        try:
            lock = self._solve(spec, sources, target, index)
        except LockError:
            whole = self._offline_index(spec, sources, update, meter, together=True)
            if whole == index:
                raise
            lock = self._solve(spec, sources, target, whole)
        return Locked(lock, tuple(sources))

    def _solve(
        self, spec: EnvironmentSpec, sources: Sequence[Source], target: Path, index: str
    ) -> Lock:
        from environments.solve import solve

        packages = self.packages(sources)
        return solve(
            spec,
            sources,
            target,
            self.cache,
            index,
            self.settings,
            self.credentials,
            packages,
            self.prefer,
        )

    def packages(self, sources: Sequence[Source]) -> Path:
        """Where packages are kept: apart where some came by a login, or at somebody's wish.

        Everybody's server can read the others.
        """
        apart = self.apart or self.credentials.of(source.place for source in sources)
        return self.cache / PRIVATE if apart else self.cache

    def _offline_index(
        self,
        spec: EnvironmentSpec,
        sources: Sequence[Source],
        update: bool,
        meter: Meter,
        together: bool = False,
    ) -> str:
        """The digest of the offline channel's index, "" where it is not asked.

        It grows where something is asked for that it does not know, or knows, but perhaps not
        ``together`` with the rest.
        """
        if not any(source.is_offline for source in sources):
            return ""
        from environments import offline

        if spec.given:  # exactly these, which are there or not
            return offline.index_digest(self.channel) or ""

        if not all(source.is_offline for source in sources):
            spec = offline.pythons_part(spec)  # the rest another channel may have
        for line in offline.remarks(spec) if not together else ():
            meter.remark(line)
        enough = offline.holds if together else offline.may_hold
        if (update and not together) or not enough(self.channel, spec):
            for folder in (self.channel, self.cache):
                folder.mkdir(parents=True, exist_ok=True)
            # Not beside the channel, which people's builders can open, and so could lock.
            with alone(self.cache / ".channel.lock"):
                offline.update(self.channel, self.cache, spec, meter.remark, refresh=update)
                self._watch_room(meter)
        return offline.index_digest(self.channel) or ""

    def _watch_room(self, meter: Meter) -> None:
        """Say so where the offline channel is larger than the site wants it.

        Nothing goes here, where one does not know what locks name (``environments.prune`` does).
        """
        from environments import offline

        size = offline.size(self.channel)
        if size > self.settings.offline_bytes:
            meter.remark(steps.OFFLINE_LARGE(size=amount(size), most=self.settings.offline_size))

    def note_use(self, lock: Lock) -> None:
        """What a lock names of the offline channel is in use now."""
        if OFFLINE_URL in lock.channels:
            from environments import offline

            offline.touch(self.channel, offline.named_in(item.url for item in lock.packages))

    def allowed_channels(self, lock: Lock) -> bool:
        """Whether a lock's channels are those that the site would ask now, as far as one knows."""
        is_offline = OFFLINE_URL in lock.channels
        return {"never": not is_offline, "always": is_offline, "auto": True}[
            self.settings.offline_channel
        ]

    # Installing --------------------------------------------------------------------------------

    @staticmethod
    def version(spec: EnvironmentSpec, lock: Lock, base: str = "") -> str:
        """A version's name: the day of its lock, and a digest of all that it is made of.

        The same lock gives the same version wherever and whenever it is built. ``base`` is
        what it is put on: the server image's id, or nothing.
        """
        return f"{lock.locked:%Y%m%d}-{suffix(spec, lock, base)}"

    def install(
        self,
        spec: EnvironmentSpec,
        locked: Locked,
        prefix: str,
        staging: Path,
        stamp: Stamp,
        meter: Meter,
    ) -> Made:
        """Steps 3 to 5: install into ``staging`` what will be at ``prefix``, and check it."""
        from environments import bytecode, pip_section, scan

        lock = locked.lock
        findings = policy.check(spec, lock, self.settings, _today())
        self._enforce(findings, meter)
        self.check_kernel(spec, lock)
        meter.step(3, steps.INSTALLING(count=len(lock.packages)))
        cache = self.packages(locked.sources)
        with self._cache_in_use():
            install(
                spec,
                lock,
                locked.sources,
                prefix,
                staging,
                cache,
                self.credentials,
                meter.part,
            )
            meter.step(4, steps.INSTALLING_PIP(count=len(lock.pip)))
            if lock.pip:
                pip_section.install(spec.name, self.wheels(spec, locked), lock.pip, staging, prefix)
            meter.step(5, steps.COMPILING())
            compile_with = self.compile_with or bytecode.own_python
            bytecode.compile_all(staging, lock, cache, self.lent, compile_with)
        staged = finish(spec, lock, prefix, staging, stamp, runs=self.compile_with is None)
        found = [
            Finding(
                "warn",
                "check",
                verbatim(remark),
                rules.SEE_VERSIONS(),
            )
            for remark in staged.remarks
        ]
        found += scan.scan(staging, self.settings.scan)
        self._enforce(found, meter)
        return Made(staged, stamp, (*findings, *found))

    def check_channels(self, channels: Iterable[str]) -> None:
        """Raises PolicyError for one of the site's own that is not for this environment."""
        if problem := names.problem(channels, self.own):
            raise PolicyError(problem)

    @staticmethod
    def check_kernel(spec: EnvironmentSpec, lock: Lock) -> None:
        """Before anything is installed: raises NoKernel where a lock's packages have none."""
        if package := lock.missing_kernel:
            raise NoKernel(texts.KERNEL_WANTED(name=spec.name, package=package))

    def wheels(self, spec: EnvironmentSpec, locked: Locked) -> list[Path]:
        """Pip's wheels of a lock: what was given, else from the cache, else fetched into it."""
        from environments import pip_section

        if self.given and (there := pip_section.given(locked.lock, self.given)):
            return there
        return pip_section.fetch(
            spec.name, locked.lock, self.cache, self.settings, self.credentials
        )

    @staticmethod
    def _enforce(findings: Sequence[Finding], meter: Meter) -> None:
        """Say what the rules say, and stop where they refuse."""
        for finding in findings:
            if finding.code != policy.SPEC:  # that was said before packages were chosen
                said = steps.REFUSED if finding.level == "refuse" else steps.WARNED
                meter.remark(said(what=finding.what, remedy=finding.advice))
        policy.enforce(findings)

    @contextmanager
    def _cache_in_use(self) -> Iterator[None]:
        """Installs share the package cache; emptying it (``env prune``) waits for them."""
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            (self.cache / ".lock").touch()
        except OSError as error:
            raise BuildError(texts.CACHE_UNUSABLE(folder=self.cache, reason=error)) from error
        with alone(self.cache / ".lock", shared=True):
            yield

    def make_prefix(
        self,
        spec: EnvironmentSpec,
        locked: Locked,
        prefix: Path,
        *,
        source: str,
        stamp: Stamp | None = None,
        meter: Meter | None = None,
    ) -> Made:
        """Make the environment at ``prefix``, which stays as it is when it is complete already.

        It runs as whoever calls it: owner, group and mode of the files are the process's. Two
        makers of one prefix wait for each other.
        """
        meter, prefix = meter or self.meter(spec), prefix.absolute()
        stamp = stamp or self.stamp(spec, locked.lock, source)
        prefix.parent.mkdir(parents=True, exist_ok=True)
        staging = prefix.with_name(f".making-{prefix.name}")
        with alone(prefix.with_name(f".{prefix.name}.lock")):
            if (prefix / "conda-meta" / "history").is_file():
                found = read_stamp(prefix)
                if found is None or found.lock_digest != locked.lock.digest:
                    raise BuildError(texts.OTHER_ENVIRONMENT(prefix=prefix))
                meter.done(steps.THERE(what=prefix))
                there = Staged(prefix, str(prefix), found.python, kernelspecs(prefix))
                return Made(there, found, ())
            remove(prefix)  # without a history it is none, and nobody was offered it
            try:
                made = self.install(spec, locked, str(prefix), staging, stamp, meter)
                staging.rename(prefix)
            except BaseException:
                remove(staging)
                raise
            meter.done(steps.READY(what=prefix))
        return replace(made, staged=replace(made.staged, folder=prefix))

    @staticmethod
    def stamp(spec: EnvironmentSpec, lock: Lock, source: str, base: str = "") -> Stamp:
        """What a version says of itself."""
        return Stamp(
            name=spec.name,
            version=Maker.version(spec, lock, base),
            source=source,
            lock_digest=lock.digest,
            created=iso(lock.locked),
            tag=spec.about.tag,
            python=lock.version_of("python"),
            cuda=cuda_of(spec, lock),
            title=spec.about.title,
        )


def suffix(spec: EnvironmentSpec, lock: Lock, base: str) -> str:
    """Eight hexadecimal digits over all that a version is made of."""
    parts = f"{RECIPE}\n{lock.digest}\n{base}\n"
    if spec.variables:
        parts += json.dumps(dict(spec.variables), sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()[:8]


def cuda_of(spec: EnvironmentSpec, lock: Lock) -> str | None:
    """The CUDA version that the packages are made for, else the one that was solved for."""
    for name in _CUDA_PACKAGES:
        if version := lock.version_of(name):
            return version
    return spec.about.cuda


def _today() -> date:
    return datetime.now(UTC).date()


@contextmanager
def alone(path: Path, shared: bool = False) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends; wait for whoever has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BuildError(texts.DISK_FULL_BELOW(folder=path.parent)) from error
        raise
    finally:
        os.close(descriptor)
