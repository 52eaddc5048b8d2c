"""The gate, through which users' servers reach hub and services: its list, and nothing else."""

from __future__ import annotations

import http.client
import json
import os
import re
import uuid
from collections.abc import Iterator
from itertools import chain

import pytest
from jupyterhub import apihandlers, handlers

from hub_ext.console import app as console
from kernels.service import app as kernels

from .conftest import ROOT
from .test_nginx import NAMES, PUBLIC_URL, docker

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif("LABCOMMONS_TESTBED" not in os.environ, reason="runs in the test bed"),
]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CONSOLE, KERNELS = "/services/labcommons/api/v1/", "/services/kernels/api/v1/"
ID = "0123456789abcdef0123456789abcdef"

# All that a server may ask; what is added here is a decision.
OFFERED = {
    ("GET", "/hub/api"),
    ("GET", "/hub/api/"),
    ("GET", "/hub/api/user"),
    ("POST", "/hub/api/oauth2/token"),
    ("POST", "/hub/api/users/x/activity"),
    ("GET", f"{CONSOLE}notices"),
    ("POST", f"{CONSOLE}notices"),
    ("POST", f"{CONSOLE}notices/seen"),
    ("GET", f"{CONSOLE}broadcasts"),
    ("POST", f"{CONSOLE}leases/{ID}/extend"),
    ("POST", f"{CONSOLE}leases/{ID}/keep"),
    ("POST", f"{CONSOLE}servers/keep"),
    ("POST", f"{CONSOLE}environments"),
    ("GET", f"{CONSOLE}environments/personal/x"),
    ("DELETE", f"{CONSOLE}environments/personal/x"),
    *(
        ("POST", f"{CONSOLE}environments/{one}/x/{what}")
        for one in ("personal", "shared", "team-x")
        for what in ("copy", "derive")
    ),
    ("POST", f"{CONSOLE}environments/personal/x/versions/x/x"),
    ("GET", f"{CONSOLE}builds/{ID}"),
    ("POST", f"{CONSOLE}builds/{ID}/cancel"),
    ("POST", f"{CONSOLE}builds/{ID}/retry"),
    ("GET", f"{CONSOLE}courses/x/handins"),
    ("GET", f"{CONSOLE}courses/x/handed-in/{ID}"),
    ("POST", f"{CONSOLE}courses/x/handins/x"),
    ("GET", f"{CONSOLE}jobs"),
    ("POST", f"{CONSOLE}jobs"),
    ("GET", f"{CONSOLE}jobs/17"),
    ("DELETE", f"{CONSOLE}jobs/17"),
    ("GET", f"{CONSOLE}jobs/17/log"),
    ("POST", f"{CONSOLE}inbox"),
    ("POST", f"{CONSOLE}inbox/refused"),
    ("GET", f"{CONSOLE}inbox/7"),
    ("DELETE", f"{CONSOLE}inbox/7"),
    ("POST", f"{KERNELS}usage"),
    ("GET", "/health"),
}

# Answers, in the place of hub, console and kernels, with what reached it.
BEHIND = """
pid /tmp/behind.pid;
error_log stderr;
events {}
http {
    client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f;
    uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
    access_log off;
    server {
        listen 8081; listen 8082; listen 8083;
        location / {
            return 200 '["$server_port", "$request_method", "$request_uri", "$http_x_real_ip",
                "$http_x_forwarded_for", "$http_forwarded$http_x_forwarded_host", "$http_cookie"]';
        }
    }
}
"""


