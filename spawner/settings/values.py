"""What single settings say, read and checked: mounts, limits, variables, environments; pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import Any

from jupyterhub.traitlets import ByteSpecification
from traitlets import TraitError

from commons.errors import LabError
from commons.i18n import N_
from commons.messages import Text
from commons.site import Mount, Servers, Size, parse_bytes
from environments.catalog import CatalogEntry
from spawner.runtime.spec import MAX_NAME

# Variables that only LabCommons sets in a server.
RESERVED = frozenset(
    (
        "HOME", "USER", "LOGNAME", "NB_USER", "JUPYTER_PATH", "JUPYTER_IMAGE_SPEC",
        "MEM_LIMIT", "CPU_LIMIT", "JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED",
        "JUPYTERHUB_ACTIVITY_INTERVAL",
    )
)  # fmt: skip
RESERVED_PREFIXES = ("NVIDIA_", "DOCKER_RESOURCE_", "LABCOMMONS_")

_FIELD = re.compile(r"\{(raw_|safe_)?username\}")
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ENVIRONMENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}(:[A-Za-z0-9][A-Za-z0-9._-]{0,127})?")

# Keys of extra_host_config that are refused, and what to use; others: "nothing".
_HOST_KEYS = {
    "auto_remove": "nothing: a container is removed when it ends",
    "binds": "`servers.mounts`",
    "cap_add": "nothing: no server has a capability",
    "devices": "`gpus`",
    "device_requests": "`gpus`",
    "group_add": "`directory.groups`: the person's groups of the directory",
    "mounts": "`servers.mounts`",
    "network_mode": "`servers.network`",
    "port_bindings": "`site.public_url`: servers have no port on the machine",
    "privileged": "nothing: no server is privileged",
    "runtime": "`gpus`",
    "tmpfs": "`servers.tmp`",
    "volumes_from": "`servers.mounts`",
}
_LIMITS = ("mem_limit", "cpu_period", "cpu_quota", "pids_limit", "shm_size")


SETTING_UNUSABLE = Text(
    "setting_unusable",
    N_("This hub's setting {setting} cannot be followed: {problem}. Tell an administrator."),
)


class SettingError(Exception):
    """A setting that cannot be followed: its name, why, and what to use instead."""

    def __init__(self, setting: str, problem: str) -> None:
        self.setting, self.problem = setting, problem
        super().__init__(f"{setting}: {problem}")


def unusable(error: SettingError) -> LabError:
    """As a person is told; an administrator finds the same in the log."""
    return LabError(SETTING_UNUSABLE(setting=error.setting, problem=error.problem))


# -- folders --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A folder that a setting asks for; source and target are templates or paths."""

    setting: str
    source: str
    target: str
    read_only: bool

    def filled(self, fill: Callable[[str], str]) -> Asked:
        """With its templates filled in."""
        return replace(self, source=fill(self.source), target=fill(self.target))


def mounts_asked(
    volumes: Mapping[str, Any], read_only_volumes: Mapping[str, Any], mounts: Sequence[Any]
) -> Iterator[Asked]:
    """The folders of DockerSpawner's three settings. Raises SettingError."""
    yield from _volumes("volumes", volumes, "rw")
    yield from _volumes("read_only_volumes", read_only_volumes, "ro")
    for one in mounts:
        known = {"source", "target", "type", "read_only", "consistency"}
        if not isinstance(one, Mapping) or not {"source", "target"} <= one.keys() <= known:
            raise SettingError(
                "mounts", f"{one!r} must have source, target, type and read_only, and no more"
            )
        if one.get("type", "volume") != "bind":
            raise SettingError(
                "mounts",
                f"{one['source']!r}: only type bind; Docker's own volumes are not mounted: "
                "use a folder, and `servers.mounts`",
            )
        yield Asked(
            "mounts", str(one["source"]), str(one["target"]), bool(one.get("read_only", False))
        )


def _volumes(setting: str, volumes: Mapping[str, Any], usual: str) -> Iterator[Asked]:
    for source, what in volumes.items():
        said = what if isinstance(what, Mapping) else {"bind": what}
        mode = said.get("mode", usual)
        if "bind" not in said or not said.keys() <= {"bind", "mode"} or mode not in ("ro", "rw"):
            raise SettingError(
                setting, f"{source!r}: {what!r} must be a folder, or bind with mode ro or rw"
            )
        yield Asked(setting, source, str(said["bind"]), mode == "ro")


