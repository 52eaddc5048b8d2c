"""The proxy: nginx in its own image with our configuration, before a server that echoes."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from hub_ext import tls, tls_served

from .conftest import ROOT

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif("LABCOMMONS_TESTBED" not in os.environ, reason="runs in the test bed"),
]

PUBLIC_URL = "https://lab.example.org:9443"
NAMES = "lab.example.org *.lab.example.org"
# What a user's server could say to have something of the hub's pages.
LOOSENING = {
    "Alt-Svc": 'h2=":9999"',
    "Clear-Site-Data": '"cookies"',
    "Cross-Origin-Opener-Policy": "same-origin",
    "NEL": "{}",
    "Report-To": "{}",
    "Service-Worker-Allowed": "/",
    "Strict-Transport-Security": "max-age=1",
}


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was asked, in CHP's place."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/user/alice/gone":  # CHP reads no further from who asked for a websocket
            self.connection.sendall(b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n")
            while self.connection.recv(1000):
                pass
            self.close_connection = True
            return
        if self.path == "/user/alice/socket":
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            while said := self.connection.recv(100):
                self.connection.sendall(said)
            self.close_connection = True
            return
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({"path": self.path, "headers": dict(self.headers.items())}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.path.startswith("/hub/leads"):  # as to the login page, with all of this one
            self.send_header("Location", "/hub/login?next=" + quote(self.path))
        for name, value in LOOSENING.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        """Tests say themselves what went wrong."""


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip() or done.stderr.strip()


@pytest.fixture(scope="module")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("tls")
    tls.init(folder, ["lab.example.org"])
    tls_served.publish(folder)
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        shutil.chown(path, 990, 990)
    return [
        f"--volume={ROOT / 'config' / 'nginx'}:/etc/labcommons/nginx:ro",
        f"--volume={folder / 'served'}:/run/labcommons/tls:ro",
        *("--read-only", "--tmpfs=/tmp:mode=1777", "--cap-drop=ALL"),
    ]


@pytest.fixture(scope="module")
def proxy(proxy_image: str, mounts: list[str]) -> Iterator[tuple[str, Path]]:
    """The address of a running proxy, and the CA file."""
    server = ThreadingHTTPServer(("0.0.0.0", 8000), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name = f"lctest-proxy-{uuid.uuid4().hex[:8]}"
    gateway = docker(
        "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"
    )
    docker(
        *("run", "--detach", "--name", name, f"--add-host=chp-front:{gateway}", *mounts),
        *(f"--env=LABCOMMONS_PUBLIC_URL={PUBLIC_URL}", f"--env=LABCOMMONS_SERVER_NAMES={NAMES}"),
        *("--env=LABCOMMONS_LOOK_EVERY=0.2", proxy_image),
    )
    try:
        address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", name)
        docker(
            *("exec", name, "sh", "-c"),
            "for i in $(seq 100); do bash /usr/local/lib/labcommons/healthy && exit;"
            " sleep 0.1; done; exit 1",
        )
        yield address, Path(mounts[1].split("=")[1].split(":")[0]).parent / "ca.crt"
    finally:
        docker("rm", "--force", name, check=False)
        server.shutdown()
        server.server_close()


class _Named(http.client.HTTPSConnection):
    """HTTPS to an address under the name that its certificate has."""

    def __init__(self, address: str, context: ssl.SSLContext) -> None:
        super().__init__(address, 8443, timeout=20, context=context)
        self._tls = context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname="lab.example.org")


def ask(
    proxy: tuple[str, Path],
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    **headers: str,
) -> http.client.HTTPResponse:
    connection = _Named(proxy[0], ssl.create_default_context(cafile=str(proxy[1])))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body=body, headers={"Host": "lab.example.org:9443", **named})
    return connection.getresponse()


def test_cookies_that_grew_too_large_get_a_page_with_a_way_out(proxy: tuple[str, Path]) -> None:
    """Kind: whatever is too large in what a browser sends by itself; not a bare 400."""
    # 13 kB are one line that nginx takes, and more than CHP does, as any in HTTP/2.
    for count in (26, 40):
        grown = {"Cookie": "; ".join(f"state-{n}=" + "x" * 500 for n in range(count))}
        answer = ask(proxy, "/hub/home", **grown)
        page = answer.read().decode()
        assert (answer.status, answer.getheader("Clear-Site-Data")) == (400, None)
        assert 'href="/hub/delete-cookies"' in page
        assert "删除" in page
        answer = ask(proxy, "/hub/delete-cookies", **grown)
        assert (answer.status, answer.getheader("Clear-Site-Data")) == (400, '"cookies"')
        assert "Sign in again" in answer.read().decode()
    assert ask(proxy, "/hub/home", Cookie="state=" + "x" * 10_000).status == 200


def test_a_body_that_is_too_large_gets_a_page_with_a_way_on(proxy: tuple[str, Path]) -> None:
    """Kind: refusals of nginx's own that people meet, as with a form that they filled too well."""
    for path, most in (("/hub/login", 16), ("/hub/spawn", 256), ("/services/labcommons/x", 2048)):
        answer = ask(proxy, path, "POST", b"x" * (most * 1024 + 1))
        page = answer.read().decode()
        assert answer.status == 413
        assert f'href="{PUBLIC_URL}/hub/home"' in page
        assert "内容过大" in page


