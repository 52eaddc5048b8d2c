"""Whether a version's image is what somebody has signed whose signatures count here.

Hub and agent ask before a container is made, each with the files as it sees them. A file that has
not changed since is not read again.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from commons.messages import Message
from commons.signatures import dsse, statement, texts
from commons.signatures.statement import Facts
from commons.site.signatures import Signatures, SigningKey

ENVELOPE = "provenance.dsse.json"
OWN_KEY = Path("signing", "key.pem")  # below the data folder: the signer's, for all to read
State = Literal["signed", "unsigned", "wrong"]
_KEPT = 4096
_MAX_PEM = 4096
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Image:
    """What is to be started: ``id`` and ``layers`` as the Engine says them, where it was asked."""

    name: str
    version: str
    id: str
    lock_digest: str = ""
    layers: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Verdict:
    """What is known of a version's signature.

    Attributes:
        why: of one that is not signed, the cause.
        key: the id of the key that counts.
    """

    state: State
    why: Message | None = None
    key: str = ""
    facts: Facts | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        facts = self.facts
        return {
            "state": self.state,
            "why": self.why.as_json() if self.why else None,
            "key": self.key,
            "asked_by": facts.asked_by if facts else "",
            "signed_at": facts.finished if facts else "",
            "builder": facts.builder if facts else "",
            "materials": facts.materials if facts else 0,
            "sbom": facts.files.get(statement.SBOM, "") if facts else "",
        }


@dataclass(frozen=True)
class Trusted:
    """A public key and the days on which it counts."""

    key: Ed25519PublicKey
    since: date | None = None
    until: date | None = None

    @property
    def id(self) -> str:
        return dsse.key_id(self.key)

    def counts(self, today: date) -> bool:
        """Whether its signatures count on a day; one that was valid when it signed is no more."""
        return (self.since or today) <= today <= (self.until or today)

    @classmethod
    def of(cls, listed: SigningKey) -> Trusted:
        """As the site file has it."""
        raw = base64.b64decode(listed.public)
        return cls(Ed25519PublicKey.from_public_bytes(raw), listed.since, listed.until)


def judge(raw: bytes, keys: tuple[Trusted, ...], today: date) -> Verdict:
    """What an envelope's bytes are worth, whatever they are; nothing is compared yet."""
    try:
        envelope = dsse.read(raw)
        key, why = _signer(envelope, keys, today)
        if key is None:
            return Verdict("wrong", why)
        return Verdict("signed", key=key.id, facts=statement.read(envelope.payload))
    except ValueError as error:
        return Verdict("wrong", texts.UNREADABLE(reason=error))


def _signer(
    envelope: dsse.Envelope, keys: tuple[Trusted, ...], today: date
) -> tuple[Trusted | None, Message | None]:
    """The key that counts of those that have signed; or else why there is none."""
    if not keys:
        return None, texts.NO_KEYS()
    named = {one.key for one in envelope.signatures}
    known = [key for key in keys if key.id in named]
    if not known:
        said = sorted(name[:16] for name in named) or ["nobody"]
        return None, texts.WRONG_KEY(keys=said)
    signers = [key for key in known if envelope.is_signed_by(key.key)]
    if not signers:
        return None, texts.CHANGED()
    counting = next((key for key in signers if key.counts(today)), None)
    if counting is None:
        key = signers[0]
        return None, texts.NOT_VALID(key=key.id[:16], since=key.since, until=key.until)
    return counting, None


def compare(verdict: Verdict, image: Image) -> Verdict:
    """The same, once what was signed is compared with what is to be started."""
    facts = verdict.facts
    if facts is None:
        return verdict

    def wrong(why: Message) -> Verdict:
        return replace(verdict, state="wrong", why=why)

    if (facts.name, facts.version) != (image.name, image.version):
        return wrong(texts.OTHER_VERSION(other=f"{facts.name}:{facts.version}"))
    if facts.image.id != image.id:
        return wrong(texts.OTHER_IMAGE(signed=facts.image.id[:19]))
    if image.layers is not None and facts.image.layers != image.layers:
        return wrong(texts.OTHER_LAYERS())
    if image.lock_digest and facts.lock_digest != image.lock_digest:
        return wrong(texts.OTHER_LOCK())
    return verdict


