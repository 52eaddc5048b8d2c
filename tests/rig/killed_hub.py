"""A hub that is killed (SIGKILL) before or after the call of a function that a file names.

``python killed_hub.py ARMED`` runs the real hub (settings: LABCOMMONS_HUB_CONFIG). As soon as the
file ARMED says ``before module:Class.function`` or ``after …``, the next such call is its end.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Every step of a start and of a stop, in the order in which they happen.
START = (
    "spawner.gpu.ledger.batches:admit",
    "spawner.gpu.ledger.batches:Admission._answer",
    "spawner.spawner:LabSpawner._wait_for_turn",
    "spawner.server_mounts:prepare",
    "spawner.runtime.client:AgentRuntime.start",
    "spawner.gpu.ledger.transitions:activate",
    "spawner.spawner:LabSpawner._write_run",
    "spawner.spawner:LabSpawner.start",
    "jupyterhub.user:User.spawn",
)
STOP = (
    "spawner.runtime.client:AgentRuntime.stop",
    "spawner.runtime.client:AgentRuntime.remove",
    "spawner.gpu.ledger.transitions:end_all",
    "spawner.spawner:LabSpawner.stop",
    "jupyterhub.user:User.stop",
)


# Whose beginning is no end of another's; KILL_EVERYWHERE=yes: of all.
BEGINS = (START[0], START[4], START[-1], STOP[0], STOP[2], STOP[-1])


def moments(steps: Sequence[str]) -> list[tuple[str, str]]:
    """When and at which step the hub is killed."""
    everywhere = os.environ.get("KILL_EVERYWHERE") == "yes"
    return [
        (when, step)
        for step in steps
        for when in ("before", "after")
        if when == "after" or everywhere or step in BEGINS
    ]


def wrap(function: Callable[..., Any], name: str, armed: Path) -> Callable[..., Any]:
    """The function, with its end of the world."""

    def end(when: str) -> None:
        if armed.exists() and armed.read_text() == f"{when} {name}":
            os.kill(os.getpid(), signal.SIGKILL)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def later(*arguments: Any, **named: Any) -> Any:
            end("before")
            result = await function(*arguments, **named)
            end("after")
            return result

        return later

    @functools.wraps(function)
    def now(*arguments: Any, **named: Any) -> Any:
        end("before")
        result = function(*arguments, **named)
        end("after")
        return result

    return now


def main() -> None:
    armed = Path(sys.argv[1])
    from hub_ext.app import LabCommonsHub

    for name in dict.fromkeys(START + STOP):
        module, _, path = name.partition(":")
        place: Any = importlib.import_module(module)
        *classes, last = path.split(".")
        for part in classes:
            place = getattr(place, part)
        setattr(place, last, wrap(getattr(place, last), name, armed))
    LabCommonsHub.launch_instance(["--config", os.environ["LABCOMMONS_HUB_CONFIG"]])


if __name__ == "__main__":
    main()
