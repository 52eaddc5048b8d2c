"""The in-toto statement about one version of an environment: its shape, written and read.

Its subject is what the Engine starts (an image's configuration, or its manifest where the Engine
has the containerd store, and its layers), the lock and the bill of materials. Its predicate is
SLSA's provenance, version 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:labcommons:environment-image:1"
LOCK, SBOM = "pixi.lock", "sbom.cdx.json"
IMAGE, LAYER = "image", "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_SUBJECTS = 1000


@dataclass(frozen=True)
class Identity:
    """What an Engine says of an image.

    Attributes:
        id: ``sha256:…``, what servers are started from.
        media_type: what that is the digest of: the configuration, or a manifest or index.
        layers: ``sha256:…`` of each layer's contents, the lowest first.
    """

    id: str
    media_type: str = CONFIG
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What a statement says, as far as somebody decides by it; digests as ``sha256:…``."""

    name: str
    version: str
    image: Identity
    lock_digest: str
    files: Mapping[str, str]
    asked_by: str = ""
    finished: str = ""
    builder: str = ""
    materials: int = 0


def resource(name: str, digest: str, **more: str) -> dict[str, Any]:
    """One thing with its digest, as in-toto has it; ``digest`` with or without ``sha256:``."""
    return {"name": name, **more, "digest": {"sha256": digest.removeprefix("sha256:")}}


def compose(
    facts: Facts,
    site: str,
    started: str,
    materials: Sequence[Mapping[str, Any]],
    builder_version: str,
) -> bytes:
    """The statement as JSON. ``materials`` are in-toto's resources; ``site`` is the site's id."""
    image = facts.image
    document = {
        "_type": STATEMENT,
        "subject": [
            resource(IMAGE, image.id, mediaType=image.media_type),
            *(
                resource(f"layer-{number}", digest, mediaType=LAYER)
                for number, digest in enumerate(image.layers, 1)
            ),
            *(resource(name, digest) for name, digest in sorted(facts.files.items())),
        ],
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "environment": facts.name,
                    "version": facts.version,
                    "lockDigest": facts.lock_digest,
                    "askedBy": facts.asked_by,
                },
                "resolvedDependencies": list(materials),
            },
            "runDetails": {
                "builder": {
                    "id": f"urn:labcommons:builder:{site}",
                    "version": {"labcommons": builder_version},
                },
                "metadata": {"startedOn": started, "finishedOn": facts.finished},
            },
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8") + b"\n"


def read(payload: bytes) -> Facts:
    """What a statement says, whoever wrote it. Raises ValueError."""
    try:
        document = json.loads(payload)
        if (document["_type"], document["predicateType"]) != (STATEMENT, PROVENANCE):
            raise ValueError("another kind of statement")
        subjects, predicate = document["subject"], document["predicate"]
        if len(subjects) > _MOST_SUBJECTS:
            raise ValueError(f"more than {_MOST_SUBJECTS} subjects")
        definition, run = predicate["buildDefinition"], predicate["runDetails"]
        if definition["buildType"] != BUILD_TYPE:
            raise ValueError("of something else than an image of an environment")
        images = [one for one in subjects if one["name"] == IMAGE]
        if len(images) != 1:
            raise ValueError("not of one image")
        layers = [one for one in subjects if one.get("mediaType") == LAYER]
        others = [one for one in subjects if "mediaType" not in one]
        asked = definition["externalParameters"]
        return Facts(
            _text(asked["environment"]),
            _text(asked["version"]),
            Identity(
                _sha256(images[0]),
                _text(images[0]["mediaType"]),
                tuple(_sha256(one) for one in layers),
            ),
            _text(asked["lockDigest"]),
            {_text(one["name"]): _sha256(one) for one in others},
            _text(asked["askedBy"]),
            _text(run["metadata"]["finishedOn"]),
            _text(run["builder"]["version"]["labcommons"]),
            len(definition["resolvedDependencies"]),
        )
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"no provenance of an image ({type(error).__name__})") from error


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 500:
        raise TypeError("no text")
    return value


def _sha256(one: Mapping[str, Any]) -> str:
    found = one["digest"]["sha256"]
    if not isinstance(found, str) or not _DIGEST.fullmatch(found):
        raise ValueError("no SHA-256")
    return f"sha256:{found}"
