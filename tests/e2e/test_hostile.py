"""Attacks on the running site: from a page in somebody's server, and from inside a container."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from deployment import Deployment, wait_for
from people import log_in
from playwright.sync_api import Page

NewPage = Callable[..., Page]
CONSOLE = "/services/labcommons/api/v1/"

# What everybody who opens the link is given, in place of s10's own server and without a login.
EVIL = """
import http.server, sys
page = open("/tmp/evil.html", "rb").read()
class Evil(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)
http.server.ThreadingHTTPServer(("0.0.0.0", 9999), Evil).serve_forever()
"""
PAGE = """<!doctype html><title>Homework</title><script>
async function steal() {
  const got = {};
  const look = async (name, url, options) => {
    try {
      const answer = await fetch(url, {credentials: "include", ...options});
      return got[name] = [answer.status, await answer.text()];
    } catch (error) { got[name] = [0, String(error)]; return got[name]; }
  };
  const page = await look("token page", HUB + "/hub/token");
  const xsrf = (page[1].match(/xsrf_token: "([^"]+)"/) || [])[1] || "";
  await look("token", HUB + "/hub/api/users/s12/tokens?_xsrf=" + encodeURIComponent(xsrf),
    {method: "POST", body: "{}", headers: {"Content-Type": "application/json"}});
  await look("token as a form", HUB + "/hub/api/users/s12/tokens", {method: "POST", body: "{}"});
  await look("server", THEIRS + "api/contents");
  await look("console", HUB + "/services/labcommons/api/v1/me");
  await look("kernels", HUB + "/services/kernels/api/v1/environments");
  await look("own host's hub", "/hub/token");
  window.got = got;
}
steal();
</script>"""


def in_container(site: Deployment, container: str, code: str) -> str:
    """What Python code prints inside a person's container, as that person."""
    return site.docker("exec", container, "/opt/labcommons/server/bin/python", "-c", code)


@contextmanager
def taken_over(site: Deployment, container: str, page: str) -> Iterator[None]:
    """The container answers everybody with a page: its owner controls what listens at 8888."""
    in_container(site, container, f"open('/tmp/evil.html', 'w').write({page!r})")
    site.docker(
        "exec", "-d", container, "/opt/labcommons/server/bin/python", "-c", EVIL,
    )  # fmt: skip
    pid = site.docker("inspect", "-f", "{{.State.Pid}}", container).strip()
    rule = ["PREROUTING", "-p", "tcp", "--dport", "8888", "-j", "REDIRECT", "--to-ports", "9999"]
    tables = ["nsenter", f"--net=/proc/{pid}/ns/net", "iptables", "-t", "nat"]
    subprocess.run([*tables, "-A", *rule], check=True)
    yield


def test_a_page_in_one_persons_server_gets_nothing_of_who_opens_it(
    clean: Deployment, admin: str, new_page: NewPage
) -> None:
    for name in ("s10", "s12"):
        clean.login_once(name)
        clean.start_server(admin, name, {"environment": "py313-data"})

    def tokens() -> list[str]:
        status, found = clean.api("GET", "users/s12/tokens", admin)
        assert status == 200
        return [one["id"] for one in found["api_tokens"] if "via api" in (one["note"] or "")]

    before = tokens()
    evil, victim = clean.server_url("s10"), clean.server_url("s12")
    [container] = clean.containers("s10")
    words = f"<script>const HUB = {clean.url!r}, THEIRS = {victim!r};</script>"
    with taken_over(clean, container, words + PAGE):
        page = new_page()
        log_in(page, "s12")
        page.goto(victim)
        page.wait_for_url("**/lab**")
        cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
        page.goto(evil)
        page.wait_for_function("window.got !== undefined")
        got = page.evaluate("window.got")
    print(json.dumps({name: [status, text[:200]] for name, (status, text) in got.items()}))
    assert {name for name, (status, _) in got.items() if status in (200, 201)} == set(), got
    # What logs in is sent to its own host alone, and nobody below that can set it.
    assert cookies["__Host-jupyterhub-hub-login"]["domain"] == "lab.localhost"
    assert cookies["__Host-jupyterhub-user-s12"]["domain"] == "s12.lab.localhost"
    wide = {name for name, one in cookies.items() if one["domain"].startswith(".")}
    assert wide <= {"jupyterhub-session-id"}
    # Nor was anything done that the page could not see.
    assert tokens() == before


CLOSED = (
    "chp 8000", "chp-front 8000", "chp 8001", "chp-api 8001", "hub 8081", "hub-control 8081",
    "console 8083", "kernels 8082", "directory 1389", "proxy 8443", "proxy 8080",
)  # fmt: skip


