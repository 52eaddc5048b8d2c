"""Whether environments can be built here and what is offered is sound: one look at everything."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from sqlalchemy.orm import Session

from commons.messages import Message
from commons.scopes import DEFAULT
from commons.site import Environments, Gpus
from commons.store import GpuQuota, Store
from environments import catalog
from environments.build import Places
from environments.channel import choose
from environments.credentials import Credentials
from environments.errors import BuildError, ChannelError, LockError, SpecError
from environments.files import LOCK_FILE
from environments.image import Images
from environments.lock import changes, read_lock
from environments.messages import doctor as texts
from environments.messages.making import OF_FILE
from environments.pythons import newest_python, python_end, python_state
from environments.spec import EnvironmentSpec, find_environments, load_spec
from spawner.runtime.protocol import EngineState
from spawner.runtime.spec import CDI

OLD = 14  # days after which Debian's updates are advised
ENGINE = 28  # the first with all that makes starts cheaper; docs/performance.md
LITTLE_ROOM = 2 * 2**30  # bytes; a deep-learning environment takes several


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``advice`` says what to do where it is not ``ok``."""

    level: Literal["ok", "warn", "fail"]
    what: str
    finding: Message
    advice: Message | None = None

    @property
    def message(self) -> str:
        """What was found, in English."""
        return str(self.finding)

    @property
    def remedy(self) -> str:
        """What to do, in English."""
        return str(self.advice or "")

    def as_json(self) -> dict[str, Any]:
        """JSON-ready: in English, and as data for programs."""
        return {
            "level": self.level,
            "what": self.what,
            "message": self.message,
            "remedy": self.remedy,
            "data": {
                "finding": self.finding.as_json(),
                "advice": self.advice.as_json() if self.advice else None,
            },
        }


def examine(
    settings: Environments,
    places: Places,
    store: Store,
    images: Images,
    server_image: str,
    today: date,
    gpus: Gpus,
) -> Iterator[Check]:
    """Look at specs, locks, channels, Docker, GPUs' way in, what is offered, quotas, the disk."""
    specs: list[EnvironmentSpec] = []
    yield from _specs(settings, places, specs)
    yield from _channels(settings, places, specs)
    yield from _docker(images, server_image, today, gpus)
    yield from _offered(store, images, today)
    if gpus.source != "none":
        yield store.transact(_quotas, read=True)
    yield from _disk(places)


def _quotas(session: Session) -> Check:
    """Whether leases of GPUs end."""
    default = session.get(GpuQuota, DEFAULT)
    if default is not None and {"time_limit", "default_time_limit"} & default.spec.keys():
        return Check("ok", "quotas", texts.TIMED())
    command = "labcommons quota set default default_time_limit=8h"
    return Check("warn", "quotas", texts.ENDLESS(), texts.RUN(command=command))


def _specs(settings: Environments, places: Places, specs: list[EnvironmentSpec]) -> Iterator[Check]:
    try:
        names = find_environments(places.environments)
    except SpecError as error:
        yield Check("fail", "environments", error.message, texts.CHECK_FOLDER())
        return
    if not names:
        yield Check(
            "warn",
            "environments",
            texts.NO_ENVIRONMENT(folder=places.environments),
            texts.MAKE_FOLDER(),
        )
    for name in names:
        try:
            spec = load_spec(places.environments / name, settings.default_channels)
        except BuildError as error:
            yield Check("fail", name, error.message, texts.CORRECT_FILE())
            continue
        specs.append(spec)
        yield _lock(spec, places)


def _lock(spec: EnvironmentSpec, places: Places) -> Check:
    path = places.environments / spec.name / LOCK_FILE
    again = texts.RUN(command=f"labcommons env lock --beside {spec.name}")
    if not path.exists():
        return Check("warn", spec.name, texts.NO_LOCK(), again)
    try:
        lock = read_lock(path, spec.platforms[0])
    except LockError as error:
        return Check("fail", spec.name, error.message, again)
    if lock.spec_digest != spec.digest:
        lines = "; ".join(changes(spec, lock))
        return Check("fail", spec.name, texts.LOCK_OF_OTHER(changes=lines), again)
    return Check("ok", spec.name, texts.IN_STEP(count=len(lock.packages)))


def _channels(
    settings: Environments, places: Places, specs: list[EnvironmentSpec]
) -> Iterator[Check]:
    try:
        credentials = Credentials.load(settings.credentials)
    except BuildError as error:
        yield Check("fail", "credentials", error.message, texts.CORRECT_SECRET())
        return
    for channel in dict.fromkeys(name for spec in specs for name in spec.all_channels):
        try:
            said: list[Message] = []
            sources = choose([channel], settings, places.channel, said.append, credentials)
        except ChannelError:
            silent = texts.NO_PLACE_ANSWERS(channel=channel)
            yield Check("fail", f"channel {channel}", silent, said_of(said))
            continue
        places_used = [source.place for source in sources]
        yield Check("ok", f"channel {channel}", texts.TAKEN_FROM(places=places_used))


