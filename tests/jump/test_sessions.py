"""Sessions in a person's server, in its container, with OpenSSH's own programs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pty
import signal
from pathlib import Path

import pytest

from rig.ssh_server import UID, Server
from rig.ssh_site import SshSite, free_port, new_key, ran

pytestmark = pytest.mark.docker
BIG = 20 * 2**20  # bytes


async def test_a_command_runs_as_the_person_with_the_servers_environment(into: SshSite) -> None:
    script = 'id -u; umask; echo "$MARKER"; echo $NVIDIA_VISIBLE_DEVICES $LANG $HOME; whoami; pwd'
    status, out, said = await into.run("lab.main", script)
    assert status == 0, said + into.log
    assert out.splitlines() == [
        str(UID),
        "0027",
        'it\'s of the "server", and $HOME is no name',
        "GPU-1 C.UTF-8 /home/lab",
        "lab",
        "/home/lab",
    ]
    status, _, _ = await into.run("lab.main", "exit 7")
    assert status == 7
    status, out, _ = await into.run("lab.main", "cat", given=b"a\0b" * 100_000)
    assert out == "a\0b" * 100_000
    # conda's own word is known where no terminal is.
    status, out, said = await into.run("lab.main", "type conda | head -1")
    assert "function" in out, said


NOTICE = {
    "id": 7, "server": "", "sentence": "The server ends in 15 minutes.\x1b]0;no title\x07",
}  # fmt: skip
LEASE = {
    "server": "", "gpus": [{"model": "A100"}], "ends_at": "2031-01-07T14:00:00Z", "stop": None,
}  # fmt: skip
WORDS = {"details": "{gpus}. The server ends at {time}.", "endless": "{gpus}, always."}


async def test_a_terminal_is_told_what_there_is_and_what_ends(
    into: SshSite, server: Server
) -> None:
    server.console.document = {"notices": [], "leases": [LEASE], "words": WORDS}
    await into.run("lab.main", "sleep 1")  # the lines of the next one are there
    theirs, ours = pty.openpty()
    client = await asyncio.create_subprocess_exec(
        *into.words("-tt", "lab.main"), stdin=ours, stdout=ours, stderr=ours
    )
    os.close(ours)
    said, loop = b"", asyncio.get_running_loop()

    async def until(words: bytes) -> None:
        nonlocal said
        while words not in said:
            said += await asyncio.wait_for(loop.run_in_executor(None, os.read, theirs, 4096), 60)

    await until(b"$ ")
    assert b"Environment: py313-data:1" in said
    assert b"of 1.0 GiB used" in said
    assert b"A100. The server ends at 2031-01-07 14:00 UTC." in said
    server.console.document = {**server.console.document, "notices": [NOTICE]}
    await until(b"The server ends in 15 minutes.")
    assert b"\x1b]0;" not in said.partition(b"***")[2]
    os.write(theirs, b"exit\n")
    await asyncio.wait_for(client.wait(), 30)
    os.close(theirs)


async def test_a_terminal(into: SshSite) -> None:
    theirs, ours = pty.openpty()
    client = await asyncio.create_subprocess_exec(
        *into.words("-tt", "lab.main"), stdin=ours, stdout=ours, stderr=ours
    )
    os.close(ours)
    os.write(theirs, b"tty; stty size; echo $((6*7))$TERM; exit\n")
    said, loop = b"", asyncio.get_running_loop()
    while True:
        try:
            part = await asyncio.wait_for(loop.run_in_executor(None, os.read, theirs, 4096), 30)
        except OSError:
            break
        if not part:
            break
        said += part
    os.close(theirs)
    assert await asyncio.wait_for(client.wait(), 30) == 0
    assert b"/dev/pts/" in said
    assert b"42" in said


async def test_files_are_copied_both_ways(into: SshSite, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(BIG))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    for words in (
        ("scp", f"{source}", "lab.main:by-scp"),
        ("scp", "-O", f"{source}", "lab.main:by-old-scp"),
    ):
        status, _, said = await into.run(*words[1:], program=words[0])
        assert status == 0, said
    batch = f"put {source} by-sftp\nchmod 640 by-sftp\nget by-scp {tmp_path}/back\n".encode()
    status, _, said = await into.run("-b", "-", "lab.main", program="sftp", given=batch)
    assert status == 0, said
    assert hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest() == digest
    shell = " ".join(into.words())
    status, _, said = await ran(
        ["rsync", "-a", "--chmod=F600", "-e", shell, str(source), "lab.main:by-rsync"]
    )
    assert status == 0, said
    status, out, _ = await into.run("lab.main", "sha256sum by-*; stat -c %a by-scp")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == [digest] * 4
    assert lines[4] == "640"


async def test_a_port_of_the_server_is_forwarded_and_any_by_socks(
    into: SshSite, server: Server
) -> None:
    for words in ("-L", "-D"):
        port = free_port()
        there = f"{port}:127.0.0.1:{server.port}" if words == "-L" else str(port)
        client = await asyncio.create_subprocess_exec(
            *into.words(words, f"127.0.0.1:{there}", "-o", "ExitOnForwardFailure=yes"),
            *("lab.main", "echo there; cat"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert client.stdout is not None
        assert client.stdin is not None
        assert await asyncio.wait_for(client.stdout.readline(), 30) == b"there\n"
        ask = ["curl", "--silent", "--noproxy", "", "--max-time", "30"]
        if words == "-L":
            ask += ["--noproxy", "*", f"http://127.0.0.1:{port}/user/lab/api"]
        else:
            ask += ["--proxy", f"socks5h://127.0.0.1:{port}"]
            ask += [f"http://127.0.0.1:{server.port}/user/lab/api"]
        status, out, said = await ran(ask)
        client.stdin.close()
        await client.wait()
        assert status == 0, said
        assert "version" in json.loads(out)


async def test_by_proxycommand_and_not_the_other_way(into: SshSite) -> None:
    config = into.folder / "config"
    way = f"ssh -F {config} -W %h:%p jump"
    status, out, said = await into.run(
        *("-o", "ProxyJump=none", "-o", f"ProxyCommand={way}", "lab.main", "echo here")
    )
    assert (status, out) == (0, "here\n"), said
    # The agent's, X11's and what others would connect to.
    status, _, said = await into.run("-R", "0:127.0.0.1:1", "-o", "ExitOnForwardFailure=yes",
                                     "lab.main", "true")  # fmt: skip
    assert status == 255
    assert "remote port forwarding failed" in said
    status, out, _ = await into.run("-A", "-X", "lab.main", "echo [$SSH_AUTH_SOCK$DISPLAY]")
    assert out == "[]\n"


async def test_what_an_editor_does_first(into: SshSite) -> None:
    # VS Code: a shell that reads a script, with a SOCKS port in the same connection.
    script = b"echo $((40 + 2)); uname -s; command -v tar curl wget\n"
    status, out, said = await into.run(
        "-T", "-D", str(free_port()), "lab.main", "bash", given=script
    )
    assert status == 0, said
    assert out.startswith("42\nLinux\n")
    # PyCharm: a shell without a command and without a terminal.
    status, out, _ = await into.run("-T", "lab.main", given=script)
    assert out.startswith("42\nLinux\n")


async def test_only_the_persons_keys_open_it(into: SshSite, tmp_path: Path) -> None:
    line = new_key(tmp_path / "other")
    into.hub.keys["lab"].append(line)  # it comes in at the jump, and the server is not told
    into.configure(tmp_path / "other")
    status, _, said = await into.run("lab.main", "id")
    assert status == 255
    assert "Permission denied (publickey)" in said


async def test_open_and_close_are_told_with_their_bytes(into: SshSite) -> None:
    await into.run("lab.main", "head -c 100000 /dev/zero")
    await into.until(lambda: into.hub.told("ssh-close"))
    opened, closed = into.hub.told("ssh-open")[0], into.hub.told("ssh-close")[0]
    assert opened["address"] == closed["address"] == "127.0.0.1"
    assert opened["details"]["session"] == closed["details"]["session"]
    assert closed["details"]["sent"] > 100_000
    assert closed["details"]["received"] > 1000


async def test_who_is_cut_off_in_a_session_reads_why(into: SshSite) -> None:
    clients = [asyncio.create_task(into.run("lab.main", "sleep 600")) for _ in range(5)]
    await into.until(lambda: len(into.hub.told("ssh-open")) == 5)
    into.hub.cut["lab"] = "Your account may not log in any more."
    for status, _, said in await asyncio.gather(*clients):
        assert status == 255
        assert "Your account may not log in any more." in said
    await into.until(lambda: len(into.hub.told("ssh-close")) == 5)


async def test_nothing_is_left_of_a_connection(into: SshSite, server: Server) -> None:
    # As with any sshd, what ran without a terminal goes on: those of others are none of these.
    clients = [asyncio.create_task(into.run("lab.main", "sleep 611")) for _ in range(3)]
    await into.until(lambda: server.run("pgrep", "-fc", "^sleep 611").strip() == "3")
    into.process.send_signal(signal.SIGKILL)
    for status, _, _ in await asyncio.gather(*clients):
        assert status == 255
    # Its sshd, and the folder with what that has read.
    find = ("find", "/tmp/labcommons-ssh", "-mindepth", "1", "-type", "d")
    await into.until(lambda: not server.run("pgrep", "sshd") and not server.run(*find))


async def test_a_server_that_stops_ends_its_sessions(into: SshSite, server: Server) -> None:
    into.hub.places["lab", "main"]["path"] = "/user/lab/labcommons/nothing"
    status, _, said = await into.run("lab.main", "id")
    assert status == 255
    assert "It is too old for SSH." in said
