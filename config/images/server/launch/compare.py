"""Whether a server that ``labcommons_launch`` starts is a plain one: a step of the image's build.

    python compare.py

Starts JupyterHub's single-user server twice, plainly and by the launcher, against a hub that this
program is, and has the same conversation with both: tokens that are good, unknown and taken back, a
login by OAuth, a hub that fails, goes away and comes back, what JupyterLab asks first. What both
answer, and what they ask of the hub, has to be the same, and nothing that the launcher leaves out
may have been imported; else it ends with 1 and the differences. Standard library alone.
"""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

OPTIONS = ["--allow-root", "--HubAuth.cache_max_age=1"]
PLAIN = [sys.executable, "-I", "-m", "jupyterhub.singleuser", *OPTIONS]
LEAN = [sys.executable, "-I", "-X", "importtime", f"{sys.prefix}/bin/labcommons-server", *OPTIONS]
# The plain one is the image's but for the extension that belongs to the launcher.
CONFIG = os.environ.get("JUPYTER_CONFIG_PATH", "")
WITHOUT = f"""
load_subconfig("{CONFIG}/jupyter_server_config.py")
c.ServerApp.jpserver_extensions["labcommons_light"] = False
"""
# Not there after a start, nor after all that is asked here but the lists of extensions.
ABSENT = {
    *("sqlalchemy", "alembic", "aiohttp", "requests", "httpx", "arrow", "cryptography"),
    *("IPython", "nbconvert"),
}
PATIENCE = 60  # seconds
USER = "/user/lab/"
BROWSER = {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
SCRIPT = {"Sec-Fetch-Mode": "cors"}


class Hub:
    """As much of a hub as a server asks for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.good = {"good", "issued"}
        self.names: dict[str, str] = {}  # of tokens that are others' than the owner's
        self.broken = False
        self.port = 0
        self.open()

    def open(self) -> None:
        hub = self

        class Handler(Answers):
            def do_GET(self) -> None:
                self.answer(hub)

            do_POST = do_GET

        ThreadingHTTPServer.daemon_threads = True
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


class Answers(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing is said."""

    def answer(self, hub: Hub) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        token, path = self.headers.get("Authorization", ""), self.path.removeprefix("/hub/api")
        kind = self.headers.get("Content-Type", "") if body else ""
        hub.asked.append(drawn(f"{self.command} {self.path} {token} {kind} {body}"))
        status, reply = 200, {}
        if hub.broken:
            status, reply = 503, {"message": "broken"}
        elif path == "/oauth2/token" and "code=right" in body:
            reply = {"access_token": "issued", "token_type": "Bearer"}
        elif path == "/oauth2/token":
            status, reply = 400, {"error": "invalid_grant", "error_description": "no such code"}
        elif path == "/user" and token.removeprefix("token ") in hub.good:
            name = hub.names.get(token.removeprefix("token "), "lab")
            reply = {"kind": "user", "name": name, "scopes": ["access:servers!server=lab/"]}
        elif path == "/user":
            status, reply = 403, {"status": 403, "message": "Forbidden"}
        text = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("X-JupyterHub-Version", "0")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


class Client:
    """Somebody with a browser's cookies."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.open = urllib.request.build_opener(
            NoRedirect(), jar, urllib.request.ProxyHandler({})
        ).open

    def ask(
        self,
        path: str,
        token: str = "",
        headers: dict[str, str] | None = None,
        data: bytes | None = None,
    ) -> tuple[int, str, str]:
        """Status, where to, and the body."""
        request = urllib.request.Request(self.base + USER + path, data, headers or {})  # noqa: S310
        if token:
            request.add_header("Authorization", f"token {token}")
        try:
            answer = self.open(request, timeout=PATIENCE)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            body = answer.read().decode("utf-8", "replace")
        return answer.status, answer.headers.get("Location", ""), body


def drawn(text: str) -> str:
    """Without what is drawn by lot or told by the clock, and the server's own numbers."""
    text = re.sub(r"127\.0\.0\.1(:|%3A)\d+", "127.0.0.1", text)
    text = re.sub(r"(state|code_challenge|code_verifier)=[^&\"\s]+", r"\1", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[\d.]+(Z|\+00:00)", "…", text)
    return re.sub(r"/tmp/compare\w+/\w+", "…", text)  # noqa: S108


def conversation(client: Client, hub: Hub) -> Iterator[tuple[str, tuple[int, str, str]]]:
    """What was asked, and what came back."""
    api = "api/contents?content=0"
    yield "is it there", client.ask("api")
    yield "no token", client.ask(api)
    yield "a good token", client.ask(api, "good")
    yield "an unknown token", client.ask(api, "unknown")
    yield "a write without a token", client.ask("api/contents", data=b"{}")
    # OAuth as a browser does it: there, back with a code, a token for it, in.
    yield "a browser is sent to the hub", (login := client.ask("lab", headers=BROWSER))
    query = urllib.parse.parse_qs(urllib.parse.urlparse(login[1]).query)
    back = "oauth_callback?" + urllib.parse.urlencode({"state": query["state"][0]})
    yield (
        "somebody else's state",
        client.ask("oauth_callback?code=right&state=e30", headers=BROWSER),
    )
    yield "a wrong code", client.ask(f"{back}&code=wrong", headers=BROWSER)
    login = client.ask("lab", headers=BROWSER)
    query = urllib.parse.parse_qs(urllib.parse.urlparse(login[1]).query)
    back = "oauth_callback?" + urllib.parse.urlencode({"state": query["state"][0]})
    yield "the code", client.ask(f"{back}&code=right", headers=BROWSER)
    yield "JupyterLab's page", client.ask("lab", headers=BROWSER)
    yield "the API by the login", client.ask("api/me", headers=SCRIPT)
    # What JupyterLab asks first, and what of it has a stand-in or a ready answer.
    for path in (
        *("api/kernelspecs", "api/kernels", "api/sessions", "api/terminals", "api/nbconvert"),
        *("lab/api/settings", "lab/api/translations/zh_CN", "lab/api/workspaces"),
        "lab/api/extensions",
    ):
        yield path, client.ask(path, "good")
    # The hub takes a token back, fails, goes away, and comes back. What the server was told it
    # remembers for a second here.
    hub.good = {"later"}
    time.sleep(1.1)
    yield "a token taken back", client.ask(api, "good")
    yield "a login taken back", client.ask("api/me", headers=SCRIPT)
    hub.broken = True
    yield "a hub that fails", client.ask(api, "later")
    hub.broken = False
    hub.close()
    yield "a hub that is down", client.ask(api, "later")
    hub.open()
    yield "a hub that came back", client.ask(api, "later")
    yield "lists of extensions", client.ask("lab/api/listings/@jupyterlab/x.json", "later")


@contextmanager
def started(
    command: list[str], folder: Path, configuration: str = ""
) -> Iterator[tuple[subprocess.Popen[bytes], int, Hub]]:
    """A server that has started, its port and its hub; what it prints is in ``folder/log``."""
    (folder / "config").mkdir(parents=True)
    (folder / "config/jupyter_server_config.py").write_text(configuration)
    hub = Hub()
    api = f"http://127.0.0.1:{hub.port}/hub/api"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {
        "HOME": str(folder),
        "JUPYTER_CONFIG_PATH": f"{folder}/config:{CONFIG}",
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERHUB_ACTIVITY_URL": f"{api}/users/lab/activity",
        "JUPYTERHUB_API_TOKEN": "its-own",
        "JUPYTERHUB_API_URL": api,
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-lab",
        "JUPYTERHUB_DISABLE_USER_CONFIG": "1",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": '["access:servers!server=lab/"]',
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{USER}oauth_callback",
        "JUPYTERHUB_SERVICE_PREFIX": USER,
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}{USER}",
        "JUPYTERHUB_USER": "lab",
    }
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=os.environ | environment, cwd=folder, stdout=out, stderr=out
        )
    try:
        until = time.monotonic() + PATIENCE
        # The first word of its use comes last in a start.
        while not any("/activity" in line for line in hub.asked):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"it did not start: {log.read_text('utf-8', 'replace')[-5000:]}")
            time.sleep(0.02)
        yield process, port, hub
    finally:
        process.terminate()
        process.wait(PATIENCE)
        hub.close()