def said_of(lines: list[Message]) -> Message:
    """What was tried, on one line."""
    return texts.TRIED(words=lines) if lines else texts.SET_MIRRORS()


def _docker(images: Images, server_image: str, today: date, gpus: Gpus) -> Iterator[Check]:
    try:
        found = images.id_of(server_image)
    except BuildError as error:
        yield Check("fail", "Docker", error.message, texts.ENGINE_RUNS())
        return
    if found is None:
        yield Check("fail", "Docker", texts.NO_IMAGE(image=server_image), texts.MAKE_UP())
    else:
        yield Check("ok", "Docker", texts.IMAGE_THERE(image=server_image))
        engine = images.engine_state()
        yield _engine(engine.version)
        yield from _gpus(gpus, engine)
        yield _updates(images, server_image, today)


def _engine(version: str) -> Check:
    number = re.match(r"\d+", version)
    old = number is not None and int(number[0]) < ENGINE
    advice = texts.NEWER_ENGINE(wanted=ENGINE) if old else None
    return Check("warn" if old else "ok", "Engine", texts.ENGINE(version=version), advice)


def _gpus(gpus: Gpus, engine: EngineState) -> Iterator[Check]:
    """Whether servers keep their GPUs when systemd is reloaded, and whether CDI can give them."""
    if gpus.source not in ("nvml", "site"):
        return
    names = engine.cdi_devices
    if gpus.request == "cdi" and not engine.cdi:
        yield Check("fail", "GPUs", texts.NO_CDI(), texts.ENABLE_CDI())
    elif gpus.request == "cdi" and names is not None:
        missing = [one.id for one in gpus.devices if CDI + one.id not in names]
        by_uuid = any(name.startswith((f"{CDI}GPU-", f"{CDI}MIG-")) for name in names)
        if missing or (gpus.source == "nvml" and not by_uuid):
            yield Check("fail", "GPUs", texts.NOT_NAMED(gpus=missing), texts.NAME_BY_UUID())
        else:
            yield Check("ok", "GPUs", texts.GPUS_KEPT(request="cdi"))
    elif gpus.request == "runtime" and engine.cgroups == "systemd":
        yield Check("warn", "GPUs", texts.GPUS_LOSABLE(), texts.KEEP_GPUS())
    else:
        yield Check("ok", "GPUs", texts.GPUS_KEPT(request=gpus.request))


def _updates(images: Images, server_image: str, today: date) -> Check:
    """How old the updates are in the images that people's servers are of."""
    day = images.updated(server_image)
    if day is None:
        return Check("warn", "updates", texts.AGE_UNKNOWN(), texts.REFRESH())
    age = (today - day).days
    said = texts.UPDATES(image=server_image, day=day, days=age)
    return (
        Check("warn", "updates", said, texts.REFRESH())
        if age > OLD
        else Check("ok", "updates", said)
    )


def _offered(store: Store, images: Images, today: date) -> Iterator[Check]:
    try:
        in_use = images.in_use()
    except BuildError:
        in_use = {}  # it has been said
    for name, entries in store.transact(catalog.newest, read=True).items():
        offered = [entry for entry in entries if entry.is_offered]
        if not offered:
            again = texts.RUN(command=f"labcommons env build {name}")
            yield Check("warn", name, texts.NOT_OFFERED(), again)
        for entry in offered[:1]:
            end = python_end(entry.python or "")
            state = python_state(entry.python or "", today)
            if state != "ok":
                yield Check(
                    "fail" if state == "ended" else "warn",
                    name,
                    texts.PYTHON_ENDS(version=entry.python, end=end),
                    texts.ASK_PYTHON(newest=newest_python(today)),
                )
        for entry in entries:
            user = in_use.get(f"{entry.name}:{entry.version}")
            if user and entry.state in ("withdrawn", "removed"):
                text = texts.REMOVED_USED if entry.state == "removed" else texts.WITHDRAWN_USED
                said = text(version=entry.version, user=user)
                yield Check("warn", name, said, texts.START_ANEW())


def _disk(places: Places) -> Iterator[Check]:
    try:
        free = shutil.disk_usage(places.data).free
    except OSError as error:
        yield Check(
            "fail", "disk", OF_FILE(file=places.data, reason=error.strerror), texts.GIVE_DATA()
        )
        return
    level: Literal["ok", "warn"] = "warn" if free < LITTLE_ROOM else "ok"
    yield Check(
        level,
        "disk",
        texts.FREE(free=f"{free / 2**30:.1f}", folder=places.data),
        texts.RUN(command="labcommons env prune --cache") if level == "warn" else None,
    )