def test_a_link_with_more_in_it_than_can_be_taken_gets_a_page_that_says_so(
    proxy: tuple[str, Path],
) -> None:
    """Kind: a link of any length, of somebody who is not signed in, too; no fault of a proxy."""
    for length in (6000, 20_000):
        answer = ask(proxy, f"/hub/spawn?size={'x' * length}")
        assert answer.status == 414
        page = answer.read().decode()
        assert "The address is too long" in page
        assert "网址过长" in page
    longest = f"/hub/leads?size={'%3C' * 1990}"
    answer = ask(proxy, longest)
    led = answer.getheader("Location") or ""
    assert (answer.status, json.loads(answer.read())["path"], len(led) > 7900) == (
        200,
        longest,
        True,
    )
    assert ask(proxy, led).status == 200
    # What a server is asked is the server's.
    assert ask(proxy, f"/user/alice/lab?x={'x' * 8100}").status == 200


def test_what_is_the_same_for_everybody_goes_compressed_and_nothing_else(
    proxy: tuple[str, Path],
) -> None:
    for path, wanted in (
        ("/hub/static/css/style.min.css?v=1", "gzip"),
        ("/services/labcommons/assets/console.js?v=1", "gzip"),
        ("/user/alice/static/lab/main.js", "gzip"),
        ("/hub/home", None),
        ("/services/labcommons/api/v1/leases", None),
        ("/user/alice/files/static/x.txt", None),
    ):
        padding = {"X-Padding": "x" * 2000}
        answer = ask(proxy, path, Accept_Encoding="gzip", **padding)
        assert (path, answer.getheader("Content-Encoding")) == (path, wanted)
        answer.read()


def test_the_configuration_is_right_for_nginx_itself(proxy_image: str, mounts: list[str]) -> None:
    said = docker(
        *("run", "--rm", "--add-host=chp-front:127.0.0.1", *mounts),
        *(f"--env=LABCOMMONS_PUBLIC_URL={PUBLIC_URL}", f"--env=LABCOMMONS_SERVER_NAMES={NAMES}"),
        *("--env=LABCOMMONS_LOOK_EVERY=0.2", proxy_image),
        *("sh", "-c", "nginx -t -q -c /etc/labcommons/nginx/nginx.conf 2>&1; echo code $?"),
    )
    assert said == "code 0"


