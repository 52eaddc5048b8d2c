"""The provisioner ``labcommons-conda``: a kernel in its activated conda environment."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import time
from collections.abc import Mapping
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Bool, Dict, Float, Int, TraitError, Unicode, validate

from kernels import deaths, limits, usage
from kernels.activation import SCRIPT_TIMEOUT
from kernels.kernel_list import UNUSABLE
from kernels.messages import Message, persons_language, say, why
from kernels.nearest import Wanted
from kernels.preparation import KernelCannotStart, Start, prepare, stand_in, why_it_died

__all__ = ["CondaProvisioner", "KernelCannotStart"]

# Programs whose kernels bind "ipc://PATH-NUMBER": those of ipykernel and all that is built on it,
# and IRkernel. Others (IJulia, Rust's) know TCP alone.
_SPEAKS_IPC = re.compile(r"(?:python|pypy)[\d.]*|R")
# Seconds that looking at the environment may take on top of its activation scripts.
_DISK_TIMEOUT = 10.0
# A kernel that ends by itself within so many seconds most likely never got ready.
_EARLY = 10.0


class CondaProvisioner(LocalProvisioner):
    """Starts a kernel as a shell would in which its environment was activated.

    The environment is the one that ``metadata.labcommons.prefix`` of the kernelspec names,
    looked at anew with each start. Where it cannot start, a stand-in explains why in its
    place, and a restart tries again.
    """

    activation_timeout = Float(
        SCRIPT_TIMEOUT,
        min=0.1,
        help="""Seconds that an environment's activation scripts may take before the start is
        given up, e.g. ``c.CondaProvisioner.activation_timeout = 60``.""",
    ).tag(config=True)

    explain = Bool(
        True,
        help="""Whether a kernel that cannot start is replaced by one that explains it in the
        notebook. Otherwise the start fails with the same words.""",
    ).tag(config=True)

    limits = Dict(
        key_trait=Unicode(),
        value_trait=Int(min=0),
        help="""Limits of each kernel's process (setrlimit(2)), by name, in bytes, seconds or
        numbers; a lower one that is already in force stays.

        Example::

            c.CondaProvisioner.limits = {"RLIMIT_CORE": 0, "RLIMIT_NPROC": 4096}
        """,
    ).tag(config=True)

    nice = Int(
        0,
        min=0,
        max=19,
        help="""How much kernels give way to the server for the CPU, as in nice(1), so that the
        page answers while they compute, e.g. ``c.CondaProvisioner.nice = 5``.""",
    ).tag(config=True)

    variables = Dict(
        value_trait=Unicode(),
        key_trait=Unicode(),
        help="""Variables of kernels in the place of the server's own, e.g. a JUPYTER_PATH with a
        folder that the server itself must not take anything from::

            c.CondaProvisioner.variables = {"JUPYTER_PATH": "/tmp/mine:/opt/registry"}
        """,
    ).tag(config=True)

    @validate("limits")
    def _limits_are_known(self, proposal: Any) -> Any:
        for name in proposal["value"]:
            if not name.startswith("RLIMIT_") or not hasattr(resource, name):
                raise TraitError(
                    f"CondaProvisioner.limits: {name!r} is no limit; see setrlimit(2), "
                    'e.g. "RLIMIT_CORE"'
                )
        return proposal["value"]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._launched = 0.0
        # Its exit status, where it ended early and nobody had asked it to.
        self._died: int | None = None
        self._deaths = 0
        self._asked_to_end = False
        self.explanation = ""

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Check and activate the environment. Raises KernelCannotStart unless it may explain."""
        base = {**kwargs.pop("env", os.environ), **self.variables}
        self.explanation = ""
        try:
            start = await self._prepared(base)
        except KernelCannotStart as error:
            if not self.explain:
                raise
            self.log.warning("Kernel %s: %s", self.kernel_id, error)
            self.explanation = await asyncio.to_thread(self._explain, error.message)
            start = stand_in(self.explanation, base)
        self._use_tcp_where_needed(start)
        known = self.kernel_spec.argv
        self.kernel_spec.argv = list(start.argv)
        try:
            prepared: dict[str, Any] = await super().pre_launch(env=dict(start.env), **kwargs)
        finally:
            self.kernel_spec.argv = known
        return prepared

    def _use_tcp_where_needed(self, start: Start) -> None:
        """Sockets in files (IPC) only for who is known to have them: others would wait for ever."""
        manager = self.parent
        known = _SPEAKS_IPC.fullmatch(os.path.basename(start.argv[0])) or self.explanation
        if manager is None or manager.transport != "ipc" or known:
            return
        manager.transport, manager.ip = "tcp", "127.0.0.1"
        manager.cache_ports = True

    def _explain(self, error: Message) -> str:
        """What the notebook shows, in the person's language: also the kernel to use meanwhile."""
        name = getattr(self.parent, "kernel_name", "")
        nearest = getattr(getattr(self.parent, "kernel_spec_manager", None), "nearest", None)
        language = self.kernel_spec.language
        wanted = Wanted(name, "python" if language == UNUSABLE else language)
        found = nearest(wanted, besides=name) if nearest else None
        what_next = (
            say(
                "then_restart_or_use",
                kernel=found.candidate.shown,
            )
            if found
            else say("then_restart")
        )
        mine = persons_language()
        return f"{error.in_words(mine)}\n{what_next.in_words(mine)}"

    async def _prepared(self, base: Mapping[str, str]) -> Start:
        died, self._died = self._died, None
        spec, timeout = self.kernel_spec, self.activation_timeout
        work = asyncio.to_thread(prepare, spec.metadata, spec.argv, base, timeout)
        try:
            start = await asyncio.wait_for(work, timeout + _DISK_TIMEOUT)
        except TimeoutError:
            raise KernelCannotStart(
                say(
                    "kernel_storage_silent",
                    kernel=repr(spec.display_name),
                )
            ) from None
        if died is not None:
            reason = await asyncio.to_thread(why_it_died, start, died, self._deaths)
            if reason:
                raise KernelCannotStart(reason)
        return start

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the process. Raises KernelCannotStart."""
        try:
            info = await super().launch_kernel(cmd, **kwargs)
        except OSError as error:
            reason = say(
                "kernel_program_fails",
                program=cmd[0],
                error=why(error),
            )
            if not self.explain or self.explanation:
                raise KernelCannotStart(reason) from error
            self.explanation = reason.in_words(persons_language())
            start = stand_in(self.explanation, kwargs.pop("env", os.environ))
            file = getattr(self.parent, "connection_file", "")
            command = [each.format(connection_file=file) for each in start.argv]
            info = await super().launch_kernel(command, env=dict(start.env), **kwargs)
        self._launched, self._asked_to_end = time.monotonic(), False
        if self.parent is not None and self._was_ready():  # the one before it was
            self.parent.execution_state = "starting"
        self._limit()
        if not self.explanation:
            usage.started(self.kernel_spec.name, self.kernel_spec.metadata.get("labcommons"))
        return info

    def _limit(self) -> None:
        """Apply the site's limits: from outside, as a server with threads must not fork code."""
        process = self.process
        if process is None:
            return
        try:
            if self.explanation:
                limits.apply(process.pid, {}, 0)
            else:
                limits.apply(process.pid, self.limits, self.nice)
        except (OSError, ValueError) as error:
            self.log.warning("Kernel %s runs without its limits: %s", self.kernel_id, error)

    async def poll(self) -> int | None:
        """Whether it runs (None), else its exit status."""
        peak = deaths.reap(self.process) if self.process is not None else 0
        code: int | None = await super().poll()
        if code is not None and self.process is not None and not self._asked_to_end:
            self._asked_to_end = True  # said once
            early = not self._was_ready() and time.monotonic() - self._launched < _EARLY
            self._deaths = self._deaths + 1 if early else 0
            self._died = code if early else None
            spec = self.kernel_spec
            deaths.tell(deaths.Death(str(self.kernel_id), spec.display_name, code, peak))
        return code

    def _was_ready(self) -> bool:
        """Whether it has answered, as a Jupyter server sees it: what ends it then is its cells."""
        return getattr(self.parent, "execution_state", "") in ("idle", "busy")

    async def kill(self, restart: bool = False) -> None:
        """End it at once."""
        await self.poll()
        self._asked_to_end = True
        await super().kill(restart)

    async def terminate(self, restart: bool = False) -> None:
        """Ask the process to end."""
        await self.poll()
        self._asked_to_end = True
        await super().terminate(restart)

    async def shutdown_requested(self, restart: bool = False) -> None:
        """The kernel was asked to end by a message."""
        self._asked_to_end = True
        await super().shutdown_requested(restart)
