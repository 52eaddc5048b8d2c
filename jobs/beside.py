"""The hub's servers and jobs as one, for what keeps leases and what proves that nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from commons.leases import ServerKey, job_of
from commons.store.ends import Ending
from jobs.keeper import JobKeeper
from spawner.gpu.watch.lease_controller import Servers

# Of why a server is stopped: why a job is. Whatever else it is, somebody has asked for it.
WHY = {"preempted": "preempted", "time_limit": "time_limit", "gpu_failed": "lost"}


class ServersAndJobs:
    """What ``lease_controller.Servers`` asks for."""

    def __init__(self, servers: Servers, jobs: JobKeeper) -> None:
        self.servers, self.jobs = servers, jobs

    def known(self) -> set[ServerKey]:
        """All that may have a container or a lease."""
        return {*self.servers.known(), *self.jobs.known()}

    async def start(self, user: str, server: str, options: Mapping[str, Any]) -> None:
        """Raises LookupError for a job, which its own keeper starts: this one is over."""
        if job_of(server) is not None:
            raise LookupError("the job is over")
        await self.servers.start(user, server, options)

    async def stop(self, user: str, server: str, ending: Ending | None = None) -> None:
        """A job ends with time to save; that is not waited for."""
        if job_of(server) is None:
            await self.servers.stop(user, server, ending)
            return
        cause = ending.cause if ending is not None else ""
        await self.jobs.stop((user, server), WHY.get(cause, "cancelled"), getattr(ending, "by", ""))