def in_site(asked: Asked, mounts: Mapping[str, Mount], username: str | None = None) -> str:
    """The name in ``servers.mounts`` of what is asked. Raises SettingError, with what to write.

    Without a ``username``, templates are compared.
    """
    source, target = asked.source, asked.target
    if username is None:
        source, target = (_FIELD.sub("{username}", one) for one in (source, target))
    source, target = source.rstrip("/") or "/", target.rstrip("/") or "/"
    if not source.startswith("/"):
        raise SettingError(
            asked.setting,
            f"{asked.source!r} is a volume of Docker's own, which is not mounted: use a folder, "
            "and `servers.mounts`",
        )
    for name, mount in mounts.items():
        if (source, target) != (mount.places(username or "{username}")):
            continue
        if mount.read_only is not asked.read_only:
            is_now, wanted = str(mount.read_only).lower(), str(asked.read_only).lower()
            raise SettingError(
                asked.setting,
                f"{asked.source!r} needs read_only: {wanted}, and `servers.mounts.{name}` in the "
                f"site file has read_only: {is_now}",
            )
        return name
    raise SettingError(
        asked.setting,
        f"{source} at {target} is not in `servers.mounts` of the site file; to allow it, write "
        f"there: NAME: {{source: {source!r}, target: {target!r}, "
        f"read_only: {str(asked.read_only).lower()}}}",
    )


def chosen_mounts(
    mounts: Mapping[str, Mount], asked: Iterable[str], scopes: Collection[str] = ()
) -> tuple[str, ...]:
    """Names of what a server gets: what every one gets, and what is asked, which goes first.

    Of both only what is for somebody who is in these teams and courses (``team-NAME``).
    """
    wanted = {name for name in asked if mounts[name].is_for(scopes)}
    taken = {mounts[name].target for name in wanted}
    usual = {
        name
        for name, mount in mounts.items()
        if not mount.only_if_asked and mount.target not in taken and mount.is_for(scopes)
    }
    return tuple(sorted(usual | wanted))


# -- limits ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ceiling:
    """The most that one server may use, whatever its size; None: as the site file says."""

    memory: int | None = None
    cpu: float | None = None
    pids: int | None = None
    shared_memory: int | None = None

    def of(self, size: Size) -> Size:
        """A size under this ceiling."""
        memory, cpu = self.memory or size.memory_bytes, self.cpu or size.cpu
        return Size(
            title=size.title,
            cpu=min(cpu, size.cpu),
            memory=str(min(memory, size.memory_bytes)),
            guarantee=str(min(memory, size.guaranteed_bytes)),
            only_for=size.only_for,
            default=size.default,
        )


def ceiling(mem_limit: object, cpu_limit: Any, host_config: Mapping[str, Any]) -> Ceiling:
    """From the three settings that limit. Raises SettingError."""
    _check_host_keys(host_config)
    try:
        said = (_memory(mem_limit), _engine_bytes(host_config.get("mem_limit")))
        memories = [amount for amount in said if amount]
        cpus = [float(cpu_limit)] if cpu_limit else []
        if quota := host_config.get("cpu_quota"):
            cpus.append(int(quota) / int(host_config.get("cpu_period") or 100_000))
        return Ceiling(
            min(memories, default=None),
            min(cpus, default=None),
            int(host_config.get("pids_limit") or 0) or None,
            _engine_bytes(host_config.get("shm_size")) or None,
        )
    except (TypeError, ValueError, ArithmeticError) as error:
        raise SettingError("extra_host_config", str(error)) from error


def _engine_bytes(value: object) -> int:
    """An amount as Docker reads it: bytes, or "2g", "512mb"; 0 for none."""
    return parse_bytes(str(value).upper().removesuffix("B")) if value else 0


def _memory(value: object) -> int:
    """JupyterHub's amount of memory, ``"2G"`` or bytes; 0 for none."""
    if not value:
        return 0
    try:
        return int(ByteSpecification().validate(None, value))
    except (TraitError, TypeError, ValueError) as error:
        raise SettingError("mem_limit", f"{value!r} is no amount of memory, such as 2G") from error


def _check_host_keys(host_config: Mapping[str, Any]) -> None:
    for key in host_config:
        if key not in _LIMITS:
            use = _HOST_KEYS.get(key, "nothing: what a container may do is fixed")
            raise SettingError("extra_host_config", f"{key!r} is refused; use {use}")


def check_ceiling(
    ceiling: Ceiling, sizes: Mapping[str, Size], servers: Servers, settings: Sequence[str]
) -> None:
    """Raises SettingError for a limit that is above all that a server can get: it limits nothing.

    ``settings``: names of what limits memory, cpu, pids and shared memory.
    """
    most_memory = max(size.memory_bytes for size in sizes.values())
    most_cpu = max(size.cpu for size in sizes.values())
    rows: list[tuple[float | None, float, str]] = [
        (ceiling.memory, most_memory, "`sizes.<name>.memory`"),
        (ceiling.cpu, most_cpu, "`sizes.<name>.cpu`"),
        (ceiling.pids, servers.pids, "`servers.pids`"),
        (ceiling.shared_memory, parse_bytes(servers.shared_memory), "`servers.shared_memory`"),
    ]
    for setting, (value, most, key) in zip(settings, rows, strict=True):
        if value is not None and value <= 0:
            raise SettingError(setting, f"{value:g} is no limit")
        if value is not None and value > most:
            raise SettingError(
                setting,
                f"{value:.15g} is more than any server gets ({most:.15g}), and settings only "
                f"lower what the site file gives; use {key}",
            )


