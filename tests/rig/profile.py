"""What no container of ours may be, said without the code that makes them."""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address, IPv4Network
from pathlib import PurePosixPath
from typing import Any

from commons.scopes import owners
from spawner.runtime.docker.settings import AgentSettings

TOP = {
    "Image", "Cmd", "Entrypoint", "Env", "User", "WorkingDir", "Hostname", "Labels", "StopSignal",
    "HostConfig",
}  # fmt: skip
HOST = {
    "NetworkMode", "Mounts", "ReadonlyRootfs", "Tmpfs", "GroupAdd", "CapDrop", "CapAdd",
    "SecurityOpt", "Privileged", "PidsLimit", "Memory", "MemorySwap", "CpuPeriod", "CpuQuota",
    "ShmSize", "Init", "RestartPolicy", "LogConfig", "Ulimits", "DeviceRequests",
}  # fmt: skip
MAKERS = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"}
QUOTA = {"DAC_READ_SEARCH", "FOWNER", "SYS_ADMIN"}
# Folders of the data folder that a container may write to, by what it is.
PEOPLES = ("homes/*", "teams/*", "courses/*", "courses/*/exams/*/*")
SERVICES = ("shared", "channel", "cache", "locks", "store", "versions", "logs", "agent/private/*")
SNAPSHOT = {"homes/*": True, "courses/*": False, "agent/snapshots/*": None}  # read-only
GRADING = (
    "courses/*/staff", "courses/*/handins/*/*/*/files", "agent/gradings/*/*", "agent/snapshots/*",
)  # fmt: skip
READ = (
    "kernels/*", "kernels/image/*/*", "shared", "cache/packages", "cache/bytecode", "channel",
    "channels", "advisories", "signing", "logins", "agent/tasks/*", "agent/private/*",
    "secrets/pgpass",
    "agent-tls/ca.crt", "agent-tls/builder.crt", "agent-tls/builder.key",
)  # fmt: skip


def check(body: dict[str, Any], settings: AgentSettings) -> None:
    """Raises AssertionError for a body that breaks the profile."""
    json.dumps(body).encode()
    host, marks = body["HostConfig"], body["Labels"]
    purpose = marks["labcommons.purpose"]
    maker = purpose in ("home", "folder", "quota", "removal")
    exam = purpose == "server" and "labcommons.exam" in marks
    assert set(body) <= TOP | ({"NetworkingConfig"} if exam else set())
    assert set(host) <= HOST | ({"CpuShares"} if purpose == "quota" else set()) | (
        {"Dns"} if exam else set()
    )
    if exam:
        _exam(body, settings)
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert set(host["CapAdd"]) <= (QUOTA if purpose == "quota" else MAKERS if maker else set())
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["ReadonlyRootfs"] is True
    assert host["RestartPolicy"] == {"Name": "no"}
    assert 0 < host["Memory"] == host["MemorySwap"] <= 2**50
    assert 16 <= host["PidsLimit"] <= 1_000_000
    assert host["CpuQuota"] >= 1000
    assert host["LogConfig"]["Type"] == "json-file"
    assert body["Entrypoint"] == []
    assert marks["labcommons.site"] == settings.site_id
    assert all(key.startswith("labcommons.") for key in marks)
    _network(host["NetworkMode"], purpose, settings)
    _account(body["User"], host["GroupAdd"], maker, purpose, settings)
    _image(body["Image"], purpose, settings)
    _devices(body, host, settings)
    for mount in host["Mounts"]:
        _mount(mount, body, maker, settings)
    for target, options in host["Tmpfs"].items():
        assert target in ("/tmp", "/run")
        assert re.fullmatch(r"[a-z0-9,=]+", options)
    targets = [mount["Target"] for mount in host["Mounts"]]
    assert len(set(targets)) == len(targets)
    names = [line.partition("=")[0] for line in body["Env"]]
    assert len(set(names)) == len(names)
    assert all(names)
    assert not any("\0" in line for line in body["Env"])


def _exam(body: dict[str, Any], settings: AgentSettings) -> None:
    """Its folder, the kernels of its image, an address that reaches nobody; nothing else."""
    host = body["HostConfig"]
    home, *rest = (PurePosixPath(one["Source"]) for one in host["Mounts"])
    assert home.relative_to(settings.host_data).match("courses/*/exams/*/*")
    assert all(one.relative_to(settings.host_data).match("kernels/image/*/*") for one in rest)
    assert host["GroupAdd"] == []
    assert host["Dns"] == ["192.0.2.1"]
    if "NetworkingConfig" in body:
        [(network, given)] = body["NetworkingConfig"]["EndpointsConfig"].items()
        assert network == settings.network
        address = IPv4Address(given["IPAMConfig"]["IPv4Address"])
        assert address in IPv4Network(settings.closed)


def _network(mode: str, purpose: str, settings: AgentSettings) -> None:
    allowed = {
        "server": {settings.network},
        "build": {"bridge", settings.control},
        "trial": {"none"},
        "home": {"none"},
        "folder": {"none"},
        "quota": {"none"},
        "snapshot": {"none"},
        "materials": {"bridge", "none"},
        "archive": {"none"},
        "removal": {"none"},
        "grading": {"none"},
    }
    assert mode in allowed[purpose]


