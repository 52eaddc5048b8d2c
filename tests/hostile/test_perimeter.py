"""A person's server looks around in its network: all is open without the perimeter, closed with it.

On the networks that `make up` makes, with the perimeter's own image, in the test bed.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from deploy import engine, networks, perimeter
from deploy.settings import Settings
from deploy.steps import Step
from rig.images import ours
from rig.outside import HOST, METADATA, Outside

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif("LABCOMMONS_TESTBED" not in os.environ, reason="runs in the test bed"),
]

IMAGE = "labcommons/perimeter"
# Says "here" on each port, TCP and UDP.
LISTEN = """
import socket, sys, threading
def stream(port):
    server = socket.create_server(("0.0.0.0", port))
    while True:
        one, _ = server.accept(); one.sendall(b"here"); one.close()
def datagrams(port):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); server.bind(("0.0.0.0", port))
    while True:
        _, who = server.recvfrom(100); server.sendto(b"here", who)
for port in map(int, sys.argv[1:]):
    threading.Thread(target=stream, args=(port,)).start()
    threading.Thread(target=datagrams, args=(port,)).start()
print("up", flush=True)
"""
# What answers "here" of name=kind:host:port, all tried at once; else the error.
SCAN = """
import json, socket, sys, threading
found = {}
def look(name, kind, host, port):
    try:
        if kind == "tcp":
            with socket.create_connection((host, int(port)), float(sys.argv[1])) as one:
                found[name] = one.recv(10).decode()
        else:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.settimeout(2); one.connect((host, int(port))); one.send(b"?")
                found[name] = one.recv(10).decode()
    except OSError as error:
        found[name] = type(error).__name__ + " " + str(error.errno)
threads = [threading.Thread(target=look, args=(n, *to.split(":")))
           for n, _, to in (word.partition("=") for word in sys.argv[2:])]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(found))
"""


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 or not check, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


class Lab:
    """A site's networks with stand-ins for gate, CHP, hub, servers and builders in them."""

    def __init__(self, folder: Path) -> None:
        self.site = f"lct{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.settings = Settings(self.site, (), "site.yaml", folder, "127.0.0.1", 443, 80)
        self.engine = engine.find()
        self.containers: list[str] = []
        self.listener = socket.create_server(("0.0.0.0", 0))
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return
            one.sendall(b"here")
            one.close()

    def networks(self) -> None:
        with (self.folder / "log").open("a") as log:
            self.users, self.builders = networks.ensure(self.engine, self.settings, Step(log))

    def run(self, name: str, network: str, *options: str, ports: str = "8888 9999") -> str:
        """Start a container that listens; its address."""
        full = f"{self.site}-{name}"
        self.containers.append(full)
        docker(
            *("run", "--detach", "--name", full, "--network", network, "--user=20003:20000"),
            *("--cap-drop=ALL", "--security-opt=no-new-privileges:true", "--init", *options),
            *("--entrypoint=python3", IMAGE, "-I", "-u", "-c", LISTEN, *ports.split()),
        )
        for line in _follow(full):
            if line == "up":
                break
        return docker(
            "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", full
        )

    def scan(self, name: str, patience: float = 2, **targets: str) -> dict[str, str]:
        """What a container reaches: "here", or the error."""
        words = [f"{target}={to}" for target, to in targets.items()]
        return dict(
            json.loads(
                docker(
                    "exec",
                    f"{self.site}-{name}",
                    "python3",
                    "-I",
                    "-c",
                    SCAN,
                    str(patience),
                    *words,
                )
            )
        )

    def perimeter(self, **decided: Any) -> None:
        """Have the perimeter in place, as docker-compose.yml starts it, and wait for it."""
        docker("rm", "--force", f"{self.site}-perimeter", check=False)
        settings = {"enabled": True, "egress": {"mode": "all"}, "mirrors": [], **decided}
        plan = perimeter.plan(settings, self.site, self.users, self.builders, [HOST], {})
        perimeter.write(plan, self.folder)
        docker(
            *("run", "--detach", "--name", f"{self.site}-perimeter", "--network=host", "--init"),
            *("--cap-drop=ALL", "--cap-add=NET_ADMIN", "--read-only", "--tmpfs=/run:size=1m"),
            "--security-opt=no-new-privileges:true",
            f"--volume={self.folder / perimeter.PLAN_FILE}:/etc/labcommons/perimeter.json:ro",
            IMAGE,
        )
        self.wait_until_right()

    def tool(self, *words: str, check: bool = True) -> str:
        return docker(
            "exec",
            f"{self.site}-perimeter",
            "python3",
            "-I",
            "-m",
            "perimeter",
            *words,
            check=check,
        )

    def nft(self, *words: str) -> str:
        """As root of the machine."""
        return docker("exec", f"{self.site}-perimeter", "nft", *words)

    def wait_until_right(self) -> dict[str, Any]:
        """Follow what the perimeter says until its own check is content."""
        while True:
            said = self.tool("check", "--json", check=False)
            found = json.loads(said) if said else {"right": False}
            if found["right"]:
                return dict(found)

    def take_away(self) -> None:
        """As `make down` does it: the program first, which would put the rules back."""
        docker("rm", "--force", f"{self.site}-perimeter", check=False)
        if (self.folder / perimeter.PLAN_FILE).exists():
            docker(
                *("run", "--rm", "--network=host", "--cap-drop=ALL", "--cap-add=NET_ADMIN"),
                f"--volume={self.folder / perimeter.PLAN_FILE}:/etc/labcommons/perimeter.json:ro",
                *(IMAGE, "remove"),
            )

    def close(self) -> None:
        self.listener.close()
        docker("rm", "--force", *self.containers, check=False)
        self.take_away()
        networks.remove(self.engine, self.settings)
        docker("network", "rm", f"{self.site}-control", check=False)