def test_from_a_server_nothing_of_ours_is_open_but_the_gate(clean: Deployment, admin: str) -> None:
    for name in ("alice", "bob"):
        clean.login_once(name)
        clean.start_server(admin, name, {"environment": "py313-data"})
    [container], [bobs] = clean.containers("alice"), clean.containers("bob")
    # By name, and by every address that our services have, the machine and another's server.
    inspected = json.loads(clean.docker("inspect", *clean.docker("ps", "-q").split()))
    addresses = [
        f"{address} {port}"
        for one in inspected
        if one["Config"]["Labels"].get("com.docker.compose.project")
        for network in one["NetworkSettings"]["Networks"].values()
        for address in filter(None, (network["IPAddress"], network["Gateway"]))
        for port in (8000, 8001, 8081, 8082, 8083, 8443, 8080, 1389)
    ]
    bob = next(
        one["NetworkSettings"]["Networks"]["labcommons-users"]["IPAddress"]
        for one in inspected
        if one["Name"] == f"/{bobs}"
    )
    addresses.append(f"{bob} 8888")
    script = (
        "import socket, concurrent.futures\n"
        f"places = {[*CLOSED, 'gate 8000', *addresses]!r}\n"
        "def look(place):\n"
        "    try: socket.create_connection(place.split(), 2).close(); return place\n"
        "    except OSError: return None\n"
        "with concurrent.futures.ThreadPoolExecutor(50) as pool:\n"
        "    print(*filter(None, pool.map(look, places)), sep='\\n')\n"
    )
    gate = [
        f"{one['NetworkSettings']['Networks']['labcommons-users']['IPAddress']} 8000"
        for one in inspected
        if one["Config"]["Labels"].get("com.docker.compose.service") == "gate"
    ]
    found = in_container(clean, container, script).splitlines()
    assert sorted(found) == sorted(["gate 8000", *gate])
    # Docker's name server says that there is somebody, and not who.
    named = in_container(clean, container, f"import socket; print(*socket.gethostbyaddr({bob!r}))")
    assert bobs in named
    assert "bob" not in named


def test_the_perimeter_says_how_it_is(deployment: Deployment) -> None:
    service = deployment.container("perimeter")
    inside = ("exec", service, "python3", "-I", "-m", "perimeter")
    said = json.loads(deployment.docker(*inside, "check", "--json"))
    assert (said["right"], said["off"], said["without_address"]) == (True, False, {})
    assert "table bridge labcommons-labcommons" in deployment.docker(*inside, "show")
    held = json.loads(deployment.docker("inspect", service))[0]["HostConfig"]
    added = [name.removeprefix("CAP_") for name in held["CapAdd"]]  # as newer Engines say it
    assert (added, held["CapDrop"], held["Privileged"]) == (["NET_ADMIN"], ["ALL"], False)
    assert not any("docker.sock" in bind for bind in held["Binds"] or ())


FORGED = "203.0.113.77"
FORGERY = dict.fromkeys(
    ("X-Real-IP", "X-Forwarded-For", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP"), FORGED
) | {"Forwarded": f"for={FORGED}"}

PLACES = ("chp:8000", "hub:8081", "gate:8000")

# A login with a wrong password, from inside a server, at whatever of ours can be reached.
LOGIN = """
import re, urllib.parse, urllib.request as u
for place in PLACES:
    try:
        page = u.urlopen(f"http://{place}/hub/login", timeout=5)
        cookie = "; ".join(one.split(";")[0] for one in page.headers.get_all("Set-Cookie") or [])
        xsrf = re.search(r"_xsrf=([^;]+)", cookie)[1]
        form = {"username": NAME, "password": "wrong", "_xsrf": xsrf}
        u.urlopen(u.Request(f"http://{place}/hub/login", urllib.parse.urlencode(form).encode(),
            {**FORGERY, "Cookie": cookie}), timeout=5)
    except Exception as error: print(place, repr(error))
"""


# The same for what a server may ask of the console, with its own token.
EXTEND = """
import json, os, urllib.request as u
request = u.Request(f"http://gate:8000/services/labcommons/api/v1/leases/{LEASE}/extend",
    b'{"by": 3600}', {**FORGERY, "Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]})
print(u.urlopen(request, timeout=10).status)
"""


def test_an_address_is_the_one_a_request_came_from_whatever_it_says(
    clean: Deployment, admin: str
) -> None:
    mark = uuid.uuid4().hex[:8]
    token = clean.login_once("alice")
    options = {"environment": "py313-data", "gpus": 1, "time_limit": 3}
    clean.start_server(token, "alice", options)
    [container] = clean.containers()
    [lease] = clean.leases()
    print(in_container(clean, container, f"{PLACES=}\n{FORGERY=}\nNAME = 'inside-{mark}'\n{LOGIN}"))
    words = f"LEASE = {lease['id']!r}\nFORGERY = {FORGERY}\n{EXTEND}"
    assert in_container(clean, container, words).strip() == "200"
    assert clean.failed_login(f"outside-{mark}", FORGERY) == 403
    path = f"leases/{lease['id']}/extend"
    status, said = clean.api("POST", path, token, {"by": 60}, CONSOLE, FORGERY)
    assert status == 200, said

    def events() -> list[dict[str, Any]]:
        said = clean.run(str(clean.root / "bin/labcommons"), "audit", "export", "--since", "10m")
        return [json.loads(line) for line in said.splitlines()]

    wait_for(lambda: f"outside-{mark}" in str(events()), "the refusal in the audit trail")
    sources = [
        (event["event"]["action"], event["source"]["ip"])
        for event in events()
        if "source" in event and (event["user"]["name"].endswith(mark) or lease["id"] in str(event))
    ]
    address = '{{(index .NetworkSettings.Networks "labcommons-users").IPAddress}}'
    inside = clean.docker("inspect", "-f", address, container)
    gateway = "{{(index .IPAM.Config 0).Gateway}}"
    outside = clean.docker("network", "inspect", "-f", gateway, "labcommons_front").strip()
    assert set(sources) == {
        ("login", outside),
        ("lease-change", inside.strip()),
        ("lease-change", outside),
    }
