"""Fixtures of the end-to-end tests: one deployment, real browsers that verify its CA."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

sys.path.insert(0, str(Path(__file__).parent))

from deployment import ROOT, UP_TIMEOUT, Deployment, copy_checkout
from network import chromium

# What `make test` does with a second site while the first has the rest; about a third of the time.
BREAKS = {"test_faults", "test_maintenance", "test_packages", "test_wiped_machine"}
PATIENCE = 60_000  # milliseconds for one step of a page
expect.set_options(timeout=PATIENCE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if item.path.stem in BREAKS:
                item.add_marker(pytest.mark.breaks)


@pytest.fixture(scope="session")
def deployment(site_images: subprocess.Popen[bytes]) -> Iterator[Deployment]:
    """The site, up; the second ``make up`` of a run finds little to do."""
    site_images.wait(UP_TIMEOUT)  # whatever it said: `make up` says it again
    # Beside another test bed, the second one's site has a folder of its own.
    root = ROOT / ".cache" / ("e2e-2" if "LABCOMMONS_IMAGES_AT" in os.environ else "e2e")
    copy_checkout(root)
    site = Deployment(root)
    site.backed_up()
    print(site.up())
    site.without_limits()
    yield site
    site.down()


@pytest.fixture(scope="session")
def admin(deployment: Deployment) -> str:
    """A token of carol, platform admin."""
    return deployment.login_once("carol")


@pytest.fixture
def clean(deployment: Deployment, admin: str) -> Iterator[Deployment]:
    """The site without anybody's server, before and after."""
    deployment.stop_all_servers(admin)
    yield deployment
    deployment.stop_all_servers(admin)


@pytest.fixture(scope="session")
def browser(deployment: Deployment) -> Iterator[Browser]:
    with chromium(deployment) as browser:
        yield browser


NewPage = Callable[..., Page]
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture
def new_page(
    browser: Browser, deployment: Deployment, pictures: Path, request: pytest.FixtureRequest
) -> Iterator[NewPage]:
    """``new_page()``: a page of somebody's own browser, with no cookies of others.

    Of a test that fails, each page is kept as a picture ``failed-…``.
    """
    contexts: list[BrowserContext] = []

    def make(locale: str = "en-US", **options: object) -> Page:
        options.setdefault("viewport", {"width": 1280, "height": 860})
        context = browser.new_context(locale=locale, base_url=deployment.url, **options)  # type: ignore[arg-type]
        if locale == "en-US":  # whatever the directory says of who signs in
            context.add_cookies([{"name": "labcommons-lang", "value": "en", "url": deployment.url}])
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        return context.new_page()

    yield make
    for number, context in enumerate(contexts):
        if request.node.stash.get(FAILED, False):
            name = f"failed-{request.node.name[:60]}-{number}".replace("/", "_")
            context.pages[0].screenshot(path=str(pictures / f"{name}.png"))
        context.close()


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where screenshots go: LABCOMMONS_SCREENSHOTS, else a folder that git ignores."""
    folder = Path(os.environ.get("LABCOMMONS_SCREENSHOTS", ROOT / ".cache" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
