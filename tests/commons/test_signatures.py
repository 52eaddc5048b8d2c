"""Who has signed what an image was made of: envelopes, statements, keys, the signer, the check."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from commons.signatures import dsse, statement
from commons.signatures.check import ENVELOPE, Checker, Image, digest_of
from commons.signatures.signer import ASKED, Signer, Unfit
from commons.signatures.statement import Facts, Identity
from commons.site import Signatures, SigningKey

IMAGE_ID, LAYERS = f"sha256:{'a' * 64}", (f"sha256:{'b' * 64}", f"sha256:{'c' * 64}")
IMAGE = Image("demo", "20261129-1", IMAGE_ID, "d" * 64)
TODAY = date(2026, 11, 29)
KEY, OTHER = Ed25519PrivateKey.from_private_bytes(b"k" * 32), Ed25519PrivateKey.generate()


class Place:
    """A data folder with versions in it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        (data / "signing").mkdir(parents=True)
        (data / "versions").mkdir()

    def lay(self, version: str = IMAGE.version, image: str = IMAGE_ID) -> Path:
        """A version as a builder leaves it."""
        folder = self.data / "versions" / "demo" / f".{version}.part"
        folder.mkdir(parents=True)
        (folder / "pixi.lock").write_text("version: 6\n")
        (folder / "sbom.cdx.json").write_text("{}")
        facts = Facts(
            "demo",
            version,
            Identity(image, statement.CONFIG, LAYERS),
            IMAGE.lock_digest,
            {name: digest_of(folder / name) for name in ("pixi.lock", "sbom.cdx.json")},
            "alice",
            "2026-11-29T09:00:00Z",
        )
        materials = [statement.resource("python 3.13", "e" * 64, uri="https://x.example/p.conda")]
        text = statement.compose(facts, "lab", "2026-11-29T08:59:00Z", materials, "1.0")
        (folder / ASKED).write_bytes(text)
        return folder.rename(folder.with_name(version))

    def checker(self, **decided: object) -> Checker:
        return Checker(Signatures.model_validate(decided), self.data)

    def signer(self, key: Ed25519PrivateKey = KEY, **decided: object) -> Signer:
        signer = Signer(key, self.checker(**decided))
        signer.tell_key()
        return signer

    @property
    def envelope(self) -> Path:
        return self.data / "versions" / "demo" / IMAGE.version / ENVELOPE


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def signed(place: Place) -> Place:
    place.lay()
    assert place.signer().look() == 1
    return place


def listed(key: Ed25519PrivateKey, **days: object) -> dict[str, object]:
    return {"public": dsse.in_site_file(key.public_key()), **days}


def why(checker: Checker, image: Image = IMAGE, today: date = TODAY) -> str:
    verdict = checker.check(image, today)
    assert verdict.state != "signed"
    return f"{verdict.state}: {verdict.why}"


# -- the way that goes well --------------------------------------------------------


def test_what_a_builder_lays_down_is_signed_and_counts(signed: Place) -> None:
    verdict = signed.checker().check(replace(IMAGE, layers=LAYERS), TODAY)
    assert verdict.state == "signed"
    assert verdict.facts is not None
    assert (verdict.facts.asked_by, verdict.facts.materials) == ("alice", 1)
    assert not (signed.envelope.parent / ASKED).exists()
    assert signed.checker().files(IMAGE, TODAY).state == "signed"
    assert signed.checker(policy="refuse").refusal(IMAGE) is None


