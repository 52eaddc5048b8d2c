"""SSH into a person's server: the time to a prompt, sftp beside a direct one, idle sessions.

The server is in its container, the service a process of this machine, the client OpenSSH's. A
direct sftp goes to an sshd that listens in the same container, on loopback. Run in the test bed;
writes tests/bench/results/ssh.md.
"""

from __future__ import annotations

import asyncio
import os
import platform
import pty
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
# Not this folder: it has an environments.py; and `deploy` is ours before the tests' folder of it.
sys.path[:1] = [str(HERE.parents[1]), str(HERE.parent)]

from rig.ssh_server import Server, server_in_container
from rig.ssh_site import SshSite, free_port, new_key, running

TIMES = int(os.environ.get("BENCH_TIMES", "20"))
MEGABYTES = int(os.environ.get("BENCH_MEGABYTES", "200"))
SESSIONS = int(os.environ.get("BENCH_SESSIONS", "45"))  # one server takes 50
SECONDS = float(os.environ.get("BENCH_SECONDS", "30"))


async def prompt(site: SshSite) -> float:
    """Seconds from the command to a prompt."""
    theirs, ours = pty.openpty()
    began, loop, said = time.perf_counter(), asyncio.get_running_loop(), b""
    client = await asyncio.create_subprocess_exec(
        *site.words("-tt", "lab.main"), stdin=ours, stdout=ours, stderr=ours
    )
    os.close(ours)
    while not said.endswith(b"$ "):
        said += await loop.run_in_executor(None, os.read, theirs, 4096)
    took = time.perf_counter() - began
    os.write(theirs, b"exit\n")
    await client.wait()
    os.close(theirs)
    return took


async def sftp(site: SshSite, *words: str, host: str, folder: Path) -> float:
    """Megabytes a second that a file comes with."""
    given = f"get big {folder}/big\n".encode()
    began = time.perf_counter()
    status, _, said = await site.run(
        *words, "-b", "-", host, program="sftp", given=given, limit=600
    )
    assert status == 0, said
    return MEGABYTES / (time.perf_counter() - began)


def direct(server: Server, key: str) -> list[str]:
    """An sshd on loopback in the same container; what a client needs for it."""
    port, folder = free_port(), "/tmp/bench-sshd"
    lines = [
        f"Port {port}", "ListenAddress 127.0.0.1", "HostKey /tmp/labcommons-ssh/host_key",
        f"AuthorizedKeysFile {folder}/keys", "UsePAM no", "StrictModes no", "PidFile none",
        "Subsystem sftp /usr/lib/openssh/sftp-server",
    ]  # fmt: skip
    script = f"mkdir -p {folder}; echo '{key}' >{folder}/keys; printf '%s\\n' " + " ".join(
        f"'{line}'" for line in lines
    )
    server.run("sh", "-c", f"{script} >{folder}/config; /usr/sbin/sshd -f {folder}/config")
    return ["-o", "ProxyJump=none", "-o", "HostName=127.0.0.1", "-o", f"Port={port}",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]  # fmt: skip


async def idle(site: SshSite) -> tuple[float, float]:
    """Percent of a core, and MB a session, of the service with idle sessions."""
    process = psutil.Process(site.process.pid)
    before = process.memory_info().rss
    clients = []
    for _ in range(SESSIONS):
        clients.append(
            await asyncio.create_subprocess_exec(
                *site.words("lab.main", "cat"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
            )
        )
        if len(clients) % 5 == 0:  # not as a crowd: that is another bench's
            await site.until(lambda: len(site.hub.told("ssh-open")) >= len(clients))
    await asyncio.sleep(5)
    used, began = sum(process.cpu_times()[:2]), time.perf_counter()
    await asyncio.sleep(SECONDS)
    share = (sum(process.cpu_times()[:2]) - used) / (time.perf_counter() - began)
    memory = (process.memory_info().rss - before) / SESSIONS / 2**20
    for client in clients:
        client.kill()
    return 100 * share, memory


async def main() -> None:
    with server_in_container() as server, tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        more = f"sessions: 200, all_sessions: {2 * SESSIONS}"
        async with running(folder / "site", f"http://127.0.0.1:{server.port}", more) as site:
            key = new_key(folder / "key")
            site.hub.keys["lab"] = [key]
            site.hub.places["lab", "main"] = {**server.place(), "keys": [key]}
            site.configure(folder / "key")
            times = [await prompt(site) for _ in range(TIMES)]
            await site.run("lab.main", f"head -c {MEGABYTES}M /dev/urandom >big")
            words = direct(server, key)
            rates: dict[str, Any] = {"by the service": [], "direct": []}
            for _ in range(3):
                rates["by the service"].append(await sftp(site, host="lab.main", folder=folder))
                rates["direct"].append(await sftp(site, *words, host="lab.main", folder=folder))
            site.hub.asked.clear()
            share, memory = await idle(site)
    through, plain = (max(rates[name]) for name in ("by the service", "direct"))
    text = f"""# SSH

{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()};
written by tests/bench/ssh.py.

| | measured | wanted |
|---|---|---|
| connect to prompt, median of {TIMES} | {statistics.median(times):.2f} s | under 0.7 s |
| sftp of {MEGABYTES} MB by the service | {through:.0f} MB/s | at least half of the direct one |
| sftp, direct on loopback | {plain:.0f} MB/s | |
| {SESSIONS} idle sessions: CPU of the service | {share:.1f} % of a core | under 5 % |
| memory of the service for each | {memory:.2f} MB | under 3 MB |
"""
    print(text)
    (HERE / "results" / "ssh.md").write_text(text)


if __name__ == "__main__":
    asyncio.run(main())
