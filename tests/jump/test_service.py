"""Who comes in, and what is refused, with OpenSSH's own client; no server is behind it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rig.ssh_site import SshSite, new_key, ran, running

NOT_OWN = "From here only your own servers can be reached"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[SshSite]:
    async with running(tmp_path / "site", more="sessions: 3") as one:
        key = tmp_path / "key"
        one.hub.keys["lab"] = [new_key(key)]
        one.configure(key)
        yield one


@pytest.mark.parametrize(
    "target",
    [
        "bob.main:22",
        "labx.main:22",
        "lab.main:8888",
        "hub-control:8081",
        "chp-front:8000",
        "127.0.0.1:22",
        "169.254.169.254:80",
        "localhost:22",
    ],
)
async def test_a_tunnel_goes_to_ones_own_servers_alone(site: SshSite, target: str) -> None:
    status, _, said = await site.run("-W", target, "jump")
    assert status != 0
    assert NOT_OWN in said
    await site.until(lambda: site.hub.told("ssh-refused"))
    assert site.hub.told("ssh-refused")[0]["reason"] == "not_own_server"
    assert not [one for one in site.hub.asked if one["ask"] == "enter"]


async def test_there_is_no_shell_no_command_and_no_listening(site: SshSite) -> None:
    for words in (("jump",), ("jump", "id"), ("-t", "jump"), ("-s", "jump", "sftp")):
        status, out, _ = await site.run(*words)
        assert (status, out) == (255, ""), words
    status, _, said = await site.run(
        "-o", "ExitOnForwardFailure=yes", "-N", "-R", "0:127.0.0.1:22", "jump"
    )
    assert status == 255
    assert "remote port forwarding failed" in said


async def test_only_keys_that_the_hub_names_come_in(site: SshSite, tmp_path: Path) -> None:
    new_key(tmp_path / "other")
    site.configure(tmp_path / "other")
    status, _, said = await site.run("-W", "lab.main:22", "jump")
    assert (status, "Permission denied (publickey)" in said) == (255, True)
    await site.until(lambda: site.hub.told("ssh-refused"))
    refused = site.hub.told("ssh-refused")[0]
    assert (refused["name"], refused["reason"]) == ("lab", "no_key")


async def test_what_the_hub_says_of_a_server_is_what_the_client_shows(site: SshSite) -> None:
    site.hub.places["lab", "main"] = {"state": "refused", "said": "服务器未运行。Start it."}
    status, _, said = await site.run("lab.main", "id")
    assert status == 255
    assert "Start it." in said


async def test_it_says_that_a_start_takes_its_time_and_waits_for_it(site: SshSite) -> None:
    site.hub.ahead = "Your server starts: wait here."
    answers = [{"state": "starting"}, {"state": "refused", "said": "It did not start."}]
    site.hub.places["lab", "main"] = {"later": lambda: answers.pop(0)}
    status, _, said = await site.run("lab.main", "id")
    assert status == 255
    assert said.index("wait here") < said.index("It did not start.")
    entered = [one["start"] for one in site.hub.asked if one["ask"] == "enter"]
    assert entered == [True, False]  # it is asked for once


async def test_who_has_no_key_does_not_learn_whether_the_server_runs(
    site: SshSite, tmp_path: Path
) -> None:
    site.hub.ahead = "Your server does not run."
    # The public key of somebody is no secret; here a client has it without the private one.
    new_key(tmp_path / "other")
    (tmp_path / "other.pub").write_text(site.hub.keys["lab"][0])
    site.configure(tmp_path / "other")
    _, _, said = await site.run("-W", "lab.main:22", "jump")
    assert "does not run" not in said


async def test_who_may_not_any_more_is_cut_off_with_a_sentence(site: SshSite) -> None:
    client = asyncio.create_task(site.run("-v", "-N", "jump"))
    await site.until(lambda: [one for one in site.hub.asked if one["ask"] == "keys"])
    site.hub.cut["lab"] = "Your account may not log in any more."
    status, _, said = await client
    assert status == 255
    assert "Your account may not log in any more." in said


async def test_a_service_that_ends_says_so(site: SshSite) -> None:
    client = asyncio.create_task(site.run("-o", "LogLevel=DEBUG1", "-N", "jump"))
    await asyncio.sleep(0)
    await site.until(lambda: site.process.poll() is None and site.hub.asked)
    await asyncio.sleep(0.5)
    site.process.send_signal(signal.SIGTERM)
    status, _, said = await client
    assert status == 255
    assert "The service for SSH is restarted. Connect again." in said


async def test_one_person_has_no_more_connections_than_the_site_says(site: SshSite) -> None:
    clients = [asyncio.create_task(site.run("-N", "jump")) for _ in range(3)]

    def came() -> bool:
        return len([one for one in site.hub.asked if one["ask"] == "keys"]) == 3

    await site.until(came)
    await asyncio.sleep(0.5)
    status, _, said = await site.run("-N", "jump")
    assert status == 255
    assert "You have 3 connections by SSH already" in said
    assert all(not one.done() for one in clients)
    for one in clients:
        one.cancel()
    site.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*clients, return_exceptions=True)


async def test_a_thousand_connections_without_a_login_keep_nobody_out(site: SshSite) -> None:
    async def knock() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", site.port)

    site.hub.places["lab", "main"] = {"state": "refused", "said": "It does not run."}
    knocks = []
    for _ in range(20):
        knocks += await asyncio.gather(*(knock() for _ in range(50)))
    # At most ten wait; the others are sent away.
    gone = await asyncio.gather(*(asyncio.wait_for(one.read(), 30) for one, _ in knocks[10:]))
    assert len(gone) == 990
    for _, writer in knocks:
        writer.close()
    await asyncio.sleep(0.5)
    status, _, said = await site.run("lab.main", "id")
    assert status == 255
    assert "It does not run." in said


async def test_a_key_of_a_hundred_kilobytes_is_refused(site: SshSite, tmp_path: Path) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    assert (await reader.readline()).startswith(b"SSH-2.0-LabCommons")
    writer.write(b"SSH-2.0-hostile\r\n" + b"\x00\x01\x86\xa0" + b"A" * 100_000)
    await writer.drain()
    assert await asyncio.wait_for(reader.read(), 40) is not None  # it hangs up
    writer.close()
    site.hub.places["lab", "main"] = {"state": "refused", "said": "It does not run."}
    _, _, said = await site.run("lab.main", "id")
    assert "It does not run." in said


async def test_a_silent_hub_is_said(site: SshSite) -> None:
    site.hub.silent = True
    status, _, said = await site.run("lab.main", "id")
    assert status == 255
    assert "The hub does not answer." in said


async def test_the_host_key_is_vouched_for_by_the_authority(site: SshSite) -> None:
    status, found, _ = await ran(["ssh-keyscan", "-c", "-p", str(site.port), "127.0.0.1"])
    assert status == 0
    assert "ssh-ed25519-cert-v01@openssh.com" in found
