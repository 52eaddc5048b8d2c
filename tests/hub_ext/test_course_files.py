"""Choosing what is handed in from one's own files; and what a frozen course starts."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from commons.site import CoursePeople, Site
from commons.store import Store
from courses import records, term
from courses.document import check_course
from hub_ext import pages
from rig.hub_in_memory import Lab, hub_lab

SPEC = {
    "version": 1, "course": "ml101", "title": {"en": "ML"}, "timezone": "UTC",
    "term": {"first": "2026-10-01", "last": "2027-02-01"}, "environment": "data:1",
    "handins": [{"name": "hw1", "title": {"en": "The first"}, "due": "2026-11-03 23:59"}],
}  # fmt: skip


@pytest.fixture
async def lab(site: Site, tmp_path: Path) -> AsyncIterator[Lab]:
    """alice is a student, bob is in no course."""
    courses = {"ml101": CoursePeople(students=["ml101"])}
    directory = site.directory.model_copy(update={"courses": courses})
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    site = site.model_copy(update={"directory": directory})
    config = Config()
    config.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0, "slow_stop_timeout": 10}
    config.JupyterHub.template_paths = pages.template_paths
    config.JupyterHub.template_vars = pages.template_vars(site)
    config.JupyterHub.jinja_environment_options = pages.jinja_environment_options
    config.JupyterHub.load_groups = {"course:ml101:students": {"users": ["alice"]}}
    config.Authenticator.allowed_users = {"alice", "bob"}
    async with hub_lab(store, site, tmp_path, config) as lab:

        async def at_login() -> dict[str, Any]:
            return {"courses": {"ml101": "student"}, "uid": 20003, "gid": 20000, "gids": []}

        lab.app.users["alice"].get_auth_state = at_login
        shared = lab.resources
        await shared.store.run(lambda s: records.apply(s, check_course(SPEC), "dan", shared.site))
        yield lab
    store.close()


def links(page: str) -> dict[str, str]:
    """Addresses by what a screen reader says of them."""
    found = re.findall(r'<a [^>]*href="([^"]*)"[^>]*>(.*?)</a>', page, re.DOTALL)
    return {re.sub(r"<[^>]*>", "", words).strip(): unescape(to) for to, words in found}


async def test_a_file_is_chosen_by_links_from_folder_to_folder(lab: Lab) -> None:
    hostile = "<b>&a=1 b"
    for path in ("ml/hw1/report.ipynb", "ml/notes.txt", f"{hostile}/x", "top.txt"):
        lab.memory.files["alice", path] = b"12"
    lab.memory.files["bob", "secret"] = b"1"
    async with lab.browser("alice") as alice:
        page = await (await alice.get("course-files/ml101?for=hw1")).text()
        assert "secret" not in page
        assert "<b>" not in page
        home = links(page)
        assert home["Choose top.txt"].endswith("handins?handin=hw1&path=top.txt#h-hw1")
        assert "Choose this folder" not in home  # of all of the home nobody thinks
        folder = await alice.get(home["ml/"].removeprefix("/hub/"))
        inner = links(await folder.text())
        assert inner["Choose this folder"].endswith("handins?handin=hw1&path=ml#h-hw1")
        deeper = links(await (await alice.get(inner["hw1/"].removeprefix("/hub/"))).text())
        assert "path=ml%2Fhw1%2Freport.ipynb" in deeper["Choose report.ipynb"]
        assert "path=%3Cb%3E%26a%3D1+b" in page
        back = await alice.get("course-files/ml101?for=hw1&path=ml&feedback=1")
        given = links(await back.text())
        assert given["Choose this folder"].endswith("handins/hw1?path=ml#back")
        assert not any(words.startswith("Choose notes") for words in given)
    assert lab.memory.made["home-alice"] == 4


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("for=none", 404),
        ("for=hw1&path=../bob", 400),
        ("for=hw1&path=a//b", 400),
        ("for=hw1&path=gone", 409),
        ("", 404),
    ],
)
async def test_what_is_no_folder_of_the_home_is_refused(lab: Lab, query: str, status: int) -> None:
    async with lab.browser("alice") as alice:
        assert (await alice.get(f"course-files/ml101?{query}")).status == status
    async with lab.browser("bob") as bob:
        assert (await bob.get(f"course-files/ml101?{query}")).status == 404


async def test_no_server_is_started_for_a_frozen_course(lab: Lab) -> None:
    shared = lab.resources
    freeze = term.freeze
    await shared.store.run(lambda s: freeze(s, "ml101", "dan", shared.site, time.time()))
    async with lab.browser("alice") as alice:
        refused = await alice.get("course/ml101")
        assert (refused.status, "is frozen" in await refused.text()) == (409, True)
    await lab.rest("POST", "users/alice/server", {"size": "small", "course": "ml101"})
    await lab.until(lambda: not lab.spawner().pending)
    error = lab.spawner()._spawn_future.exception()
    assert "is frozen" in str(getattr(error, "jupyterhub_message", ""))
    started = await lab.started(size="small")  # one's own goes on, and sees the course to read
    assert started.ready
    [spec] = lab.memory.specs.values()
    assert "course-ml101" in spec.read_only
