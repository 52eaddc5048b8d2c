"""The pages around a start, of a real hub and LabSpawner: what links carry, refusals, failures."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest
from traitlets.config import Config

from commons.site import Site
from commons.site.directory import Team
from commons.store import Store
from hub_ext.pages import jinja_environment_options, template_paths, template_vars
from rig.answering import Here
from rig.hub_in_memory import Browser, Lab, hub_lab

LONG = "x" * 10_000
SCRIPT = "<script>alert(1)</script>"
# What a link says of each option, and what of it is told.
HOSTILE = {
    "long": (LONG, "must be a short text"),
    "script": (SCRIPT, ""),
    "control": ("small\0", "must be a short text"),
    "negative": ("-1", ""),
    "bytes": ("%ff%fe", ""),
    "template": ("{{ 7*7 }}{x}%(y)s", ""),
    "empty": ("", None),
}
OPTIONS = ("environment", "gpus", "gpu_type", "size", "course", "account", "time_limit", "wait")


@pytest.fixture
async def lab(tmp_path: Path, site: Site) -> AsyncIterator[Lab]:
    team = {"vision": Team(members=["vision"])}
    large = site.sizes["large"].model_copy(update={"only_for": ["team-vision"], "default": False})
    small = site.sizes["small"].model_copy(update={"default": True})
    site = site.model_copy(
        update={
            "sizes": {"small": small, "large": large},
            "directory": site.directory.model_copy(update={"teams": team}),
        }
    )
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    config = Config()
    config.JupyterHub.template_paths = template_paths
    config.JupyterHub.template_vars = template_vars(site)
    config.JupyterHub.jinja_environment_options = jinja_environment_options
    async with hub_lab(store, site, tmp_path, config) as lab:
        yield lab
    store.close()


@pytest.fixture
async def alice(lab: Lab) -> AsyncIterator[Browser]:
    async with lab.browser("alice") as browser:
        yield browser


def problems(page: str) -> list[str]:
    """The sentences about a link, as a reader sees them."""
    found = re.search(r'id="linked".*?</div>', page, re.S)
    assert found
    return [unescape(one) for one in re.findall(r"<li>(.*?)</li>", found[0], re.S)]


def checked(page: str, name: str) -> str:
    """The value of the radio button that is chosen."""
    inputs = re.findall(r"<input[^>]*>", page)
    [found] = [one for one in inputs if f'name="{name}"' in one and " checked" in one]
    return re.findall(r'value="([^"]*)"', found)[0]


async def test_a_link_with_anything_in_it_gives_the_form_and_one_sentence(alice: Browser) -> None:
    for option in OPTIONS:
        for name, (value, words) in HOSTILE.items():
            sent = value if name == "bytes" else quote(value, safe="")
            answer = await alice.get(f"spawn/alice?{option}={sent}")
            page = await answer.text()
            what = (option, name)
            assert answer.status == 200, what
            assert 'id="spawn_form"' in page, what
            assert SCRIPT not in page, what
            assert LONG not in page, what
            told = problems(page)
            assert len(told) == (words is not None), (what, told)
            assert all(10 < len(one) < 500 for one in told), (what, told)
            if words and option not in ("gpus", "time_limit", "wait"):
                assert words in told[0], what


async def test_unknown_and_repeated_options_are_told_in_a_few_sentences(alice: Browser) -> None:
    many = "&".join(f"o{n}={LONG[:8]}" for n in range(300))
    for link in (many, f"{quote(SCRIPT)}=1", f"{LONG}=1", "%00=1", "%ff=1", "=1"):
        answer = await alice.get(f"spawn/alice?{link}")
        page = await answer.text()
        assert answer.status == 200
        assert SCRIPT not in page
        assert 1 <= len(problems(page)) <= 3
        assert all("There is no option" in one for one in problems(page))
    posted = await alice.send("spawn/alice", {"size": "small", "environment": b"\xff"})
    assert posted.status == 400
    assert "There is no environment" in await posted.text()
    page = await (await alice.get("spawn/alice?size=small&size=small&gpus=1&gpus=2")).text()
    assert [one.split("”")[0] for one in sorted(problems(page))] == [
        "The option “gpus",
        "The option “size",
    ]


async def test_a_size_that_is_not_ones_own_is_said_to_be_somebody_elses(alice: Browser) -> None:
    page = await (await alice.get("spawn/alice?size=large&gpus=1")).text()
    [told] = problems(page)
    assert "The size “large” is for" in told
    assert "vision" in told
    assert "Sizes: small." in told


async def test_what_starts_a_server_from_a_link_is_asked_about_and_refused_clearly(
    alice: Browser, lab: Lab
) -> None:
    for value in (LONG, SCRIPT, "small\0", "large", "-1"):
        link = f"spawn/alice?opt-size={quote(value, safe='')}"
        asked = await alice.get(link)
        assert asked.status == 200
        page = await asked.text()
        assert "Start a server?" in page
        assert SCRIPT not in page
        refused = await alice.send(link, {"confirmed": "yes"})
        said = await refused.text()
        assert 400 <= refused.status < 500, (value[:20], refused.status)
        assert re.search(r'role="alert"|id="error-message"', said), value[:20]
        assert SCRIPT not in said
    assert not lab.servers.known()


async def test_a_link_to_a_server_of_any_name_is_no_fault(alice: Browser, lab: Lab) -> None:
    for name in (LONG, SCRIPT, "\0", "..", "%ff", "a/b", "名"):
        sent = name if name == "%ff" else quote(name, safe="")
        link = f"spawn/alice/{sent}?size=small"
        for answer in (await alice.get(link), await alice.send(link, {"confirmed": "yes"})):
            page = await answer.text()
            assert answer.status in (200, 400), (name[:20], page)
            assert SCRIPT not in page
    assert not lab.app.users["alice"].spawners.keys() - {""}


async def test_a_refused_start_says_why_and_keeps_the_choices(alice: Browser) -> None:
    page = await alice.send("spawn/alice", {"size": "large", "gpus": "1", "environment": "data"})
    said = await page.text()
    assert page.status == 403
    assert "The size “large” is for" in said
    assert checked(said, "gpus") == "1"


async def test_a_failed_start_says_what_happened_offers_the_log_and_its_choices_again(
    alice: Browser, lab: Lab
) -> None:
    here = lab.memory.faults["start:started"] = Here()
    await alice.send("spawn/alice", {"environment": "data", "gpus": "2", "size": "small"})
    await here.reached.wait()
    [handle] = lab.memory.servers
    lab.memory.output[handle] = f"SyntaxError: {SCRIPT}"
    lab.memory.finish(handle, 3)
    here.set()
    await lab.until(lambda: not lab.spawner().active)
    led = await alice.get("user/alice/")
    page = await alice.get(led.headers["Location"].removeprefix("/hub/"))
    said = unescape(await page.text())
    assert page.status == 409
    assert "The server was not started" in said
    assert "ended" in said
    assert "Choose again" in said
    assert "The end of the server's log" in said
    assert SCRIPT not in await page.text()
    assert f"SyntaxError: {SCRIPT}" in said
    assert checked(await (await alice.get("spawn/alice")).text(), "gpus") == "2"
