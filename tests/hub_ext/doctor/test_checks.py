"""Each check of the hub's, shown well and shown red."""

from __future__ import annotations

import copy
import json
import re
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import update
from sqlalchemy.orm import Session

from commons.leases import LeaseState
from commons.site import Site
from commons.site.storage import Storage
from commons.store import Store, prunes
from commons.store.models import (
    DiskUse,
    EnvironmentVersion,
    GpuDevice,
    GpuState,
    Lease,
    LeaseDevice,
    utcnow,
)
from deploy import host_checks
from hub_ext.audit.shipper import Standing
from hub_ext.doctor import checks, compared, registry
from hub_ext.doctor import storage as doctor_storage
from hub_ext.doctor.cli import doctor
from hub_ext.doctor.registry import Finding, Here, State, examine
from spawner.runtime import labels
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.protocol import AreaLimits, ServerState


@pytest.fixture
def here(tmp_path: Path, site: Site) -> Iterator[Here]:
    """A site whose databases are new."""
    ours = f"sqlite:///{tmp_path / 'ours.sqlite'}"
    store = Store(ours)
    store.migrate()
    store.close()
    sqlite3.connect(tmp_path / "hub.sqlite").execute("CREATE TABLE users (id INTEGER)")
    environ = {
        "LABCOMMONS_DATABASE_URL": ours,
        "LABCOMMONS_HUB_DATABASE_URL": f"sqlite:///{tmp_path / 'hub.sqlite'}",
    }
    one = Here(site, tmp_path, environ=environ)
    yield one
    one.store.close()


def states(here: Here, name: str) -> dict[str, str]:
    """What a check found, by what it is about; each that is not well says what to do."""
    rows = examine(here, {name: registry.CHECKS[name]})
    for row in rows:
        assert row["cause"]["en"]
        assert row["cause"]["zh_CN"]
        assert row["state"] == "ok" or (row["remedy"]["en"] and row["remedy"]["zh_CN"])
    return {row["about"]: row["state"] for row in rows}


def change(here: Here, *statements: object) -> None:
    def work(session: Session) -> None:
        for one in statements:
            session.add(one) if hasattr(one, "__tablename__") else session.execute(one)  # type: ignore[call-overload]

    here.store.transact(work)


def test_databases_that_are_well(here: Here) -> None:
    assert states(here, "databases") == {"labcommons": "ok", "jupyterhub": "ok"}


def test_a_database_that_is_not_there_is_not_made(here: Here) -> None:
    (here.data / "hub.sqlite").unlink()
    assert states(here, "databases")["jupyterhub"] == "broken"
    assert not (here.data / "hub.sqlite").exists()


def test_a_damaged_database(here: Here) -> None:
    here.store.engine.dispose()
    file = here.data / "hub.sqlite"
    file.write_bytes(b"not a database at all" * 200)
    assert states(here, "databases")["jupyterhub"] == "broken"


def test_tables_of_another_version(here: Here) -> None:
    with here.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE labcommons_alembic_version SET version_num = '0001'")
    assert states(here, "databases")["labcommons"] == "broken"


def test_a_directory_that_does_not_answer(here: Here) -> None:
    found = states(here, "directory")
    assert "broken" in found.values()


def test_an_agent_that_does_not_answer(here: Here) -> None:
    assert states(here, "agent") == {"": "broken"}


def gpu(**values: object) -> GpuDevice:
    return GpuDevice(id="GPU-1", model="A100", memory=1, **values)


@pytest.mark.parametrize(
    ("device", "state"),
    [
        (gpu(), "ok"),
        (gpu(health="failing", health_reason="XID 79"), "broken"),
        (gpu(health="lost"), "warning"),
        (gpu(drained_at=utcnow(), drained_by="carol"), "advice"),
    ],
)
def test_gpus(here: Here, device: GpuDevice, state: str) -> None:
    change(here, device)
    assert list(states(here, "gpus").values()) == [state]


def test_clocks(here: Here) -> None:
    assert states(here, "clock") == {"": "ok"}
    apart = Here(
        here.site, here.data, environ=here.environ, facts={"time": here.now.timestamp() + 60}
    )
    assert states(apart, "clock") == {"host": "warning"}


def test_a_clock_that_was_set_back(here: Here) -> None:
    later = utcnow() + timedelta(hours=1)
    change(here, update(GpuState).values(latest=later))
    assert states(here, "clock") == {"ledger": "warning"}