# -- names of containers ---------------------------------------------------------------------------

NAME_TEMPLATE = "{prefix}-user"


def container_name(template: str, prefix: str, image: str) -> str:
    """How a server's container is called, but for the ending that makes it its own.

    Raises SettingError, also for a template that would show who has a server.
    """
    first = _filled("prefix", prefix, {})
    name = _filled("name_template", template, {"prefix": first, "imagename": image})
    if not _CONTAINER.fullmatch(name):
        raise SettingError(
            "name_template",
            f"{name!r} is no name for Docker; use letters, digits, '.', '_' and '-', and begin "
            "with a letter or digit",
        )
    if len(_filled("name_template", template, {"prefix": first, "imagename": ""})) > MAX_NAME:
        raise SettingError(
            "name_template", f"{name!r} is longer than {MAX_NAME} characters; use a shorter one"
        )
    return name[:MAX_NAME]


def _filled(setting: str, template: str, fields: Mapping[str, str]) -> str:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise SettingError(setting, f"{template!r:.80} is no template: {error}") from error
    text = ""
    for plain, field, form, conversion in parts:
        if field is not None and (field not in fields or form or conversion):
            shown = field + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise SettingError(
                setting,
                f"has {{{shown:.60}}} in it, and only {{prefix}} and {{imagename}} of "
                "name_template are filled in: Docker tells every server the names of all others, "
                "so a person's name in them shows who is online; leave it out, and find a server "
                "by its labels: docker ps --filter label=labcommons.user=NAME (and "
                "labcommons.server)",
            )
        text += plain + fields.get(field or "", "")
    return text


# -- variables and environments --------------------------------------------------------------------


def check_port(port: int) -> None:
    """Raises SettingError for one that a server cannot listen at."""
    if not 1024 <= port <= 65535:
        raise SettingError("port", f"{port} is not from 1024 to 65535")


def check_variables(setting: str, names: Iterable[str]) -> None:
    """Raises SettingError for a variable that only LabCommons sets."""
    for name in names:
        if name in RESERVED or name.upper().startswith(RESERVED_PREFIXES):
            raise SettingError(
                setting,
                f"{name} is LabCommons' own and would not be changed; leave it out (GPUs: `gpus`, "
                "homes: `data/homes`)",
            )


def offered(image: str, allowed: object) -> dict[str, str] | None:
    """Titles of the environments that people may choose, by ``name[:version]``; None: every one.

    Raises SettingError for what is an image's name.
    """
    _check_names("image", [image] if image else [])
    if allowed in ("*", ["*"]) or not (allowed or image):
        found: dict[str, str] = {}
    elif isinstance(allowed, Mapping):
        found = {str(value): "" if key == value else str(key) for key, value in allowed.items()}
    elif isinstance(allowed, list | tuple | set | frozenset):
        found = {str(value): "" for value in allowed}
    elif not allowed:
        found = {image: ""}
    else:
        raise SettingError("allowed_images", f"{allowed!r} must be a list, a dict or '*'")
    _check_names("allowed_images", found)
    return found or None


def _check_names(setting: str, names: Iterable[str]) -> None:
    for name in names:
        if not _ENVIRONMENT.fullmatch(name):
            raise SettingError(
                setting,
                f"{name!r} is no environment; use name or name:version of the catalog "
                "(`labcommons env list`)",
            )


def narrowed(
    catalog: Mapping[str, Sequence[CatalogEntry]], found: Mapping[str, str] | None
) -> Mapping[str, Sequence[CatalogEntry]]:
    """The part of a catalog that is offered, with the titles given to it."""
    if found is None:
        return catalog
    kept: dict[str, Sequence[CatalogEntry]] = {}
    for name, entries in catalog.items():
        titles = {
            version: title
            for wanted, title in found.items()
            for chosen, _, version in [wanted.partition(":")]
            if chosen == name
        }
        part = []
        for entry in entries:
            keys = [key for key in (entry.version, entry.tag or "", "") if key in titles]
            if keys and (title := titles[keys[0]]):
                part.append(replace(entry, words={**entry.words, "title": title}))
            elif keys:
                part.append(entry)
        if part:
            kept[name] = part
    return kept
