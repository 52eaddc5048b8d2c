"""The watch: rounds over a real store, with a stand-in driver, runtime and servers."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from commons.errors import NotAvailable
from commons.leases import LeaseState, ServerKey
from commons.site import Gpus, GpuSharing, GpuWatching
from commons.store import GpuNotice, GpuQuota, GpuWatch, Lease, LeaseDevice, Store
from commons.store.models import utcnow
from spawner.gpu import views
from spawner.gpu.devices import health, inventory
from spawner.gpu.devices.inventory import Inventory, InventoryError, Process, Reading
from spawner.gpu.ledger import transitions
from spawner.gpu.ledger.usage import moment
from spawner.gpu.policy.placement import Device
from spawner.gpu.watch import metrics, monitor
from spawner.gpu.watch.monitor import Monitor
from spawner.gpu.watch.server_activity import Jupyter
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.protocol import ServerState

START = 1_800_000_000.0
STEP = 5  # minutes between two rounds


class World:
    """What the watch can see, to be changed by a test; an hour passes in no time."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.memory = store, MemoryRuntime()
        self.memory.servers["c1"] = ServerState(
            handle="c1", user="alice", server="", status="running"
        )
        self.now = START
        self.devices = [Device("GPU-1", "A100", 80 * 2**30)]
        self.readings: dict[str, Reading] = {"GPU-1": Reading(0.0, ())}
        self.broken = False
        self.jupyter = Jupyter(0, 0.0)
        self.asked = 0
        self.gpus = Gpus(source="nvml", watch=GpuWatching(interval=60 * STEP))
        monkeypatch.setattr(monitor, "read_inventory", self._look)
        monkeypatch.setattr(monitor.health, "utcnow", lambda: moment(self.now))

    async def _look(self, gpus: Gpus, _ask: object, _seconds: float) -> Inventory:
        if self.broken:
            raise InventoryError("NVML does not answer")
        return Inventory(
            tuple(inventory.shared(device, gpus.sharing) for device in self.devices), self.readings
        )

    async def _ask(self, _server: ServerKey) -> Jupyter:
        self.asked += 1
        return self.jupyter

    def watch(self) -> Monitor:
        """The watch as a hub that has just started has it."""
        return Monitor(
            self.store,
            self.memory,
            self.gpus,
            self._ask,
            logging.getLogger("test"),
            clock=lambda: self.now,
        )

    async def minutes(self, count: int, watch: Monitor | None = None) -> None:
        watch = watch or self.watch()
        for _ in range(0, count, STEP):
            self.now += STEP * 60
            await watch.once()

    def lease(self) -> Lease:
        return self.store.transact(lambda s: s.get_one(Lease, "lease"))

    def told(self) -> list[str]:
        return self.store.transact(
            lambda s: list(s.scalars(select(GpuNotice.code).order_by(GpuNotice.id)))
        )

    def policy(self, subject: str = "default", **idle: Any) -> None:
        spec = {"idle": {"after": "60m", "grace": "15m", **idle}}
        self.store.transact(lambda s: s.merge(GpuQuota(subject=subject, spec=spec)))


