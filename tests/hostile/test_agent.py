"""Somebody who has taken over the hub, with its certificate, tries to become root by the agent."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tarfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import docker
import pytest

from commons.errors import LabError, RuntimeRefused
from commons.site import Site
from rig import agent
from spawner.runtime import wire
from spawner.runtime.client import AgentRuntime
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.spec import (
    Account,
    BuildStep,
    Device,
    Gpus,
    Limits,
    MakeFolder,
    MakeHome,
    ServerSpec,
)

pytestmark = pytest.mark.docker
UID, GID, DOCKER = 20003, 20000, 998
LIMITS = Limits(cpu=1, memory=2**28, pids=100, shared_memory=2**24, tmp=2**24)
SERVER = {"opt/labcommons/bin/start": "#!/bin/sh\nexec sleep 600\n"}
# What a program in a server can try; each line that is printed is one that worked.
TRIES = """
cd ~; exec > tries 2>/dev/null
[ "$(id -u)" = 0 ] && echo root
for id in $(id -G); do [ "$id" = 0 ] || [ "$id" = 990 ] || [ "$id" = 998 ] && echo group $id; done
grep -q '^CapEff:.*[1-9a-f]' /proc/self/status && echo capabilities
grep -q '^CapBnd:.*[1-9a-f]' /proc/self/status && echo bounding set
grep -q '^NoNewPrivs:.*1' /proc/self/status || echo new privileges
grep -q '^Seccomp:.*2' /proc/self/status || echo no seccomp
touch /x /etc/x /usr/bin/x /opt/labcommons/x && echo wrote the root
echo 1 > /proc/sys/kernel/hostname && echo wrote /proc/sys
echo x > /proc/sysrq-trigger && echo sysrq
mknod ~/disk b 8 0 && echo mknod
mount -t tmpfs none /mnt && echo mount
unshare -r true && echo user namespace
chown 0:0 tries && echo chown
cp /bin/sh sh && chmod 4755 sh && ./sh -p -c '[ "$(id -u)" = 0 ]' && echo setuid
for s in /var/run/docker.sock /run/docker.sock; do [ -e $s ] && echo $s; done
for d in /dev/sd* /dev/vd* /dev/kmsg /dev/mem /dev/nvidia*; do [ -e $d ] && echo $d; done
for f in /opt/labcommons/*/../../../secrets/*; do [ -r $f ] && echo $f; done
echo done
"""


@pytest.fixture(scope="module")
def victim(base_image: str) -> Iterator[str]:
    """A container of the machine's own, and root's, which is nobody's business."""
    client = docker.from_env(timeout=60)
    found = client.containers.run(
        base_image, ["sleep", "600"], name=f"lc-victim-{uuid.uuid4().hex[:8]}", detach=True
    )  # fmt: skip
    yield str(found.id)
    found.remove(force=True)
    client.close()


class Machine:
    """An agent, its folders, and what a hub and a builder can send to it."""

    def __init__(self, runtime: DockerRuntime, url: str, tls: Path, image: str) -> None:
        self.runtime, self.url, self.tls, self.image = runtime, url, tls, image
        self.data = runtime.settings.data
        self.hub: AgentRuntime = agent.connected(url, tls)
        self.builder: AgentRuntime = agent.connected(url, tls, "builder")

    def spec(self, **changed: Any) -> ServerSpec:
        return ServerSpec(
            user="alice", server="", account=Account(uid=UID, gid=GID), image=self.image,
            environment="data", version="1", limits=LIMITS,
        ).model_copy(update=changed)  # fmt: skip

    async def raw(self, name: str, body: dict[str, Any]) -> int:
        """The status of a message that our own client would not send."""
        connector = aiohttp.TCPConnector(ssl=agent.client_tls(self.tls))
        headers = {wire.VERSION_HEADER: wire.protocol_version()}
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"{self.url}/v1/{name}", json=body, headers=headers) as answer,
        ):
            return answer.status

    async def publish(self, *entries: tuple[tarfile.TarInfo, bytes]) -> str:
        """Send a tar of one's own making as a builder."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for entry, data in ((folder("."), b""), *entries):
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        given = {
            "name": "evil", "version": "1", "base": self.runtime.settings.server_image,
            "prefix": "/opt/conda/envs/evil", "labels": {},
        }  # fmt: skip
        connector = aiohttp.TCPConnector(ssl=agent.client_tls(self.tls, "builder"))
        headers = {wire.VERSION_HEADER: wire.protocol_version()}
        body = json.dumps(given).encode() + b"\n" + buffer.getvalue()
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"{self.url}/v1/images/publish", data=body, headers=headers) as answer,
        ):
            found = await answer.json()
        if answer.status != 200:
            raise wire.told(answer.status, found["error"])
        return str(found["result"])


def folder(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o777
    return entry


def entry(name: str, kind: bytes = tarfile.REGTYPE, **more: Any) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.mode = kind, 0o777
    for key, value in more.items():
        setattr(found, key, value)
    return found


@pytest.fixture
async def machine(site: Site, base_image: str, tmp_path: Path) -> AsyncIterator[Machine]:
    client = docker.from_env(timeout=60)
    network = client.networks.create(f"lctest-{uuid.uuid4().hex[:8]}")
    agent.tiny_builder()
    base = agent.derived("lctest/hostile-server:latest", SERVER)
    runtime = DockerRuntime(agent.settings(site, tmp_path / "data", str(network.name), base))
    await runtime.begin_watch()
    agent.home(runtime.settings.data, "alice", UID, GID)
    agent.home(runtime.settings.data, "bob", 20002, GID)
    image = await agent.publish(runtime, tmp_path / "environment")
    async with agent.served(runtime, tmp_path / "tls") as url:
        found = Machine(runtime, url, tmp_path / "tls", image)
        yield found
        await found.hub.close()
        await found.builder.close()
    await runtime.close()
    agent.sweep(runtime.site_id)
    network.remove()
    client.close()


async def wait_for(path: Path, word: str) -> str:
    async with asyncio.timeout(60):
        while not (path.exists() and word in path.read_text()):
            await asyncio.sleep(0.1)
    return path.read_text()


async def test_code_in_a_server_gets_nothing_that_its_person_has_not(machine: Machine) -> None:
    handle = await machine.hub.start(
        machine.spec(command=("sh", "-c", TRIES), env={"LD_PRELOAD": "", "PATH": "/usr/bin:/bin"})
    )
    said = await wait_for(machine.data / "homes" / "alice" / "tries", "done")
    assert said == "done\n"
    found = docker.from_env().api.inspect_container(handle)["HostConfig"]
    assert not any(found[key] for key in ("Privileged", "CapAdd", "Devices", "DeviceRequests"))
    assert found["PidMode"] == found["UTSMode"] == found["UsernsMode"] == ""
    assert found["IpcMode"] == "private"


@pytest.mark.parametrize(
    "account",
    [
        Account.model_construct(uid=0, gid=GID, gids=()),
        Account.model_construct(uid=UID, gid=0, gids=()),
        Account.model_construct(uid=-1, gid=GID, gids=()),
        Account(uid=990, gid=990),
        Account(uid=999, gid=GID),
        Account(uid=UID, gid=DOCKER),
        Account(uid=UID, gid=GID, gids=(DOCKER,)),
        Account(uid=UID, gid=GID, gids=(990,)),
        Account(uid=UID, gid=GID, gids=(6,)),
        Account(uid=20002, gid=GID),
    ],
    ids=str,
)
async def test_no_numbers_but_the_persons_own(machine: Machine, account: Account) -> None:
    body = machine.spec().model_dump(mode="json") | {"account": account.model_dump()}
    assert await machine.raw("start", {"spec": body}) in (403, 409, 422)
    assert await machine.hub.list() == []


@pytest.mark.parametrize(
    "more",
    [
        {"privileged": True}, {"cap_add": ["ALL"]}, {"devices": ["/dev/sda"]},
        {"binds": ["/:/host"]}, {"HostConfig": {"Privileged": True}}, {"network": "host"},
        {"pid_mode": "host"}, {"user": "../.."}, {"user": "a/b"}, {"user": "."},
        {"scopes": ["team-../../.."]}, {"scopes": ["../etc"]}, {"environment": "../x"},
        {"version": ".."}, {"image": "labcommons/hub"}, {"mounts": ["root"]},
        {"env": {"A\nB": "x"}}, {"user": "nobody-has-this"},
    ],
    ids=str,
)  # fmt: skip
async def test_nothing_can_be_added_to_what_is_asked(
    machine: Machine, more: dict[str, Any]
) -> None:
    body = machine.spec().model_dump(mode="json") | more
    assert await machine.raw("start", {"spec": body}) in (403, 409, 422)
    assert await machine.hub.list() == []


async def test_variables_open_no_device(machine: Machine) -> None:
    env = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "all", "A": "1"}
    handle = await machine.hub.start(machine.spec(env=env))
    found = docker.from_env().api.inspect_container(handle)["Config"]["Env"]
    assert [line for line in found if line.startswith("NVIDIA")] == ["NVIDIA_VISIBLE_DEVICES=void"]
    assert "A=1" in found


async def test_only_published_images_are_started(machine: Machine) -> None:
    client = docker.from_env(timeout=60)
    for name in ("labcommons/base:latest", machine.runtime.settings.server_image):
        image = str(client.images.get(name).id)
        with pytest.raises(RuntimeRefused, match="none of this site's"):
            await machine.hub.start(machine.spec(image=image))
        # Nor can one be made of it, by the hub or by a builder.
        for who in (machine.hub, machine.builder):
            with pytest.raises(RuntimeRefused):
                await who.tag(image, "data", "2")
        await machine.hub.discard(image)
        assert client.images.get(name)
    with pytest.raises(RuntimeRefused, match="is not data:2"):
        await machine.hub.start(machine.spec(version="2"))
    with pytest.raises(RuntimeRefused, match="not the server image"):
        await machine.builder.publish(
            "data", "2", "labcommons/base:latest", machine.data / "locks",
            "/opt/conda/envs/data", {},
        )  # fmt: skip


@pytest.mark.parametrize("id_", ["all", "void", "none", "0", "GPU-elsewhere", "/dev/sda"])
async def test_no_device_outside_the_inventory(machine: Machine, id_: str) -> None:
    body = machine.spec().model_dump(mode="json")
    body["gpus"] = {"lease": "l1", "devices": [{"id": id_}]}
    assert await machine.raw("start", {"spec": body}) in (409, 422)


async def test_no_device_that_another_has(machine: Machine) -> None:
    gpus = Gpus(lease="l1", devices=(Device(id="GPU-a0"),))
    await machine.hub.start(machine.spec(gpus=gpus))
    bob = {"user": "bob", "account": Account(uid=20002, gid=GID)}
    starts = [machine.hub.start(machine.spec(**bob, server=f"n{n}", gpus=gpus)) for n in range(4)]
    results = await asyncio.gather(*starts, return_exceptions=True)
    assert [getattr(one, "code", one) for one in results] == ["gpu_held"] * 4
    other = Gpus(lease="l2", devices=(Device(id="GPU-a1"),))
    both = [machine.hub.start(machine.spec(**bob, server=f"m{n}", gpus=other)) for n in range(4)]
    results = await asyncio.gather(*both, return_exceptions=True)
    assert sum(isinstance(one, str) for one in results) == 1, "one of four who were quick"


async def test_other_peoples_containers_are_none_of_its_business(
    machine: Machine, victim: str
) -> None:
    hub = machine.hub
    assert await hub.inspect([victim]) == {victim: None}
    assert await hub.logs(victim) == ""
    for call in (hub.stop(victim, 0), hub.remove(victim)):
        await call
    for refused in (hub.probe_gpus(victim), hub.gpu_processes(victim), hub.task_end(victim)):
        with pytest.raises(RuntimeRefused):
            await refused
    with pytest.raises(RuntimeRefused):
        _ = [line async for line in hub.follow(victim)]
    assert victim not in {state.handle for state in await hub.list()}
    client = docker.from_env()
    await hub.remove_server("x", client.containers.get(victim).name or "")
    assert client.containers.get(victim).status == "running"
    for handle in ("..", "../containers", "x/../../info", ""):
        assert await machine.raw("remove", {"handle": handle}) == 422


async def test_folders_that_were_replaced_by_links_are_not_mounted(machine: Machine) -> None:
    data = machine.data
    (data / "kernels" / "image").mkdir()
    (data / "kernels" / "image" / "data").symlink_to("/root")
    with pytest.raises(RuntimeRefused, match="through a link"):
        await machine.hub.start(machine.spec())
    (data / "kernels" / "image" / "data").unlink()
    (data / "homes" / "eve").symlink_to("/root")
    with pytest.raises(LabError, match="not a folder"):
        await machine.hub.start(machine.spec(user="eve"))
    with pytest.raises(LabError, match="not a folder"):
        await machine.hub.run_task(MakeHome(user="eve", uid=20009, gid=GID))
    assert os.stat("/root").st_uid == 0


async def test_makers_give_away_nothing_but_new_homes(machine: Machine) -> None:
    with pytest.raises(LabError, match="belongs to"):
        await machine.hub.run_task(MakeHome(user="bob", uid=UID, gid=GID))
    for uid, gid in ((990, GID), (999, GID), (UID, DOCKER), (UID, 990)):
        with pytest.raises(RuntimeRefused):
            await machine.hub.run_task(MakeHome(user="new", uid=uid, gid=gid))
    assert not (machine.data / "homes" / "new").exists()
    for scope in ("team-none", "course-none"):
        with pytest.raises(RuntimeRefused):
            await machine.hub.run_task(MakeFolder(scope=scope))
    assert await machine.raw("run_task", {"task": {"kind": "folder", "scope": "team-.."}}) == 422
    assert await machine.raw("run_task", {"task": {"kind": "exec", "command": ["sh"]}}) == 422


@pytest.mark.parametrize(
    "changed",
    [
        {"step": "lock", "account": {"uid": UID, "gid": GID}},
        {"step": "look", "scope": "shared", "account": {"uid": UID, "gid": GID}},
        {"step": "install", "account": {"uid": 990, "gid": 990}},
        {"step": "install", "account": {"uid": 20002, "gid": GID}},
        {"step": "install", "owner": "bob"},
        {"step": "install", "home": "bob"},
        {"step": "install", "owner": None},
        {"step": "install", "scope": "team-none", "home": "alice"},
        {"step": "install", "env": {"LD_PRELOAD": "/x"}},
        {"step": "install", "env": {"PATH": "/x"}},
        {"step": "install", "job_id": "../../x"},
        {"step": "image"},
        {"step": "sh"},
        {"scope": "image"},
    ],
    ids=str,
)
async def test_builds_have_their_requesters_rights_alone(
    machine: Machine, changed: dict[str, Any]
) -> None:
    good = BuildStep(
        job_id="j1", step="look", scope="personal", owner="alice",
        account=Account(uid=UID, gid=GID), limits=LIMITS, job="id -u; id -G; ls /",
    )  # fmt: skip
    task = good.model_dump(mode="json")
    assert await machine.raw("begin", {"task": task | changed}) in (403, 409, 422)
    assert await machine.hub.tasks() == {}
    handle = await machine.hub.begin(good)
    lines = [line.decode() async for line in machine.hub.follow(handle)]
    assert lines[:2] == [str(UID), str(GID)]


@pytest.mark.parametrize(
    "sent",
    [
        [entry("../../../../etc/passwd")],
        [entry("/etc/passwd")],
        [entry("etc", tarfile.SYMTYPE, linkname="/etc"), entry("etc/passwd")],
        [folder("d"), entry("d", tarfile.SYMTYPE, linkname="/etc"), entry("d/passwd")],
        [entry("hard", tarfile.LNKTYPE, linkname="/etc/shadow")],
        [entry("disk", tarfile.BLKTYPE, devmajor=8, devminor=0)],
        [entry("kmsg", tarfile.CHRTYPE, devmajor=1, devminor=11)],
        [entry("fifo", tarfile.FIFOTYPE)],
        [entry("a/b")],
    ],
    ids=lambda sent: sent[0].name,
)
async def test_a_layer_lies_in_its_prefix_and_nowhere_else(
    machine: Machine, sent: list[tarfile.TarInfo]
) -> None:
    with pytest.raises(RuntimeRefused):
        await machine.publish(*((one, b"") for one in sent))
    assert docker.from_env().containers.list(all=True, filters={"name": "env-build-evil"}) == []


async def test_a_layer_has_no_setuid_no_owner_and_no_attributes(machine: Machine) -> None:
    evil = entry("su", mode=0o6777, uid=0, pax_headers={"SCHILY.xattr.security.capability": "x"})
    image = await machine.publish((evil, b"#!/bin/sh\n"), (folder("d"), b""))
    said = docker.from_env().containers.run(
        image, ["-c", "stat -c '%a %u %g' /opt/conda/envs/evil/su /opt/conda/envs/evil/d"],
        entrypoint="/bin/sh", remove=True,
    )  # fmt: skip
    assert said.decode().split("\n")[:2] == ["755 0 0", "755 0 0"]


async def test_a_builder_starts_nothing_and_a_hub_publishes_nothing(machine: Machine) -> None:
    with pytest.raises(RuntimeRefused, match="may not ask"):
        await machine.builder.start(machine.spec())
    with pytest.raises(RuntimeRefused, match="may not ask"):
        await machine.builder.run_task(MakeHome(user="x", uid=UID, gid=GID))
    with pytest.raises(RuntimeRefused, match="may not ask"):
        await machine.hub.publish(
            "data", "2", machine.runtime.settings.server_image, machine.data / "locks",
            "/opt/conda/envs/data", {},
        )  # fmt: skip
