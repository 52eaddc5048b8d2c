"""What the hub looks at before it starts: settings that would not do what they say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from traitlets import HasTraits
from traitlets.config import Config
from traitlets.config.loader import DeferredConfig, LazyConfigValue

from commons.site import Site
from spawner.settings import values
from spawner.settings.table import ALIASES, SYSTEM_USER, UseInstead, rule_of
from spawner.settings.values import Asked, SettingError


def problems(config: Config, spawner_class: type[HasTraits], site: Site) -> list[str]:
    """One line for each setting of spawners that this hub cannot follow, with what to use."""
    known = {one.__name__ for one in spawner_class.__mro__}
    found: list[str] = []
    for section, settings in sorted(config.items()):
        if section in known and section.endswith("Spawner"):
            said = {name: _value(spawner_class, name, raw) for name, raw in settings.items()}
            found += _lines(section, _of(said, spawner_class, site))
        elif section.endswith("Spawner") and isinstance(settings, Config):
            found += [f"c.{section}.{name}: {_elsewhere(section, name)}" for name in settings]
    return found


def network_name(site: Site) -> str:
    """The network of servers: the site file's, or as `make up` calls it on this machine."""
    return os.environ.get("LABCOMMONS_USERS_NETWORK") or site.servers.network


def name_prefix() -> str:
    """How the names of this site's containers begin."""
    return os.environ.get("LABCOMMONS_SITE_ID", "labcommons")[:25]  # room for "-user"


def _lines(section: str, errors: Iterable[SettingError]) -> list[str]:
    return [f"c.{section}.{error.setting}: {error.problem}" for error in errors]


def _value(spawner_class: type[HasTraits], name: str, raw: Any) -> Any:
    """What a section says of a setting, also by ``.update(…)`` or on the command line."""
    trait = spawner_class.class_traits().get(name)
    if isinstance(raw, LazyConfigValue):
        return raw.get_value(trait.default() if trait else None)
    if isinstance(raw, DeferredConfig) and trait:
        return raw.get_value(trait)
    return raw


def _elsewhere(section: str, name: str) -> str:
    rule = rule_of(name)
    if name in SYSTEM_USER and isinstance(rule, UseInstead):
        return f"has no effect; use {rule.use}"
    if rule is None:
        return f"{section} is not the spawner here, and this has no effect; leave it out"
    return f"{section} is not the spawner here; write c.DockerSpawner.{name}"


def _of(
    said: Mapping[str, Any], spawner_class: type[HasTraits], site: Site
) -> Iterator[SettingError]:
    """What is wrong with some settings, by their own or former names."""
    for name, value in said.items():
        if wrong := refusal(name, value) or _unknown(name, spawner_class):
            yield wrong
    settings = {ALIASES.get(name, name): value for name, value in said.items()}
    for check in (_folders, _limits, _variables, _environments, _names, _places):
        try:
            check(settings, site)
        except SettingError as caught:
            yield caught
    overrides = settings.get("group_overrides")
    if isinstance(overrides, Mapping):
        for key, one in overrides.items():
            inner = one.get("spawner_override") if isinstance(one, Mapping) else None
            # What a callable will say is looked at when it is asked.
            plain = {n: v for n, v in (inner or {}).items() if not callable(v)}
            for error in _of(plain, spawner_class, site):
                yield SettingError(f"group_overrides[{key!r}].{error.setting}", error.problem)


def refusal(name: str, value: Any) -> SettingError | None:
    """Why a setting cannot have a value here, as the table says."""
    rule = rule_of(name)
    if isinstance(rule, UseInstead) and not rule.takes(value):
        return SettingError(name, f"has no effect as {value!r:.80}; use {rule.use}")
    return None


def _unknown(name: str, spawner_class: type[HasTraits]) -> SettingError | None:
    if name in spawner_class.class_traits(config=True):
        return None
    return SettingError(name, "there is no such setting; look at its spelling, or leave it out")


def _folders(said: Mapping[str, Any], site: Site) -> None:
    asked = values.mounts_asked(
        said.get("volumes") or {}, said.get("read_only_volumes") or {}, said.get("mounts") or ()
    )
    for one in asked:
        # What other templates become is known when a server starts.
        if not said.get("format_volume_name") and _only_names(one):
            values.in_site(one, site.servers.mounts)


def _only_names(asked: Asked) -> bool:
    for text in (asked.source, asked.target):
        rest = text
        for field in ("{username}", "{raw_username}", "{safe_username}"):
            rest = rest.replace(field, "")
        if "{" in rest:
            return False
    return True


def _limits(said: Mapping[str, Any], site: Site) -> None:
    host = said.get("extra_host_config")
    for memory, cpu, host_config, names in (
        (said.get("mem_limit"), None, {}, ("mem_limit",) * 4),
        (None, said.get("cpu_limit"), {}, ("cpu_limit",) * 4),
        (None, None, host, ("extra_host_config",) * 4),
    ):
        if callable(memory) or callable(cpu) or callable(host_config):
            continue
        found = values.ceiling(memory, cpu, host_config or {})
        values.check_ceiling(found, site.sizes, site.servers, names)


def _variables(said: Mapping[str, Any], _site: Site) -> None:
    for name in ("environment", "env_keep"):
        values.check_variables(name, said.get(name) or ())


def _environments(said: Mapping[str, Any], _site: Site) -> None:
    allowed = said.get("allowed_images")
    values.offered(said.get("image") or "", None if callable(allowed) else allowed)


def _names(said: Mapping[str, Any], _site: Site) -> None:
    template, prefix = said.get("name_template"), said.get("prefix")
    values.container_name(template or values.NAME_TEMPLATE, prefix or name_prefix(), "image")


def _places(said: Mapping[str, Any], site: Site) -> None:
    network = said.get("network_name")
    if network and network != network_name(site):
        raise SettingError("network_name", f"is {network_name(site)}; use `servers.network`")
    if "port" in said:
        values.check_port(said["port"])
