"""Web programs of a server, in the browser of its owner alone (jupyter-server-proxy)."""

from __future__ import annotations

import time
import urllib.error
import urllib.request

import pytest

from rig.ssh_server import Server, docker
from rig.ssh_site import free_port

pytestmark = pytest.mark.docker
TRIES = 200


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def get(server: Server, path: str, token: str = "") -> tuple[int, str]:
    headers = {"Authorization": f"token {token}"} if token else {}
    address = f"http://127.0.0.1:{server.port}/user/lab/{path}"
    opener = urllib.request.build_opener(_Stay(), urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(address, headers=headers), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_what_listens_in_the_server_is_its_owners_and_nothing_beyond_it_is_reached(
    server: Server,
) -> None:
    port = free_port()
    docker("exec", "--detach", server.name, "sh", "-c",
           f"mkdir -p /tmp/www && echo seen >/tmp/www/page && cd /tmp/www && "
           f"exec python3 -m http.server --bind 127.0.0.1 {port}")  # fmt: skip
    for _ in range(TRIES):
        found = get(server, f"proxy/{port}/page", "good")
        if found[0] == 200:
            break
        time.sleep(0.05)
    assert found == (200, "seen\n")
    assert get(server, f"proxy/{port}/page")[0] in (302, 403)
    assert get(server, f"proxy/{port}/page", "bad")[0] in (302, 403)
    for host in ("169.254.169.254", "hub-control", "localhost.example.org"):
        assert get(server, f"proxy/{host}:{port}/page", "good")[0] == 403, host
    # No environment with TensorBoard: no card for it.
    status, said = get(server, "server-proxy/servers-info", "good")
    assert (status, '"server_processes": []' in said) == (200, True), said