def _account(
    user: str, groups: list[str], maker: bool, purpose: str, settings: AgentSettings
) -> None:
    uid, gid = map(int, user.split(":"))
    directory = settings.site.directory
    if maker:
        assert (uid, gid, groups) == (0, 0, [])
    elif purpose == "materials":
        pairs = {pair.members: pair.leads for pair in owners(settings.site).values()}
        assert (uid, gid in pairs) == (990, True)
        assert groups in ([], [str(pairs[gid])])
    elif purpose == "archive":  # whoever is in the course may read, and what its leads alone read
        pairs = {pair.leads: pair.members for pair in owners(settings.site).values()}
        assert (uid, gid in pairs, groups) == (990, True, [str(pairs[gid])])
    elif (uid, gid) in ((990, 990), (65534, 65534)):
        assert purpose in ("build", "trial", *(["grading"] if uid == 65534 else []))
        assert groups == []
    elif uid == 65534:  # nobody, who may read what a course's leads may
        leads = {pair.leads for pair in owners(settings.site).values()}
        assert (purpose, gid in leads, groups) == ("grading", True, [])
    elif uid == 990:  # it lays down what a home's owner has read, for the course's leads
        leads = {pair.leads for pair in owners(settings.site).values()}
        assert (purpose, gid in leads, groups) == ("snapshot", True, [])
    else:
        assert directory.min_uid <= uid <= directory.max_uid
        for number in (gid, *map(int, groups)):
            assert number >= directory.min_gid
            assert number not in {0, 990, *settings.machine_gids}


def _image(image: str, purpose: str, settings: AgentSettings) -> None:
    if purpose in ("home", "folder", "removal"):
        assert image == settings.maker_image
    elif purpose in ("quota", "snapshot", "archive"):
        assert image == settings.agent_image
    elif purpose in ("build", "materials"):
        assert image == settings.builder_image
    else:
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", image)


def _devices(body: dict[str, Any], host: dict[str, Any], settings: AgentSettings) -> None:
    known = {device.id for device in settings.site.gpus.devices}
    assert host["DeviceRequests"] == [], "the site's are simulated"
    for line in body["Env"]:
        name, _, value = line.partition("=")
        if name.upper().startswith(("NVIDIA_", "DOCKER_RESOURCE_")):
            assert name == "NVIDIA_VISIBLE_DEVICES"
            assert value == "void" or set(value.split(",")) <= known


def _mount(
    mount: dict[str, Any], body: dict[str, Any], maker: bool, settings: AgentSettings
) -> None:
    assert set(mount) == {"Type", "Source", "Target", "ReadOnly", "BindOptions"}
    assert mount["Type"] == "bind"
    assert mount["BindOptions"] == {"Propagation": "rprivate"}
    source, target = mount["Source"], mount["Target"]
    for path in (source, target):
        assert path.startswith("/")
        assert not {"..", "."} & set(path.split("/"))
        assert "\0" not in path
    own = {one.source: one for one in settings.site.servers.mounts.values()}
    if source in own:
        assert mount["ReadOnly"] or not own[source].read_only
        return
    below = PurePosixPath(source).relative_to(PurePosixPath(str(settings.host_data)))
    service = body["User"] == "990:990"
    if body["Labels"]["labcommons.purpose"] == "snapshot":
        # What sees a home sees no course; what sees a course cannot change what was read.
        (read_only,) = [ro for pattern, ro in SNAPSHOT.items() if below.match(pattern)]
        ours = body["User"].startswith("990:")
        assert below.parts[0] != ("homes" if ours else "courses")
        assert mount["ReadOnly"] is (ours if read_only is None else read_only)
    elif body["Labels"]["labcommons.purpose"] == "materials":
        # It writes what it gives out; of the instructors' it reads, and then it reaches nobody.
        assert below.match("courses/*/staff" if mount["ReadOnly"] else "courses/*/materials")
        assert not mount["ReadOnly"] or body["HostConfig"]["NetworkMode"] == "none"
    elif body["Labels"]["labcommons.purpose"] == "archive":
        written = str(below) == "archives"
        assert (
            written
            or below.match("courses/*")
            or below.match("agent/tasks/*")
            or (str(below) == "versions")
        )
        assert mount["ReadOnly"] is not written
    elif body["Labels"]["labcommons.purpose"] == "grading":
        # A course is read, with its leads' group, and by no student's code: what runs that has one
        # folder, which it cannot change.
        assert any(below.match(one) for one in GRADING)
        of_course = below.parts[0] == "courses"
        assert not of_course or mount["ReadOnly"]
        sources = [one["Source"] for one in body["HostConfig"]["Mounts"]]
        if not of_course and len(sources) == 1:
            assert (below.name, mount["ReadOnly"]) == ("run", True)
        assert of_course <= (body["User"] != "65534:65534")
    elif maker:
        quota = body["Labels"]["labcommons.purpose"] == "quota"
        assert below.match("*/*") is quota
        assert below.parts[0] in ("homes", "teams", "courses")
    elif mount["ReadOnly"]:
        assert any(below.match(one) for one in (*READ, *(SERVICES if service else ())))
    else:
        written = (*SERVICES, *PEOPLES) if service else PEOPLES
        assert any(below.match(one) for one in written), below
