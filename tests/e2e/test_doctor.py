"""`labcommons doctor` on a site that runs, and on one whose hub does not."""

from __future__ import annotations

import http.cookiejar
import json
import socket
import ssl
import subprocess
import urllib.parse
import urllib.request
from typing import Any

from .deployment import Deployment, wait_for


def look(deployment: Deployment, *names: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and findings, as an administrator of the machine gets them."""
    command = [deployment.root / "bin" / "labcommons", "doctor", "--json", *names]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=deployment.root
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["checks"]


def test_all_is_looked_at_and_what_is_broken_is_said(deployment: Deployment) -> None:
    code, rows = look(deployment)
    seen = {row["check"] for row in rows}
    assert seen >= {"services", "Engine", "disk", "ports", "databases", "directory", "agent"}
    assert seen >= {"certificates", "ledger", "clock", "environments", "perimeter", "gpus"}
    machine = {"disk", "gpus", "NTP", "backups"}  # as full as the tests' machine is; other tests'
    assert [row for row in rows if row["state"] in ("broken", "unknown")
            and row["check"] not in machine] == []  # fmt: skip

    deployment.docker("stop", "--time=5", deployment.container("hub"))
    try:
        code, rows = look(deployment)
        (why,) = [row for row in rows if row["check"] == "hub"]
        assert code == 2
        assert why["cause"]["en"].startswith("its last words: ")
        assert ("hub", "broken") in {(row["about"], row["state"]) for row in rows}
    finally:
        deployment.docker("start", deployment.container("hub"))
        wait_for(lambda: deployment.healthy("hub"), "the hub", 120)
    assert {row["check"] for row in look(deployment, "databases")[1]} == {"databases"}


def test_a_renewed_certificate_is_served_within_seconds(deployment: Deployment) -> None:
    before = served(deployment)
    keeper = deployment.container("certificates")
    deployment.docker("exec", keeper, "rm", "/srv/labcommons/data/tls/server.crt")
    wait_for(lambda: served(deployment) != before, "another certificate")
    assert deployment.get("/hub/login") == 200  # verified
    networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"
    assert deployment.docker("inspect", "-f", networks, keeper).split() == ["none"]


def served(deployment: Deployment) -> bytes | None:
    """The certificate that the proxy has."""
    context = ssl.create_default_context(cafile=str(deployment.ca_file))
    with (
        socket.create_connection(("localhost", 8443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="lab.localhost") as connection,
    ):
        return connection.getpeercert(binary_form=True)


SOON = """
from commons.store import Store
from hub_ext.doctor import kept
words = {"en": "ends in 13 days", "zh_CN": "13"}
row = {"check": "certificates", "about": "served", "state": "warning"}
row |= {"cause": words, "remedy": words}
Store().transact(lambda session: kept.keep(session, [row]))
"""


def test_administrators_are_told_on_every_page_before_a_certificate_ends(
    deployment: Deployment,
) -> None:
    # As the hub's own next look would, where nobody has renewed it.
    deployment.docker(
        "exec", deployment.container("hub"), "/opt/labcommons/hub/bin/python", "-c", SOON
    )
    try:
        assert "ends in 13 days" in home(deployment, "carol")
        assert "ends in 13 days" not in home(deployment, "alice")
    finally:
        assert look(deployment, "certificates")[0] == 0
    assert "ends in 13 days" not in home(deployment, "carol")


def home(deployment: Deployment, user: str) -> str:
    """The page of their servers, as they see it."""
    jar = http.cookiejar.CookieJar()
    opener = deployment.opener(urllib.request.HTTPCookieProcessor(jar))
    opener.open(f"{deployment.url}/hub/login", timeout=30).read()
    xsrf = next(str(cookie.value) for cookie in jar if cookie.name == "_xsrf")
    form = {"username": user, "password": f"{user}-demo", "_xsrf": xsrf}
    body = urllib.parse.urlencode(form).encode()
    answer = opener.open(f"{deployment.url}/hub/login?next=/hub/home", body, timeout=30)
    return str(answer.read().decode())
