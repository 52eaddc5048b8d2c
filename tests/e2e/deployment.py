"""The deployment under test: a copy of this checkout, brought up by ``make up`` as anyone would.

The copy lives under ``.cache/e2e``, with its own ``.env`` and ``data``; it runs on the
test bed's Engine. Between runs images, channel and locks stay; people's servers do not.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

ROOT = Path(__file__).resolve().parents[2]
KEPT = {".env", "data", ".cache"}
UP_TIMEOUT = 1500  # seconds: a bare machine builds everything


def copy_checkout(target: Path) -> None:
    """What git tracks or would track, as it is in the working tree."""
    names = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    target.mkdir(parents=True, exist_ok=True)
    for old in target.iterdir():
        if old.name not in KEPT:
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


class _Here(http.client.HTTPSConnection):
    """HTTPS to this machine, whatever the name: Python does not know that *.localhost is here."""

    def connect(self) -> None:
        plain = socket.create_connection(("localhost", self.port), self.timeout)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)  # type: ignore[attr-defined]


class Here(urllib.request.HTTPSHandler):
    """For an opener: every host is this machine; certificates are verified for their names."""

    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_Here, request, context=self._context)  # type: ignore[attr-defined]


class Deployment:
    """A running site."""

    def __init__(self, root: Path, project: str = "labcommons", port: int = 8443) -> None:
        self.root, self.project = root, project
        self.url = f"https://lab.localhost:{port}"

    @property
    def backups(self) -> Path:
        """Where its backups go, once ``backed_up`` has said so."""
        return self.root / ".cache" / "backups"

    def backed_up(self) -> None:
        """Have the site file name a place for backups, an empty one."""
        shutil.rmtree(self.backups, ignore_errors=True)
        shutil.rmtree(self.root / "data" / "backup", ignore_errors=True)
        self.backups.mkdir(parents=True)
        with (self.root / "config" / "demo" / "site.yaml").open("a") as file:
            file.write(f"\nbackup:\n  target: {self.backups}\n")

    @property
    def ca_file(self) -> Path:
        return self.root / "data" / "tls" / "ca.crt"

    def up(self) -> str:
        """``make up``; its output. Fails the test with that output."""
        self._take_over()
        return self.make("up")

    def make(self, *words: str, fails: bool = False) -> str:
        """A target; its output. Fails the test with that output."""
        done = subprocess.run(
            ["make", *words, f"PYTHON={sys.executable}"],
            cwd=self.root,
            # No command and no unit of this machine's.
            env={**os.environ, "LABCOMMONS_BIN": "", "LABCOMMONS_SYSTEMD": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=UP_TIMEOUT,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def _take_over(self) -> None:
        """Remove what another checkout's run left on the test bed: `make up` would refuse."""
        folder = '{{.ID}} {{.Label "com.docker.compose.project.working_dir"}}'
        mine = f"label=com.docker.compose.project={self.project}"
        for line in self.docker("ps", "-a", "--filter", mine, "--format", folder).splitlines():
            if line.partition(" ")[2] != str(self.root):
                self.docker("rm", "--force", line.partition(" ")[0])

    def down(self) -> None:
        env = {**os.environ, "LABCOMMONS_SYSTEMD": ""}
        subprocess.run(["make", "down"], cwd=self.root, env=env, check=True, timeout=300)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def container(self, service: str) -> str:
        """The id of a service's container."""
        return self.docker(
            "ps", "-aq", "--no-trunc",
            "--filter", f"label=com.docker.compose.project={self.project}",
            "--filter", f"label=com.docker.compose.service={service}",
        ).strip()  # fmt: skip

    def output_of(self, service: str, since: str = "0") -> str:
        """What a service has printed since it was made, or since a time."""
        return subprocess.run(
            ["docker", "logs", "--since", since, self.container(service)],
            check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
        ).stdout  # fmt: skip

    def docker(self, *arguments: str) -> str:
        return self.run("docker", *arguments)

    def labcommons(self, *arguments: str) -> Any:
        """``labcommons … --json`` in the hub's container."""
        return json.loads(
            self.docker("exec", self.container("hub"), "labcommons", *arguments, "--json")
        )

    def edited(self, script: str, *words: str) -> str:
        """``labcommons …`` as the host's command runs it, where the editor is sed with a script."""
        say = (
            "import json, sys; from deploy import builder, settings; "
            "where = builder.databases('LABCOMMONS_DATABASE_URL').items(); "
            "editor = ['--env=EDITOR=' + sys.argv[1]]; "
            "words = builder.builder(settings.load(), sys.argv[2:], editor); "
            "print(json.dumps(['env', *map('='.join, where), *words]))"
        )
        return self.run(
            *json.loads(self.run(sys.executable, "-c", say, f"sed -i {script}", *words))
        )

    def kill(self, service: str) -> None:
        """kill -9 of a service's main process, as the kernel's out-of-memory killer would; returns
        when the Engine has seen that, and what it says is of the next one.
        """

        def state() -> tuple[str, str]:
            words = ("inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}}")
            pid, started = self.docker(*words, self.container(service)).split()
            return pid, started

        pid, started = state()
        # init is the container's first process; what it runs is its child.
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        subprocess.run(["kill", "-9", *children], check=True)
        wait_for(lambda: state()[1] != started, f"{service} to be started again")

    def api(
        self,
        method: str,
        path: str,
        token: str,
        body: object = None,
        of: str = "/hub/api/",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """A request to a REST API, the hub's, over HTTPS, CA verified: (status, parsed body)."""
        request = urllib.request.Request(
            f"{self.url}{of}{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={
                "Authorization": f"token {token}",
                "Content-Type": "application/json",
                **(headers or {}),
            },
        )
        try:
            with self.opener().open(request, timeout=60) as answer:
                text, status = answer.read(), answer.status
        except urllib.error.HTTPError as error:
            text, status = error.read(), error.code
        try:
            return status, json.loads(text) if text else None
        except json.JSONDecodeError:  # nginx's own page, while the hub is away
            return status, text.decode("utf-8", "replace")

    def get(self, path: str) -> int:
        """The status of a page, or of an address; CA verified."""
        url = path if path.startswith("https:") else self.url + path
        try:
            with self.opener().open(url, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def healthy(self, service: str) -> bool:
        container = self.container(service)
        return bool(container) and (
            self.docker("inspect", "-f", "{{.State.Health.Status}}", container).strip() == "healthy"
        )

    def login_once(self, user: str) -> str:
        """Log a person in over HTTPS without a browser; returns an API token of theirs."""
        jar = http.cookiejar.CookieJar()
        opener = self.opener(urllib.request.HTTPCookieProcessor(jar))

        def xsrf() -> str:
            return next(str(cookie.value) for cookie in jar if cookie.name == "_xsrf")

        opener.open(f"{self.url}/hub/login", timeout=30).read()
        form = {"username": user, "password": f"{user}-demo", "_xsrf": xsrf()}
        body = urllib.parse.urlencode(form).encode()
        opener.open(f"{self.url}/hub/login?next=/hub/home", body, timeout=30).read()
        request = urllib.request.Request(
            f"{self.url}/hub/api/users/{user}/tokens",
            method="POST",
            data=b'{"expires_in": 7200}',
            headers={
                "X-XSRFToken": xsrf(),
                "Referer": f"{self.url}/hub/token",
                "Content-Type": "application/json",
            },
        )
        return str(json.loads(opener.open(request, timeout=30).read())["token"])

    def server_url(self, user: str) -> str:
        """Where a person's own server is, for a browser."""
        return self.url.replace("lab.", f"{user}.lab.") + f"/user/{user}/"

    def answers(self, user: str) -> bool:
        """Whether a person's own server does, through the proxies."""
        return self.get(self.server_url(user) + "api") == 200

    def opener(self, *handlers: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
        """For requests to the site, CA verified."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        return urllib.request.build_opener(Here(context=context), *handlers)

    def failed_login(self, user: str, headers: dict[str, str]) -> int:
        """The status of a login with a wrong password, with headers of one's own."""
        jar = http.cookiejar.CookieJar()
        opener = self.opener(urllib.request.HTTPCookieProcessor(jar))
        opener.open(f"{self.url}/hub/login", timeout=30).read()
        xsrf = next(str(cookie.value) for cookie in jar if cookie.name == "_xsrf")
        form = {"username": user, "password": "wrong", "_xsrf": xsrf}
        request = urllib.request.Request(
            f"{self.url}/hub/login", urllib.parse.urlencode(form).encode(), headers
        )
        try:
            return int(opener.open(request, timeout=30).status)
        except urllib.error.HTTPError as error:
            return error.code

    def start_server(self, token: str, user: str, options: dict[str, Any]) -> None:
        """Start a person's server by REST and wait until it is ready."""
        status, answer = self.api("POST", f"users/{user}/server", token, options)
        assert status in (201, 202), answer

        def ready() -> bool:
            _, found = self.api("GET", f"users/{user}", token)
            assert found["servers"], f"the server of {user} failed to start"
            return bool(found["servers"][""]["ready"])

        wait_for(ready, f"the server of {user}", 120)

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """The next server's container stands still from its start to the end of the block."""
        client = docker.from_env()
        events = client.events(
            decode=True, filters={"type": "container", "event": "start", "label": "labcommons.user"}
        )
        paused: list[Container] = []

        def pause_first() -> None:
            for event in events:
                container = client.containers.get(event["id"])
                container.pause()
                paused.append(container)
                return

        watcher = threading.Thread(target=pause_first, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            events.close()
            watcher.join(10)
            for container in paused:
                container.unpause()

    def containers(self, user: str = "") -> list[str]:
        """Names of users' containers, or of one person's."""
        label = f"label=labcommons.user={user}" if user else "label=labcommons.user"
        mine = f"label=labcommons.site={self.project}"
        names = ("ps", "-a", "--filter", label, "--filter", mine, "--format", "{{.Names}}")
        return self.docker(*names).split()

    def leases(self) -> list[dict[str, Any]]:
        found = self.labcommons("gpu", "leases")
        assert isinstance(found, list)
        return found

    def without_limits(self) -> None:
        """Take back what the demo begins with: a test sets the limits that it is about."""
        hub = ("docker", "exec", self.container("hub"))
        none = "echo version: 1 | labcommons quota apply -f - --prune"
        self.run(*hub, "sh", "-c", none)
        for one in self.labcommons("reservation", "list"):
            self.run(*hub, "labcommons", "reservation", "cancel", one["id"], "--yes")

    def stop_all_servers(self, token: str) -> None:
        """Stop every person's server, through the hub, and see that nothing is left."""
        _, users = self.api("GET", "users", token)
        for user in users:
            for name in user.get("servers") or {}:
                path = f"users/{user['name']}/server{'s/' + name if name else ''}"
                self.api("DELETE", path, token)
        wait_for(lambda: not self.containers() and not self.leases(), "servers to be gone")


def wait_for(condition: Any, what: str, seconds: float = 60) -> None:
    """Return when ``condition()`` is true; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.3)
