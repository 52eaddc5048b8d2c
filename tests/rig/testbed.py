"""A Docker Engine for tests, in a network namespace of its own.

    python3 tests/rig/testbed.py exec -- COMMAND …

COMMAND runs inside, with DOCKER_HOST, FAKE_GPU_CONF (the stand-in GPUs) and
LABCOMMONS_TESTBED_PIDFILE (dockerd's) set. Published ports, networks and containers are the
test bed's own: an administrator's Engine and the machine's ports are never touched. The Engine
also has stand-in GPUs (gpu/gpus.json) for its DeviceRequests. Images stay under
``.cache/testbed`` for the next run; all else is taken down at the end, also of a run that was
killed before. Left as they are: ip_forward, which is switched on.

Needs root, iproute2, iptables, util-linux and docker.io. Standard library only.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import ipaddress
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GPUS = HERE / "gpu" / "gpus.json"
# Where the /30 between the machine and the test bed is looked for, and what Docker uses inside.
POOL = ipaddress.IPv4Network("10.213.0.0/16")
BRIDGE = "10.214.0.1/24"
ADDRESSES = "base=10.215.0.0/16,size=24"
START_TIMEOUT = 60  # seconds
STOP_TIMEOUT = 30
RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


class TestbedError(Exception):
    """The test bed cannot be had; the message says why and what to do."""

    __test__ = False


class Testbed:
    """Names and places of one test bed; several checkouts can have theirs side by side."""

    __test__ = False

    def __init__(self, data: Path) -> None:
        self.data = data
        short = hashlib.sha256(str(data).encode()).hexdigest()[:6]
        self.namespace = f"labcommons-{short}"
        self.outside, self.inside = f"lct{short}o", f"lct{short}i"  # 15 characters at most
        # A socket's path may have 107 characters, and a checkout can lie deep.
        self.run = Path("/run") / self.namespace
        self.socket = self.run / "docker.sock"
        self.pid_file = self.run / "dockerd.pid"
        self.log = data / "dockerd.log"

    @property
    def enter(self) -> list[str]:
        """The words that run a command inside.

        Not ``ip netns exec``: it mounts a new /sys, and the control groups are not in it.
        """
        return ["nsenter", f"--net=/run/netns/{self.namespace}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("verb", choices=["exec"])
    parser.add_argument("--data", type=Path, default=ROOT / ".cache" / "testbed")
    parser.add_argument(
        "--images-of", type=Path, metavar="DATA", help="another test bed's, at work"
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    arguments = parser.parse_args()
    # SIGINT, too: who is started in the background finds it ignored.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        if arguments.images_of:
            there = Testbed(arguments.images_of.resolve()).socket
            os.environ["LABCOMMONS_IMAGES_AT"] = f"unix://{there}"
        return execute(Testbed(arguments.data.resolve()), arguments.command)
    except TestbedError as error:
        print(f"test bed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def execute(bed: Testbed, command: list[str]) -> int:
    """Run a command in the test bed and return its exit code."""
    _check_machine()
    bed.data.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_lock(bed))
        _remove(bed)
        stack.callback(_remove, bed)
        _make_network(bed)
        servers = _name_servers()
        _start_engine(bed, servers)
        return _run(bed, command, servers)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise TestbedError("needs root, for a network and an Engine of its own")
    needed = {
        "ip": "iproute2",
        "iptables": "iptables",
        "nsenter": "util-linux",
        "dockerd": "docker.io",
        "containerd": "containerd",
        "docker": "docker.io (Debian 13: docker-cli)",
    }
    missing = [package for program, package in needed.items() if not shutil.which(program)]
    if missing:
        raise TestbedError(f"missing: {', '.join(missing)}; run: apt-get install, or make test")


@contextmanager
def _lock(bed: Testbed) -> Iterator[None]:
    with (bed.data / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TestbedError("another run uses it; wait until that one has ended") from None
        yield


def _make_network(bed: Testbed) -> None:
    """A namespace with one link to the machine, and the machine's address for the outside."""
    _do("ip", "netns", "add", bed.namespace)
    _do("ip", "link", "add", bed.outside, "type", "veth", "peer", "name", bed.inside,
        "netns", bed.namespace)  # fmt: skip
    # Two that begin at once would find the same ones free.
    with Path("/run/labcommons-testbeds.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        machine, within, net = _free_addresses()
        _do("ip", "address", "add", f"{machine}/{net.prefixlen}", "dev", bed.outside)
        _do("ip", "link", "set", bed.outside, "up")  # from now on a route leads there
    _do(*bed.enter, "ip", "address", "add", f"{within}/{net.prefixlen}", "dev", bed.inside)
    _do(*bed.enter, "ip", "link", "set", "lo", "up")
    _do(*bed.enter, "ip", "link", "set", bed.inside, "up")
    _do(*bed.enter, "ip", "route", "add", "default", "via", str(machine))
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for rule in _rules(bed, str(net)):
        # Before Docker's own, which drop what they do not know.
        table, chain, *match = rule
        _do("iptables", "--wait", "-t", table, "-I", chain, "1", *match)


def _rules(bed: Testbed, net: str) -> list[list[str]]:
    comment = ["-m", "comment", "--comment", bed.namespace]
    masquerade = ["-s", net, "!", "-o", bed.outside, *comment, "-j", "MASQUERADE"]
    return [
        ["nat", "POSTROUTING", *masquerade],
        ["filter", "FORWARD", "-i", bed.outside, *comment, "-j", "ACCEPT"],
        ["filter", "FORWARD", "-o", bed.outside, *comment, "-j", "ACCEPT"],
    ]


def _free_addresses() -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address, ipaddress.IPv4Network]:
    """Both ends of a /30 that no route of the machine, except the default, leads to."""
    listing = _do("ip", "-4", "-o", "route", "show", "table", "all")
    taken = [
        ipaddress.IPv4Network(word, strict=False)
        for word in re.findall(r"\b\d+\.\d+\.\d+\.\d+(?:/\d+)?", listing)
    ]
    taken = [net for net in taken if net.prefixlen > 0]
    for net in POOL.subnets(new_prefix=30):
        if not any(net.overlaps(other) for other in taken):
            machine, within = net.hosts()
            return machine, within, net
    raise TestbedError(f"every /30 of {POOL} is in use on this machine")


