"""Images of environments: published, tried, named and removed. What is here alone can be started.

An image counts as an environment's when it bears this site's label and the environment's, which
nothing but ``publish`` writes.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from docker.errors import ImageNotFound, NotFound
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import Timeout

from commons.errors import LabError, RuntimeRefused
from commons.signatures.check import Checker, Image
from commons.signatures.statement import CONFIG
from spawner.runtime import labels
from spawner.runtime.docker import engine as engines
from spawner.runtime.docker import layers
from spawner.runtime.docker.body import Bind, trial_body
from spawner.runtime.docker.engine import Engine
from spawner.runtime.docker.places import Places
from spawner.runtime.docker.rules import against_rules, variables
from spawner.runtime.docker.settings import OWNER, AgentSettings
from spawner.runtime.docker.shared import Locks
from spawner.runtime.messages import SERVER_IMAGE_MISSING, TOO_SLOW
from spawner.runtime.packing import pack
from spawner.runtime.protocol import (
    CHECK_SECONDS,
    COMPILE_SECONDS,
    PUBLISH_SECONDS,
    Dangling,
    EngineState,
    ImageIdentity,
    TrialEnd,
)
from spawner.runtime.spec import Account, CheckImage, CompileModules

log = logging.getLogger(__name__)
PREFIXES = PurePosixPath("/opt/conda/envs")
VERSION = "labcommons.version"
UPDATED = "labcommons.updated"  # see deploy/images.py
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OURS = "labcommons.inputs"  # on what make up has built; the same
# Of what publishing writes on an image, what the builder may say.
_SAID = re.compile(
    r"org\.opencontainers\.image\.[a-z]+|labcommons\.(lock-digest|python|cuda|kernels)"
)
_REFERENCE = re.compile(
    r"(sha256:[0-9a-f]{64})|([a-z0-9]+([._/-]+[a-z0-9]+)*(:[A-Za-z0-9_.-]{1,128})?)"
)
_YOUNG = 3600  # seconds
_OLD = 7 * 86400  # seconds
_NOBODY = Account(uid=65534, gid=65534)
_SERVICES = Account(uid=OWNER, gid=OWNER)
Send = Callable[[IO[bytes]], None]


@dataclass(frozen=True)
class Published:
    """An image of an environment, as its labels and the Engine say it."""

    name: str
    version: str
    id: str
    layers: tuple[str, ...]


def publisher(site_id: str) -> str:
    """How the names of containers begin that are filled to be published, and never started."""
    return f"{site_id}-env-build-"


class Images:
    """The images of one site on one Engine."""

    def __init__(self, engine: Engine, settings: AgentSettings, places: Places) -> None:
        self.engine, self.settings, self.places = engine, settings, places
        self.site_id = settings.site_id
        self._locks = Locks()
        self._startable: dict[str, Published] = {}  # what never changes of an image's id
        self._signatures = Checker(settings.site.signatures, settings.data)

    # -- what there is ---------------------------------------------------------------------------

    def check_startable(self, api: Any, image: str, name: str, version: str) -> None:
        """Raises RuntimeRefused for an image that is not this version, or none of ours at all, or
        not signed where the site wants that.
        """
        known = self._startable.get(image)
        if known is None:
            known = self._startable[image] = self._published(api, image)
        if (known.name, known.version) != (name, version):
            raise against_rules(f"the image is not {name}:{version}")
        found = Image(name, version, known.id, layers=known.layers)
        if (refusal := self._signatures.refusal(found)) is not None:
            raise RuntimeRefused(refusal)

    def _published(self, api: Any, image: str) -> Published:
        try:
            found = api.inspect_image(image)
        except ImageNotFound:
            raise against_rules("there is no such image") from None
        marks = found["Config"].get("Labels") or {}
        if marks.get(labels.SITE) != self.site_id or not marks.get(labels.ENVIRONMENT):
            raise against_rules("the image is none of this site's environments")
        what = _identity(found)
        return Published(marks[labels.ENVIRONMENT], marks.get(VERSION, ""), what.id, what.layers)

    async def resolve(self, image: str) -> str | None:
        def work(api: Any) -> str | None:
            with suppress(ImageNotFound):
                return str(api.inspect_image(_reference(image))["Id"])
            return None

        return await self.engine.call(work)

    async def identity(self, image: str) -> ImageIdentity | None:
        def work(api: Any) -> ImageIdentity | None:
            with suppress(ImageNotFound):
                return _identity(api.inspect_image(_reference(image)))
            return None

        return await self.engine.call(work)

    async def updated(self, image: str) -> date | None:
        marks = await self.engine.call(lambda api: _labels(api, _reference(image)))
        with suppress(ValueError):
            return date.fromisoformat((marks or {}).get(UPDATED, "")[:10])
        return None

    async def engine_state(self) -> EngineState:
        found = await self.engine.call(lambda api: api.info())
        told = found.get("DiscoveredDevices")
        return EngineState(
            version=str(found["ServerVersion"]),
            cgroups=str(found.get("CgroupDriver") or ""),
            cdi=bool(found.get("CDISpecDirs")),
            cdi_devices=None
            if told is None
            else tuple(str(one.get("ID")) for one in told if one.get("Source") == "cdi"),
        )

    async def in_use(self) -> dict[str, str]:
        def work(api: Any) -> dict[str, str]:
            found: dict[str, str] = {}
            for item in api.containers(all=True, filters={"label": labels.ENVIRONMENT}):
                marks = item.get("Labels") or {}
                who = marks.get(labels.USER) or (item.get("Names") or ["a container"])[0]
                for key in (marks[labels.ENVIRONMENT], item.get("ImageID") or ""):
                    found[key] = f"{found[key]}, {who}" if key in found else who
            return found

        return await self.engine.call(work)

    async def orphans(self, known: Sequence[str]) -> list[str]:
        """Young ones may be of a build that goes on."""
        filters = {"label": [f"{labels.SITE}={self.site_id}", labels.ENVIRONMENT]}
        found = await self.engine.call(lambda api: api.images(all=True, filters=filters))
        return [
            item["Id"]
            for item in found
            if item["Id"] not in known and time.time() - item["Created"] > _YOUNG
        ]

    async def prune_dangling(self, dry_run: bool) -> Dangling:
        """Layers younger than a week stay: the next build starts from them (deploy/images.py).

        The Engine itself leaves what a container uses, and what other images stand on.
        """
        filters = {"dangling": True, "label": [OURS], "until": [f"{_OLD}s"]}

        def work(api: Any) -> Dangling:
            if dry_run:
                used = {item.get("ImageID") for item in api.containers(all=True)}
                found = api.images(filters={"dangling": True, "label": [OURS]})
                old = [
                    item
                    for item in found
                    if time.time() - item["Created"] > _OLD and item["Id"] not in used
                ]
                return Dangling(count=len(old), bytes=sum(int(item["Size"]) for item in old))
            done = api.prune_images(filters=filters)
            gone = [item for item in done.get("ImagesDeleted") or () if "Deleted" in item]
            return Dangling(count=len(gone), bytes=int(done.get("SpaceReclaimed") or 0))

        return await self.engine.call(work)

    # -- making and removing ---------------------------------------------------------------------

    async def publish(
        self,
        name: str,
        version: str,
        base: str,
        folder: Path,
        prefix: str,
        labels: Mapping[str, str],
    ) -> str:
        """For a caller beside the folder; over the wire, ``receive`` is what runs."""
        return await self.receive(name, version, base, prefix, labels, partial(pack, folder))

    async def receive(
        self,
        name: str,
        version: str,
        base: str,
        prefix: str,
        said: Mapping[str, str],
        send: Send,
    ) -> str:
        """Publish what ``send`` writes as a tar of a folder. Raises RuntimeRefused, RuntimeSilent.

        A container that is never started is filled and committed: a Dockerfile's COPY takes twice
        the time, as it unpacks the same files once more, and wants a builder that newer Engines
        lack.
        """
        if prefix != str(PREFIXES / name):
            raise against_rules(f"{name} is not at {prefix[:80]}")
        for key in said:
            if not _SAID.fullmatch(key) and key not in (labels.SITE, labels.ENVIRONMENT, VERSION):
                raise against_rules(f"{key[:80]!r} is no label of an environment")
        marks = {
            **said,
            labels.SITE: self.site_id,
            labels.ENVIRONMENT: name,
            VERSION: version,
        }
        container = f"{publisher(self.site_id)}{name}"

        def work(api: Any) -> str:
            image = api.inspect_image(self._base(api, base))
            config = dict(image["Config"] or {})
            config["Labels"] = {**(config.get("Labels") or {}), **marks}
            body = {
                "Image": image["Id"],
                # No label but this: an image has all those of the container that it is made of.
                "Labels": {labels.SITE: self.site_id},
                "HostConfig": {"NetworkMode": "none"},
            }
            made = engines.create(api, container, body)
            try:
                with (
                    layers.piped(send) as sent,
                    layers.piped(partial(layers.rewrite, sent, PurePosixPath(prefix))) as layer,
                ):
                    api.put_archive(made, "/", layer)
                # With the base's own configuration: a container's has more in it, as its host name.
                return str(api.commit(made, message="labcommons env build", conf=config)["Id"])
            finally:
                engines.remove(api, made)

        async with self._locks.of(name):
            return await self.engine.call(work, PUBLISH_SECONDS)

    def _base(self, api: Any, base: str) -> str:
        """The server image, which alone environments are put on. Raises RuntimeRefused."""
        try:
            ours = str(api.inspect_image(self.settings.server_image)["Id"])
            if ours == str(api.inspect_image(_reference(base))["Id"]):
                return ours
        except ImageNotFound:
            raise against_rules(SERVER_IMAGE_MISSING()) from None
        raise against_rules(f"{base[:80]} is not the server image of this machine")

    async def tag(self, image: str, name: str, version: str) -> None:
        def work(api: Any) -> None:
            if self._published(api, image).name != name:
                raise against_rules(f"the image is none of {name}")
            api.tag(image, f"labcommons/env-{name}", version, force=True)

        await self.engine.call(work)

    async def discard(self, image: str) -> None:
        def work(api: Any) -> None:
            with suppress(NotFound):
                self._published(api, image)
                for tag in api.inspect_image(image).get("RepoTags") or ():
                    api.remove_image(tag, noprune=False)
                api.remove_image(image, noprune=False)

        try:
            await self.engine.call(work)
            self._startable.pop(image, None)
        except LabError as error:  # it only takes room
            log.warning("image %s stays: %s", image, error)

    # -- trying ----------------------------------------------------------------------------------

    async def check(self, task: CheckImage) -> TrialEnd:
        body = trial_body(self.site_id, task.image, task.program, _NOBODY, variables(task.env))
        return await self._try(task.image, body, CHECK_SECONDS, published=True)

    async def compile(self, task: CompileModules) -> TrialEnd:
        """By the server image, from folders of the cache."""

        def folder(*parts: str) -> str:
            path = self.places.folder("cache", *parts)
            if path is None:
                raise against_rules(f"cache/{'/'.join(parts)[:80]} is not there")
            return str(path)

        work = folder(*task.work.split("/"))
        if not self.places.is_file("cache", *task.work.split("/"), "request.json"):
            raise against_rules("there is no request.json")
        binds = [
            Bind(folder("packages"), "/packages"),
            Bind(folder(*task.prefix.split("/")), "/prefix"),
            Bind(f"{work}/request.json", "/request.json"),
            Bind(folder(*task.work.split("/"), "out"), "/out", read_only=False),
        ]
        env = variables(task.env)
        body = trial_body(self.site_id, task.image, task.program, _SERVICES, env, binds)
        return await self._try(task.image, body, COMPILE_SECONDS, published=False)

    async def _try(
        self, image: str, body: dict[str, Any], seconds: int, published: bool
    ) -> TrialEnd:
        def work(api: Any) -> TrialEnd:
            if published:
                self._published(api, image)
            else:
                self._base(api, image)
            made = engines.create(api, f"{self.site_id}-env-trial-{uuid.uuid4().hex[:12]}", body)
            try:
                api.start(made)
                try:
                    code = int(api.wait(made, timeout=seconds)["StatusCode"])
                except (RequestsConnectionError, Timeout) as error:
                    raise RuntimeRefused(TOO_SLOW(seconds=seconds)) from error
                output, errors = (
                    api.logs(made, tail=40, stdout=not wrong, stderr=wrong)[-20_000:].decode(
                        "utf-8", "replace"
                    )
                    for wrong in (False, True)
                )
            finally:
                engines.remove(api, made)
            return TrialEnd(exit_code=code, output=output, errors=errors)

        return await self.engine.call(work, seconds + 120)


def _labels(api: Any, image: str) -> dict[str, str] | None:
    try:
        return dict(api.inspect_image(image)["Config"].get("Labels") or {})
    except ImageNotFound:
        return None


def _identity(found: Mapping[str, Any]) -> ImageIdentity:
    """Of what the Engine says of an image. With the containerd store it has a descriptor, and its
    id is that one's digest.
    """
    described = found.get("Descriptor") or {}
    is_manifest = described.get("digest") == found["Id"]
    return ImageIdentity(
        id=found["Id"],
        media_type=str(described.get("mediaType") or MANIFEST)[:200] if is_manifest else CONFIG,
        layers=tuple((found.get("RootFS") or {}).get("Layers") or ()),
    )


def _reference(image: str) -> str:
    """An image's id or name, as it may stand in an address. Raises RuntimeRefused."""
    if not _REFERENCE.fullmatch(image) or ".." in image:
        raise against_rules(f"{image[:40]!r} is no image's name")
    return image
