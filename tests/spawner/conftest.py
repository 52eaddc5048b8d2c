"""A LabSpawner on a real Engine, with a real store and a tiny server that answers ``/api``."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from jupyterhub import orm
from jupyterhub.objects import Hub, Server
from jupyterhub.user import User

from hub_ext.site import Site
from hub_ext.store import EnvironmentVersion, Store
from spawner.engine import Engine
from spawner.gpu.monitor import refresh
from spawner.resources import Resources
from spawner.spawner import LabSpawner

# Debian's smallest base has perl-base: enough for a server that says 200 to everything,
# exits with the code of FAIL_WITH where the home has such a file, and is slow where it says so.
START = r"""#!/usr/bin/perl
use strict; use warnings; use IO::Socket::INET; $| = 1;
if (open my $f, '<', "$ENV{HOME}/fail-with") { print "giving up\n"; exit <$f>; }
sleep 60 if -e "$ENV{HOME}/slow";
my $s = IO::Socket::INET->new(LocalPort => 8888, Listen => 20, ReuseAddr => 1) or die $!;
$SIG{TERM} = sub { exit 0 };
while (my $c = $s->accept) {
    while (<$c>) { last if /^\r?$/ }
    print $c "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"; close $c;
}
"""
DOCKERFILE = """FROM labcommons/base:latest
COPY start /opt/labcommons/bin/start
"""


def _context() -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text, mode in (("Dockerfile", DOCKERFILE, 0o644), ("start", START, 0o755)):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text.encode()), mode
            tar.addfile(info, io.BytesIO(text.encode()))
    buffer.seek(0)
    return buffer


@pytest.fixture(scope="session")
def tiny_image() -> str:
    client = docker.from_env(timeout=60)
    image, _log = client.images.build(
        fileobj=_context(), custom_context=True, tag="lctest/tiny-server:latest", rm=True
    )
    return str(image.id)


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


@pytest.fixture
async def resources(
    tiny_image: str, network: str, store: Store, site: Site, tmp_path: Path
) -> AsyncIterator[Resources]:
    (tmp_path / "homes").mkdir()
    servers = site.servers.model_copy(update={"network": network, "stop_timeout": 2})
    site = site.model_copy(update={"servers": servers})
    await refresh(store, site.gpus)
    for version in ("1", "2"):
        row = EnvironmentVersion(
            name="data",
            version=version,
            image=f"lctest/tiny-server:{version}",
            image_id=tiny_image,
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
    engine = Engine(timeout=20)
    site_id = f"lctest-{uuid.uuid4().hex[:8]}"
    LabSpawner.shared = Resources(site, store, engine, site_id, tmp_path, tmp_path)
    yield LabSpawner.shared
    await LabSpawner.shared.admission.close()
    for container in await engine.list(f"labcommons.site={site_id}"):
        await engine.remove(container.id)
    LabSpawner.shared = None
    engine.close()


NewSpawner = Callable[..., LabSpawner]


@pytest.fixture
def new_spawner(resources: Resources) -> NewSpawner:
    """``new_spawner("alice", gpus=1)``: a spawner as the hub would have it before ``start``."""
    db = orm.new_session_factory("sqlite:///:memory:")()

    def make(name: str, uid: int = 20003, server: str = "", **options: Any) -> LabSpawner:
        user = db.query(orm.User).filter_by(name=name).one_or_none()
        if user is None:
            user = orm.User(name=name)
            db.add(user)
            db.commit()
        spawner = User(user, {})._new_spawner(
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
