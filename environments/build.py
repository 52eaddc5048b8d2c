"""From a checked spec to a row of the catalog; each step can fail, none leaves a mess.

The newest version is replaced only by one that passed every check: image and row are
written last, so what people start from is always whole.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from commons.audit import Outcome as AuditOutcome
from commons.audit import record_command
from commons.site import Environments, words_in
from commons.store import Store
from commons.store.models import utcnow
from environments import catalog
from environments.bytecode import CompileWith, Hands
from environments.catalog import CatalogEntry
from environments.errors import BuildError
from environments.export import write_exports
from environments.files import EXPORTS, FOLDER
from environments.image import Images
from environments.install import must_import, remove
from environments.lock import Lock, committed_lock, kept_lock, kept_path
from environments.logs import BuildLog
from environments.maker import IMAGE_WEIGHTS, Locked, Made, Maker, alone, suffix
from environments.messages import making as texts
from environments.messages import steps
from environments.progress import Meter, Report
from environments.provenance import Provenance
from environments.spec import EnvironmentSpec, load_spec

SERVER_IMAGE = "labcommons/server:latest"
PREFIXES = "/opt/conda/envs"
SOURCE = "image"
_GIT_TIMEOUT = 10  # seconds


@dataclass(frozen=True)
class Places:
    """Where things are: ``environments`` is the administrator's, ``data`` is ours."""

    environments: Path
    data: Path

    @property
    def channel(self) -> Path:
        """The offline channel."""
        return self.data / "channel"

    @property
    def locks(self) -> Path:
        """Locks of environments that have none of their own."""
        return self.data / "locks"

    @property
    def versions(self) -> Path:
        """What each version was made from: ``<name>/<version>/``."""
        return self.data / "versions"

    @property
    def logs(self) -> Path:
        """What builds said."""
        return self.data / "logs" / "environments"

    @property
    def cache(self) -> Path:
        """What can be deleted at any time and is only slower to get again."""
        return self.data / "cache"


@dataclass(frozen=True)
class Outcome:
    """What became of a build: the version, and whether it is a new one."""

    entry: CatalogEntry
    is_new: bool


