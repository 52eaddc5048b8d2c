"""The statement about an image that was built, and the wait until the signer has signed it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from commons.messages import Message
from commons.signatures import statement
from commons.signatures.check import Checker, Verdict, digest_of
from commons.signatures.signer import ASKED
from commons.signatures.statement import Facts, Identity, resource
from commons.version import version
from environments.catalog import CatalogEntry
from environments.errors import BuildError
from environments.files import SPEC_FILE, WORDS_FILE
from environments.lock import Lock
from environments.messages import making as texts
from environments.signed import as_image
from environments.stamp import iso

PATIENCE = 60.0  # seconds for the signer, which looks twice a second
_LOOK = 0.1  # seconds


@dataclass(frozen=True)
class Provenance:
    """Says what images were made of, for one who asked; and whether that was signed.

    Attributes:
        asked_by: who asked for the build.
        site: the site's id.
    """

    checker: Checker
    asked_by: str = ""
    site: str = "labcommons"
    patience: float = PATIENCE

    @classmethod
    def of(cls, checker: Checker, asked_by: str) -> Provenance:
        """Of the site that this process works for."""
        return cls(checker, asked_by, os.environ.get("LABCOMMONS_SITE_ID", cls.site))

    def write(
        self,
        folder: Path,
        entry: CatalogEntry,
        image: Identity,
        base: Identity,
        lock: Lock,
        started: datetime,
    ) -> None:
        """Lay the statement about a version into its folder, beside what it was made from."""
        facts = Facts(
            entry.name,
            entry.version,
            image,
            entry.lock_digest,
            {name: digest_of(folder / name) for name in (statement.LOCK, statement.SBOM)},
            self.asked_by,
            iso(datetime.now(UTC)),
        )
        materials = list(_materials(lock, base, folder))
        text = statement.compose(facts, self.site, iso(started), materials, version())
        (folder / ASKED).write_bytes(text)

    def wait(self, entry: CatalogEntry) -> Message | None:
        """Wait until a version is signed; a remark where it is not, and need not be.

        Raises BuildError where it must be.
        """
        if self.checker.settings.policy == "off":
            return None
        until = time.monotonic() + self.patience
        while (found := self.verdict(entry)).state != "signed":
            if found.state == "wrong" or time.monotonic() > until:
                why = texts.SIGNER_SILENT() if found.state == "unsigned" else found.why
                if self.checker.enforces:
                    raise BuildError(texts.NOT_SIGNED(reason=why))
                return texts.NOT_SIGNED_YET(reason=why)
            time.sleep(_LOOK)
        return None

    def verdict(self, entry: CatalogEntry) -> Verdict:
        """What is known of a version's signature."""
        return self.checker.check(as_image(entry))

    def must_build_again(self, entry: CatalogEntry) -> bool:
        """Whether a version that is there cannot be started as it is not signed."""
        return self.checker.enforces and self.verdict(entry).state != "signed"


def _materials(lock: Lock, base: Identity, folder: Path) -> Iterator[dict[str, Any]]:
    """Everything that the image was made of, each with its SHA-256."""
    yield resource("server image", base.id, mediaType=base.media_type)
    for name in (SPEC_FILE, WORDS_FILE):
        if digest := digest_of(folder / name):
            yield resource(name, digest)
    packages: Iterable[Any] = (*lock.packages, *lock.pip)
    for item in packages:
        yield resource(f"{item.name} {item.version}", item.sha256, uri=item.url)
