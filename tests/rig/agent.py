"""An agent on the Engine of DOCKER_HOST: tiny images, a site's folders, and the program itself."""

from __future__ import annotations

import asyncio
import io
import os
import queue
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import docker
from tornado.netutil import bind_sockets

from commons.site import Site
from environments.image import Images
from hub_ext import agent_tls
from spawner.runtime.agent.server import make_server, tls_context
from spawner.runtime.client import connect
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.docker.settings import AgentSettings
from spawner.runtime.protocol import Runtime

OWNER = 990
FOLDERS = (
    "advisories", "agent", "archives", "cache/packages", "channel", "channels", "courses", "homes",
    "kernels", "locks", "logs", "shared", "signing", "store", "teams", "versions",
)  # fmt: skip
# Where a builder has its Python: here it runs the job as a script of the shell, and of materials it
# says what it sees of them.
BUILDER = {
    "opt/labcommons/hub/bin/python": """\
#!/bin/sh
[ "$3" = spawner.runtime.docker.material_task ] || exec /bin/sh /job/job.json
touch /materials/fetched && cd /staff/materials || { echo '{"failure": "unreachable"}'; exit; }
touch x 2>/dev/null && exit 9
printf '{"revision": "%040d", "files": %d, "bytes": %d}' 1 "$(ls | wc -l)" "$(cat * | wc -c)"
"""
}


def tiny_builder() -> str:
    """An image whose build steps run their job as a shell's script."""
    return derived("lctest/tiny-builder:latest", BUILDER)


def derived(tag: str, files: dict[str, str]) -> str:
    """An image of ours with some programs more."""
    texts = {"Dockerfile": "FROM labcommons/base:latest\nCOPY files /\n"}
    texts |= {f"files/{name}": text for name, text in files.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in texts.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text.encode()), 0o755
            tar.addfile(info, io.BytesIO(text.encode()))
    buffer.seek(0)
    client = docker.from_env(timeout=60)
    client.images.build(fileobj=buffer, custom_context=True, tag=tag, rm=True)
    client.close()
    return tag


def data_folder(folder: Path) -> Path:
    """A site's data folder, as `make up` makes it."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        os.chown(folder / name, OWNER, OWNER)
    return folder


def settings(
    site: Site, data: Path, network: str, server_image: str, site_id: str = "", closed: str = ""
) -> AgentSettings:
    """An agent's of a site of its own, or of the one that is named."""
    return AgentSettings(
        site,
        site_id or f"lctest-{uuid.uuid4().hex[:8]}",
        data_folder(data),
        data,
        network,
        server_image=server_image,
        builder_image="lctest/tiny-builder:latest",
        machine_gids=frozenset({998}),
        closed=closed,
    )


SITE = Site.model_validate(
    {
        "version": 1,
        "directory": {"servers": ["ldaps://d.example.org"], "users": {"base_dn": "dc=x"}},
        "sizes": {"small": {"cpu": 1, "memory": "1G"}},
    }
)


def of_builders(server_image: str, data: Path) -> DockerRuntime:
    """An agent for what builds images; ``data`` has the folder ``cache``.

    What compiles runs as our services' user there, so that what is made from now on is open to all.
    """
    os.umask(0)
    site_id = f"lctest-{uuid.uuid4().hex[:8]}"
    return DockerRuntime(AgentSettings(SITE, site_id, data, data, "none", "", server_image))


def images(server_image: str, data: Path) -> Images:
    """Images as a builder has them: the agent's, without its server between them."""
    return Images(lambda: of_builders(server_image, data))


@contextmanager
def beside(server_image: str, data: Path, tls: Path) -> Iterator[dict[str, str]]:
    """An agent's server in a thread; the variables by which a builder finds it."""
    loop, ready = asyncio.new_event_loop(), queue.Queue[str]()
    over = asyncio.Event()

    async def serve() -> None:
        async with served(of_builders(server_image, data), tls) as url:
            ready.put(url)
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    url = ready.get(timeout=60)
    ours = tls / "builder-client"
    ours.mkdir()
    for name, theirs in (("ca.crt", "ca.crt"), ("builder.crt", "client.crt"),
                         ("builder.key", "client.key")):  # fmt: skip
        shutil.copy(tls / name, ours / theirs)
    try:
        yield {"LABCOMMONS_AGENT_URL": url, "LABCOMMONS_AGENT_TLS": str(ours)}
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(60)