class Builder:
    """Locks and builds the image environments of one site.

    ``report`` is told what happens. With ``provenance`` what images were made of is stated and
    signed. Every method raises BuildError, with cause and remedy.
    """

    def __init__(
        self,
        settings: Environments,
        places: Places,
        store: Store,
        report: Report,
        server_image: str = SERVER_IMAGE,
        images: Images | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        self.settings, self.places, self.store = settings, places, store
        self.report, self.server_image = report, server_image
        self.images, self.provenance = images or Images(), provenance

    def _maker(self) -> Maker:
        return Maker(self.settings, self.places.channel, self.places.cache, self.report)

    def _compile_with(self, base: str) -> CompileWith:
        """Compiles in a container of the agent's: nothing of an environment runs beside us."""

        def compile_with(prefix: Path, lock: Lock, hands: Hands, work: Path, cache: Path) -> int:
            return self.images.compile(base, cache, prefix, lock, hands, work)

        return compile_with

    def lock(self, name: str, update: bool = False, target: Path | None = None) -> Lock:
        """The lock of an environment; made where there is none that answers its spec.

        ``update`` makes it anew from what the channels have now. ``target`` is where a new
        one is written, by default under ``data/locks``.
        """
        spec = load_spec(self.places.environments / name, self.settings.default_channels)
        with self._alone(spec):
            maker = self._maker()
            meter = maker.meter(spec, IMAGE_WEIGHTS[:2])
            target = target or kept_path(spec, self.places.locks)
            locked = maker.lock(spec, target, update, meter)
            meter.done(steps.LOCKED(count=len(locked.lock.packages), path=locked.lock.path))
            return locked.lock

    def build(self, name: str, update: bool = False) -> Outcome:
        """The newest version of an environment; built where it is not there yet."""
        spec = load_spec(self.places.environments / name, self.settings.default_channels)
        base = self.images.id_of(self.server_image)
        if base is None:
            raise BuildError(texts.NO_BASE(image=self.server_image))
        with self._alone(spec):
            if not update and (entry := self._built(spec, base)):
                return Outcome(entry, is_new=False)
            try:
                with BuildLog(self.places.logs, spec.name, self.report) as log:
                    maker = Maker(
                        self.settings,
                        self.places.channel,
                        self.places.cache,
                        log.tell,
                        compile_with=self._compile_with(base),
                    )
                    outcome = self._build(spec, base, update, maker)
            except BuildError as error:
                self._record(spec, None, str(error))
                raise
            if outcome.is_new:
                self._record(spec, outcome.entry)
            return outcome

    def _record(self, spec: EnvironmentSpec, entry: CatalogEntry | None, why: str = "") -> None:
        details = {"scope": SOURCE, "environment": spec.name}
        if entry:
            details |= {"version": entry.version, "lock_digest": entry.lock_digest}
        if why:
            details["why"] = why[:200]
        outcome: AuditOutcome = "success" if entry else "failure"
        record_command("environment-build", outcome, details, data=self.places.data)

    def _build(self, spec: EnvironmentSpec, base: str, update: bool, maker: Maker) -> Outcome:
        meter = maker.meter(spec, IMAGE_WEIGHTS)
        locked = maker.lock(spec, kept_path(spec, self.places.locks), update, meter)
        if entry := self._usable(spec, locked.lock, base):
            meter.done(steps.THERE(what=entry.image))
            return Outcome(entry, is_new=False)
        self._check_tag(spec, locked.lock)
        staging = self.places.cache / "staging" / spec.name
        try:
            return Outcome(self._make(spec, locked, base, staging, maker, meter), is_new=True)
        finally:
            remove(staging)

    # What is built already -----------------------------------------------------------------

    def _built(self, spec: EnvironmentSpec, base: str) -> CatalogEntry | None:
        """The version that a lock at hand leads to, without asking any channel."""
        maker = self._maker()
        for lock in filter(None, (committed_lock(spec), kept_lock(spec, self.places.locks))):
            if maker.allowed_channels(lock) and (entry := self._usable(spec, lock, base)):
                return entry
        return None

    def _usable(self, spec: EnvironmentSpec, lock: Lock, base: str) -> CatalogEntry | None:
        """The version made from a lock and a server image, when its image still exists."""
        entry = self._recorded(spec, lock, base)
        if entry is None or self.images.id_of(entry.image_id) is None:
            return None
        if self.provenance and self.provenance.must_build_again(entry):
            return None
        folder = self.places.versions / entry.name / entry.version
        if folder.is_dir() and not (folder / EXPORTS).is_dir():  # built before these were kept
            write_exports(folder)
        said = replace(entry, **_said(spec), removed=False)
        if said != entry:
            if said.tag != entry.tag:
                self._check_tag(spec, lock)
            self.store.transact(lambda session: catalog.record(session, said))
        return said

    def _recorded(self, spec: EnvironmentSpec, lock: Lock, base: str) -> CatalogEntry | None:
        end = suffix(spec, lock, base)
        return self.store.transact(lambda s: catalog.find(s, spec.name, end), read=True)

    def _check_tag(self, spec: EnvironmentSpec, lock: Lock) -> None:
        """A tag is one set of packages for ever; only a new server image may move it."""
        entries = self.store.transact(catalog.newest, read=True).get(spec.name, [])
        for entry in entries:
            if spec.about.tag and entry.tag == spec.about.tag and entry.lock_digest != lock.digest:
                raise BuildError(
                    texts.TAG_TAKEN(name=spec.name, tag=entry.tag, version=entry.version)
                )

    # Making it -----------------------------------------------------------------------------

    def _make(
        self,
        spec: EnvironmentSpec,
        locked: Locked,
        base: str,
        staging: Path,
        maker: Maker,
        meter: Meter,
    ) -> CatalogEntry:
        """Steps 3 to 7."""
        prefix = f"{PREFIXES}/{spec.name}"
        started, old = datetime.now(UTC), self._recorded(spec, locked.lock, base)
        stamp = maker.stamp(spec, locked.lock, SOURCE, base)
        if old:  # a lost image is built again as the version that it was
            stamp = replace(stamp, version=old.version)
        made = maker.install(spec, locked, prefix, staging, stamp, meter)
        entry = self._entry(spec, locked.lock, made, old)
        meter.step(6, steps.IMAGE(image=entry.image))
        labels = _labels(entry, spec)
        image = self.images.build(spec.name, entry.version, base, staging, prefix, labels)
        meter.step(7, steps.TRYING())
        entry = replace(entry, image_id=image)
        try:
            has_python = locked.lock.version_of("python") is not None
            modules = must_import(spec, locked.lock) if has_python else None
            self.images.check(spec, image, prefix, modules)
            self._keep(staging, entry, partial(self._state, entry, base, locked.lock, started))
            if self.provenance and (remark := self.provenance.wait(entry)):
                meter.remark(remark)
        except BuildError:
            self.images.discard(image)
            raise
        for tag in filter(None, (entry.version, entry.tag)):
            self.images.tag(image, entry.name, tag)
        self.store.transact(lambda session: catalog.record(session, entry))
        meter.done(steps.IMAGE_READY(image=entry.image, size=made.staged.size >> 20))
        return entry

    def _keep(self, staging: Path, entry: CatalogEntry, state: Callable[[Path], None]) -> None:
        """What a version was made from stays, so that it can be shown and exported."""
        target = self.places.versions / entry.name / entry.version
        new = target.with_name(f".{target.name}.part")
        remove(new)
        shutil.copytree(staging / FOLDER, new)
        write_exports(new)
        state(new)
        remove(target)
        new.rename(target)

    def _state(
        self, entry: CatalogEntry, base: str, lock: Lock, started: datetime, folder: Path
    ) -> None:
        """Say in a version's folder what its image was made of."""
        if self.provenance is not None:
            image, below = self.images.identity(entry.image_id), self.images.identity(base)
            if image is None or below is None:
                raise BuildError(texts.NO_BASE(image=self.server_image))
            self.provenance.write(folder, entry, image, below, lock, started)

    def _entry(
        self, spec: EnvironmentSpec, lock: Lock, made: Made, old: CatalogEntry | None
    ) -> CatalogEntry:
        """The catalog's row, all but the image's id."""
        version = made.stamp.version
        versions = {package.name: package.version for package in lock.packages}
        packages = [
            {"name": p.name, "version": p.version, "build": p.build, "channel": p.channel}
            for p in lock.packages
        ]
        packages += [
            {"name": p.name, "version": p.version, "build": "", "channel": "pypi"} for p in lock.pip
        ]
        return CatalogEntry(
            name=spec.name,
            version=version,
            image=f"labcommons/env-{spec.name}:{version}",
            image_id="",
            prefix=made.staged.prefix,
            python=made.staged.python,
            lock_digest=lock.digest,
            channels=list(lock.channels),
            main_packages=[
                {"name": item.name, "version": versions[item.name]}
                for item in spec.dependencies
                if item.name not in ("python", "ipykernel")
            ],
            packages=packages,
            kernelspecs=made.staged.kernelspecs,
            created_at=old.created_at if old else utcnow(),
            revision=_revision(spec),
            size=made.staged.size,
            cuda=made.stamp.cuda,
            findings=[finding.as_json() for finding in made.findings],
            **_said(spec),
        )

    @contextmanager
    def _alone(self, spec: EnvironmentSpec) -> Iterator[None]:
        """Let one build of an environment wait for another."""
        folder = self.places.locks / spec.name
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / ".lock"):
            yield