def test_openssl_alone_checks_an_envelope(signed: Place, tmp_path: Path) -> None:
    """As docs/signatures.md shows it to outsiders."""
    envelope = json.loads(signed.envelope.read_bytes())
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"]
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    (tmp_path / "message").write_bytes(message)
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))

    def verified() -> bool:
        done = subprocess.run(
            [
                *("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "signing/key.pem"),
                *("-rawin", "-in", "message", "-sigfile", "signature"),
            ],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    assert verified()
    (tmp_path / "message").write_bytes(message.replace(b"alice", b"mallo"))
    assert not verified()


def test_a_version_that_was_built_again_is_signed_again(signed: Place) -> None:
    signer = signed.signer()
    signer.look()
    for path in signed.envelope.parent.iterdir():
        path.unlink()
    signed.envelope.parent.rmdir()
    other = f"sha256:{'f' * 64}"
    signed.lay(image=other)
    assert signer.look() == 1
    assert signed.checker().check(replace(IMAGE, id=other), TODAY).state == "signed"
    assert "not the one that was signed" in why(signed.checker())


def test_the_signers_look_at_what_has_not_changed_costs_nothing(signed: Place) -> None:
    folder = signed.envelope.parent.parent
    os.utime(folder, (1, 1))
    signer = signed.signer()
    assert signer.look() == 0
    (signed.envelope.parent / ASKED).write_text("not seen, as its folder is as it was")
    os.utime(folder, (1, 1))
    assert signer.look() == 0


# -- rotation --------------------------------------------------------


def test_two_keys_count_in_a_rotation_and_the_new_one_signs_what_the_old_one_has_signed(
    signed: Place,
) -> None:
    both = [listed(KEY, until="2026-12-31"), listed(OTHER)]
    later = TODAY + timedelta(days=90)
    assert "until 2026-12-31 only" in why(signed.checker(keys=both), today=later)
    assert signed.signer(OTHER, keys=both).look() == 1
    assert signed.signer(OTHER, keys=both).look() == 0
    assert signed.checker(keys=both).check(IMAGE, later).state == "signed"
    assert signed.checker(keys=[listed(OTHER)]).check(IMAGE, TODAY).state == "signed"


def test_a_new_key_does_not_sign_what_no_key_that_counts_has_signed(signed: Place) -> None:
    signer = signed.signer(OTHER, keys=[listed(OTHER)])
    with pytest.raises(Unfit, match="of another key"):
        signer.sign(signed.envelope.parent)
    assert signer.look() == 0


def test_a_key_counts_from_its_day_on(signed: Place) -> None:
    checker = signed.checker(keys=[listed(KEY, **{"from": "2026-12-01"})])
    assert "from 2026-12-01" in why(checker)
    assert checker.check(IMAGE, date(2026, 12, 1)).state == "signed"


def test_the_sites_own_key_counts_only_while_the_site_file_lists_none(signed: Place) -> None:
    assert "No key that counts" in why(signed.checker(keys=[listed(OTHER)]))


# -- what is wrong is told --------------------------------------------------------


def test_versions_from_before_are_unsigned(place: Place) -> None:
    assert why(place.checker()).startswith("unsigned: It was never signed")


def test_without_any_key_nothing_is_signed(signed: Place) -> None:
    (signed.data / "signing" / "key.pem").unlink()
    assert "There is no key" in why(signed.checker())
    (signed.data / "signing" / "key.pem").write_text("no key")
    assert "There is no key" in why(signed.checker())


def test_a_changed_envelope_is_found(signed: Place) -> None:
    document = json.loads(signed.envelope.read_bytes())
    payload = base64.b64decode(document["payload"]).replace(b"alice", b"mallo")
    document["payload"] = base64.b64encode(payload).decode()
    signed.envelope.write_text(json.dumps(document))
    assert "it was changed" in why(signed.checker())


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (replace(IMAGE, id=f"sha256:{'0' * 64}"), "not the one that was signed"),
        (replace(IMAGE, layers=LAYERS[:1]), "other layers"),
        (replace(IMAGE, lock_digest="0" * 64), "another lock"),
    ],
)
def test_another_image_than_the_signed_one_is_found(
    signed: Place, image: Image, words: str
) -> None:
    assert words in why(signed.checker(), image)


def test_the_statement_of_another_version_is_found(signed: Place) -> None:
    there = signed.data / "versions" / "demo" / "20261130-2"
    there.mkdir()
    (there / ENVELOPE).write_bytes(signed.envelope.read_bytes())
    assert "demo:20261129-1, another" in why(signed.checker(), replace(IMAGE, version=there.name))