def test_a_ledger_that_is_not_as_it_must_be(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    assert states(here, "ledger") == {"": "ok"}
    broken = [checks.invariants.Finding("one holder", "two hold GPU-1")]
    monkeypatch.setattr(checks.invariants, "check", lambda *_args, **_named: broken)
    assert states(here, "ledger") == {"one holder": "broken"}


RUNNING = ServerState(
    handle="c1",
    user="alice",
    server="",
    status="running",
    labels={labels.LEASE: "L1", labels.GPUS: "GPU-1"},
)


def lease(state: LeaseState = LeaseState.ACTIVE, device: str = "GPU-1") -> Lease:
    one = Lease(id="L1", username="alice", state=state, gpus=1)
    one.devices = [LeaseDevice(device_id=device, slot=0)]
    return one


@pytest.mark.parametrize(
    ("containers", "rows", "found"),
    [
        ([], [], {"": "ok"}),
        ([RUNNING], [lease()], {"": "ok"}),
        ([RUNNING], [lease(LeaseState.HELD)], {"": "ok"}),
        ([], [lease(LeaseState.HELD)], {"": "ok"}),  # it is being started
        ([], [lease()], {"L1": "warning"}),
        ([RUNNING.model_copy(update={"status": "exited"})], [lease()], {"L1": "warning"}),
        ([RUNNING], [], {"L1": "broken"}),
        ([RUNNING], [lease(LeaseState.ENDED)], {"L1": "broken"}),
        ([RUNNING], [lease(device="GPU-2")], {"L1": "broken"}),
    ],
)
def test_leases_against_what_runs(
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
    containers: list[ServerState],
    rows: list[Lease],
    found: dict[str, str],
) -> None:
    runtime = look_at(monkeypatch)
    runtime.servers = {one.handle: one for one in containers}
    change(here, gpu(), GpuDevice(id="GPU-2", model="A100", memory=1))
    change(here, *(copy.deepcopy(row) for row in rows))
    assert states(here, "leases") == found
    assert runtime.calls["list"] == (1 if found == {"": "ok"} else 2)


def look_at(monkeypatch: pytest.MonkeyPatch) -> MemoryRuntime:
    runtime = MemoryRuntime()
    monkeypatch.setattr(compared, "from_environment", lambda **_named: runtime)
    monkeypatch.setattr(compared, "AGAIN", 0.0)
    return runtime


def test_a_server_that_starts_or_ends_at_this_moment_is_no_fault(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = look_at(monkeypatch)
    runtime.servers = {"c1": RUNNING}  # the lease is not written yet
    listed = runtime.list

    async def and_then() -> list[ServerState]:
        found = await listed()
        if runtime.calls["list"] == 2:
            change(here, gpu(), lease())
        return found

    monkeypatch.setattr(runtime, "list", and_then)
    assert states(here, "leases") == {"": "ok"}


def test_leases_where_the_agent_is_silent_are_not_known(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at(monkeypatch).silence()
    assert states(here, "leases") == {"": "unknown"}


def test_images_of_environments(here: Here) -> None:
    change(here, version())
    there = Here(here.site, here.data, environ=here.environ, facts={"images": ["lab/env-a:1"]})
    gone = Here(here.site, here.data, environ=here.environ, facts={"images": []})
    assert states(there, "environments") == {"": "ok"}
    assert states(gone, "environments") == {"a:1": "broken"}


def version() -> EnvironmentVersion:
    empty: dict[str, list[object]] = {
        "channels": [],
        "main_packages": [],
        "packages": [],
        "findings": [],
    }
    return EnvironmentVersion(
        name="a",
        version="1",
        image="lab/env-a:1",
        image_id="sha256:1",
        prefix="/opt",
        lock_digest="1",
        words={},
        kernelspecs={},
        **empty,
    )


def test_what_hangs_or_raises_is_unknown_and_the_others_go_on(here: Here) -> None:
    released = threading.Event()

    def hangs(_here: Here) -> list[Finding]:
        released.wait(30)
        return []

    def raises(_here: Here) -> list[Finding]:
        raise RuntimeError("nobody expects this")

    def well(_here: Here) -> list[Finding]:
        return [Finding(State.OK, checks.texts.CLOCKS_AGREE())]

    rows = examine(here, {"a": hangs, "b": raises, "c": well}, limit=0.2)
    released.set()
    assert [row["state"] for row in rows] == ["unknown", "unknown", "ok"]
    assert rows[0]["cause"]["en"] == "no answer after 0.2 s"
    assert "nobody expects this" in rows[1]["cause"]["en"]
    assert registry.exit_code(rows) == 1
    assert registry.exit_code([*rows, {"state": "broken"}]) == 2
    assert registry.exit_code(rows[2:]) == 0


def test_a_check_that_there_is_not_is_named() -> None:
    done = CliRunner().invoke(doctor, ["nothing"])
    assert done.exit_code == 2
    assert "there are: " in done.output
    assert "databases, directory" in done.output


@pytest.mark.parametrize(
    ("days", "own", "state"),
    [
        (200, False, "ok"),
        (29.5, False, "ok"),
        (20, False, "warning"),
        (29.5, True, "warning"),
        (-1, False, "broken"),
    ],
)
def test_certificates(here: Here, days: float, own: bool, state: str) -> None:
    write_ends(here, days, own)
    assert states(here, "certificates") == {"served": state}


@pytest.mark.parametrize(("left", "state"), [(2.0, "ok"), (1.0, "warning")])
def test_a_certificate_that_lives_for_six_days_is_told_of_in_its_last_quarter(
    here: Here, left: float, state: str
) -> None:
    write_ends(here, left, False, lifetime=6.0)
    assert states(here, "certificates") == {"served": state}


def test_certificates_that_are_not_renewed_and_a_keeper_that_is_away(here: Here) -> None:
    assert states(here, "certificates") == {"keeper": "warning"}
    write_ends(here, 200, False, problem="the disk is full")
    assert states(here, "certificates") == {"keeper": "warning", "served": "ok"}
    write_ends(here, 200, False, ago=timedelta(hours=4))
    assert states(here, "certificates") == {"keeper": "warning", "served": "ok"}


def write_ends(
    here: Here,
    days: float,
    own: bool,
    problem: str = "",
    ago: timedelta = timedelta(),
    lifetime: float = 365.0,
) -> None:
    end = (here.now + timedelta(days=days)).isoformat()
    known = {
        "at": (here.now - ago).isoformat(),
        "problem": problem,
        "certificates": [{"name": "served", "own": own, "not_after": end, "days": lifetime}],
    }
    (here.data / "health").mkdir(exist_ok=True)
    (here.data / "health" / "certificates.json").write_text(json.dumps(known))


def test_an_audit_trail_that_is_broken_unwatched_or_not_sent(here: Here) -> None:
    target = {"name": "siem", "kind": "syslog", "url": "tls://logs.example.org"}
    audit = here.site.audit.model_validate({"targets": [target]})
    here = replace(here, site=here.site.model_copy(update={"audit": audit}))
    root = here.data / "audit"
    (root / "audit").mkdir(parents=True)
    assert states(here, "audit") == {"": "warning", "siem": "ok"}

    def looked(*wrong: str) -> None:
        said = {"at": here.now.timestamp(), "wrong": wrong}
        (root / "audit" / "state.json").write_text(json.dumps(said))

    looked()
    assert states(here, "audit") == {"": "ok", "siem": "ok"}
    looked("hub/2026-11-27.jsonl, line 3: changed")
    (root / "targets").mkdir()
    Standing(problem="it is away", since="2026-11-27T09:00").write(root / "targets" / "siem.json")
    assert states(here, "audit") == {"": "broken", "siem": "warning"}


def test_the_runbook_has_every_check() -> None:
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text("utf-8")
    table = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(table) == sorted(registry.CHECKS.keys() | host_checks.CHECKS.keys())


def test_every_check_has_a_test_here() -> None:
    text = Path(__file__).read_text("utf-8")
    ours = [
        name
        for name, one in registry.CHECKS.items()
        if one.__module__.startswith("hub_ext.doctor.c")
    ]
    assert [name for name in ours if f'"{name}")' not in text] == []


def test_what_nobody_needs_and_is_not_removed(here: Here) -> None:
    assert states(here, "prune") == {"": "advice"}
    here.store.transact(lambda s: prunes.note(s, [], "the agent does not answer"))
    assert states(here, "prune") == {"": "warning"}
    here.store.transact(lambda s: prunes.note(s, [{"kind": "logs", "count": 1, "freed": 5}]))
    assert states(here, "prune") == {"": "ok"}
    later = replace(here, now=here.now + timedelta(hours=50))
    assert states(later, "prune") == {"": "warning"}
    storage = Storage(prune="never")
    never = replace(later, site=here.site.model_copy(update={"storage": storage}))
    assert states(never, "prune") == {"": "ok"}  # by hand, and when is theirs
    later.store.close()
    never.store.close()


def test_limits_that_are_only_watched(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = MemoryRuntime()
    monkeypatch.setattr(doctor_storage, "from_environment", lambda **_named: runtime)
    assert states(here, "quotas") == {"": "ok"}
    runtime.kept_limits = [
        AreaLimits(area="homes", refusal="ENOSYS"),
        AreaLimits(area="teams", folders=3),
    ]
    assert states(here, "quotas") == {"homes": "advice", "teams": "ok"}


def test_a_home_near_its_limit_is_named(here: Here) -> None:
    assert states(here, "storage") == {"": "ok"}
    row = DiskUse(area="homes", name="alice", bytes=9 * 2**30, largest=[], whole=True, at=utcnow())
    change(here, row)
    assert states(here, "storage") == {"": "ok"}  # without a limit
    limited = here.site.model_copy(update={"storage": Storage(homes="10G")})
    there = Here(limited, here.data, environ=here.environ)
    assert states(there, "storage") == {"homes/alice": "advice"}
    there.store.close()


@pytest.mark.parametrize(("left", "state"), [(2**40, "ok"), (2**30, "warning"), (2**20, "broken")])
def test_disks_on_which_a_start_needs_room(
    here: Here, monkeypatch: pytest.MonkeyPatch, left: int, state: str
) -> None:
    runtime = MemoryRuntime()
    runtime.left = left
    monkeypatch.setattr(doctor_storage, "from_environment", lambda **_named: runtime)
    assert states(here, "room") == {"Docker": state, "data": state}