def _follow(container: str) -> Iterator[str]:
    with subprocess.Popen(
        ["docker", "logs", "--follow", container], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield line.strip()
        finally:
            process.kill()


@pytest.fixture(scope="module")
def image() -> None:
    ours("perimeter")


@pytest.fixture(scope="module")
def lab(image: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        with Outside():
            lab.networks()
            docker("network", "create", f"{lab.site}-control")
            places = {name: f"--ip={ip}" for name, ip in lab.users.services.items()}
            dns = f"--dns={HOST}"
            lab.run("gate", lab.users.name, places["gate"], ports="8000 9000")
            lab.run("chp", lab.users.name, places["chp"], ports="8001 8000")
            lab.run("hub", lab.users.name, places["hub"], ports="8081")
            lab.control = lab.run("db", f"{lab.site}-control", ports="5432")
            lab.run("published", f"{lab.site}-control", "--publish=0.0.0.0:39443:8443",
                    ports="8443")  # fmt: skip
            lab.alice = lab.run("alice", lab.users.name, dns)
            lab.bob = lab.run("bob", lab.users.name)
            # As the agent has servers of exams, but for the name servers: those rules close, too.
            lab.exam = lab.run("exam", lab.users.name, f"--ip={lab.users.closed[0]}", dns)
            lab.other_exam = lab.run("exam2", lab.users.name, f"--ip={lab.users.closed[1]}")
            lab.builder = lab.run("builder", lab.builders.name)
            lab.other_builder = lab.run("builder2", lab.builders.name)
            yield lab
    finally:
        lab.close()


@pytest.fixture(params=["0", "1"])
def frames_pass_iptables(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whether frames between two ports of a bridge go through the rules of IP, too (br_netfilter).

    Docker switches it on for some networks, Kubernetes always.
    """
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not switch.exists():
        pytest.skip("this kernel has no br_netfilter")
    before = switch.read_text()
    switch.write_text(request.param)
    yield
    switch.write_text(before)


def around(lab: Lab) -> dict[str, str]:
    """All that a server should not reach, whether it is one of the site's or not."""
    port = lab.listener.getsockname()[1]
    services = lab.users.services
    return {
        "bob": f"tcp:{lab.bob}:8888",
        "bob's other port": f"tcp:{lab.bob}:9999",
        "bob by UDP": f"udp:{lab.bob}:9999",
        "a builder": f"tcp:{lab.builder}:8888",
        "the gate's other port": f"tcp:{services['gate']}:9000",
        "the gate by UDP": f"udp:{services['gate']}:8000",
        "CHP's API": f"tcp:{services['chp']}:8001",
        "CHP": f"tcp:{services['chp']}:8000",
        "the hub": f"tcp:{services['hub']}:8081",
        "the hub by UDP": f"udp:{services['hub']}:8081",
        "the machine": f"tcp:{lab.users.gateway}:{port}",
        "the machine by another address": f"tcp:198.51.100.254:{port}",
        "a published port": f"tcp:{lab.users.gateway}:39443",
        "a published port by another address": "tcp:198.51.100.254:39443",
        "the database": f"tcp:{lab.control}:5432",
        "metadata": f"tcp:{METADATA}:80",
    }


def opened(found: dict[str, str]) -> set[str]:
    return {name for name, answer in found.items() if answer == "here"}


# Docker itself keeps networks apart.
BY_DOCKER = {"the database", "a builder", "a published port by another address"}


@pytest.mark.usefixtures("frames_pass_iptables")
def test_a_server_reaches_nothing_of_the_site_but_the_gate(lab: Lab) -> None:
    targets = around(lab)
    lab.perimeter(enabled=False)
    without = opened(lab.scan("alice", **targets))
    assert without >= set(targets) - BY_DOCKER - {"a published port"}, "the control"
    lab.perimeter()
    gate = f"tcp:{lab.users.services['gate']}:8000"
    outside = f"tcp:{HOST}:80"
    found = lab.scan("alice", **targets, gate=gate, outside=outside)
    assert opened(found) == {"gate", "outside"}


def test_an_exams_server_reaches_the_gate_alone_whatever_the_egress_is(lab: Lab) -> None:
    """Kind: egress of some people's servers that is narrower than the site's."""
    outside = {
        "the internet": f"tcp:{HOST}:80",
        "alice": f"tcp:{lab.alice}:8888",
        "another exam's": f"tcp:{lab.other_exam}:8888",
        "another exam's by UDP": f"udp:{lab.other_exam}:9999",
    }
    targets = around(lab) | outside
    lab.perimeter(enabled=False)
    assert {"the internet", "alice", "another exam's"} <= opened(lab.scan("exam", **targets))
    assert _resolves(lab, "somewhere.example.org", "exam"), "the control"
    gate = f"tcp:{lab.users.services['gate']}:8000"
    for egress in ({"mode": "all"}, {"mode": "mirrors"}):
        lab.perimeter(egress=egress, mirrors=[[HOST, 80]])
        assert opened(lab.scan("exam", **targets, gate=gate)) == {"gate"}
        assert not _resolves(lab, "somewhere.example.org", "exam")
    # Others reach it no more than each other; those that are to, do.
    exam = f"tcp:{lab.exam}:8888"
    assert opened(lab.scan("alice", exam=exam)) == set()
    assert opened(lab.scan("chp", exam=exam)) == {"exam"}


def test_nor_does_a_builder(lab: Lab) -> None:
    targets = {
        **{name: to for name, to in around(lab).items() if name != "a builder"},
        "another builder": f"tcp:{lab.other_builder}:8888",
        "the gate": f"tcp:{lab.users.services['gate']}:8000",
        "a server": f"tcp:{lab.alice}:8888",
    }
    lab.perimeter(enabled=False)
    assert "another builder" in opened(lab.scan("builder", **targets)), "the control"
    lab.perimeter()
    assert opened(lab.scan("builder", **targets, outside=f"tcp:{HOST}:80")) == {"outside"}


@pytest.mark.usefixtures("frames_pass_iptables")
def test_hub_and_chp_reach_servers_and_the_gate_does_not(lab: Lab) -> None:
    lab.perimeter()
    targets = {"server": f"tcp:{lab.alice}:8888", "other port": f"tcp:{lab.alice}:9999"}
    for service in ("hub", "chp"):
        assert opened(lab.scan(service, **targets)) == set(targets)
    assert opened(lab.scan("gate", **targets)) == set()


def test_nobody_else_on_the_machine_reaches_a_server(lab: Lab) -> None:
    lab.perimeter()
    with pytest.raises(OSError, match=r"timed out|not permitted"):
        socket.create_connection((lab.alice, 8888), 2)
    assert opened(lab.scan("published", server=f"tcp:{lab.alice}:8888")) == set()


def test_who_asks_around_cannot_tell_which_addresses_are_in_use(lab: Lab) -> None:
    unused = f"tcp:{lab.users.given_out[-2]}:8888"
    lab.perimeter(enabled=False)
    found = lab.scan("alice", bob=f"tcp:{lab.bob}:1", unused=unused)
    assert found["bob"] != found["unused"], "the control"
    lab.perimeter()
    # They forget whom they have met; bob's kernel would ask alice's whether she is still there.
    docker("restart", "--time=1", f"{lab.site}-alice", f"{lab.site}-bob")
    # Longer than the kernel asks for a hardware address (3 s), on a busy machine, too.
    found = lab.scan("alice", 9, bob=f"tcp:{lab.bob}:1", unused=unused)
    assert found["bob"] == found["unused"]
    assert _neighbours(lab, lab.bob) in ("", "00:00:00:00:00:00")


def _neighbours(lab: Lab, address: str) -> str:
    """The hardware address that alice's server knows of another."""
    table = docker("exec", f"{lab.site}-alice", "cat", "/proc/net/arp")
    return next((line.split()[3] for line in table.splitlines() if line.startswith(address)), "")


@pytest.mark.parametrize(
    "ruin",
    [
        ("flush", "ruleset"),
        ("delete", "table", "bridge", "TABLE"),
        ("flush", "chain", "inet", "TABLE", "from_users"),
        ("insert", "rule", "bridge", "TABLE", "between", "accept"),
    ],
)
def test_rules_that_somebody_takes_away_come_back(lab: Lab, ruin: tuple[str, ...]) -> None:
    lab.perimeter()
    before = lab.nft("--stateless", "list", "table", "inet", f"labcommons-{lab.site}")
    saved = subprocess.run(["iptables-save"], capture_output=True, check=True).stdout
    lab.nft(*(word.replace("TABLE", f"labcommons-{lab.site}") for word in ruin))
    try:
        while json.loads(lab.tool("check", "--json", check=False))["restored"] != 1:
            pass
        lab.wait_until_right()
    finally:
        # `flush ruleset` takes Docker's own rules, too, where iptables is nftables.
        subprocess.run(["iptables-restore"], input=saved, check=True)
    assert lab.nft("--stateless", "list", "table", "inet", f"labcommons-{lab.site}") == before
    assert opened(lab.scan("alice", bob=f"tcp:{lab.bob}:8888")) == set()
    assert "put back" in docker("logs", f"{lab.site}-perimeter")


def test_rules_stay_when_the_perimeter_ends_and_go_when_told(lab: Lab) -> None:
    lab.perimeter()
    docker("stop", f"{lab.site}-perimeter")
    bob = f"tcp:{lab.bob}:8888"
    assert opened(lab.scan("alice", bob=bob)) == set()
    docker("start", f"{lab.site}-perimeter")
    lab.wait_until_right()
    lab.take_away()
    assert opened(lab.scan("alice", bob=bob)) == {"bob"}


def test_two_sites_do_not_disturb_each_other(lab: Lab, tmp_path: Path) -> None:
    lab.perimeter()
    other = Lab(tmp_path)
    try:
        other.networks()
        other.run("eve", other.users.name)
        bob, eve = f"tcp:{lab.bob}:8888", f"tcp:{other.users.given_out[0]}:8888"
        other.perimeter()
        assert lab.wait_until_right()["restored"] == 0
        assert opened(other.scan("eve", bob=bob)) == set()
        assert opened(lab.scan("alice", eve=eve)) == set()
        other.take_away()
        assert lab.wait_until_right()["restored"] == 0
    finally:
        other.close()


@pytest.mark.parametrize(
    ("decided", "servers", "builders"),
    [
        ({"egress": {"mode": "all"}}, {"web", "name"}, {"web"}),
        ({"egress": {"mode": "none"}}, {"name"}, set()),
        ({"egress": {"mode": "none"}, "mirrors": [[HOST, 80]]}, {"name"}, {"web"}),
        ({"egress": {"mode": "mirrors"}, "mirrors": [[HOST, 80]]}, {"web", "name"}, {"web"}),
        ({"egress": {"mode": "mirrors"}, "mirrors": [[HOST, 443]]}, {"name"}, set()),
        ({"egress": {"mode": "list", "places": ["198.51.100.0/24"]}}, {"web", "name"}, {"web"}),
        # What never is open stays closed, whoever lists it.
        ({"egress": {"mode": "list", "places": ["169.254.0.0/16"]}}, {"name"}, set()),
    ],
)
def test_egress(lab: Lab, decided: dict[str, Any], servers: set[str], builders: set[str]) -> None:
    lab.perimeter(**decided)
    targets = {"web": f"tcp:{HOST}:80", "metadata": f"tcp:{METADATA}:80"}
    with ThreadPoolExecutor() as pool:  # what is closed takes its time
        of_builder = pool.submit(lab.scan, "builder", **targets)
        # By Docker's name server, which asks from within the container's network.
        name = pool.submit(_resolves, lab, "somewhere.example.org")
        reached = opened(lab.scan("alice", **targets)) | ({"name"} if name.result() else set())
    assert (reached, opened(of_builder.result())) == (servers, builders)


def _resolves(lab: Lab, name: str, server: str = "alice") -> bool:
    code = f"import socket; print(socket.gethostbyname({name!r}))"
    done = docker("exec", f"{lab.site}-{server}", "python3", "-I", "-c", code, check=False)
    return done == "198.51.100.7"


def test_servers_have_no_ipv6(lab: Lab) -> None:
    lines = docker("exec", f"{lab.site}-alice", "cat", "/proc/net/if_inet6").splitlines()
    assert {line.split()[-1] for line in lines} <= {"lo"}


def test_where_it_cannot_be_had_it_says_so_and_is_not_healthy(lab: Lab) -> None:
    lab.perimeter()
    name = f"{lab.site}-powerless"
    lab.containers.append(name)
    docker(
        *("run", "--detach", "--name", name, "--network=host", "--init", "--cap-drop=ALL"),
        *("--read-only", "--tmpfs=/run:size=1m"),
        f"--volume={lab.folder / perimeter.PLAN_FILE}:/etc/labcommons/perimeter.json:ro",
        IMAGE,
    )
    said = []
    for line in _follow(name):
        said.append(line)
        if line.startswith("Remedy: "):
            break
    assert "cannot be put in place" in said[-2]
    assert "servers: {perimeter: off}" in said[-1]
    done = subprocess.run(
        ["docker", "exec", name, "python3", "-I", "-m", "perimeter", "check"],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1


def test_a_network_of_an_earlier_version_is_made_anew_and_servers_move_over(
    image: None, tmp_path: Path
) -> None:
    lab = Lab(tmp_path)
    try:
        docker("network", "create", lab.settings.users_network)
        label = ("--label", f"labcommons.site={lab.site}", "--label", "labcommons.user=alice")
        old = lab.run("old", lab.settings.users_network, *label)
        lab.run("gate", lab.settings.users_network, "--label=com.docker.compose.service=gate",
                ports="8000")  # fmt: skip
        lab.networks()
        listed = json.loads(docker("network", "inspect", lab.users.name))[0]["Containers"]
        at = {one["Name"]: one["IPv4Address"].partition("/")[0] for one in listed.values()}
        assert at[f"{lab.site}-gate"] == str(lab.users.services["gate"])
        moved = IPv4Network(at[f"{lab.site}-old"])
        assert moved.subnet_of(lab.users.given_out)
        assert str(moved.network_address) != old
        assert opened(lab.scan("old", gate="tcp:gate:8000")) == {"gate"}
        # One that a killed `make up` left outside is taken in, and nothing is made anew.
        docker("network", "disconnect", lab.users.name, f"{lab.site}-old")
        network = docker("network", "inspect", "--format={{.Id}}", lab.users.name)
        lab.networks()
        assert docker("network", "inspect", "--format={{.Id}}", lab.users.name) == network
        assert opened(lab.scan("old", gate="tcp:gate:8000")) == {"gate"}
    finally:
        lab.close()
