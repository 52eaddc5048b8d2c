"""Who runs something of an environment at this moment, seen by the processes of users' servers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from spawner.container import LABEL_SITE, LABEL_USER
from spawner.engine import Engine
from spawner.errors import SpawnerError
from spawner.tiers.tier import VERSIONS, Kind, Tier


def versions_used(tier: Tier, name: str, commands: Iterable[str]) -> set[str]:
    """The versions that commands are run from; ``""`` stands for the one that the link leads to."""
    envs = re.escape(str(tier.environments))
    pattern = re.compile(
        rf"{envs}/(?:{re.escape(VERSIONS)}/{re.escape(name)}/([^/\s]+)|{re.escape(name)})/"
    )
    return {match[1] or "" for command in commands for match in pattern.finditer(command)}


async def users_of(engine: Engine, site_id: str, tier: Tier, name: str) -> dict[str, set[str]]:
    """Versions in use by the name of each person who runs something of them.

    A person's own environment is looked for in that person's servers only. Raises
    EngineUnavailable; a server that ends meanwhile uses nothing.
    """
    found: dict[str, set[str]] = {}
    for container in await engine.list(f"{LABEL_SITE}={site_id}"):
        user = container.labels.get(LABEL_USER)
        if user is None or container.status != "running":
            continue
        if tier.kind is Kind.PERSONAL and user != tier.owner:
            continue
        used = versions_used(tier, name, await _commands(engine, container.id))
        if used:
            found.setdefault(user, set()).update(used)
    return found


async def _commands(engine: Engine, container: str) -> Iterable[str]:
    try:
        return await engine.processes(container)
    except SpawnerError as error:
        if error.code == "engine_silent":
            raise
        return []
