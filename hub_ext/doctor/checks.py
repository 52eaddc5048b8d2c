"""What the hub's container sees: databases, directory, agent, ledger, GPUs, clock."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, func, inspect, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from commons.errors import LabError
from commons.messages import Message, verbatim
from commons.site import site_digest
from commons.store.database import MIGRATIONS
from commons.store.models import EnvironmentVersion, GpuDevice, GpuState, utcnow
from hub_ext.audit.shipper import Standing
from hub_ext.directory.cli import DirectoryOfSite
from hub_ext.directory.report import check as look_at_directory
from hub_ext.doctor import texts
from hub_ext.doctor.registry import Finding, Here, State, check
from hub_ext.site_agreement import differing
from spawner.gpu.ledger import invariants
from spawner.runtime.client import from_environment

HUB_DATABASE = "sqlite:////srv/labcommons/data/hub/jupyterhub.sqlite"
AUDIT_EVERY = 3600.0  # seconds between two looks through the audit trail
APART = 2.0  # seconds by which two clocks may differ


@check("databases")
def databases(here: Here) -> Iterator[Finding]:
    """Whether both answer, are whole, and have the tables of this version."""
    yield from _database(here.store.engine, "labcommons", _head())
    url = here.environ.get("LABCOMMONS_HUB_DATABASE_URL", HUB_DATABASE)
    engine = create_engine(url)
    try:
        yield from _database(engine, "jupyterhub", None)
    finally:
        engine.dispose()


def _head() -> str | None:
    return ScriptDirectory(MIGRATIONS).get_current_head()


def _database(engine: Engine, about: str, head: str | None) -> Iterator[Finding]:
    place = engine.url.render_as_string(hide_password=True)
    sqlite = engine.dialect.name == "sqlite"
    file = engine.url.database
    if sqlite and file and not Path(file).is_file():
        # To connect would make an empty one.
        yield Finding(State.BROKEN, texts.NO_DATABASE(place=place), texts.RESTORE(), about)
        return
    try:
        with engine.connect() as connection:
            wrong = _quick_check(connection) if sqlite else ""
            table = "labcommons_alembic_version" if head else "alembic_version"
            revision = _revision(connection, table)
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", error)).strip()
        damaged = "malformed" in reason or "not a database" in reason
        remedy = texts.RESTORE() if damaged else texts.DATABASE_RUNS()
        yield Finding(
            State.BROKEN, texts.DATABASE_SILENT(place=place, reason=reason), remedy, about
        )
        return
    if wrong:
        yield Finding(
            State.BROKEN, texts.DAMAGED(place=place, reason=wrong), texts.RESTORE(), about
        )
    elif head and revision != head:
        yield Finding(
            State.BROKEN,
            texts.OTHER_SCHEMA(place=place, found=revision, wanted=head),
            texts.MAKE_UP(),
            about,
        )
    else:
        yield Finding(State.OK, texts.DATABASE(place=place, revision=revision), about=about)


def _quick_check(connection: Connection) -> str:
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    return "" if found == "ok" else str(found)


def _revision(connection: Connection, table: str) -> str:
    if not inspect(connection).has_table(table):
        return "–"
    row = connection.exec_driver_sql(f"SELECT version_num FROM {table}").first()  # noqa: S608
    return str(row[0]) if row else "–"


@check("directory")
def directory(here: Here) -> Iterator[Finding]:
    """Whether each server answers, takes our account, and has the base."""
    ours = DirectoryOfSite(here.site)
    log = logging.getLogger("labcommons.doctor")
    report = asyncio.run(look_at_directory(ours.directory, ours.settings, ours.roles, None, log))
    for server, findings in report.servers.items():
        bad = [one for one in findings if one.level != "ok"]
        for one in bad:
            state = State.BROKEN if one.level == "wrong" else State.ADVICE
            yield Finding(state, one.text, one.remedy or texts.LDAP_CHECK(), server)
        if not bad:
            yield Finding(State.OK, texts.DIRECTORY_WELL(), about=server)


@check("agent")
def agent(here: Here) -> Iterator[Finding]:
    """Whether the agent answers over TLS, and goes by our site file."""

    async def ask() -> list[Any]:
        runtime = from_environment(timeout=4)
        try:
            return await runtime.nodes()
        finally:
            await runtime.close()

    try:
        nodes = asyncio.run(ask())
    except (LabError, OSError) as error:
        yield Finding(State.BROKEN, texts.AGENT_SILENT(reason=_said(error)), texts.AGENT_RUNS())
        return
    path = here.environ.get("LABCOMMONS_SITE_FILE")
    other = differing(nodes, site_digest(Path(path))) if path else []
    for node in nodes:
        if node.name in other:
            yield Finding(State.WARNING, texts.OTHER_SITE_FILE(), texts.MAKE_UP(), node.name)
        else:
            yield Finding(State.OK, texts.AGENT_WELL(version=node.version), about=node.name)


def _said(error: BaseException) -> Message:
    found = getattr(error, "message", None)
    return found if isinstance(found, Message) else verbatim(str(error))


@check("ledger")
def ledger(here: Here) -> Iterator[Finding]:
    """What must always hold of leases."""
    broken = here.store.transact(lambda session: invariants.check(session, deep=True), read=True)
    for one in broken:
        yield Finding(State.BROKEN, verbatim(one.message), texts.REPAIR(), one.name)
    if not broken:
        yield Finding(State.OK, texts.LEDGER_WELL())


@check("gpus")
def gpus(here: Here) -> Iterator[Finding]:
    """GPUs that fail, are out of reach, or are taken out."""
    rows = here.store.transact(
        lambda session: session.scalars(select(GpuDevice).where(GpuDevice.present)).all(), read=True
    )
    wrong = [row for row in rows if row.health != "ok" or row.drained_at]
    for row in wrong:
        reason = row.health_reason or row.drain_reason or "–"
        if row.health != "ok":
            state = State.BROKEN if row.health == "failing" else State.WARNING
            text = texts.GPU_FAILS if row.health == "failing" else texts.GPU_LOST
            yield Finding(state, text(reason=reason), texts.LOOK_AT_GPU(), row.id)
        else:
            by = row.drained_by or "–"
            said = texts.GPU_DRAINED(by=by, reason=reason)
            yield Finding(State.ADVICE, said, texts.UNDRAIN(id=row.id), row.id)
    if not wrong:
        yield Finding(State.OK, texts.GPUS_WELL(count=len(rows)))


@check("clock")
def clock(here: Here) -> Iterator[Finding]:
    """Whether hub, database and host have one time, and none has gone back."""
    now = utcnow()

    def look(session: Any) -> tuple[Any, float]:
        latest = session.scalar(select(GpuState.latest))
        if session.get_bind().dialect.name == "sqlite":
            return latest, 0.0  # it has no clock of its own
        there = session.scalar(select(func.now()))
        return latest, (there.timestamp() - here.now.timestamp())

    latest, apart = here.store.transact(look, read=True)
    host = here.facts.get("time")
    ahead = float(host) - here.now.timestamp() if isinstance(host, int | float) else 0.0
    off = {"database": apart, "host": ahead}
    wrong = {name: seconds for name, seconds in off.items() if abs(seconds) > APART}
    for name, seconds in wrong.items():
        said = texts.CLOCKS_DIFFER(seconds=f"{seconds:+.1f}")
        yield Finding(State.WARNING, said, texts.SET_CLOCK(), name)
    if latest and (back := (latest - now).total_seconds()) > APART:
        wrong["ledger"] = back
        said = texts.CLOCK_WENT_BACK(seconds=f"{back:.0f}")
        yield Finding(State.WARNING, said, texts.SET_CLOCK(), "ledger")
    if not wrong:
        yield Finding(State.OK, texts.CLOCKS_AGREE())


@check("environments")
def environments(here: Here) -> Iterator[Finding]:
    """Whether the images of what is offered are on the machine; the host knows (``facts``)."""
    images = here.facts.get("images")
    if not isinstance(images, list):
        return
    rows = here.store.transact(
        lambda session: session.scalars(
            select(EnvironmentVersion).where(
                EnvironmentVersion.withdrawn_at.is_(None), EnvironmentVersion.removed.is_(False)
            )
        ).all(),
        read=True,
    )
    lost = [f"{row.name}:{row.version}" for row in rows if row.image not in images]
    for name in lost:
        yield Finding(State.BROKEN, texts.NO_IMAGE(), texts.BUILD_AGAIN(name=name), name)
    if rows and not lost:
        yield Finding(State.OK, texts.IMAGES_THERE(count=len(rows)))


@check("audit")
def audit(here: Here) -> Iterator[Finding]:
    """Whether the audit trail is whole, by who looks through it, and its targets answer."""
    root = here.data / "audit"
    try:
        said = json.loads((root / "audit" / "state.json").read_bytes())
        age, wrong = here.now.timestamp() - float(said["at"]), list(said["wrong"])
    except (OSError, ValueError, TypeError, KeyError):
        age, wrong = AUDIT_EVERY * 2, []
    if wrong:
        findings = "; ".join(map(str, wrong))
        yield Finding(State.BROKEN, texts.AUDIT_BROKEN(findings=findings), texts.AUDIT_VERIFY())
    elif age >= AUDIT_EVERY * 2:
        minutes = int(age // 60)
        yield Finding(State.WARNING, texts.AUDIT_SILENT(minutes=minutes), texts.AUDIT_SERVICE())
    else:
        yield Finding(State.OK, texts.AUDIT_WELL())
    for target in here.site.audit.targets:
        known = Standing.read(root / "targets" / f"{target.name}.json")
        if known.problem:
            problem = texts.AUDIT_NOT_SENT(since=known.since, problem=known.problem)
            yield Finding(State.WARNING, problem, texts.AUDIT_TARGET(), target.name)
        else:
            yield Finding(State.OK, texts.AUDIT_SENT(), about=target.name)