@pytest.mark.parametrize(
    "url", ["", "http://lab.example.org", "https://lab.example.org/hub", 'https://a";return 200;#']
)
def test_a_public_url_that_is_none_is_refused(
    proxy_image: str, mounts: list[str], url: str
) -> None:
    done = subprocess.run(
        ["docker", "run", "--rm", *mounts, f"--env=LABCOMMONS_PUBLIC_URL={url}", proxy_image],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "LABCOMMONS_PUBLIC_URL" in done.stderr


@pytest.mark.parametrize(
    "names", ["", "Lab.example.org", "lab.example.org;", "lab.example.org a b", "*.lab.example.org"]
)
def test_server_names_that_are_none_are_refused(
    proxy_image: str, mounts: list[str], names: str
) -> None:
    done = subprocess.run(
        ["docker", "run", "--rm", *mounts, f"--env=LABCOMMONS_PUBLIC_URL={PUBLIC_URL}",
         f"--env=LABCOMMONS_SERVER_NAMES={names}", proxy_image],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "LABCOMMONS_SERVER_NAMES" in done.stderr


@pytest.mark.parametrize(
    ("host", "leads_to"),
    [
        ("evil.example.org", PUBLIC_URL),
        ("lab.example.org", PUBLIC_URL),
        ("alice.lab.example.org", "https://alice.lab.example.org:9443"),
    ],
)
def test_plain_http_leads_to_https(proxy: tuple[str, Path], host: str, leads_to: str) -> None:
    connection = http.client.HTTPConnection(proxy[0], 8080, timeout=20)
    connection.request("GET", "/user/alice/?a=b", headers={"Host": host})
    answer = connection.getresponse()
    assert answer.status == 301
    assert answer.getheader("Location") == f"{leads_to}/user/alice/?a=b"


@pytest.mark.parametrize("host", ["localhost:9443", "192.0.2.1", "lab.example.org.evil.org", ""])
def test_at_another_host_pages_lead_on_and_programs_are_told(
    proxy: tuple[str, Path], host: str
) -> None:
    page = ask(proxy, "/user/alice/lab?a=b", Host=host)
    if host:
        assert (page.status, page.getheader("Location")) == (
            302,
            f"{PUBLIC_URL}/user/alice/lab?a=b",
        )
        for method, path in (("GET", "/hub/api/users"), ("POST", "/hub/login"), ("PUT", "/x")):
            answer = ask(proxy, path, method, Host=host)
            assert (answer.status, answer.getheader("Location")) == (421, None)
            assert PUBLIC_URL in json.loads(answer.read())["message"]
    else:
        assert page.status == 400


@pytest.mark.parametrize(
    "path",
    ["/hub/login", "/hub", "/hub/api/user", "/hub//token", "//hub/token", "/%68ub/token",
     "/x/../hub/token", "/services/labcommons/", "/services/", "/./hub/token", "/hub%2Ftoken"],
)  # fmt: skip
def test_hub_and_services_are_not_at_the_hosts_of_servers(
    proxy: tuple[str, Path], path: str
) -> None:
    for method in ("GET", "POST"):
        answer = ask(proxy, path, method, Host="alice.lab.example.org:9443")
        page = method == "GET" and "/api/" not in path
        assert answer.status == (302 if page else 421)
        assert (answer.getheader("Location") or "").startswith(PUBLIC_URL) is page


def test_servers_are_and_their_names_have_small_letters_for_the_routes(
    proxy: tuple[str, Path],
) -> None:
    for path in ("/user/alice/lab", "/", "/hubs/", "/user/alice/hub/token"):
        seen = json.loads(ask(proxy, path, Host="Alice.Lab.example.org:9443").read())
        assert seen["path"] == path
        assert seen["headers"]["Host"] == "alice.lab.example.org:9443"


def test_what_a_client_says_of_itself_is_not_believed(proxy: tuple[str, Path]) -> None:
    answer = ask(
        proxy,
        "/hub/home",
        X_Forwarded_For="10.9.8.7",
        X_Forwarded_Host="evil.example.org",
        X_Real_IP="10.9.8.7",
        X_Scheme="http",
        Forwarded="for=10.9.8.7",
    )
    seen = json.loads(answer.read())["headers"]
    assert "Forwarded" not in seen
    assert seen["X-Scheme"] == seen["X-Forwarded-Proto"] == "https"
    assert "10.9.8.7" not in (seen["X-Forwarded-For"], seen["X-Real-IP"])
    assert seen["X-Forwarded-Host"] == seen["Host"] == "lab.example.org:9443"


def test_a_refused_websocket_costs_nobody_elses_request(proxy: tuple[str, Path]) -> None:
    """Kind: a connection to CHP that is used again after what ends there with its answer."""
    for _ in range(3):
        refused = ask(proxy, "/user/alice/gone", Upgrade="websocket", Connection="Upgrade")
        assert refused.status == 404
        assert ask(proxy, "/user/bob/lab").status == 200


def test_websockets_are_passed_on_with_the_origin_they_came_from(proxy: tuple[str, Path]) -> None:
    answer = ask(
        proxy,
        "/user/alice/api/kernels/1/channels",
        Connection="Upgrade",
        Upgrade="websocket",
        Origin=PUBLIC_URL,
    )
    seen = json.loads(answer.read())["headers"]
    assert (seen["Upgrade"], seen["Connection"]) == ("websocket", "upgrade")
    assert seen["Origin"].removeprefix("https://") == seen["Host"]


def test_browsers_are_told_to_stay_with_https_and_each_header_comes_once(
    proxy: tuple[str, Path],
) -> None:
    answer = ask(proxy, "/")
    assert answer.headers.get_all("X-Content-Type-Options") == ["nosniff"]
    assert answer.headers.get_all("Strict-Transport-Security") == ["max-age=63072000"]
    assert answer.headers["Server"] == "nginx"


def test_localhost_is_not_bound_to_https_for_all_its_ports(proxy: tuple[str, Path]) -> None:
    for host in ("localhost:9443", "lab.localhost:9443"):
        assert ask(proxy, "/", Host=host).getheader("Strict-Transport-Security") is None


def test_no_page_at_the_hubs_host_has_a_service_worker(proxy: tuple[str, Path]) -> None:
    """On one origin a server's own could answer with the policy of the hub's pages."""
    for path in ("/user/eve/worker.js", "/hub/static/worker.js"):
        assert ask(proxy, path, Service_Worker="script").status == 403
        assert ask(proxy, path).status == 200
    served = ask(
        proxy, "/user/eve/worker.js", Service_Worker="script", Host="eve.lab.example.org:9443"
    )
    assert served.status == 200


@pytest.mark.parametrize(
    "path", ["/hub/metrics", "/hub//metrics", "/hub/%6detrics", "/x/../hub/metrics"]
)
def test_the_hubs_figures_are_not_for_the_outside(proxy: tuple[str, Path], path: str) -> None:
    assert ask(proxy, path).status == 403


def test_a_large_upload_is_let_through_and_a_large_login_is_not(proxy: tuple[str, Path]) -> None:
    large = b"x" * 2_000_000
    assert ask(proxy, "/user/alice/api/contents/a", "PUT", large).status == 200
    assert ask(proxy, "/hub/login", "POST", large).status == 413
    for path in ("/hub/api/users/x/tokens", "/hub/spawn", "/hub/../hub/spawn", "/services/x/"):
        assert ask(proxy, path, "POST", large + large).status == 413
    assert ask(proxy, "/services/labcommons/api/v1/environments", "POST", large).status == 200


def test_a_class_can_log_in_at_once_and_a_flood_cannot(proxy: tuple[str, Path]) -> None:
    codes = [ask(proxy, "/hub/login?next=", "POST", b"username=s").status for _ in range(300)]
    assert codes[:45] == [200] * 45
    assert 429 in codes
    assert ask(proxy, "/hub/login").status == 200  # looking at the page is never limited


@pytest.mark.parametrize(
    ("cipher", "taken"),
    [("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-ECDSA-AES128-SHA256", False)],
)
def test_only_authenticated_ciphers_are_taken(
    proxy: tuple[str, Path], cipher: str, taken: bool
) -> None:
    context = ssl.create_default_context(cafile=str(proxy[1]))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(cipher)
    connection = _Named(proxy[0], context)
    with nullcontext() if taken else pytest.raises(ssl.SSLError):
        connection.connect()
    connection.close()


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("/user/s10/evil", "unsafe-none"),
        ("/hub/home", "same-origin"),
        ("/services/kernels/", "same-origin"),
        ("/nothing", "same-origin"),
        ("/hub/metrics", "same-origin"),
    ],
)
def test_windows_of_servers_and_of_ours_are_apart(
    proxy: tuple[str, Path], path: str, policy: str
) -> None:
    answer = ask(proxy, path)
    assert answer.headers.get_all("Cross-Origin-Opener-Policy") == [policy]
    left = LOOSENING.keys() - {"Cross-Origin-Opener-Policy", "Strict-Transport-Security"}
    assert not left & set(answer.headers)
    assert answer.headers.get_all("Strict-Transport-Security") == ["max-age=63072000"]


