"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # `rig` is a package of its own

from commons.site import Site
from commons.store import Store
from deploy.engine import CACHE
from rig.images import built_beside, ours
from rig.postgres import Postgres

# What an example takes depends on what else the machine does.
settings.register_profile("lab", deadline=None)
settings.load_profile("lab")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """End-to-end tests come last: the rest fails sooner, and their browser keeps an event loop.

    What takes an image of ours needs an Engine.
    """
    items.sort(key=lambda item: "e2e" in item.path.parts)
    for item in items:
        if "base_image" in getattr(item, "fixturenames", ()):
            item.add_marker("docker")


@pytest.fixture(scope="session", autouse=True)
def site_images(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes] | None]:
    """What builds the site's images for the end-to-end tests while others run, if any are run."""
    if any("e2e" in item.path.parts for item in request.session.items):
        with built_beside(CACHE / "log" / "tests-images.log") as process:
            yield process
    else:
        yield None


@pytest.fixture(scope="session")
def base_image() -> str:
    """The image that all of ours begin with: whichever test is the first on a new machine."""
    return f"{ours('base')}:latest"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    # Its socket's path must be short, and its folder open to another user.
    with tempfile.TemporaryDirectory(prefix="lcpg") as folder:
        Path(folder).chmod(0o755)
        with Postgres(Path(folder, "pg")) as server:
            yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Our database, migrated and empty: every test that takes it runs on both engines."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'labcommons.sqlite'}"
    else:
        url = request.getfixturevalue("postgres").database(f"t{uuid.uuid4().hex[:12]}")
    store = Store(url)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def site() -> Site:
    """A small site with two simulated models of GPU."""
    return Site.model_validate(
        {
            "version": 1,
            "directory": {
                "servers": ["ldaps://directory.example.org"],
                "users": {"base_dn": "ou=people,dc=example,dc=org"},
            },
            "ssh": {},
            "sizes": {
                "small": {"cpu": 1, "memory": "1G", "title": {"en": "Small", "zh_CN": "小"}},
                "large": {"cpu": 4, "memory": "8G", "guarantee": "1G", "default": True},
            },
            "gpus": {
                "source": "simulated",
                "max_per_server": 2,
                "devices": [
                    {"id": "GPU-a0", "model": "A100", "memory": "80G"},
                    {"id": "GPU-a1", "model": "A100", "memory": "80G"},
                    {"id": "GPU-b0", "model": "T4", "memory": "16G"},
                ],
            },
        }
    )
