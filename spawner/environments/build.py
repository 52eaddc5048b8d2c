"""From a checked spec to a row of the catalog, in six steps; each can fail, none leaves a mess.

The newest version is replaced only by one that passed every check: image and row are
written last, so what people start from is always whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hub_ext.site import Environments, words_in
from hub_ext.store import Store
from hub_ext.store.models import utcnow
from spawner.environments import catalog, offline
from spawner.environments.catalog import CatalogEntry
from spawner.environments.channel import OFFLINE_URL, Report, Source, choose
from spawner.environments.errors import BuildError
from spawner.environments.image import Images
from spawner.environments.install import Staged, finish, install
from spawner.environments.lock import Lock, committed_lock, kept_lock, kept_path, solve
from spawner.environments.spec import EnvironmentSpec, load_spec

SERVER_IMAGE = "labcommons/server:latest"
PREFIXES = "/opt/conda/envs"
# Raise it when images are made differently: every environment gets a new version then.
RECIPE = 1
_STEPS = 6


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
    def cache(self) -> Path:
        """What can be deleted at any time and is only slower to get again."""
        return self.data / "cache"


@dataclass(frozen=True)
class Outcome:
    """What became of a build: the version, and whether it is a new one."""

    entry: CatalogEntry
    is_new: bool


class Builder:
    """Locks and builds the environments of one site.

    ``report`` is told what happens, a line each time.
    Every method raises BuildError, with cause and remedy.
    """

    def __init__(
        self,
        settings: Environments,
        places: Places,
        store: Store,
        report: Report,
        server_image: str = SERVER_IMAGE,
        images: Images | None = None,
    ) -> None:
        self.settings, self.places, self.store = settings, places, store
        self.report, self.server_image = report, server_image
        self.images = images or Images()

    def lock(self, name: str, update: bool = False) -> Lock:
        """The lock of an environment; made where there is none that answers its spec.

        ``update`` makes it anew from what the channels have now.
        """
        spec = load_spec(self.places.environments / name)
        with self._alone(spec):
            lock, _ = self._locked(spec, update)
            self._step(spec, 2, f"locked {len(lock.packages)} packages in {lock.path}")
            return lock

    def build(self, name: str, update: bool = False) -> Outcome:
        """The newest version of an environment; built where it is not there yet."""
        spec = load_spec(self.places.environments / name)
        base = self.images.id_of(self.server_image)
        if base is None:
            raise BuildError(
                f"image {self.server_image}, on which environments are built, is not there; "
                "`make up` builds it, --server-image names another one"
            )
        with self._alone(spec):
            if not update and (entry := self._built(spec, base)):
                return Outcome(entry, is_new=False)
            lock, sources = self._locked(spec, update)
            if entry := self._usable(spec, lock, base):
                return Outcome(entry, is_new=False)
            staging = self.places.cache / "staging" / spec.name
            try:
                return Outcome(self._make(spec, lock, sources, base, staging), is_new=True)
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    # The lock ------------------------------------------------------------------------------

    def _locked(self, spec: EnvironmentSpec, update: bool) -> tuple[Lock, list[Source]]:
        """Steps 1 and 2: where packages come from, and which ones."""
        self._step(spec, 1, f"looking for {', '.join(spec.all_channels)}")
        sources = choose(
            spec.all_channels,
            self.settings,
            self.places.channel,
            lambda message: self._step(spec, 0, message),
        )
        index = self._offline_index(spec, sources, update)
        urls = tuple(dict.fromkeys(source.url for source in sources))
        committed = committed_lock(spec)
        if committed and committed.channels == urls and not update:
            self._step(spec, 2, f"using {committed.path}")
            return committed, sources
        kept = kept_lock(spec, self.places.locks)
        if kept and kept.channels == urls and kept.index_digest == index and not update:
            self._step(spec, 2, f"using {kept.path}")
            return kept, sources
        self._step(
            spec, 2, f"choosing versions of {len(spec.dependencies)} packages and their needs"
        )
        target = kept_path(spec, self.places.locks)
        return solve(spec, sources, target, self.places.cache, index), sources

    def _offline_index(self, spec: EnvironmentSpec, sources: Sequence[Source], update: bool) -> str:
        if not any(source.is_offline for source in sources):
            return ""
        self.places.channel.mkdir(parents=True, exist_ok=True)
        with _exclusive(self.places.channel / ".lock"):
            offline.update(
                self.places.channel,
                self.places.cache,
                spec,
                lambda message: self._step(spec, 0, message),
                refresh=update,
            )
            return offline.index_digest(self.places.channel) or ""

    # What is built already -----------------------------------------------------------------

    def _built(self, spec: EnvironmentSpec, base: str) -> CatalogEntry | None:
        """The version that a lock at hand leads to, without asking any channel."""
        committed = committed_lock(spec)
        for lock in filter(None, (committed, kept_lock(spec, self.places.locks))):
            is_offline = OFFLINE_URL in lock.channels
            allowed = {"never": not is_offline, "always": is_offline, "auto": True}
            if allowed[self.settings.offline_channel] and (entry := self._usable(spec, lock, base)):
                return entry
        return None

    def _usable(self, spec: EnvironmentSpec, lock: Lock, base: str) -> CatalogEntry | None:
        """The version made from a lock and a server image, when its image still exists."""
        entry = self._recorded(spec, lock, base)
        if entry is None or self.images.id_of(entry.image_id) is None:
            return None
        if entry.words == spec.words:
            return entry
        reworded = replace(entry, words=spec.words)
        self.store.transact(lambda session: catalog.record(session, reworded))
        return reworded

    def _recorded(self, spec: EnvironmentSpec, lock: Lock, base: str) -> CatalogEntry | None:
        suffix = _suffix(lock, base)
        return self.store.transact(lambda s: catalog.find(s, spec.name, suffix), read=True)

    # Making it -----------------------------------------------------------------------------

    def _make(
        self, spec: EnvironmentSpec, lock: Lock, sources: list[Source], base: str, staging: Path
    ) -> CatalogEntry:
        """Steps 3 to 6."""
        prefix = f"{PREFIXES}/{spec.name}"
        self._step(spec, 3, f"installing {len(lock.packages)} packages")
        install(spec, lock, sources, prefix, staging, self.places.cache)
        self._step(spec, 4, "compiling and checking")
        staged = finish(spec, lock, prefix, staging)
        entry = self._entry(spec, lock, base, staged)
        self._step(spec, 5, f"building image {entry.image}")
        image = self.images.build(spec.name, base, staging, prefix, _labels(entry))
        self._step(spec, 6, "trying it as a stranger in a container")
        try:
            self.images.check(spec.name, image, prefix)
        except BuildError:
            self.images.discard(image)
            raise
        self.images.tag(image, *entry.image.split(":"))
        entry = replace(entry, image_id=image)
        self.store.transact(lambda session: catalog.record(session, entry))
        return entry

    def _entry(self, spec: EnvironmentSpec, lock: Lock, base: str, staged: Staged) -> CatalogEntry:
        """The catalog's row, all but the image's id. A lost image is built as the old version."""
        now = utcnow()
        old = self._recorded(spec, lock, base)
        version = old.version if old else f"{now:%Y%m%d}-{_suffix(lock, base)}"
        versions = {package.name: package.version for package in lock.packages}
        return CatalogEntry(
            name=spec.name,
            version=version,
            image=f"labcommons/env-{spec.name}:{version}",
            image_id="",
            prefix=staged.prefix,
            python=staged.python,
            lock_digest=lock.digest,
            channels=list(lock.channels),
            words=spec.words,
            main_packages=[
                {"name": item.name, "version": versions[item.name]}
                for item in spec.dependencies
                if item.name not in ("python", "ipykernel")
            ],
            packages=[
                {
                    "name": package.name,
                    "version": package.version,
                    "build": package.build,
                    "channel": package.channel,
                }
                for package in lock.packages
            ],
            kernelspecs=staged.kernelspecs,
            created_at=old.created_at if old else now,
        )

    def _step(self, spec: EnvironmentSpec, step: int, message: str) -> None:
        self.report(f"[{spec.name} {step}/{_STEPS}] {message}" if step else f"  {message}")

    @contextmanager
    def _alone(self, spec: EnvironmentSpec) -> Iterator[None]:
        """Let one build of an environment wait for another."""
        folder = self.places.locks / spec.name
        folder.mkdir(parents=True, exist_ok=True)
        with _exclusive(folder / ".lock"):
            yield


def _suffix(lock: Lock, base: str) -> str:
    """Eight hexadecimal digits over all that an image is made of."""
    return hashlib.sha256(f"{RECIPE}\n{lock.digest}\n{base}\n".encode()).hexdigest()[:8]


def _labels(entry: CatalogEntry) -> dict[str, str]:
    """Labels of the image; the first ones are OCI's."""
    return {
        "org.opencontainers.image.title": words_in(entry.words["title"], "en"),
        "org.opencontainers.image.description": words_in(entry.words["description"], "en"),
        "org.opencontainers.image.version": entry.version,
        "org.opencontainers.image.created": f"{entry.created_at.isoformat(timespec='seconds')}Z",
        "labcommons.environment": entry.name,
        "labcommons.lock-digest": entry.lock_digest,
        "labcommons.python": entry.python or "",
        "labcommons.kernels": json.dumps(entry.kernelspecs, sort_keys=True),
    }


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