def _name_servers() -> list[str]:
    """The machine's name servers, if they cannot be reached from inside as they stand; else none.

    A resolver on the machine's loopback (systemd-resolved) is such a one: its own servers are
    used instead.
    """
    for number, path in enumerate(RESOLVERS):
        with suppress(OSError):
            listed = re.findall(r"^nameserver\s+([0-9a-fA-F.:]+)", path.read_text(), re.MULTILINE)
            reachable = [s for s in listed if not ipaddress.ip_address(s).is_loopback]
            if reachable:
                return reachable if number else []
    print("test bed: no name server that is reachable from inside", file=sys.stderr)
    return []


def _start_engine(bed: Testbed, servers: list[str]) -> None:
    bed.run.mkdir(parents=True, exist_ok=True)
    command = [
        *bed.enter, "dockerd",
        "--data-root", str(bed.data / "docker"), "--exec-root", str(bed.run / "exec"),
        "--pidfile", str(bed.pid_file), "--host", f"unix://{bed.socket}",
        # Where a containerd of the machine runs, dockerd uses that one: keep apart there, too.
        "--containerd-namespace", bed.namespace,
        "--containerd-plugins-namespace", f"plugins.{bed.namespace}",
        "--bip", BRIDGE, "--default-address-pool", ADDRESSES,
        *(word for server in servers for word in ("--dns", server)),
    ]  # fmt: skip
    if _do("stat", "-f", "-c", "%T", str(bed.data)).strip() == "overlayfs":
        print("test bed: slow, as .cache is on an overlay; put it on a volume", file=sys.stderr)
        command += ["--storage-driver", "vfs"]
    environment = {
        **os.environ,
        # Its folder first: dockerd looks there once, at start, for NVIDIA's hook.
        "PATH": f"{HERE / 'gpu'}:{os.environ['PATH']}",
        "FAKE_GPU_CONF": str(GPUS),
    }
    for networks_kept in (True, False):
        if not networks_kept:
            # dockerd 20.10 panics where it finds one that a killed run has half made.
            shutil.rmtree(bed.data / "docker" / "network", ignore_errors=True)
        with bed.log.open("w") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while process.poll() is None and time.monotonic() < deadline:
            if _answers(bed):
                return
            time.sleep(0.2)
        if process.poll() is None:  # it hangs, and _remove ends it
            break
    tail = "\n".join(bed.log.read_text(errors="replace").splitlines()[-15:])
    raise TestbedError(f"dockerd did not start:\n{tail}")


