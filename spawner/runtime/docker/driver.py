"""Asks the GPUs' driver, in a child process that can be killed when the driver hangs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from commons.errors import RuntimeRefused
from spawner.runtime.messages import GPUS_UNKNOWN

TIMEOUT = 20  # seconds; a driver in trouble can hang for ever
# The number of the machine's own process namespace (Linux, PROC_PID_INIT_INO): anywhere else
# the driver does not list other people's processes.
HOST_NAMESPACE = "pid:[4026531836]"
_SILENT = "NVML does not answer; look at `nvidia-smi` on the host"
_stuck: list[asyncio.subprocess.Process] = []


def _unknown(reason: str) -> RuntimeRefused:
    error = RuntimeRefused(GPUS_UNKNOWN(reason=reason))
    error.status = 502
    return error


async def ask(seconds: float) -> dict[str, Any]:
    """What ``nvml`` says; also whether the driver lists everybody's processes here.

    Takes up to ``seconds`` + TIMEOUT. Raises RuntimeRefused.
    """
    # One that hangs in the driver does not even die: another one would only join it.
    _stuck[:] = [child for child in _stuck if child.returncode is None]
    if _stuck:
        raise _unknown(_SILENT)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "spawner.runtime.docker.nvml",
        f"{seconds:g}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, said = await asyncio.wait_for(child.communicate(), seconds + TIMEOUT)
    except TimeoutError as error:
        raise _unknown(_SILENT) from error
    finally:
        if child.returncode is None:
            child.kill()
            _stuck.append(child)
    if child.returncode:
        reason = said.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no reason given"]
        raise _unknown(
            f"NVML: {reason[0]}; give the agent the driver's utility capability, or set "
            "gpus.source to site or none in the site file"
        )
    try:
        found = json.loads(output)
    except ValueError as error:
        raise _unknown("NVML: the answer is not JSON") from error
    if not isinstance(found, dict):
        raise _unknown("NVML: the answer is no object")
    return {**found, "all_processes": os.readlink("/proc/self/ns/pid") == HOST_NAMESPACE}
