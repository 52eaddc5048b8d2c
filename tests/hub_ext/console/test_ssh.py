"""The page of SSH: keys of one's own, and what a client has to know."""

from __future__ import annotations

from urllib.parse import urlencode

from tornado.httpclient import HTTPResponse

from commons.site import Site
from hub_ext.console.ssh_pages import client_of

from .conftest import Console

LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJf92H6zqwdnjLjvozHc9LF69n09jYsQv0WU82phJ/6z"
AUTHORITY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKiW392ZUfn8h6GHhV8H9phwWCZ63jB9Tn9k4xJwHmBc"


async def form(console: Console, line: str) -> HTTPResponse:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return await console.send("POST", "ssh", "alice-token", urlencode({"line": line}), **kind)


async def test_the_page_has_keys_and_what_goes_into_two_files(console: Console) -> None:
    page = (await console.get("ssh", "alice-token")).body.decode()
    assert "has not started" in page
    assert page.count('aria-current="page">SSH<') == page.count('aria-current="page"') == 1
    (console.data / "ssh").mkdir(parents=True)
    (console.data / "ssh" / "authority.pub").write_text(f"{AUTHORITY}\n")
    sent = {"line": f"{LINE} <b>laptop</b>"}
    added = await console.send("POST", "api/v1/ssh/keys", "alice-token", sent)
    assert added.code == 201
    page = (await console.get("ssh", "alice-token")).body.decode()
    assert "&lt;b&gt;laptop&lt;/b&gt;" in page
    assert "<b>laptop" not in page
    assert f"@cert-authority [lab.localhost]:2222,alice.* {AUTHORITY}" in page
    assert "ProxyJump labcommons" in page
    # Another person's page has none of it.
    assert "laptop" not in (await console.get("ssh", "bob-token")).body.decode()


async def test_what_is_wrong_with_a_key_is_said_and_what_was_pasted_stays(console: Console) -> None:
    answer = await form(console, f'command="sh" {LINE}')
    assert answer.code == 400
    page = answer.body.decode()
    assert "The key has options before it" in page
    assert "command=&#34;sh&#34;" in page
    assert (await form(console, LINE)).code == 302


def test_a_port_of_22_is_not_named_in_known_hosts(site: Site) -> None:
    assert site.ssh is not None
    ssh = site.ssh.model_copy(update={"port": 22, "host": "ssh.example.org"})
    found = client_of(site.model_copy(update={"ssh": ssh}), "alice", AUTHORITY)
    assert found["known_hosts"] == f"@cert-authority ssh.example.org,alice.* {AUTHORITY}"
    assert "    Port 22\n" in found["config"]
