"""What all spawners of one hub share."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from commons.audit import AuditTrail, Chain
from commons.leases import ServerKey
from commons.readers import Readers
from commons.signatures.check import Checker
from commons.site import Site, load_site
from commons.store import Store
from commons.work import OneByOne
from spawner.gpu.ledger.batches import Admission
from spawner.runtime import client
from spawner.runtime.protocol import Runtime
from spawner.runtime.watch import Watch
from spawner.starts.turns import Turns

log = logging.getLogger(__name__)


def _nobody(_server: ServerKey) -> None:
    """Nobody wants to know."""


@dataclass
class Resources:
    """Site, store, what runs servers, and the data folder.

    Attributes:
        data: the data folder as this process sees it.
        watch: the local copy of what runs.
        admission: requests for GPUs, and all moves of leases.
        readers: how people read.
        failed: called with each server whose start has failed.
        one_by_one: before JupyterHub writes to its own database, which holds up the hub.
        turns: taken by a server from before its container is made until it answers.
        signatures: whether images are what was signed.
        audit: the hub's part of the audit trail.
    """

    site: Site
    store: Store
    runtime: Runtime
    data: Path
    watch: Watch = field(init=False)
    admission: Admission = field(init=False)
    failed: Callable[[ServerKey], None] = field(init=False, default_factory=lambda: _nobody)
    one_by_one: OneByOne = field(init=False, default_factory=OneByOne)
    turns: Turns = field(init=False)
    readers: Readers = field(init=False)
    audit: AuditTrail = field(default_factory=AuditTrail)
    signatures: Checker = field(init=False)

    def __post_init__(self) -> None:
        self.readers = Readers(self.store, self.site)
        self.signatures = Checker(self.site.signatures, self.data)
        self.watch = Watch(self.runtime, log)
        self.admission = Admission(self.store)
        self.turns = Turns(self.watch, self.site.servers)
        self.watch.changed = self.turns.look

    @classmethod
    def from_environment(cls) -> Resources:
        """As the variables LABCOMMONS_* say (docs/architecture.md, Places)."""
        site = load_site()
        data = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
        return cls(
            site,
            Store(),
            client.from_environment(site.servers.engine_timeout),
            data,
            AuditTrail(Chain(data / "audit" / "hub", "hub")),
        )


def of_this_machine() -> dict[str, str]:
    """Variables of this machine that builders need: proxies and package indexes.

    From a file, which `make up` writes: an address may have a password in it.
    """
    path = Path(os.environ.get("LABCOMMONS_SECRETS", "/run/labcommons")) / "build-environment"
    try:
        found = json.loads(path.read_text("utf-8") or "{}")
    except FileNotFoundError:
        return {}
    return {str(key): str(value) for key, value in found.items()}
