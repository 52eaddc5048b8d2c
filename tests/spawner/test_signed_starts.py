"""A start with an image that is not signed, where the site starts signed ones alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from commons.signatures import dsse, statement
from commons.signatures.check import ENVELOPE, Checker
from commons.signatures.signer import Signer
from commons.signatures.statement import Facts, Identity
from commons.site import Signatures, Site
from commons.store import Store
from environments import catalog
from environments.catalog import CatalogEntry
from rig.hub_in_memory import Lab, hub_lab

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


@pytest.fixture
async def lab(store: Store, site: Site, tmp_path: Path) -> AsyncIterator[Lab]:
    async with hub_lab(store, site, tmp_path) as lab:
        data = lab.resources.data
        for name in ("signing", "versions"):
            (data / name).mkdir(parents=True, exist_ok=True)
        lab.resources.signatures = Checker(Signatures(policy="refuse"), data)
        Signer(KEY, lab.resources.signatures).tell_key()
        yield lab


def sign(lab: Lab, entry: CatalogEntry, key: Ed25519PrivateKey = KEY) -> None:
    facts = Facts(entry.name, entry.version, Identity(entry.image_id), entry.lock_digest, {})
    payload = statement.compose(facts, "lab", "", [], "1")
    folder = lab.resources.signatures.folder(entry.name, entry.version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ENVELOPE).write_bytes(dsse.Envelope(payload).with_signature(key).as_bytes())


async def test_a_server_starts_from_a_signed_image_and_from_no_other(lab: Lab) -> None:
    versions = lab.resources.store.transact(catalog.newest, read=True)
    entries = [entry for several in versions.values() for entry in several]
    code, answer = await lab.rest("POST", "users/alice/server")
    assert code == 409
    assert "never signed" in answer["message"]
    assert "labcommons env build" in answer["message"]
    for entry in entries:
        sign(lab, entry, OTHER)
    code, answer = await lab.rest("POST", "users/alice/server")
    assert code == 409
    assert "No key that counts at this site has signed it" in answer["message"]
    assert not lab.memory.servers
    for entry in entries:
        sign(lab, entry)
    assert (await lab.started()).ready