@pytest.mark.parametrize(
    "path",
    ["/hub/..%2fuser/s10/", "/%75ser/s10/", "//user/s10/", "/user/..%2fhub/home", "/user/../hub/"],
)
def test_what_could_be_taken_for_anothers_is_refused(proxy: tuple[str, Path], path: str) -> None:
    assert ask(proxy, path).status == 400


def _taken(address: str, ca: Path) -> ssl.SSLSocket:
    """A connection of its own, by the certificate that the proxy has now."""
    plain = socket.create_connection((address, 8443), timeout=20)
    context = ssl.create_default_context(cafile=str(ca))
    return context.wrap_socket(plain, server_hostname="lab.example.org")


def _certificate(address: str, ca: Path) -> bytes | None:
    with _taken(address, ca) as connection:
        return connection.getpeercert(binary_form=True)


def test_another_certificate_is_taken_up_and_an_open_websocket_goes_on(
    proxy: tuple[str, Path],
) -> None:
    """Also one that is no certificate at all: what was served before goes on."""
    address, ca = proxy
    first = _certificate(address, ca)
    with _taken(address, ca) as websocket:
        websocket.sendall(
            b"GET /user/alice/socket HTTP/1.1\r\nHost: lab.example.org:9443\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += websocket.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")

        served = ca.parent / tls_served.SERVED
        was = served.read_bytes()
        served.write_bytes(b"nonsense")
        name = next(
            one
            for one in docker("ps", "--format", "{{.Names}}").split()
            if docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", one) == address
        )
        until(lambda: "the new certificate is not taken" in said(name))
        assert _certificate(address, ca) == first
        served.write_bytes(was)

        (ca.parent / "server.crt").unlink()
        tls.init(ca.parent, ["lab.example.org"])
        tls_served.publish(ca.parent)
        shutil.chown(served, 990, 990)
        until(lambda: _certificate(address, ca) != first)
        websocket.sendall(b"still here")
        assert websocket.recv(100) == b"still here"


def said(name: str) -> str:
    """What a container wrote to its standard error."""
    words = ["docker", "logs", name]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stderr


def until(so: Callable[[], bool]) -> None:
    """Wait for something that has to come true; half a minute at most."""
    for _ in range(150):
        if so():
            return
        time.sleep(0.2)
    raise AssertionError("it never came true")
