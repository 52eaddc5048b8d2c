"""Fixtures of the end-to-end tests: one deployment, real browsers that verify its CA."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))

from deployment import ROOT, Deployment, copy_checkout
from network import BrowserNetwork

CHROMIUM = [
    "--no-sandbox",  # the tests run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000  # milliseconds for one step of a page
expect.set_options(timeout=PATIENCE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def deployment() -> Iterator[Deployment]:
    """The site, up; the second ``make up`` of a run finds little to do."""
    root = ROOT / ".cache" / "e2e"
    copy_checkout(root)
    site = Deployment(root)
    print(site.up())
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
    """Chromium that trusts the site's CA and no exceptions."""
    with (
        tempfile.TemporaryDirectory() as home,
        BrowserNetwork(8443) as network,
        sync_playwright() as playwright,
    ):
        for place in (".pki/nssdb", ".local/share/pki/nssdb"):
            folder = Path(home, place)
            folder.mkdir(parents=True)
            for command in (
                ["-N", "--empty-password"],
                ["-A", "-n", "LabCommons", "-t", "C,,", "-i", str(deployment.ca_file)],
            ):
                subprocess.run(["certutil", "-d", f"sql:{folder}", *command], check=True)
        browser = playwright.chromium.launch(
            executable_path=network.command("chromium", Path(home)),
            args=CHROMIUM,
            env={**os.environ, "HOME": home},  # type: ignore[dict-item]
        )
        yield browser
        browser.close()


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
