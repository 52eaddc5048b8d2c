"""A LabSpawner on a real Engine, with a real store and a tiny server that answers ``/api``."""

from __future__ import annotations

import asyncio
import io
import tarfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from jupyterhub import orm
from jupyterhub.auth import DummyAuthenticator
from jupyterhub.objects import Hub, Server
from jupyterhub.user import User
from traitlets.config import Config

from commons.site import CoursePeople, Site, Team
from commons.store import EnvironmentVersion, Store
from rig import agent
from spawner.gpu.watch.monitor import refresh
from spawner.resources import Resources
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.spawner import LabSpawner

# Debian's smallest base has perl-base: enough for a server that says 200 to everything,
# exits with the code of FAIL_WITH where the home has such a file, and is slow where it says so.
START = r"""#!/usr/bin/perl
use strict; use warnings; use IO::Socket::INET; $| = 1;
if (open my $f, '<', "$ENV{HOME}/fail-with") { print "giving up\n"; exit <$f>; }
sleep 60 if -e "$ENV{HOME}/slow";
my ($p) = ($ENV{JUPYTERHUB_SERVICE_URL} // "") =~ m{:(\d+)/};
my $s = IO::Socket::INET->new(LocalPort => $p || 8888, Listen => 20, ReuseAddr => 1) or die $!;
$SIG{TERM} = sub { exit 0 };
while (my $c = $s->accept) {
    while (<$c>) { last if /^\r?$/ }
    print $c "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"; close $c;
}
"""
DOCKERFILE = """FROM labcommons/base:latest
COPY start job /opt/labcommons/bin/
"""
# In place of kernels.job: its folder, then the program.
JOB = '#!/bin/sh\ncd "$1" && shift && exec "$@"\n'


def _context() -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text, mode in (
            ("Dockerfile", DOCKERFILE, 0o644),
            ("start", START, 0o755),
            ("job", JOB, 0o755),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text.encode()), mode
            tar.addfile(info, io.BytesIO(text.encode()))
    buffer.seek(0)
    return buffer


@pytest.fixture(scope="session")
def tiny_image(base_image: str) -> str:
    client = docker.from_env(timeout=60)
    image, _log = client.images.build(
        fileobj=_context(), custom_context=True, tag="lctest/tiny-server:latest", rm=True
    )
    return str(image.id)


@dataclass(frozen=True)
class Published:
    """A site with two versions of an environment: publishing takes its time, so once for all."""

    site_id: str
    images: dict[str, str]  # id by version


@pytest.fixture(scope="session")
def published(tiny_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("published")
    settings = agent.settings(agent.SITE, folder, "none", "lctest/tiny-server:latest")
    runtime = DockerRuntime(settings)

    async def publish() -> dict[str, str]:
        made = {
            version: await agent.publish(runtime, folder / "environment", version=version)
            for version in ("1", "2")
        }
        await runtime.close()
        return made

    yield Published(runtime.site_id, asyncio.run(publish()))
    agent.sweep(runtime.site_id)


@pytest.fixture
def network() -> Iterator[str]:
    client = docker.from_env(timeout=30)
    network = client.networks.create(f"lctest-{uuid.uuid4().hex[:8]}", driver="bridge")
    yield str(network.name)
    for container in client.containers.list(all=True, filters={"network": network.name}):
        container.remove(force=True)
    network.remove()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """SQLite alone: what differs between databases is tested with the ledger."""
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    yield store
    store.close()


def add_versions(store: Store, images: Mapping[str, str]) -> None:
    """Versions of the environment *data*; ``images``: id by version."""
    for version, image_id in images.items():
        row = EnvironmentVersion(
            name="data",
            version=version,
            image=f"lctest/tiny-server:{version}",
            image_id=image_id,
            prefix="/opt/conda/envs/data",
            python="3.13.5",
            lock_digest="sha256:0",
            channels=["conda-forge"],
            words={"title": {"en": "Data", "zh_CN": "数据"}, "description": "For data"},
            main_packages=[{"name": "numpy", "version": "2.3.1"}],
            packages=[{"name": "numpy", "version": "2.3.1"}],
            kernelspecs={},
        )
        store.transact(lambda s, row=row: s.add(row))  # type: ignore[misc]


@asynccontextmanager
async def serving(shared: Resources) -> AsyncIterator[Resources]:
    """As the hub does it while it runs."""
    LabSpawner.shared = shared
    watching = asyncio.create_task(shared.watch.run())
    await shared.watch.whole()
    yield shared
    await shared.admission.close()
    watching.cancel()
    LabSpawner.shared = None


@pytest.fixture
async def resources(
    published: Published, network: str, store: Store, site: Site, tmp_path: Path
) -> AsyncIterator[Resources]:
    servers = site.servers.model_copy(update={"network": network, "stop_timeout": 2})
    courses = {"bio2": CoursePeople(students=["bio2"])}
    teams = {"vision": Team(members=["vision"])}
    directory = site.directory.model_copy(update={"courses": courses, "teams": teams})
    site = site.model_copy(update={"servers": servers, "directory": directory})
    settings = agent.settings(
        site, tmp_path, network, "lctest/tiny-server:latest", published.site_id
    )
    runtime = DockerRuntime(settings, timeout=20)
    await runtime.begin_watch()
    await refresh(store, site.gpus, runtime)
    add_versions(store, published.images)
    async with serving(Resources(site, store, runtime, tmp_path)) as shared:
        yield shared
    await runtime.close()
    agent.sweep(settings.site_id, images=False)


NewSpawner = Callable[..., LabSpawner]


@pytest.fixture
def new_spawner(resources: Resources) -> NewSpawner:
    """``new_spawner("alice", gpus=1)``: a spawner as the hub would have it before ``start``."""
    db = orm.new_session_factory("sqlite:///:memory:")()

    def make(
        name: str,
        uid: int = 20003,
        server: str = "",
        config: Config | None = None,
        **options: Any,
    ) -> LabSpawner:
        user = db.query(orm.User).filter_by(name=name).one_or_none()
        if user is None:
            user = orm.User(name=name)
            db.add(user)
            db.commit()
        if server:
            db.add(orm.Spawner(user=user, name=server))
            db.commit()
        settings = {"config": config, "authenticator": DummyAuthenticator()}
        spawner = User(user, settings)._new_spawner(
            server, spawner_class=LabSpawner, hub=Hub(), oauth_client_id="client"
        )
        orm_server = orm.Server(base_url=f"/user/{name}/")
        db.add(orm_server)
        db.commit()
        spawner.server = Server(orm_server=orm_server)
        spawner.api_token = "token"
        spawner.user_options = options
        spawner._auth_state = {"uid": uid, "gid": 20000, "gids": [21001]}
        spawner._spawn_pending = True
        assert isinstance(spawner, LabSpawner)
        return spawner

    return make
