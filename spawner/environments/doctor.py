"""Whether environments can be built here and what is offered is sound: one look at everything."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal

from hub_ext.site import Environments
from hub_ext.store import Store
from spawner.environments import catalog
from spawner.environments.build import Places
from spawner.environments.channel import choose
from spawner.environments.credentials import Credentials
from spawner.environments.errors import BuildError, LockError, SpecError
from spawner.environments.files import LOCK_FILE
from spawner.environments.image import Images
from spawner.environments.lock import changes, read_lock
from spawner.environments.pythons import newest_python, python_end, python_state
from spawner.environments.spec import EnvironmentSpec, find_environments, load_spec

OLD = 14  # days after which Debian's updates are advised
UPDATE = "REFRESH=yes make up, which makes all images anew, environments' too"
LITTLE_ROOM = 2 * 2**30  # bytes; a deep-learning environment takes several


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``remedy`` says what to do where it is not ``ok``."""

    level: Literal["ok", "warn", "fail"]
    what: str
    message: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return asdict(self)


def examine(
    settings: Environments,
    places: Places,
    store: Store,
    images: Images,
    server_image: str,
    today: date,
) -> Iterator[Check]:
    """Look at specs, locks, channels, Docker, what is offered, and the disk."""
    specs: list[EnvironmentSpec] = []
    yield from _specs(places, specs)
    yield from _channels(settings, places, specs)
    yield from _docker(images, server_image, today)
    yield from _offered(store, images, today)
    yield from _disk(places)


def _specs(places: Places, specs: list[EnvironmentSpec]) -> Iterator[Check]:
    try:
        names = find_environments(places.environments)
    except SpecError as error:
        yield Check("fail", "environments", str(error))
        return
    if not names:
        yield Check(
            "warn",
            "environments",
            f"there is no environment in {places.environments}",
            "make a folder there with an environment.yml in it",
        )
    for name in names:
        try:
            spec = load_spec(places.environments / name)
        except BuildError as error:
            yield Check("fail", name, str(error), "correct the file")
            continue
        specs.append(spec)
        yield _lock(spec, places)


def _lock(spec: EnvironmentSpec, places: Places) -> Check:
    path = places.environments / spec.name / LOCK_FILE
    again = f"labcommons env lock --beside {spec.name}"
    if not path.exists():
        return Check("warn", spec.name, "no lock is committed beside it", again)
    try:
        lock = read_lock(path, spec.platforms[0])
    except LockError as error:
        return Check("fail", spec.name, str(error), again)
    if lock.spec_digest != spec.digest:
        lines = "; ".join(changes(spec, lock))
        return Check("fail", spec.name, f"its lock is of another spec: {lines}", again)
    return Check("ok", spec.name, f"spec and lock are in step ({len(lock.packages)} packages)")


def _channels(
    settings: Environments, places: Places, specs: list[EnvironmentSpec]
) -> Iterator[Check]:
    try:
        credentials = Credentials.load(settings.credentials)
    except BuildError as error:
        yield Check("fail", "credentials", str(error), "correct the site file or the secret")
        return
    for channel in dict.fromkeys(name for spec in specs for name in spec.all_channels):
        try:
            said: list[str] = []
            sources = choose([channel], settings, places.channel, said.append, credentials)
        except BuildError as error:
            yield Check("fail", f"channel {channel}", str(error).splitlines()[0], said_of(said))
            continue
        places_used = ", ".join(source.place for source in sources)
        yield Check("ok", f"channel {channel}", f"taken from {places_used}")


def said_of(lines: list[str]) -> str:
    """What was tried, on one line."""
    return "; ".join(lines) or "set environments.mirrors or offline_channel in the site file"


def _docker(images: Images, server_image: str, today: date) -> Iterator[Check]:
    try:
        found = images.id_of(server_image)
    except BuildError as error:
        yield Check("fail", "Docker", str(error), "see that the Engine runs")
        return
    if found is None:
        yield Check("fail", "Docker", f"image {server_image} is not there", "make up builds it")
    else:
        yield Check("ok", "Docker", f"image {server_image} is there")
        yield _updates(images, server_image, today)


def _updates(images: Images, server_image: str, today: date) -> Check:
    """How old the updates are in the images that people's servers are of."""
    day = images.updated(server_image)
    if day is None:
        return Check("warn", "updates", "the age of its updates is not known", UPDATE)
    age = (today - day).days
    said = f"Debian's updates in {server_image} are of {day} ({age} days ago)"
    return Check("warn", "updates", said, UPDATE) if age > OLD else Check("ok", "updates", said)


def _offered(store: Store, images: Images, today: date) -> Iterator[Check]:
    try:
        in_use = images.in_use()
    except BuildError:
        in_use = {}  # it has been said
    for name, entries in store.transact(catalog.newest, read=True).items():
        offered = [entry for entry in entries if entry.is_offered]
        if not offered:
            yield Check("warn", name, "no version of it is offered", f"labcommons env build {name}")
        for entry in offered[:1]:
            end = python_end(entry.python or "")
            state = python_state(entry.python or "", today)
            if state != "ok":
                yield Check(
                    "fail" if state == "ended" else "warn",
                    name,
                    f"Python {entry.python}: no security fixes from {end}",
                    f"ask for Python {newest_python(today)} in its environment.yml",
                )
        for entry in entries:
            user = in_use.get(f"{entry.name}:{entry.version}")
            if user and entry.state in ("withdrawn", "removed"):
                yield Check(
                    "warn",
                    name,
                    f"version {entry.version} is {entry.state} and in use by {user}",
                    "ask them to start anew",
                )


def _disk(places: Places) -> Iterator[Check]:
    try:
        free = shutil.disk_usage(places.data).free
    except OSError as error:
        yield Check("fail", "disk", f"{places.data}: {error.strerror}", "give --data")
        return
    level: Literal["ok", "warn"] = "warn" if free < LITTLE_ROOM else "ok"
    yield Check(
        level,
        "disk",
        f"{free / 2**30:.1f} GB are free below {places.data}",
        "labcommons env prune --cache" if level == "warn" else "",
    )