def test_files_that_were_changed_since_are_found(signed: Place) -> None:
    (signed.envelope.parent / "sbom.cdx.json").write_text("[]")
    verdict = signed.checker().files(IMAGE, TODAY)
    assert (verdict.state, str(verdict.why)) == (
        "wrong",
        "sbom.cdx.json is not the file that was signed.",
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"payload": 1, "payloadType": "x", "signatures": []}',
        b'{"payload": "*", "payloadType": "x", "signatures": []}',
        b'{"payload": "", "payloadType": "text/plain", "signatures": []}',
        b'{"payload": "", "payloadType": "x", "signatures": [1]}',
        b'{"payload": "", "payloadType": "x", "signatures": ["x"]}',
        json.dumps(
            {"payload": "", "payloadType": dsse.STATEMENT, "signatures": [{"sig": ""}] * 17}
        ).encode(),
        b" " * (dsse.MAX_BYTES + 1),
    ],
    ids=range(10),
)
def test_what_is_no_envelope_is_an_answer_and_no_error(signed: Place, raw: bytes) -> None:
    signed.envelope.write_bytes(raw)
    assert why(signed.checker()).startswith("wrong: Its signature cannot be read")


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"_type": "https://in-toto.io/Statement/v1", "predicateType": "x"}',
        json.dumps(
            {
                "_type": statement.STATEMENT,
                "predicateType": statement.PROVENANCE,
                "subject": [{"name": "image"}] * 2,
                "predicate": {
                    "buildDefinition": {"buildType": statement.BUILD_TYPE},
                    "runDetails": {},
                },
            }
        ).encode(),
    ],
    ids=range(6),
)
def test_what_is_no_statement_counts_for_nothing_though_it_is_signed(
    signed: Place, payload: bytes
) -> None:
    signed.envelope.write_bytes(dsse.Envelope(payload).with_signature(KEY).as_bytes())
    assert why(signed.checker()).startswith("wrong: Its signature cannot be read")


def test_a_link_in_the_envelopes_place_is_not_followed(signed: Place, tmp_path: Path) -> None:
    signed.envelope.rename(tmp_path / "elsewhere")
    signed.envelope.symlink_to(tmp_path / "elsewhere")
    assert why(signed.checker()).startswith("wrong: Its signature cannot be read")


def test_a_file_that_changes_is_read_again(signed: Place) -> None:
    checker = signed.checker()
    assert checker.check(IMAGE, TODAY).state == "signed"
    signed.envelope.write_bytes(b"{}")
    assert checker.check(IMAGE, TODAY).state == "wrong"


# -- policy --------------------------------------------------------


def test_refusing_tells_cause_and_remedy(place: Place) -> None:
    refusal = place.checker(policy="refuse").refusal(IMAGE)
    assert refusal is not None
    assert "never signed" in str(refusal)
    assert "labcommons env build demo" in str(refusal)


def test_warning_says_so_once_and_starts(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    checker = place.checker()
    assert checker.refusal(IMAGE) is None
    assert checker.refusal(IMAGE) is None
    assert caplog.text.count("never signed") == 1


def test_off_looks_at_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    assert place.checker(policy="off").refusal(IMAGE) is None
    assert not caplog.text


# -- what the signer does not sign --------------------------------------------------------


def test_the_signer_signs_nothing_that_is_not_about_what_lies_beside_it(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    signer = place.signer()
    changed = place.lay("20261129-2")
    (changed / "pixi.lock").write_text("another")
    moved = place.lay("20261129-3").rename(changed.with_name("20261129-4"))
    strange = place.lay("20261129-5")
    (strange / ASKED).write_text("{")
    large = place.lay("20261129-6")
    (large / ASKED).write_bytes(b" " * (dsse.MAX_BYTES + 1))
    assert signer.look() == 0
    assert not any((folder / ENVELOPE).exists() for folder in (changed, moved, strange, large))
    assert "it says something else of pixi.lock" in caplog.text
    assert "it is about demo:20261129-3" in caplog.text
    assert "larger than" in caplog.text


def test_a_signer_that_was_killed_before_it_tidied_up_goes_on(signed: Place) -> None:
    envelope = signed.envelope.read_bytes()
    payload = dsse.read(envelope).payload
    (signed.envelope.parent / ASKED).write_bytes(payload)
    (signed.envelope.parent / f".{ENVELOPE}.part").write_text("half")
    assert signed.signer().look() == 1
    assert signed.envelope.read_bytes() == envelope
    assert {path.name for path in signed.envelope.parent.iterdir()} == {
        "pixi.lock",
        "sbom.cdx.json",
        ENVELOPE,
    }


def test_what_cannot_be_written_is_tried_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place.lay()
    signer = place.signer()

    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr("commons.signatures.signer.os.replace", read_only)
        assert (signer.look(), signer.look()) == (0, 0)
    assert caplog.text.count("Read-only file system") == 1
    assert signer.look() == 1


# -- the site file --------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ({"public": "x"}, "32 bytes in base64"),
        ({"public": base64.b64encode(b"x" * 31).decode()}, "32 bytes in base64"),
        (listed(KEY, **{"from": "2027-01-01", "until": "2026-01-01"}), "before from"),
    ],
)
def test_a_wrong_key_in_the_site_file_says_what_is_right(key: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SigningKey.model_validate(key)
