"""A server that was started ahead of time, and its owner who comes: it is theirs as it is, or makes
room for what they choose instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyterhub.utils import maybe_future

from commons.errors import LabError
from spawner import options
from spawner.spawner import LabSpawner
from spawner.warm import keeper, records
from spawner.warm.records import Held, State


async def expected(spawner: object) -> tuple[Held, LabSpawner] | None:
    """What is being started or held of a person's server, as long as nobody has opened it."""
    if not isinstance(spawner, LabSpawner) or not spawner.active:
        return None
    user, server = spawner.user.name, spawner.name
    held = await spawner.resources.store.read(lambda s: keeper.expected(s, user, server))
    return (held, spawner) if held is not None else None


def differs(spawner: LabSpawner, asked: Mapping[str, Any] | None) -> bool:
    """Whether somebody asks for something else than what runs; what they do not say is no matter.

    What cannot be understood is something else: it is to be refused as ever.
    """
    if not asked:
        return False
    runs = spawner.user_options
    try:
        said = {key: value for key, value in asked.items() if key in options.KEYS and key != "wait"}
        options.parse(said)
    except LabError:
        return True
    return any(value != _as_it_runs(runs, key) for key, value in said.items())


def _as_it_runs(runs: Mapping[str, Any], key: str) -> Any:
    value = runs.get(key)
    return 0 if key == "gpus" and value is None else "" if value is None else value


async def posted(handler: Any, spawner: LabSpawner) -> Mapping[str, Any]:
    """What the form of this request asks for."""
    form = {
        key: [one.decode("utf-8", "replace") for one in values]
        for key, values in handler.request.body_arguments.items()
    }
    return dict(await maybe_future(spawner.run_options_from_form(form)))


async def linked(handler: Any, spawner: LabSpawner) -> Mapping[str, Any]:
    """What the address of this request asks for."""
    asked = {
        key.removeprefix("opt-"): [one.decode("utf-8", "replace") for one in values]
        for key, values in handler.request.query_arguments.items()
        if key not in ("next", "display_name", "_xsrf")
    }
    return dict(await maybe_future(spawner.options_from_query(asked))) if asked else {}


async def leave(held: Held, spawner: LabSpawner) -> None:
    """From now on the server is its owner's to choose; what runs is to be stopped by the caller."""
    await spawner.resources.store.run(
        lambda session: records.move(session, held, State.THEIRS, records.CHOSE())
    )
