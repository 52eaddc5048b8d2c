"""A version of the catalog as it is compared with what was signed."""

from __future__ import annotations

from commons.signatures.check import Image
from environments.catalog import CatalogEntry


def as_image(entry: CatalogEntry) -> Image:
    """What of a version is compared with what was signed."""
    return Image(entry.name, entry.version, entry.image_id, entry.lock_digest)
