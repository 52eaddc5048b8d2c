"""What stands on every container of ours: the proof of what runs, whatever the store has lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from spawner.runtime.spec import Device, Limits

SITE = "labcommons.site"
USER = "labcommons.user"
SERVER = "labcommons.server"
ENVIRONMENT = "labcommons.environment"
LEASE = "labcommons.lease"
# What the server was told of the site's addresses; `make up` stops those that know others.
ADDRESSES = "labcommons.addresses"
# Of the site file's ``servers.mounts``, those whose folder the machine does not have.
MISSING = "labcommons.missing"
# What counts of it in the sums of person and machine: bytes, and cores.
MEMORY = "labcommons.memory"
CPU = "labcommons.cpu"
# Of an exam's server: which (``course-ml101/midterm``), and the address that it was given.
EXAM = "labcommons.exam"
ADDRESS = "labcommons.address"
# Of a job's container: its number and which attempt it is (``17.1``).
JOB = "labcommons.job"
# From these a lease is written again when the store has lost it.
GPUS = "labcommons.gpus"  # ids, each with "#SHARE" where the device is shared
ACCOUNT = "labcommons.account"
TIME_LIMIT = "labcommons.time-limit"  # seconds


def of_server(site: str, user: str, server: str) -> Mapping[str, str]:
    """What stands on every container of one server, whatever it is called."""
    return {SITE: site, USER: user, SERVER: server}


def of_use(limits: Limits) -> Mapping[str, str]:
    """What counts of a server."""
    return {MEMORY: str(limits.guaranteed), CPU: f"{limits.cpu:g}"}


def show_devices(devices: Iterable[Device]) -> str:
    """Devices as their label says them: ``GPU-a GPU-b#2``."""
    return " ".join(f"{d.id}#{d.index}" if d.index else d.id for d in devices)


def read_devices(label: str) -> tuple[Device, ...]:
    """The other way round; ValueError for what we have not written."""
    parts = (part.partition("#") for part in label.split())
    return tuple(Device(id=id_, index=int(n) if n.isdigit() else 0) for id_, _, n in parts)
