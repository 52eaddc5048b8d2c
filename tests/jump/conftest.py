"""A person's server in its container, and the service ``ssh`` before it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rig.ssh_server import Server, server_in_container
from rig.ssh_site import SshSite, new_key, running


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with server_in_container() as one:
        yield one


@pytest.fixture
async def into(server: Server, tmp_path: Path) -> AsyncIterator[SshSite]:
    """The service, with somebody whose server that is and who has a key."""
    key = tmp_path / "key"
    line = new_key(key)
    async with running(tmp_path / "site", f"http://127.0.0.1:{server.port}") as site:
        site.hub.keys["lab"] = [line]
        site.hub.places["lab", "main"] = {**server.place(), "keys": [line]}
        site.configure(key)
        yield site
