"""A real hub with our pages, in a process of its own, and a client that logs in."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

HERE = Path(__file__).parent
HOSTILE = "<script>alert('x')</script>"

MODEL: dict[str, Any] = {
    "environments": [
        {
            "name": "py313-data",
            "version": "20261121-ab12cd34",
            "versions": ["20261121-ab12cd34", "20261101-00112233"],
            "tags": {"20261101-00112233": "1.2.0"},
            "deprecated": {"20261101-00112233": "2026-11-15"},
            "title": f"Data {HOSTILE}",
            "description": f"For everyday analysis {HOSTILE}",
            "python": "3.13.5",
            "main_packages": [{"name": f"numpy{HOSTILE}", "version": "2.3.1"}],
            "package_count": 31,
            "kernels": [],
            "disabled": None,
            "selected": True,
        },
        {
            "name": "py311-torch",
            "version": "20261003-aaaabbbb",
            "versions": ["20261003-aaaabbbb"],
            "tags": {},
            "deprecated": {"20261003-aaaabbbb": "2026-11-15"},
            "title": "py311-torch",
            "description": "",
            "python": "3.11.13",
            "main_packages": [],
            "package_count": 112,
            "kernels": [],
            "disabled": "Only team vision may use it. Ask bob.",
            "selected": False,
        },
    ],
    "sizes": [
        {
            "name": name,
            "title": name.title(),
            "cpu": 1.0,
            "memory": "1 GiB",
            "disabled": None,
            "selected": name == "small",
        }
        for name in ("small", "refused", "fails", "waits")
    ],
    "gpus": {
        "simulated": True,
        "total": 3,
        "free": 2,
        "max": 2,
        "choices": [
            {"count": 0, "disabled": None, "selected": True},
            {"count": 1, "disabled": None, "selected": False},
            {"count": 2, "disabled": "Only 1 of one type is free now.", "selected": False},
        ],
        "types": [
            {"name": "A100", "memory": "80 GiB", "total": 2, "free": 1},
            {"name": "RTX 4090", "memory": "24 GiB", "total": 1, "free": 1},
        ],
        "selected_type": "",
        "accounts": [],
        "time_limit": None,
        "wait": True,
    },
    "problem": None,
}
# What a person with a team may choose between; the team's GPU-hours are nearly used up.
ACCOUNTS = [
    {
        "name": "group:vision",
        "title": f"Team vision {HOSTILE}",
        "selected": True,
        "usual": 240,
        "minutes": [30, 60, 120, 240, 480],
        "facts": ["You hold 1 of the 2 GPUs that you may have at once."],
        "outlooks": {
            "1": {"state": "wait", "text": "waits; 2 ahead of you; about 14:30"},
            "2": {"state": "never", "text": "Team vision has no GPU-hours for 2."},
        },
        "types": {
            "RTX 4090": {
                "1": {
                    "state": "now",
                    "text": "starts at once, until 11:00; then the GPUs are reserved",
                    "until": {"value": "until:1800003600", "text": "until 11:00"},
                },
            },
        },
    },
    {
        "name": "user:alice",
        "title": "Yourself",
        "selected": False,
        "usual": None,
        "minutes": [30, 60],
        "facts": ["You may still use 3.5 of 20 GPU-hours."],
        "outlooks": {
            "1": {"state": "now", "text": "starts at once"},
            "2": {
                "state": "now",
                "text": "starts at once, until 10:00; then the GPUs are reserved",
                "until": {"value": "until:1800000000", "text": "until 10:00"},
            },
        },
        "types": {},
    },
]
REFUSAL = f"Environment “py313-data” has no version “{HOSTILE}”."
SITE = """
version: 1
site: {name: 'Lab <b>of</b> tests', demo: true}
directory: {servers: [ldaps://ldap.example.org], users: {base_dn: 'dc=example,dc=org'}}
sizes: {small: {cpu: 1, memory: 1G}}
gpus:
  source: simulated
  devices: [{id: GPU-0, model: A100, memory: 80G}]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Hub:
    """A hub that runs; ``model`` is what its spawner gives as form."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hub/"
        self.model_file = home / "model.json"
        self.set_model(MODEL)
        (home / "refusal.txt").write_text(REFUSAL, "utf-8")
        (home / "site.yaml").write_text(SITE, "utf-8")

    def set_model(self, model: object) -> None:
        self.model_file.write_text(json.dumps(model), "utf-8")

    def start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PAGES_HOME": str(self.home),
            "PAGES_PORT": str(self.port),
            "PAGES_MODEL": str(self.model_file),
            # Longer than slow_spawn_timeout, so that the progress page is seen.
            "PAGES_START_SECONDS": "2.5",
            "LABCOMMONS_SITE_FILE": str(self.home / "site.yaml"),
        }
        with (self.home / "hub.log").open("wb") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    str(HERE / "hub_program.py"),
                    "--config",
                    str(HERE / "hub_config.py"),
                ],
                env=environment,
                cwd=self.home,
                stdout=log,
                stderr=log,
            )

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        for _ in range(1800):
            assert process.poll() is None, (self.home / "hub.log").read_text()
            try:
                if requests.get(self.url + "health", timeout=5).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.1)
        raise AssertionError("the hub does not answer")

    def visitor(self, language: str = "en") -> Visitor:
        return Visitor(self, language)

    def person(self, name: str, language: str = "en") -> Visitor:
        visitor = self.visitor(language)
        answer = visitor.post("login", username=name, password="demo")
        assert urlsplit(answer.url).path != "/hub/login", answer.text
        return visitor


def _read_as_utf8(response: requests.Response, **_: object) -> None:
    response.encoding = "utf-8"


class Visitor:
    """A browser without JavaScript."""

    def __init__(self, hub: Hub, language: str) -> None:
        self.hub = hub
        self.session = requests.Session()
        self.session.headers.update({"Accept-Language": language, "Sec-Fetch-Mode": "navigate"})
        # The hub leaves the charset to the page's own <meta>.
        self.session.hooks["response"].append(_read_as_utf8)

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.session.get(self.hub.url + path, headers=headers, timeout=30)

    def post(self, path: str, **form: str) -> requests.Response:
        """Open the page, and send its form with these fields."""
        page = self.get(path)
        token = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
        assert token, page.text
        return self.session.post(self.hub.url + path, data={"_xsrf": token[1]} | form, timeout=30)


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("hub"))
    process = hub.start()
    try:
        hub.wait(process)
        yield hub
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def charged(hub: Hub) -> Iterator[dict[str, Any]]:
    """A form with accounts to choose from."""
    changed = json.loads(json.dumps(MODEL))
    changed["gpus"] |= {
        "accounts": ACCOUNTS,
        "choices": [
            {"count": 0, "disabled": None, "note": "", "selected": False},
            {"count": 1, "disabled": None, "selected": True}
            | {"note": ACCOUNTS[0]["outlooks"]["1"]["text"]},  # type: ignore[index]
            {"count": 2, "note": "", "selected": False}
            | {"disabled": ACCOUNTS[0]["outlooks"]["2"]["text"]},  # type: ignore[index]
        ],
    }
    hub.set_model(changed)
    yield changed
    hub.set_model(MODEL)


@pytest.fixture
def model(hub: Hub) -> Iterator[dict[str, Any]]:
    """The form's model, for a test to change and hand to ``hub.set_model``."""
    yield json.loads(json.dumps(MODEL))
    hub.set_model(MODEL)