def _answers(bed: Testbed) -> bool:
    if not bed.socket.exists():
        return False
    done = subprocess.run(
        ["docker", "info"],
        env={**os.environ, "DOCKER_HOST": f"unix://{bed.socket}"},
        capture_output=True,
        timeout=20,
        check=False,
    )
    return done.returncode == 0


def _run(bed: Testbed, command: list[str], servers: list[str]) -> int:
    """The command, in a session of its own so that all of it can be ended."""
    words = [*bed.enter, *command]
    if servers:
        # For this command alone, /etc/resolv.conf names servers that can be reached.
        resolver = bed.run / "resolv.conf"
        resolver.write_text("".join(f"nameserver {server}\n" for server in servers))
        mount = f'mount --bind {resolver} /etc/resolv.conf && exec "$@"'
        words = [*bed.enter, "unshare", "--mount", "sh", "-c", mount, "sh", *command]
    process = subprocess.Popen(
        words,
        env={
            **os.environ,
            "DOCKER_HOST": f"unix://{bed.socket}",
            "LABCOMMONS_TESTBED_PIDFILE": str(bed.pid_file),
            "FAKE_GPU_CONF": str(GPUS),
            "LABCOMMONS_TESTBED": bed.namespace,
        },
        start_new_session=True,
    )
    try:
        return process.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT)


def _remove(bed: Testbed) -> None:
    """Take down all of it but the images. Finds also what a killed run has left."""
    _stop(_daemons(bed))
    # Whatever else is inside: an interrupt can come before the command's process is known.
    for pid in _try("ip", "netns", "pids", bed.namespace).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    for line in Path("/proc/self/mounts").read_text().splitlines()[::-1]:
        target = line.split()[1]
        # The Engine's folder itself, too: below a shared mount it makes one of its own.
        if f"{target}/".startswith((f"{bed.run}/", f"{bed.data}/docker/")):
            subprocess.run(["umount", "--lazy", target], capture_output=True, check=False)
    for table in ("nat", "filter"):
        listing = _try("iptables", "--wait", "-t", table, "-S")
        for line in listing.splitlines():
            if f"--comment {bed.namespace} " in line.replace('"', ""):
                rule = line.replace('"', "").replace("-A ", "-D ", 1).split()
                _try("iptables", "--wait", "-t", table, *rule)
    _try("ip", "link", "delete", bed.outside)
    _try("ip", "netns", "delete", bed.namespace)
    shutil.rmtree(bed.run, ignore_errors=True)


def _daemons(bed: Testbed) -> list[int]:
    """Process ids of the test bed's dockerd and of what it has started, dockerd first.

    By their command lines: a pid file can be older than the process that has its number now.
    """
    marks = (str(bed.run / "exec"), f"-namespace {bed.namespace} ")
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                line = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                if any(mark in line for mark in marks) and not line.startswith(sys.executable):
                    found.append((not line.startswith("dockerd"), int(folder.name)))
    return [pid for _, pid in sorted(found)]


def _stop(pids: list[int]) -> None:
    """SIGTERM to each in turn, SIGKILL to one that stays."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT
            while time.monotonic() < deadline:
                if _ended(pid):
                    break
                time.sleep(0.1)
            else:
                os.kill(pid, signal.SIGKILL)


def _ended(pid: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return not Path(f"/proc/{pid}").exists()


def _do(*command: str) -> str:
    """What a command prints. Raises TestbedError when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise TestbedError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _try(*command: str) -> str:
    """What a command prints, "" when it fails: there may be nothing to take down."""
    with suppress(TestbedError):
        return _do(*command)
    return ""


if __name__ == "__main__":
    sys.exit(main())
