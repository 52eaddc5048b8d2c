"""kill -9 of the hub at every step of a start and a stop, on real containers with stand-in GPUs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import docker
import pytest
from ruamel.yaml import YAML

from commons.leases import LeaseState
from commons.site import Site
from commons.store import EnvironmentVersion, Store
from rig import agent
from rig.killed_hub import START, STOP, moments
from spawner.gpu.ledger import invariants, transitions
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.docker.settings import AgentSettings
from spawner.starts import kept as requests

pytestmark = pytest.mark.docker

HERE = Path(__file__).parent
GPUS = [gpu["uuid"] for gpu in json.loads((HERE.parent / "rig/gpu/gpus.json").read_text())["gpus"]]
ALICE = {"environment": "data", "gpus": 2, "time_limit": 60}


class Lab:
    """One site without directory and proxy; its hub comes and goes."""

    def __init__(self, home: Path, network: str, stack: ExitStack) -> None:
        self.home, self.armed = home, home / "armed"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        settings = agent.settings(
            Site.model_validate(site()), home, network, "lctest/tiny-server:latest"
        )
        self.site_id = settings.site_id
        image = asyncio.run(published(settings, home / "environment"))
        self.store = Store(f"sqlite:///{home / 'labcommons.sqlite'}")
        self.store.migrate()
        self.store.transact(lambda s: s.add(environment(image)))
        with (home / "site.yaml").open("w") as file:
            YAML().dump(site(), file)
        self.env = {
            **os.environ,
            **stack.enter_context(agent.program(settings, home / "site.yaml", home)),
            "HUB_PORT": str(self.port),
            "HUB_HOME": str(home),
            "HUB_TOKEN": "of-the-test",
            "LABCOMMONS_HUB_CONFIG": str(HERE / "hub_config.py"),
            "LABCOMMONS_SITE_FILE": str(home / "site.yaml"),
            "LABCOMMONS_DATABASE_URL": self.store.url,
            "LABCOMMONS_DATA": str(home),
        }
        self.hub: subprocess.Popen[bytes] | None = None
        self.log = (home / "hub.log").open("ab")

    def up(self) -> None:
        """Start the hub, where it does not run, and wait until it answers."""
        if self.hub is None:
            self.hub = subprocess.Popen(
                [sys.executable, str(HERE.parent / "rig/killed_hub.py"), str(self.armed)],
                env=self.env,
                cwd=self.home,
                stdout=self.log,
                stderr=self.log,
            )
        self.until(lambda: self.api("GET", "")[0] == 200, "the hub answers")

    def kill(self) -> None:
        if self.hub is not None:
            self.hub.send_signal(signal.SIGKILL)
            self.was_killed()

    def was_killed(self) -> None:
        assert self.hub is not None
        assert self.hub.wait(60) == -signal.SIGKILL
        self.hub = None
        self.armed.unlink(missing_ok=True)

    def api(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/hub/api/{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": "token of-the-test"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:  # killed, or not yet there
            return 0, None

    def until(self, condition: Callable[[], object], what: str, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            gone = self.hub is not None and self.hub.poll() is not None
            assert not gone, f"the hub ended\n{self.tail()}"
            assert time.monotonic() < deadline, f"waited for: {what}\n{self.tail()}"
            time.sleep(0.2)

    def tail(self) -> str:
        return (self.home / "hub.log").read_text()[-6000:]

    def server(self, user: str) -> dict[str, Any] | None:
        """What the hub says of a server that runs or is on its way."""
        _status, found = self.api("GET", f"users/{user}")
        servers = found["servers"] if isinstance(found, dict) else {}
        return servers.get("")  # type: ignore[no-any-return]

    def tokens(self, user: str) -> int:
        """How many tokens of servers of theirs are valid."""
        found = self.api("GET", f"users/{user}/tokens")[1]
        return sum(one["note"].startswith("Server at ") for one in found["api_tokens"])

    def ready(self, user: str) -> bool:
        found = self.server(user)
        return bool(found and found["ready"])

    def containers(self) -> list[Any]:
        label = f"labcommons.site={self.site_id}"
        found = docker.from_env().containers.list(all=True, filters={"label": label})
        return [c for c in found if "labcommons.user" in c.labels]

    def in_order(self) -> bool:
        """Containers, leases and the hub's servers are the same, and every invariant holds."""
        leases = self.store.transact(transitions.live_leases, read=True)
        if any(lease.state is not LeaseState.ACTIVE for lease in leases):
            return False
        held = {lease.id: {device.device_id for device in lease.devices} for lease in leases}
        given = {
            container.labels["labcommons.lease"]: {
                id_
                for request in container.attrs["HostConfig"]["DeviceRequests"]
                for id_ in request["DeviceIDs"]
            }
            for container in self.containers()
        }
        servers = {user for user in ("alice", "bob") if self.ready(user)}
        # What a server held opens nothing once it is gone.
        if any(self.tokens(user) != (user in servers) for user in ("alice", "bob")):
            return False
        findings = self.store.transact(lambda s: invariants.check(s, deep=True), read=True)
        assert findings == ()
        return held == given and servers == {lease.username for lease in leases}


async def published(settings: AgentSettings, folder: Path) -> str:
    runtime = DockerRuntime(settings)
    try:
        return await agent.publish(runtime, folder)
    finally:
        await runtime.close()


