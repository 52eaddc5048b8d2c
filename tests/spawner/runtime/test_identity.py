"""What an image is, as it is signed, on an Engine of either image store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from commons.errors import RuntimeRefused
from commons.signatures import dsse, statement
from commons.signatures.check import ENVELOPE
from commons.signatures.statement import Facts, Identity
from commons.site import Signatures, SigningKey
from rig import agent
from spawner.runtime.docker.images import Images
from spawner.runtime.docker.settings import AgentSettings

CONFIG, MANIFEST = f"sha256:{'c' * 64}", f"sha256:{'e' * 64}"
LAYERS = [f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"]
KEY = Ed25519PrivateKey.generate()
OCI = "application/vnd.oci.image.manifest.v1+json"


class Engine:
    """One image, as an Engine says it."""

    def __init__(self, id: str, **more: Any) -> None:
        marks = {
            "labcommons.site": "lab",
            "labcommons.environment": "data",
            "labcommons.version": "1",
        }
        layers = {"Layers": LAYERS}
        self.said = {"Id": id, "Config": {"Labels": marks}, "RootFS": layers, **more}

    def inspect_image(self, _image: str) -> Any:
        return self.said

    async def call(self, work: Any) -> Any:
        return work(self)


ENGINES = {
    statement.CONFIG: Engine(CONFIG),
    OCI: Engine(MANIFEST, Descriptor={"mediaType": OCI, "digest": MANIFEST, "size": 1}),
}
each = pytest.mark.parametrize("media_type", list(ENGINES))


def images(engine: Engine, tmp_path: Path) -> Images:
    trusted = SigningKey(public=dsse.in_site_file(KEY.public_key()))
    decided = Signatures(policy="refuse", keys=[trusted])
    site = agent.SITE.model_copy(update={"signatures": decided})
    settings = AgentSettings(site, "lab", tmp_path, tmp_path, "none")
    return Images(cast(Any, engine), settings, cast(Any, None))


@each
async def test_an_images_id_is_told_with_what_it_is_the_digest_of(
    media_type: str, tmp_path: Path
) -> None:
    engine = ENGINES[media_type]
    found = await images(engine, tmp_path).identity(engine.said["Id"])
    assert found is not None
    assert (found.id, found.media_type) == (engine.said["Id"], media_type)
    assert list(found.layers) == LAYERS


@each
def test_an_image_with_other_layers_than_were_signed_is_not_started(
    media_type: str, tmp_path: Path
) -> None:
    engine = ENGINES[media_type]
    image = engine.said["Id"]
    folder = tmp_path / "versions" / "data" / "1"
    folder.mkdir(parents=True)

    def sign(layers: list[str]) -> None:
        facts = Facts("data", "1", Identity(image, media_type, tuple(layers)), "", {})
        payload = statement.compose(facts, "lab", "", [], "1")
        envelope = dsse.Envelope(payload).with_signature(KEY)
        (folder / ENVELOPE).write_bytes(envelope.as_bytes())

    asked = images(engine, tmp_path)
    with pytest.raises(RuntimeRefused, match="never signed"):
        asked.check_startable(engine, image, "data", "1")
    sign(LAYERS[:1])
    with pytest.raises(RuntimeRefused, match="other layers"):
        asked.check_startable(engine, image, "data", "1")
    sign(LAYERS)
    asked.check_startable(engine, image, "data", "1")
