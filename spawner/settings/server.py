"""From a spawner's settings to what its next server gets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jupyterhub.utils import maybe_future

from commons.site import Servers, Site, parse_bytes
from environments.catalog import CatalogEntry
from spawner.settings import values
from spawner.settings.check import name_prefix
from spawner.settings.values import Ceiling, SettingError

if TYPE_CHECKING:
    from spawner.settings.traits import DockerSettings

_LIMITS = ("mem_limit", "cpu_limit", "extra_host_config", "extra_host_config")

Catalog = Mapping[str, Sequence[CatalogEntry]]


@dataclass(frozen=True)
class ServerSettings:
    """What the hub's settings say of one person's next server.

    Attributes:
        mounts: names in the site file's ``servers.mounts``.
        default: the environment of who chooses none, ``name`` or ``name:version``; "" for any.
        offered: titles of the environments to choose from, by name; None: every one.
        name_template, prefix: how the container is called.
    """

    mounts: tuple[str, ...]
    ceiling: Ceiling
    default: str
    offered: Mapping[str, str] | None
    name_template: str
    prefix: str

    def catalog(self, found: Catalog) -> Catalog:
        """What the settings leave of a catalog, the default first."""
        kept = values.narrowed(found, self.offered)
        first = self.default.partition(":")[0]
        return {first: kept[first]} | dict(kept) if first in kept else kept

    def asked(self, options: Mapping[str, Any] | None) -> dict[str, Any]:
        """Options of a request, with the default environment where they name none."""
        said = dict(options or {})
        return (
            said
            if said.get("environment") or not self.default
            else {**said, "environment": self.default}
        )

    def name(self, entry: CatalogEntry) -> str:
        """How the container's name begins."""
        image = f"{entry.name}-{entry.version}"
        return values.container_name(self.name_template, self.prefix, image)

    def shared_memory(self, servers: Servers) -> int:
        """Bytes of /dev/shm."""
        most = parse_bytes(servers.shared_memory)
        return min(self.ceiling.shared_memory or most, most)

    def site(self, site: Site) -> Site:
        """The site with its sizes under the ceiling."""
        sizes = {name: self.ceiling.of(size) for name, size in site.sizes.items()}
        return site.model_copy(update={"sizes": sizes})


async def read(spawner: DockerSettings, site: Site, scopes: Collection[str] = ()) -> ServerSettings:
    """The settings as they are now, after groups and hooks. Raises LabError for what cannot be.

    ``scopes``: the person's teams and courses (``team-NAME``).
    """
    try:
        return await _read(spawner, site, scopes)
    except SettingError as error:
        raise values.unusable(error) from error


async def _read(spawner: DockerSettings, site: Site, scopes: Collection[str]) -> ServerSettings:
    values.check_variables("environment", spawner.environment)
    values.check_variables("env_keep", spawner.env_keep)
    values.check_port(spawner.port)
    asked = values.mounts_asked(spawner.volumes, spawner.read_only_volumes, spawner.mounts)
    mounts = [
        values.in_site(
            one.filled(lambda text: str(spawner.format_volume_name(text, spawner))),
            site.servers.mounts,
            spawner.user.name,
        )
        for one in asked
    ]
    host_config = await _asked(spawner, spawner.extra_host_config)
    memory = await _asked(spawner, spawner.mem_limit)
    cpu = await _asked(spawner, spawner.cpu_limit)
    ceiling = values.ceiling(memory, cpu, host_config or {})
    try:
        values.check_ceiling(ceiling, site.sizes, site.servers, _LIMITS)
    except SettingError as error:
        # Said for one person, by a callable or a hook: the smaller holds.
        spawner.log.warning("%s: %s", spawner._log_name, error)
    template = spawner.name_template or values.NAME_TEMPLATE
    prefix = spawner.prefix or name_prefix()
    values.container_name(template, prefix, "image")
    allowed = await _asked(spawner, spawner.allowed_images)
    return ServerSettings(
        values.chosen_mounts(site.servers.mounts, mounts, scopes),
        ceiling,
        spawner.image,
        values.offered(spawner.image, allowed),
        template,
        prefix,
    )


async def _asked(spawner: DockerSettings, value: Any) -> Any:
    """A value, or what a callable says for this person."""
    return await maybe_future(value(spawner)) if callable(value) else value