def site() -> dict[str, Any]:
    return {
        "version": 1,
        "directory": {"servers": ["ldaps://none.example.org"], "users": {"base_dn": "dc=none"}},
        "sizes": {"small": {"cpu": 1, "memory": "256M"}},
        "servers": {"stop_timeout": 1},
        "gpus": {
            "source": "site",
            "max_per_server": 4,
            "devices": [{"id": id_, "model": "Stand-in", "memory": "16G"} for id_ in GPUS],
        },
    }


def environment(image: str) -> EnvironmentVersion:
    return EnvironmentVersion(
        name="data",
        version="1",
        image="lctest/tiny-server:1",
        image_id=image,
        prefix="/opt/conda/envs/data",
        python="3.13.5",
        lock_digest="sha256:0",
        channels=[],
        words={"title": "Data"},
        main_packages=[],
        packages=[],
        kernelspecs={},
    )


@pytest.fixture(scope="module")
def lab(
    tiny_image: str, network_of_module: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    with ExitStack() as stack:
        lab = Lab(tmp_path_factory.mktemp("lab"), network_of_module, stack)
        lab.up()
        for user in ("alice", "bob"):
            assert lab.api("POST", f"users/{user}")[0] == 201
        yield lab
        lab.kill()
        agent.sweep(lab.site_id)
        lab.store.close()


@pytest.fixture(scope="module")
def network_of_module() -> Iterator[str]:
    network = docker.from_env().networks.create(f"lctest-{os.getpid()}", driver="bridge")
    yield str(network.name)
    network.remove()


@pytest.fixture
def empty(lab: Lab) -> Lab:
    """The hub runs, and nobody has a server."""
    lab.up()
    lab.until(lab.in_order, "order before the test")
    for user in ("alice", "bob"):
        if lab.server(user):
            lab.api("DELETE", f"users/{user}/server")
    lab.until(lambda: not lab.containers() and lab.in_order(), "an empty site")
    return lab


@pytest.mark.parametrize(("when", "step"), moments(START))
def test_a_hub_killed_at_any_step_of_a_start_starts_the_server_after_all(
    empty: Lab, step: str, when: str
) -> None:
    empty.armed.write_text(f"{when} {step}")
    empty.api("POST", "users/alice/server", ALICE)
    empty.was_killed()
    empty.up()
    # Only a request that was never written down is one that nobody knows of.
    written = (when, step) != ("before", "jupyterhub.user:User.spawn")
    empty.until(lambda: empty.in_order() and empty.ready("alice") is written, "order")
    if written:
        [lease] = empty.store.transact(transitions.live_leases, read=True)
        assert (lease.gpus, len(lease.devices), lease.time_limit) == (2, 2, 3600)


@pytest.mark.parametrize(
    "moment",
    [
        "before spawner.spawner:LabSpawner._wait_for_turn",
        "before spawner.runtime.client:AgentRuntime.start",
        "after spawner.runtime.client:AgentRuntime.start",
        "after spawner.spawner:LabSpawner.start",
    ],
)
def test_a_start_without_gpus_is_kept_as_well(empty: Lab, moment: str) -> None:
    empty.armed.write_text(moment)
    empty.api("POST", "users/alice/server", {"environment": "data"})
    empty.was_killed()
    empty.up()
    empty.until(lambda: empty.ready("alice") and len(empty.containers()) == 1, "alice's server")
    # It runs, so nothing more is asked for.
    empty.until(lambda: not empty.store.transact(requests.left, read=True), "nothing left to do")
    assert empty.tokens("alice") == 1
    empty.api("DELETE", "users/alice/server")
    empty.until(lambda: not empty.containers(), "an empty site")


@pytest.mark.parametrize(("when", "step"), moments(STOP))
def test_a_hub_killed_at_any_step_of_a_stop_leaves_nothing_held_or_doubled(
    empty: Lab, step: str, when: str
) -> None:
    empty.api("POST", "users/alice/server", ALICE)
    empty.until(lambda: empty.ready("alice") and empty.in_order(), "alice's server")
    empty.armed.write_text(f"{when} {step}")
    empty.api("DELETE", "users/alice/server")
    empty.was_killed()
    empty.up()
    empty.until(empty.in_order, "order")


def test_who_waits_when_the_hub_is_killed_waits_on_and_starts(empty: Lab) -> None:
    empty.api("POST", "users/bob/server", ALICE | {"gpus": 4})
    empty.until(lambda: empty.ready("bob") and empty.in_order(), "bob's server")
    empty.api("POST", "users/alice/server", ALICE)

    def place() -> tuple[str, str] | None:
        leases = empty.store.transact(transitions.live_leases, read=True)
        return next(((x.id, x.state) for x in leases if x.username == "alice"), None)

    empty.until(lambda: place(), "alice's place")
    before = place()
    assert before is not None
    assert before[1] is LeaseState.QUEUED
    empty.kill()
    empty.up()
    empty.until(lambda: (empty.server("alice") or {}).get("pending") == "spawn", "alice waits")
    assert place() == before
    empty.api("DELETE", "users/bob/server")
    empty.until(lambda: empty.ready("alice") and empty.in_order(), "alice's server")
    assert place() == (before[0], LeaseState.ACTIVE)
