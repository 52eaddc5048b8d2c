"""One attempt of a job, from what was asked to what the runtime is told: as its owner's server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from commons import frozen
from commons.leases import job_server
from commons.messages import Message
from commons.principal import Principal
from commons.scopes import Scope
from commons.site import Site, parse_bytes
from commons.store.models import Job
from jobs import records
from spawner import exams, options, storage
from spawner.options.choice import Choice
from spawner.runtime.spec import Account, Gpus, JobRun, Limits, ServerSpec
from spawner.server_mounts import Outfit
from spawner.settings.server import ServerSettings


class NotYet(Exception):
    """It cannot be now, and may be later."""

    def __init__(self, reason: Message) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True)
class Plan:
    """What a job stands for now.

    Attributes:
        read_only: scopes in whose folders nobody writes.
    """

    choice: Choice
    who: Principal
    settings: ServerSettings
    read_only: frozenset[str]

    @property
    def pinned(self) -> str:
        """The environment, with its version."""
        return f"{self.choice.entry.name}:{self.choice.entry.version}"

    @property
    def account(self) -> Account:
        """Raises NotAllowed where the directory did not say the numbers."""
        uid, gid, gids = self.who.numbers()
        return Account(uid=uid, gid=gid, gids=gids)


def resolve(
    session: Session, row: Job, who: Principal, site: Site, settings: ServerSettings
) -> Plan:
    """Raises LabError for what cannot be had as it was asked, NotYet for what can be later."""
    if (sitting := exams.begun(session, who.name)) is not None:
        ends = exams.seconds(sitting.ends_at)
        raise NotYet(exams.EXAM_ON(exam=sitting.exam, course=sitting.course, ends_at=ends))
    site = settings.site(site)
    asked: dict[str, Any] = dict(row.options)
    if row.environment:
        asked["environment"] = row.environment
    request = options.parse(settings.asked(asked))
    entries = settings.catalog(options.offered(session, who, packages=False))
    choice = options.resolve(request, entries, site, who)
    shut = frozen.courses(session)
    frozen.check_account(choice.account, shut)
    sizes = options.sizes_for(who, site)
    storage.check(session, who, choice.size_name, choice.gpus, sizes, site)
    return Plan(choice, who, settings, frozenset(Scope("course", one).source for one in shut))


def spec(row: Job, plan: Plan, outfit: Outfit, grant: Gpus | None, site: Site) -> ServerSpec:
    """What the runtime is told of one attempt."""
    choice, servers, settings = plan.choice, site.servers, plan.settings
    entry = choice.entry.runs_in
    limits = Limits(
        cpu=choice.size.cpu,
        memory=choice.size.memory_bytes,
        guaranteed=choice.size.guaranteed_bytes,
        pids=min(settings.ceiling.pids or servers.pids, servers.pids),
        shared_memory=settings.shared_memory(servers),
        tmp=parse_bytes(servers.tmp),
    )
    return ServerSpec(
        user=row.username,
        server=job_server(row.id),
        account=outfit.who,
        image=entry.image_id,
        environment=entry.name,
        version=entry.version,
        limits=limits,
        scopes=outfit.scopes,
        read_only=tuple(one for one in outfit.scopes if one in plan.read_only),
        mounts=settings.mounts,
        gpus=grant,
        env={**outfit.env, **_variables(row, plan, limits)},
        args=(row.folder or ".", *row.command),
        # `make up` stops what was told of others.
        addresses=os.environ.get("LABCOMMONS_ADDRESSES", ""),
        name=f"job-{row.id}-{row.attempt}",
        job=JobRun(id=row.id, attempt=row.attempt),
    )


def _variables(row: Job, plan: Plan, limits: Limits) -> Mapping[str, str]:
    """A job has no token: nothing of the hub's is open to it."""
    entry, chosen = plan.choice.entry, {}
    if entry.runs_in is not entry:
        chosen["LABCOMMONS_CHOSEN"] = entry.prefix
    if row.array is not None:
        # Slurm's name, too, which many programs read.
        chosen |= {"LABCOMMONS_TASK": str(row.task), "SLURM_ARRAY_TASK_ID": str(row.task)}
    return {
        **chosen,
        "JUPYTERHUB_USER": row.username,
        "LABCOMMONS_JOB": records.name(row),
        "LABCOMMONS_ATTEMPT": str(row.attempt),
        "LABCOMMONS_LANGUAGE": plan.who.language,
        "MEM_LIMIT": str(limits.memory),
        "CPU_LIMIT": f"{limits.cpu:g}",
    }
