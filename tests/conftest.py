"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `rig` is a package of its own

from hub_ext.site import Site
from hub_ext.store import Store
from rig.postgres import Postgres


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """End-to-end tests come last: the rest fails sooner, and their browser keeps an event loop."""
    items.sort(key=lambda item: "e2e" in item.path.parts)


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
            "sizes": {
                "small": {"cpu": 1, "memory": "1G", "title": {"en": "Small", "zh_CN": "小"}},
                "large": {"cpu": 4, "memory": "8G", "default": True},
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
