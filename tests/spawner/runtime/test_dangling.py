"""Images of ours that have lost their name go; those that a container uses, and others', stay."""

from __future__ import annotations

import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import ImageNotFound

from commons.site import Site
from rig import agent
from rig.own_engine import sleeper
from spawner.runtime.docker import images
from spawner.runtime.docker.runtime import DockerRuntime

pytestmark = pytest.mark.docker


async def test_what_has_lost_its_name_goes_and_what_is_used_stays(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = f"lctest.{uuid.uuid4().hex[:8]}"
    monkeypatch.setattr(images, "OURS", mark)
    client: Any = docker.from_env(timeout=60)

    def made(label: str) -> str:
        """An image of the name, which the one before loses."""
        changes = [f"LABEL {label}={uuid.uuid4().hex}", 'CMD ["/bin/sleep", "9"]']
        client.api.import_image_from_data(data, repository=name, changes=changes)
        return str(client.images.get(name).id)

    data, name = sleeper(), f"lctest/{mark}"
    unused, used, others, named = made(mark), made(mark), made(f"{mark}x"), made(mark)
    container = client.containers.create(used)
    runtime = DockerRuntime(agent.settings(site, tmp_path, "none", "lctest/none"))
    try:
        assert (await runtime.prune_dangling(dry_run=False)).count == 0  # they are young
        monkeypatch.setattr(images, "_OLD", -2)
        would = await runtime.prune_dangling(dry_run=True)
        assert would.count == 1
        assert would.bytes > 0
        assert (await runtime.prune_dangling(dry_run=False)).count == 1
        left = {image.id for image in client.images.list(all=True)}
        assert unused not in left
        assert {used, others, named} <= left
    finally:
        container.remove(force=True)
        for image in (unused, used, others, named):
            with suppress(ImageNotFound):
                client.api.remove_image(image, force=True)
        client.close()
        await runtime.close()
