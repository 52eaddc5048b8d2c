"""``labcommons audit serve``: signs the heads of all chains, sends events on, removes old files.

It alone has the key, and no network but that of its targets: whoever takes over the hub can leave
out or make up what comes, and change no more than was written since the last checkpoint.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from commons.audit import Chain, make_event, reading
from commons.audit.chain import files, last
from commons.site import Audit, Site
from hub_ext.audit import targets
from hub_ext.audit.shipper import Place, Shipper

KEY = Path("/run/labcommons/audit-key")
SECRETS = Path("/srv/labcommons/data/shipping")
ALIVE = Path("/tmp/labcommons-audit.alive")  # noqa: S108 - of its own container
TICK = 5.0  # seconds between two looks at what is due

log = logging.getLogger("labcommons.audit.service")


def private_key(path: Path = KEY) -> Ed25519PrivateKey:
    """The signer's: 32 bytes in hex. Raises OSError, ValueError."""
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text("ascii").strip()))


def public_pem(key: Ed25519PublicKey) -> str:
    """As others' tools read it."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode("ascii")


def checking(key: Ed25519PublicKey) -> reading.Check:
    """Whether a signature is by the owner of this key."""

    def check(signature: bytes, signed: bytes) -> bool:
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    return check


class Keeper:
    """What is done with the trail besides writing it.

    Args:
        root: of all chains.
        settings: of the site file.
        key: signs checkpoints.
        secrets: the targets'.
    """

    def __init__(self, root: Path, settings: Audit, key: Ed25519PrivateKey, secrets: Path) -> None:
        self.root, self.settings = root, settings
        self._chain = Chain(root / reading.SIGNER, reading.SIGNER, key.sign)
        self._lock = threading.Lock()
        self._key = key
        self._signed: dict[str, Any] = {}
        self._wrong: list[str] = []
        self.shippers = [
            Shipper(root, targets.make(one, secrets), self._target) for one in settings.targets
        ]

    def record(self, action: str, outcome: str, details: dict[str, Any]) -> None:
        """A line in its own chain. Raises OSError."""
        event = make_event(action, outcome, user="", details=details, service="audit")  # type: ignore[arg-type]
        with self._lock:
            self._chain.append([event])

    def _target(self, outcome: str, details: dict[str, Any]) -> None:
        try:
            self.record("audit-target", outcome, details)
        except OSError as error:
            log.error("%s", error)

    def checkpoint(self) -> bool:
        """Sign where all chains end, if one has grown; whether it was so."""
        heads = {
            writer: {"sequence": head.sequence, "hash": head.hash}
            for writer, head in reading.heads(self.root).items()
            if writer != reading.SIGNER
        }
        if heads == self._signed:
            return False
        self.record("audit-checkpoint", "success", {"heads": heads})
        self._signed = heads
        return True

    def retire(self, now: datetime) -> list[Path]:
        """Remove days older than the site keeps them, once every target has them; say so before."""
        oldest = f"{now - timedelta(days=self.settings.keep_days):%Y-%m-%d}.jsonl"
        gone: list[Path] = []
        heads: dict[str, Any] = {}
        for writer in reading.writers(self.root):
            # Its own chain is what the others are checked by.
            if writer in (reading.SIGNER, reading.BEFORE):
                continue
            old = [p for p in files(self.root / writer)[:-1] if p.name < oldest and self._sent(p)]
            if old:
                head = last(old[-1].parent, upto=old[-1].name)[0]
                heads[writer] = {"sequence": head.sequence, "hash": head.hash}
                gone += old
        if heads:
            self.record("audit-retire", "success", {"retired": heads, "files": len(gone)})
        for path in gone:
            path.unlink()
        return gone

    def _sent(self, path: Path) -> bool:
        writer, name = path.parent.name, path.name
        return all(s.standing.places.get(writer, Place()).file > name for s in self.shippers)

    def look(self) -> None:
        """Go through all chains, and write down what was found, for ``labcommons doctor``."""
        result = reading.verify(self.root, checking(self._key.public_key()))
        wrong = [finding for finding in result.findings if not finding.harmless]
        found = [f"{one.file}, line {one.line}: {one.kind}" for one in wrong[:5]]
        if found and found != self._wrong:
            self.record("audit-broken", "failure", {"findings": found, "count": len(wrong)})
        self._wrong = found
        new = self.root / reading.SIGNER / "state.new"
        new.write_text(json.dumps({"at": time.time(), "wrong": found, "count": len(wrong)}))
        new.replace(new.with_suffix(".json"))

    def run(self, stop: threading.Event) -> None:
        """Until it is stopped."""
        threads = [
            threading.Thread(target=shipper.run, args=(stop,), name=shipper.name, daemon=True)
            for shipper in self.shippers
        ]
        for thread in threads:
            thread.start()
        jobs: list[tuple[float, Callable[[], object]]] = [
            (self.settings.checkpoint_minutes * 60.0, self.checkpoint),
            (86400.0, lambda: self.retire(datetime.now(UTC))),
            (3600.0, self.look),
        ]
        due = [0.0 for _ in jobs]
        while not stop.wait(TICK):
            for number, (every, job) in enumerate(jobs):
                if time.monotonic() < due[number]:
                    continue
                try:
                    job()
                except OSError as error:
                    log.error("the audit trail: %s", error)
                else:
                    due[number] = time.monotonic() + every
            if all(thread.is_alive() for thread in threads):
                ALIVE.touch()
        # What was written before the end is signed, too.
        self.checkpoint()
        for thread in threads:
            thread.join(targets.TIMEOUT)


def serve(site: Site) -> None:
    """Until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="[%(levelname).1s %(asctime)s] %(message)s")
    root = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data")) / "audit"
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Keeper(root, site.audit, private_key(), SECRETS).run(stop)