@pytest.fixture(scope="module")
def gate(proxy_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Addresses of the gate, and of who asks it."""
    name = f"lctest-gate-{uuid.uuid4().hex[:8]}"
    folder = tmp_path_factory.mktemp("behind")
    folder.chmod(0o755)
    (folder / "behind.conf").write_text(BEHIND)
    env = [f"--env=LABCOMMONS_PUBLIC_URL={PUBLIC_URL}", f"--env=LABCOMMONS_SERVER_NAMES={NAMES}"]
    docker("network", "create", name)
    try:
        docker(
            *("run", "--detach", "--rm", "--name", f"{name}-behind", "--network", name, *env),
            *(f"--network-alias={alias}" for alias in ("hub-control", "console", "kernels")),
            *(f"--volume={folder}:/behind:ro", proxy_image),
            *("nginx", "-c", "/behind/behind.conf", "-g", "daemon off;"),
        )
        docker(
            *("run", "--detach", "--rm", "--name", name, "--network", name, *env),
            *("--read-only", "--tmpfs=/tmp:mode=1777", "--cap-drop=ALL"),
            f"--volume={ROOT / 'config' / 'nginx'}:/etc/labcommons/nginx:ro",
            *(proxy_image, "nginx", "-c", "/etc/labcommons/nginx/gate.conf", "-g", "daemon off;"),
        )
        docker(
            *("exec", name, "sh", "-c"),
            "for i in $(seq 100); do bash /usr/local/lib/labcommons/healthy gate && exit;"
            " sleep 0.1; done; exit 1",
        )
        wanted = f'{{{{(index .NetworkSettings.Networks "{name}").%s}}}}'
        yield (
            docker("inspect", "--format", wanted % "IPAddress", name),
            docker("inspect", "--format", wanted % "Gateway", name),
        )
    finally:
        docker("rm", "--force", name, f"{name}-behind", check=False)
        docker("network", "rm", name, check=False)


def ask(
    gate: tuple[str, str], method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(gate[0], 8000, timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body=body, headers=named)
    answer = connection.getresponse()
    return answer.status, answer.read()


def every_url() -> set[str]:
    """Every address of hub, console and kernels service, with something for each parameter."""
    found = {"/health", "/hub/metrics", "/hub/static/x.js", "/user/x/", "/"}
    for pattern, *_ in chain(apihandlers.default_handlers, handlers.default_handlers):
        path = re.sub(r"\(\?:/\(\[\^/\]\+\)\)\?|[$^]", "", pattern)
        path = re.sub(r"\((?:\?P<\w+>)?[^()]*\)\??", "x", path)
        found |= {f"/hub{path.replace('/?', '/')}", f"/hub{path.replace('/?', '')}"}
    for prefix, routes in (
        ("/services/labcommons", console.ROUTES),
        ("/services/kernels", kernels.ROUTES),
    ):
        found |= {f"{prefix}/", f"{prefix}/openapi.json", f"{prefix}/metrics", f"{prefix}/health"}
        for path in {route.path for route in routes}:
            for source in ("personal", "shared", "team-x"):
                filled = re.sub(r"\{(build|lease|handed)\}", ID, path.replace("{source}", source))
                filled = filled.replace("{number}", "7").replace("{job}", "17")
                found.add(prefix + re.sub(r"\{\w+\}", "x", filled))
    return found


def test_it_offers_its_list_and_nothing_else(gate: tuple[str, str]) -> None:
    urls = every_url()
    assert len(urls) > 100
    assert {path for _, path in OFFERED} <= urls
    answered = set()
    for path in urls:
        for method in METHODS:
            status, _ = ask(gate, method, path)
            while status == 429:  # a limit of requests, which this test goes beyond
                status, _ = ask(gate, method, path)
            if status != 404:
                answered.add((method, path))
    assert answered == OFFERED
    for path in ("jobs?open=true", "jobs/17_3", "jobs/17/log?offset=0"):
        assert ask(gate, "GET", CONSOLE + path)[0] != 404


@pytest.mark.parametrize(
    "path",
    ["/hub/api/users/x/tokens/../activity", "//hub/api/user",
     "/hub/api/user/", "/hub/api/user?token=x", "/hub/api/../token", "/%68ub/api/user",
     "/hub/api/users/x/activity/../tokens", "/services/labcommons/api/v1/notices/../leases",
     "/services/labcommons/api/v1/environments/personal/../shared/x",
     "/services/labcommons/api/v1/environments/personal/..%2fshared", "/hub/api/user;x"],
)  # fmt: skip
def test_an_address_is_compared_as_it_is_passed_on(gate: tuple[str, str], path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert ask(gate, method, path)[0] == 404


def test_what_a_server_says_of_itself_is_not_passed_on(gate: tuple[str, str]) -> None:
    forged = {
        "X_Real_IP": "203.0.113.77",
        "X_Forwarded_For": "203.0.113.77",
        "X_Forwarded_Host": "evil.example.org",
        "Forwarded": "for=203.0.113.77",
        "Cookie": "labcommons-lang=zh_CN",
    }
    for path, port, cookie in (
        ("/hub/api/user", "8081", ""),
        (f"{CONSOLE}notices?zone=UTC", "8083", "labcommons-lang=zh_CN"),
    ):
        status, body = ask(gate, "GET", path, **forged)
        assert status == 200
        assert json.loads(body) == [port, "GET", path, gate[1], gate[1], "", cookie]


def test_large_bodies_are_refused_where_none_is_needed(gate: tuple[str, str]) -> None:
    large = b"x" * 100_000
    for path, status in (
        ("/hub/api/oauth2/token", 413),
        (f"{KERNELS}usage", 413),
        (f"{CONSOLE}environments", 200),
    ):
        assert ask(gate, "POST", path, large)[0] == status
    assert ask(gate, "POST", f"{CONSOLE}environments", large * 30)[0] == 413