@pytest.fixture
async def world(store: Store, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(store, monkeypatch)
    await world.watch().once()

    def alice(session: Session) -> None:
        session.add(
            Lease(
                id="lease",
                username="alice",
                account="group:vision",
                state=LeaseState.ACTIVE,
                held_at=moment(START - 3600),
                container_id="c1",
                devices=[LeaseDevice(device_id="GPU-1")],
            )
        )

    store.transact(alice)
    world.policy()
    return world


async def test_warned_back_to_life_warned_again_reclaimed(world: World) -> None:
    await world.minutes(50)
    assert world.told() == ["idle_warning"]
    world.readings = {"GPU-1": Reading(80.0, (Process(7, 80.0),))}
    await world.minutes(5)
    assert world.told() == ["idle_warning", "idle_resumed"]
    world.readings = {"GPU-1": Reading(0.0, ())}
    await world.minutes(50)
    assert world.told()[2:] == ["idle_warning"]
    assert world.lease().stop_at is None
    await world.minutes(15)
    assert world.told()[3:] == ["idle"]
    assert world.lease().stop_reason == "idle"
    assert world.lease().state is LeaseState.ACTIVE, "the keeper stops it, not the watch"
    await world.minutes(5)
    assert len(world.told()) == 4, "all of it is said once"


async def test_a_cell_that_runs_keeps_the_gpu_and_only_the_idle_are_asked(world: World) -> None:
    world.jupyter = Jupyter(busy_kernels=1, last_activity=0.0)
    await world.minutes(90)
    assert world.told() == []
    assert world.asked == 18
    world.readings = {"GPU-1": Reading(50.0, ())}
    await world.minutes(10)
    assert world.asked == 18


async def test_a_job_on_the_cpu_keeps_the_gpu_for_as_long_as_the_site_says(world: World) -> None:
    world.policy(preparation="2h")
    world.memory.cores = {"c1": 1.0}
    await world.minutes(120)
    assert world.told() == []
    await world.minutes(60)
    assert world.told() == ["idle_warning"]
    world.readings = {"GPU-1": Reading(50.0, ())}
    await world.minutes(5)
    assert world.told()[1:] == ["idle_resumed"]


@pytest.mark.parametrize("missing", ["driver", "reading", "server"])
async def test_nobody_is_reclaimed_for_what_is_not_known(world: World, missing: str) -> None:
    world.broken = missing == "driver"
    if missing == "reading":
        world.readings = {"GPU-1": Reading(None, None)}
    if missing == "server":
        world.jupyter = Jupyter()
    await world.minutes(120)
    assert world.told() == []
    row = world.store.transact(lambda s: s.get_one(GpuWatch, "lease"))
    assert (row.use, row.idle_seconds) == ("unknown", 0.0)


async def test_a_restart_of_the_hub_forgets_neither_idleness_nor_warning(world: World) -> None:
    await world.minutes(30)
    await world.minutes(20)
    assert world.told() == ["idle_warning"]
    await world.minutes(20)
    assert world.told() == ["idle_warning", "idle"]


async def test_keep_puts_it_off_within_the_cap(world: World) -> None:
    world.policy(keep_alive_cap="5h")
    await world.minutes(50)

    def keep() -> float:
        return world.store.transact(lambda s: monitor.keep(s, "lease", world.now))

    assert keep() == 4 * 3600
    await world.minutes(200)
    assert world.told() == ["idle_warning", "kept"]
    assert keep() == 100 * 60, "200 minutes were used; 100 are left of five hours"
    world.now += 5 * 3600
    with pytest.raises(NotAvailable, match="as long as is allowed"):
        keep()
    await world.minutes(20)
    assert world.told()[-2:] == ["idle_warning", "idle"]


async def test_it_is_sooner_when_somebody_waits(world: World) -> None:
    world.policy(busy_queue_after="20m")
    await world.minutes(30)
    assert world.told() == []
    world.store.transact(
        lambda s: s.add(Lease(id="w", username="bob", state=LeaseState.QUEUED, gpus=1))
    )
    await world.minutes(1)
    assert world.told() == ["idle_warning"]


async def test_a_persons_own_scope_wins_over_the_accounts(world: World) -> None:
    world.policy("group:vision", after="30m")
    world.policy("user:alice", after="3h")
    await world.minutes(120)
    assert world.told() == []
    world.policy("user:alice", exempt=True)
    await world.minutes(200)
    assert world.told() == []


async def test_of_a_shared_gpu_only_ones_own_processes_count(world: World) -> None:
    world.store.transact(lambda s: s.execute(delete(LeaseDevice)))
    rule = GpuSharing(model="A100", method="time-slicing", slots=2)
    world.gpus = world.gpus.model_copy(update={"sharing": [rule]})
    await world.watch().once()
    world.store.transact(lambda s: s.add(LeaseDevice(lease_id="lease", device_id="GPU-1", slot=1)))
    world.readings = {"GPU-1": Reading(90.0, (Process(7, 90.0),))}
    world.memory.processes["c1"] = frozenset({7})
    await world.minutes(60)
    assert world.told() == []
    world.memory.silence()
    await world.minutes(60)
    assert world.told() == [], "the runtime does not say whose processes they are"
    world.memory.faults.clear()
    world.memory.processes["c1"] = frozenset({8})
    await world.minutes(60)
    assert world.told()[0] == "idle_warning"


async def test_a_lost_gpu_is_told_to_its_holder_who_keeps_working(world: World) -> None:
    world.devices = []
    await world.minutes(15)
    assert world.told() == ["gpu_lost"]
    assert world.lease().stop_at is None


async def test_a_site_can_stop_servers_whose_gpu_is_lost(world: World) -> None:
    watch = GpuWatching(interval=60 * STEP, stop_lost=True)
    world.gpus = world.gpus.model_copy(update={"watch": watch})
    world.devices = []
    await world.minutes(1)
    assert world.lease().stop_reason == "gpu_lost"
    assert world.lease().stop_at is not None


async def test_a_server_that_lost_its_reach_is_told_once(world: World) -> None:
    watch = world.watch()
    await world.minutes(15, watch)
    assert (world.memory.calls["probe_gpus"], world.told()) == (1, []), "a probe is rare"
    world.memory.probes["c1"] = monitor.OUT_OF_REACH
    await world.minutes(1)
    await world.minutes(1)
    assert world.told() == ["gpus_out_of_reach"]
    # Administrators see it where they look, as long as the server goes on.
    by_prometheus = "labcommons_gpu_leases_out_of_reach 1.0"
    assert by_prometheus in world.store.transact(lambda s: metrics.text(s, utcnow())).decode()
    known = world.store.transact(views.known)
    [lease] = world.store.transact(lambda s: [views.lease(x, known, str) for x in views.live(s)])
    assert lease["out_of_reach"] is True
    world.store.transact(lambda s: transitions.end(s, lease["id"], "stopped"))
    assert world.store.transact(health.out_of_reach) == frozenset()


async def test_a_probe_that_cannot_be_made_says_nothing(world: World) -> None:
    world.memory.probes["c1"] = 127
    await world.minutes(1)
    world.memory.silence()
    await world.minutes(1)
    assert world.told() == []


async def test_simulated_gpus_are_neither_measured_nor_probed(world: World) -> None:
    world.devices = [Device("GPU-1", "A100", 80 * 2**30, simulated=True)]
    world.readings = {}
    await world.minutes(120)
    assert (world.told(), world.memory.calls["probe_gpus"]) == ([], 0)


def test_rounds_of_the_past_change_nothing(store: Store) -> None:
    """A lease that ended between the look and its verdict is left alone."""
    one = monitor.Watched("gone", ("alice", ""), "c", (), False, monitor.IdlePolicy(after=1))
    look = monitor.Look(monitor.Use.IDLE, 0.0)
    done = store.transact(lambda s: monitor.judge(s, {"gone": (one, look)}, START, 900.0))
    assert done == []
