"""Work of the night that a builder does, beside which no program of a package runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from commons.errors import LabError
from commons.messages import Message
from environments.builds.build_container import read_event
from spawner.runtime.protocol import Runtime
from spawner.runtime.spec import ImageStep, Limits

LONGEST = 3600.0  # seconds for one
_LIMITS = Limits(cpu=1, memory=2**30, pids=128, shared_memory=2**26, tmp=2**30)


class NoEnd(Exception):
    """It came to no end."""


async def in_builder(runtime: Runtime, job_id: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """The result of one work (``environments.builds.task_main``); a container that an earlier hub
    began is found. Raises NoEnd, LabError.
    """
    handle = await runtime.begin(ImageStep(job_id=job_id, limits=_LIMITS, job=json.dumps(job)))
    try:
        async with asyncio.timeout(LONGEST):
            return await _result(runtime, handle)
    except TimeoutError:
        raise NoEnd(f"no end after {LONGEST:.0f} s") from None
    finally:
        with suppress(LabError):  # else the next start of the hub removes it
            await runtime.remove(handle)


async def _result(runtime: Runtime, handle: str) -> dict[str, Any]:
    found, why, last = None, "", ""
    async for line in runtime.follow(handle):
        event = await asyncio.to_thread(read_event, line)
        if isinstance(event.get("result"), dict):
            found = event["result"]
        elif "error" in event:
            why = str(Message.from_json(event.get("message") or event["error"]))
        elif isinstance(said := event.get("log"), str) and said.strip():
            last = said.strip()[:500]
    end = await runtime.task_end(handle)
    if found is None or end is None or end.exit_code:
        raise NoEnd(why or f"it ended without a result ({last or 'and said nothing'})")
    return dict(found)