def _said(spec: EnvironmentSpec) -> dict[str, Any]:
    """What labcommons.yml says and no package depends on."""
    return {
        "words": spec.words,
        "tag": spec.about.tag,
        "gpu": spec.about.gpu,
        "server_size": spec.about.size,
        "access": spec.about.access.model_dump(mode="json"),
    }


def _revision(spec: EnvironmentSpec) -> str | None:
    """The commit that last changed the folder, where it is in a git repository."""
    command = ["git", "-c", "safe.directory=*", "-C", str(spec.folder)]
    try:
        done = subprocess.run(
            [*command, "log", "-1", "--format=%H", "--", "."],
            capture_output=True,
            text=True,
            check=False,
            timeout=_GIT_TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip()[:64] or None if done.returncode == 0 else None


def _labels(entry: CatalogEntry, spec: EnvironmentSpec) -> dict[str, str]:
    """Labels of the image; the first ones are OCI's."""
    labels = {
        "org.opencontainers.image.title": words_in(entry.words["title"], "en"),
        "org.opencontainers.image.description": words_in(entry.words["description"], "en"),
        "org.opencontainers.image.version": entry.tag or entry.version,
        "org.opencontainers.image.created": f"{entry.created_at.isoformat(timespec='seconds')}Z",
        "org.opencontainers.image.revision": entry.revision or "",
        "org.opencontainers.image.source": spec.about.source or "",
        "org.opencontainers.image.authors": spec.about.maintainer or "",
        "labcommons.lock-digest": entry.lock_digest,
        "labcommons.python": entry.python or "",
        "labcommons.cuda": entry.cuda or "",
        "labcommons.kernels": json.dumps(entry.kernelspecs, sort_keys=True),
    }
    return {key: value for key, value in labels.items() if value or key == "labcommons.python"}
