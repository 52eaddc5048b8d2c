"""A class whose servers are warm: from forty clicks on the course's link to a JupyterLab each.

The whole deployment (``make up``), over HTTPS. A course is applied whose session begins in some
minutes; once its servers are ready, everybody opens ``/hub/course/NAME`` at the same moment, as a
browser does: through the hub, the login between hub and server (OAuth), JupyterLab's page, and what
JupyterLab asks for first. What a browser then does on a machine of its own is in one browser's row.
And the page of a course with ROSTER students, for its instructor. Run by ``make bench``; writes
tests/bench/results/classroom.md. BENCH_CLASS: students; BENCH_ROSTER: people on the long roster.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
from playwright.sync_api import expect
from yarl import URL

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

from crowd import Here
from deployment import ROOT, Deployment, copy_checkout, wait_for
from network import chromium
from people import log_in
from spawn import machine

CLASS = int(os.environ.get("BENCH_CLASS", "40"))
ROSTER = int(os.environ.get("BENCH_ROSTER", "200"))
COURSE = "ml101"
PAGE = f"/services/labcommons/courses/{COURSE}"
# What JupyterLab asks its server for before a launcher can be seen.
FIRST = ("api/status", "lab/api/settings", "api/kernelspecs", "api/contents?content=1", "api/me")


def document(begins: datetime) -> str:
    return json.dumps(
        {
            "version": 1,
            "course": COURSE,
            "title": {"en": "Machine learning"},
            "timezone": "UTC",
            "term": {"first": str(begins.date()), "last": str(begins.date() + timedelta(days=2))},
            "extra": [
                {
                    "day": str(begins.date()),
                    "starts": f"{begins:%H:%M}",
                    "duration": "1h",
                }
            ],
            "environment": "py313-data",
            "warm": {"before": "4m", "hold": "30m"},
        }
    )


async def signed_in(url: str, context: ssl.SSLContext, name: str) -> aiohttp.ClientSession:
    """Somebody's browser, after the login."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, resolver=Here()),
        timeout=aiohttp.ClientTimeout(total=120),
    )
    async with session.get(f"{url}/hub/login") as answer:
        await answer.read()
    form = {"username": name, "password": f"{name}-demo", "_xsrf": xsrf(session, f"{url}/hub/")}
    async with session.post(f"{url}/hub/login?next=/hub/home", data=form) as answer:
        assert answer.url.path == "/hub/home", answer.url
    return session


def xsrf(session: aiohttp.ClientSession, url: str) -> str:
    return session.cookie_jar.filter_cookies(URL(url))["_xsrf"].value


async def click(session: aiohttp.ClientSession, url: str, name: str) -> tuple[float, float]:
    """Seconds until JupyterLab's page is there, and until all is that it asks for first."""
    began = time.perf_counter()
    async with session.get(f"{url}/hub/course/{COURSE}") as answer:
        page = await answer.text()
        assert answer.url.path.startswith(f"/user/{name}/lab"), answer.url
        assert "jupyter-config-data" in page, page[:500]
        server = answer.url.origin() / "user" / name
    shown = time.perf_counter() - began

    async def ask(path: str) -> None:
        async with session.get(f"{server}/{path}") as answer:
            await answer.read()
            assert answer.status == 200, (path, answer.status)

    await asyncio.gather(*(ask(path) for path in FIRST))
    return shown, time.perf_counter() - began


async def clicks(url: str, context: ssl.SSLContext, names: list[str]) -> list[tuple[float, float]]:
    browsers = await asyncio.gather(*(signed_in(url, context, name) for name in names))
    try:
        await asyncio.sleep(5)
        pairs = zip(browsers, names, strict=True)
        return await asyncio.gather(*(click(one, url, name) for one, name in pairs))
    finally:
        await asyncio.gather(*(one.close() for one in browsers))


async def page_of(url: str, context: ssl.SSLContext, name: str, times: int = 20) -> list[float]:
    browser = await signed_in(url, context, name)
    found = []
    try:
        for _ in range(times + 1):
            began = time.perf_counter()
            async with browser.get(f"{url}{PAGE}") as answer:
                assert (answer.status, answer.url.path) == (200, PAGE)
                await answer.read()
            found.append(time.perf_counter() - began)
    finally:
        await browser.close()
    return found[1:]  # the first logs in to the console


def in_browser(site: Deployment, name: str) -> float:
    """Seconds from the click to JupyterLab's launcher, in one Chromium on this machine."""
    with chromium(site) as browser:
        page = browser.new_context(base_url=site.url).new_page()
        log_in(page, name)
        page.wait_for_url(f"**/user/{name}/lab**")  # where a login leads whose server runs
        began = time.perf_counter()
        page.goto(f"/hub/course/{COURSE}")
        expect(page.locator(".jp-Launcher")).to_be_visible(timeout=60_000)
        return time.perf_counter() - began


def ready(site: Deployment, admin: str) -> int:
    people = site.api("GET", "users?state=ready&limit=200", admin)[1]
    return sum("" in one["servers"] for one in people)


def main() -> None:
    root = ROOT / ".cache" / "e2e"
    copy_checkout(root)
    site = Deployment(root)
    site.up()
    admin = site.login_once("carol")
    site.stop_all_servers(admin)
    names = [f"s{n:02}" for n in range(1, CLASS + 1)]
    context = ssl.create_default_context(cafile=str(site.ca_file))
    for name in names:
        site.login_once(name)
    hub = site.container("hub")
    begins = (datetime.now(UTC) + timedelta(minutes=5)).replace(second=0, microsecond=0)
    apply = f"echo '{document(begins)}' | labcommons course apply -f -"
    try:
        site.run("docker", "exec", hub, "sh", "-c", apply)
        wait_for(lambda: ready(site, admin) >= CLASS, f"{CLASS} servers", 420)
        early = (begins - datetime.now(UTC)).total_seconds()
        alone = in_browser(site, names[0])
        found = asyncio.run(clicks(site.url, context, names))
        more = {"people": {f"p{n:03}": "student" for n in range(ROSTER)}}
        path = f"courses/{COURSE}/roster"
        status, told = site.api("PUT", path, admin, more, of="/services/labcommons/api/v1/")
        assert status == 200, told
        pages = asyncio.run(page_of(site.url, context, "dan"))
    finally:
        site.run("docker", "exec", hub, "labcommons", "course", "remove", COURSE, "--yes")
        site.stop_all_servers(admin)
        site.down()
    (HERE / "results" / "classroom.md").write_text(report(found, alone, pages, early), "utf-8")


def report(found: list[tuple[float, float]], alone: float, pages: list[float], early: float) -> str:
    middle = statistics.median
    rows = "".join(
        f"| {what} | {middle(times):.2f} | {share(times, 0.95):.2f} | {max(times):.2f} |\n"
        for what, times in (
            (f"{CLASS} at once: JupyterLab's page", [page for page, _ in found]),
            (f"{CLASS} at once: and what it asks for first", [usable for _, usable in found]),
            ("one Chromium alone: launcher to be seen", [alone]),
            (f"the course's page with {ROSTER} more students", pages),
        )
    )
    return f"""# A class whose servers are warm

Seconds from the click on the course's link, over HTTPS; the browsers of the crowd are one program
on this machine, which takes its share of the processor. All {CLASS} servers were
ready {early:.0f} s before the hour.

{machine()}.

| | median | 95 % | last |
|---|---|---|---|
{rows}"""


def share(times: list[float], part: float) -> float:
    return sorted(times)[max(0, -(-int(len(times) * part * 100) // 100) - 1)]


if __name__ == "__main__":
    main()