def talk(
    command: list[str], folder: Path, configuration: str = ""
) -> tuple[dict[str, object], str]:
    """What a server said, by what it was about; and what it printed until the last."""
    said: dict[str, object] = {}
    with started(command, folder, configuration) as (_, port, hub):
        for about, (status, where, body) in conversation(Client(port), hub):
            if about == "lists of extensions":
                printed = (folder / "log").read_text("utf-8", "replace")
            said[about] = status, drawn(where), drawn(body)
    return said | {"what the hub was asked": sorted(set(hub.asked))}, printed


def imported(log: str) -> set[str]:
    """The packages that a log of ``-X importtime`` names."""
    lines = re.findall(r"^import time: .*\| +([\w.]+)$", log, re.MULTILINE)
    return {name.partition(".")[0] for name in lines}


def apart(one: str, other: str) -> tuple[str, str]:
    """Two texts from a little before where they part."""
    same = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    start = max(0, same - 80)
    return one[start : start + 400], other[start : start + 400]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="compare") as folder:
        plain, _ = talk(PLAIN, Path(folder, "plain"), WITHOUT)
        lean, printed = talk(LEAN, Path(folder, "lean"))
    faults = [
        f"{about}:\n  plain: {one}\n  ours:  {other}"
        for about in plain | lean
        for one, other in [apart(repr(plain.get(about)), repr(lean.get(about)))]
        if one != other
    ]
    names = imported(printed)
    if "tornado" not in names:
        faults.append(f"it did not say what it imports: {printed[:1000]}")
    if found := ABSENT & names:
        faults.append(f"imported, and need not be: {', '.join(sorted(found))}")
    if "without stand-ins" in printed:
        faults.append(f"stand-ins do not fit: {printed[:1000]}")
    if faults:
        raise SystemExit("\n".join(["The launcher's server is not a plain one.", *faults]))
    print(f"the same {len(plain)} answers")


if __name__ == "__main__":
    main()