@dataclass
class Checker:
    """Checks images of one site. Safe to be asked by several threads; reads files.

    Attributes:
        data: the data folder as this process sees it.
    """

    settings: Signatures
    data: Path
    _seen: dict[Path, tuple[object, Verdict]] = field(default_factory=dict)
    _warned: set[tuple[str, str]] = field(default_factory=set)
    _listed: tuple[Trusted, ...] = ()
    _own: tuple[object, tuple[Trusted, ...]] = (None, ())

    def __post_init__(self) -> None:
        self._listed = tuple(Trusted.of(key) for key in self.settings.keys)

    @property
    def enforces(self) -> bool:
        """Whether what is not signed is refused."""
        return self.settings.policy == "refuse"

    def trusted(self) -> tuple[Trusted, ...]:
        """The keys that count: those of the site file, or else the site's own."""
        if self._listed:
            return self._listed
        path = self.data / OWN_KEY
        if (now := _stamp(path)) != self._own[0]:
            try:
                found: tuple[Trusted, ...] = (Trusted(dsse.of_pem(read_file(path, _MAX_PEM))),)
            except (OSError, ValueError) as error:
                log.error("%s: %s", path, error)
                found = ()
            self._own = now, found
        return self._own[1] if now is not None else ()

    def folder(self, name: str, version: str) -> Path:
        """Where a version's files are."""
        return self.data / "versions" / name / version

    def check(self, image: Image, today: date | None = None) -> Verdict:
        """What is known of an image's signature; never raises."""
        today = today or datetime.now(UTC).date()
        path = self.folder(image.name, image.version) / ENVELOPE
        stamp = _stamp(path)
        if stamp is None:
            return Verdict("unsigned", texts.UNSIGNED())
        keys = self.trusted()
        mark = (stamp, tuple(key.id for key in keys), today)
        known = self._seen.get(path)
        if known is None or known[0] != mark:
            try:
                verdict = judge(read_file(path, dsse.MAX_BYTES), keys, today)
            except (OSError, ValueError) as error:
                verdict = Verdict("wrong", texts.UNREADABLE(reason=_plain(error)))
            if len(self._seen) >= _KEPT:
                self._seen.clear()
            known = self._seen[path] = (mark, verdict)
        return compare(known[1], image)

    def refusal(self, image: Image) -> Message | None:
        """Why an image shall not be started; None where it may be. What is only warned of is in
        the log, once.
        """
        if self.settings.policy == "off":
            return None
        verdict = self.check(image)
        if verdict.state == "signed":
            return None
        if self.enforces:
            return texts.REFUSED(name=image.name, version=image.version, why=verdict.why)
        if (image.id, str(verdict.why)) not in self._warned:
            self._warned.add((image.id, str(verdict.why)))
            log.warning("%s:%s is started: %s", image.name, image.version, verdict.why)
        return None

    def files(self, image: Image, today: date | None = None) -> Verdict:
        """As ``check``, and whether lock and bill of materials are those that were signed."""
        verdict = self.check(image, today)
        if verdict.state != "signed" or verdict.facts is None:
            return verdict
        for name, digest in verdict.facts.files.items():
            if name not in (statement.LOCK, statement.SBOM) or digest != digest_of(
                self.folder(image.name, image.version) / name
            ):
                return replace(verdict, state="wrong", why=texts.OTHER_FILE(file=name))
        return verdict


def read_file(path: Path, most: int) -> bytes:
    """A file, not through a link. Raises OSError, and ValueError for one of more bytes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise ValueError(f"{path.name} is larger than {most >> 20} MB")
    return raw


def digest_of(path: Path, most: int = 256 * 2**20) -> str:
    """``sha256:…`` of a file; "" where it cannot be read, or has more bytes."""
    try:
        return f"sha256:{hashlib.sha256(read_file(path, most)).hexdigest()}"
    except (OSError, ValueError):
        return ""


def _stamp(path: Path) -> object:
    try:
        found = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _plain(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
