"""The page of the hub itself: it is shut down by administrators alone, after a question."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from commons.site import Site
from commons.store import Store
from hub_ext import pages
from rig.hub_in_memory import Lab, hub_lab


@pytest.fixture
async def lab(site: Site, tmp_path: Path) -> AsyncIterator[Lab]:
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    config = Config()
    config.JupyterHub.template_paths = pages.template_paths
    config.JupyterHub.template_vars = pages.template_vars(site)
    config.JupyterHub.jinja_environment_options = pages.jinja_environment_options
    config.Authenticator.admin_users = {"carol"}
    async with hub_lab(store, site, tmp_path, config) as lab:
        yield lab
    store.close()


async def test_the_hub_is_shut_down_after_a_question_and_it_is_in_the_trail(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, trail = list[int](), list[dict[str, Any]]()

    class Trail:
        record = trail.append

    monkeypatch.setattr(lab.app, "stop", lambda: stopped.append(1))
    lab.app.tornado_application.settings["audit"] = Trail()
    await lab.started()
    async with lab.browser("alice") as alice:
        assert (await alice.get("admin")).status == 403
        assert (await alice.send("admin", {"do": "shutdown"})).status == 403
    async with lab.browser("carol") as carol:
        page = await (await carol.get("admin")).text()
        assert "Servers that run: 1." in page
        asked = await carol.send("admin", {"do": ""})
        assert "Servers that run go on (1)." in await asked.text()
        assert stopped == []
        done = await carol.send("admin", {"do": "shutdown"})
        assert "shuts down now" in await done.text()
    await lab.until(lambda: stopped)
    details = [one["labcommons"] for one in trail if one["event"]["action"] == "hub-change"]
    assert {"done": "shutdown", "running": 1, "starting": 0, "people": 4} in details
