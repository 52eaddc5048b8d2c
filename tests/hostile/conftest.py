"""A hub with the site's own configuration, and servers that keep what they are shown."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

RIG = Path(__file__).parents[1] / "rig"
SITE = """
version: 1
site: {name: Lab, public_url: "https://lab.example.org"}
directory:
  servers: ["ldaps://ldap.example.org"]
  users: {base_dn: "dc=example,dc=org"}
  teams: {vision: {members: [vision]}, speech: {}}
  courses: {ml101: {students: [ml101]}}
sizes:
  small: {cpu: 1, memory: 1G}
ssh: {}
"""
PEOPLE = ("alice", "bob", "erin", "dan", "carol")


class StandInHub:
    """The hub of ``rig.standin_hub``, in a process of its own."""

    def __init__(self, home: Path) -> None:
        self.home, self.secrets = home, {"cookie-secret": "0c" * 32, "crypt-key": "0d" * 32}
        for name in ("secrets", "data/hub", "record"):
            (home / name).mkdir(parents=True)
        self.secrets |= {name: f"the-{name}" for name in ("proxy-token", "console-token")}
        self.secrets["ssh-token"] = "the-ssh-token"
        self.secrets["kernels-token"] = "the-kernels-token"
        for name, text in self.secrets.items():
            (home / "secrets" / name).write_text(text)
        (home / "site.yaml").write_text(SITE)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.origin = f"http://127.0.0.1:{port}"
        env = {
            **os.environ,
            "HUB_PORT": str(port),
            "HUB_TOKEN": "of-the-test",
            "RECORD": str(home / "record"),
            "LABCOMMONS_GATE_URL": self.origin,
            "LABCOMMONS_SITE_FILE": str(home / "site.yaml"),
            "LABCOMMONS_DATA": str(home / "data"),
            "LABCOMMONS_SECRETS": str(home / "secrets"),
            "LABCOMMONS_HUB_DATABASE_URL": f"sqlite:///{home / 'hub.sqlite'}",
            "LABCOMMONS_DATABASE_URL": f"sqlite:///{home / 'labcommons.sqlite'}",
        }
        self._log = (home / "hub.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, str(RIG / "standin_hub.py")],
            env=env,
            cwd=home,
            stdout=self._log,
            stderr=self._log,
        )

    def api(
        self, method: str, path: str, body: object = None, token: str = "of-the-test"
    ) -> requests.Response:
        """Ask the hub's REST API."""
        headers = {"Authorization": f"token {token}"} if token else {}
        return requests.request(
            method, f"{self.origin}/hub/api/{path}", json=body, headers=headers, timeout=60
        )

    def until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            log = (self.home / "hub.log").read_text()[-5000:]
            assert self.process.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            return self.api("GET", "").ok
        except requests.ConnectionError:
            return False

    def up(self) -> None:
        """Wait for the hub, and have the people in it."""
        self.until(self._answers)
        self.api("POST", "users", {"usernames": list(PEOPLE)})

    def token(self, user: str, *scopes: str) -> str:
        """A token that a person makes on the hub's page; with these scopes, or all of theirs."""
        body = {"scopes": list(scopes)} if scopes else {}
        return str(self.api("POST", f"users/{user}/tokens", body).json()["token"])

    def start(self, user: str) -> None:
        """Start a person's server."""
        self.api("POST", f"users/{user}/server", {}).raise_for_status()
        self.until(
            lambda: (
                self.api("GET", f"users/{user}").json()["servers"].get("", {}).get("ready", False)
            )
        )

    def record(self, user: str) -> list[dict[str, Any]]:
        """What a person's server was started with and shown."""
        file = self.home / "record" / f"{user}-.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()]

    def server_token(self, user: str) -> str:
        """The token that a person's server holds."""
        return str(self.record(user)[0]["environment"]["JUPYTERHUB_API_TOKEN"])

    def server_url(self, user: str) -> str:
        """Where a person's server listens."""
        port = self.record(user)[0]["environment"]["JUPYTERHUB_SERVICE_URL"].rsplit(":", 1)[1]
        return f"http://127.0.0.1:{port.split('/')[0]}/user/{user}/"

    def close(self) -> None:
        """End it, with its servers."""
        if self.process.poll() is None:
            for user in PEOPLE:
                self.api("DELETE", f"users/{user}/server")
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:  # a busy machine: nothing of it is looked at any more
            self.process.kill()
            self.process.wait(30)
        self._log.close()


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInHub]:
    """The hub, with the servers of alice and bob, and carol's, running."""
    hub = StandInHub(tmp_path_factory.mktemp("hub"))
    try:
        hub.up()
        for user in ("alice", "bob", "carol"):
            hub.start(user)
        yield hub
    finally:
        hub.close()