def home(data: Path, user: str, uid: int = 20003, gid: int = 20000) -> Path:
    """A person's home, there already."""
    path = data / "homes" / user
    path.mkdir(mode=0o700, exist_ok=True)
    os.chown(path, uid, gid)
    return path


async def publish(
    runtime: DockerRuntime, folder: Path, name: str = "data", version: str = "1"
) -> str:
    """An environment's image, with next to nothing in it."""
    (folder / "conda-meta").mkdir(parents=True, exist_ok=True)
    (folder / "conda-meta" / "history").write_text("")
    base = runtime.settings.server_image
    return await runtime.publish(name, version, base, folder, f"/opt/conda/envs/{name}", {})


def sweep(site_id: str, images: bool = True) -> None:
    """Remove whatever a site has left on the Engine; or its containers alone."""
    client: Any = docker.from_env(timeout=60)
    filters = {"label": f"labcommons.site={site_id}"}
    for container in client.containers.list(all=True, filters=filters):
        container.remove(force=True, v=True)
    for image in client.images.list(all=True, filters=filters) if images else ():
        client.images.remove(image.id, force=True)
    client.close()


def client_tls(folder: Path, role: str = "hub") -> ssl.SSLContext:
    """A client's side of the agent's TLS."""
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / f"{role}.crt", folder / f"{role}.key")
    return context


@asynccontextmanager
async def served(runtime: DockerRuntime, tls: Path) -> AsyncIterator[str]:
    """The agent's server in this process, with real certificates; its address."""
    await asyncio.to_thread(agent_tls.init, tls)
    server = make_server(runtime, tls_context(tls))
    sockets = bind_sockets(0, "127.0.0.1", family=socket.AF_INET)
    server.add_sockets(sockets)
    try:
        yield f"https://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        server.stop()
        await server.close_all_connections()


@contextmanager
def program(settings: AgentSettings, site_file: Path, folder: Path) -> Iterator[dict[str, str]]:
    """The agent as a program of its own, as `make up` has it; what a hub is told of it."""
    agent_tls.init(folder / "agent-tls")
    mine = folder / "hub-tls"
    mine.mkdir()
    for theirs, ours in (
        ("ca.crt", "ca.crt"),
        ("hub.crt", "client.crt"),
        ("hub.key", "client.key"),
    ):
        shutil.copy(folder / "agent-tls" / theirs, mine / ours)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    env = {
        **os.environ,
        "LABCOMMONS_SITE_FILE": str(site_file),
        "LABCOMMONS_SITE_ID": settings.site_id,
        "LABCOMMONS_DATA": str(settings.data),
        "LABCOMMONS_USERS_NETWORK": settings.network,
        "LABCOMMONS_SERVER_IMAGE": settings.server_image,
        "LABCOMMONS_BUILDER_IMAGE": settings.builder_image,
        "LABCOMMONS_AGENT_TLS": str(folder / "agent-tls"),
        "LABCOMMONS_AGENT_ADDRESS": "127.0.0.1",
        "LABCOMMONS_AGENT_PORT": str(port),
    }
    command = [sys.executable, "-m", "spawner.runtime.agent"]
    with (folder / "agent.log").open("ab") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        yield {
            "LABCOMMONS_AGENT_URL": f"https://127.0.0.1:{port}",
            "LABCOMMONS_AGENT_TLS": str(mine),
        }
    finally:
        process.terminate()
        process.wait(30)


def connected(url: str, tls: Path, role: str = "hub") -> Runtime:
    """A client of it."""
    return connect(url, client_tls(tls, role), timeout=30)
