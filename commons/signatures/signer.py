"""The service ``signer``, which alone has the key: it signs what builders have laid down.

It has no network and no database. A version's folder with a statement in it is a question; the
answer is the envelope beside it, and the statement is gone then. Killed at any moment, it begins
with what it finds. When the key is another one than before, it signs again what a key that counts
has signed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from commons.signatures import dsse, statement
from commons.signatures.check import ENVELOPE, OWN_KEY, Checker, digest_of, judge, read_file
from commons.site import SiteFileError, load_site

ASKED = "statement.json"
KEY = "/run/labcommons/signing-key"
LOOK = 0.5  # seconds between two looks
SETTLED = 2_000_000_000  # nanoseconds after which a folder has its time to itself
ALIVE = Path("/tmp/labcommons-signer.alive")  # noqa: S108  (the container's own)
log = logging.getLogger("labcommons.signer")


class Unfit(ValueError):
    """A statement that is not signed, and why."""


class Signer:
    """Signs versions below one data folder.

    Args:
        checker: knows the keys that count, for what was signed by another one.
    """

    def __init__(self, key: Ed25519PrivateKey, checker: Checker) -> None:
        self.key, self.checker = key, checker
        self.versions = checker.data / "versions"
        self._seen: dict[Path, int] = {}
        self._told: set[str] = set()

    def tell_key(self) -> None:
        """Write the public half where all can read it. Raises OSError."""
        path = self.checker.data / OWN_KEY
        pem = dsse.as_pem(self.key.public_key())
        with suppress(OSError, ValueError):
            if read_file(path, 4096) == pem:
                return
        _write(path, pem)

    def look(self) -> int:
        """Sign what waits; how many were signed. What cannot be written is tried again."""
        done = 0
        for folder in self._folders():
            try:
                done += self.sign(folder)
            except Unfit as error:
                self._tell(f"{folder.parent.name}:{folder.name} is not signed: {error}")
            except (OSError, ValueError) as error:
                self._seen.pop(folder.parent, None)
                self._tell(f"{folder.parent.name}:{folder.name} cannot be signed yet: {error}")
        return done

    def _folders(self) -> Iterator[Path]:
        """Folders of versions in which something may have changed since the last look."""
        for above in _children(self.versions):
            try:
                changed = above.stat(follow_symlinks=False).st_mtime_ns
            except OSError:
                continue
            if self._seen.get(above) == changed:
                continue
            # What changes once more in the same moment has the same time.
            if time.time_ns() - changed > SETTLED:
                self._seen[above] = changed
            yield from _children(above)

    def sign(self, folder: Path) -> bool:
        """Sign one version, where there is anything to sign. Raises Unfit, OSError, ValueError"""
        asked, answer = folder / ASKED, folder / ENVELOPE
        try:
            payload = read_file(asked, dsse.MAX_BYTES // 2)
        except FileNotFoundError:
            return self._sign_again(answer)
        self._check(folder, payload)
        _write(answer, dsse.Envelope(payload).with_signature(self.key).as_bytes())
        asked.unlink(missing_ok=True)
        log.info("%s:%s is signed", folder.parent.name, folder.name)
        return True

    def _check(self, folder: Path, payload: bytes) -> None:
        """Whether a statement is about what lies beside it. Raises Unfit."""
        try:
            facts = statement.read(payload)
        except ValueError as error:
            raise Unfit(str(error)) from error
        if (facts.name, facts.version) != (folder.parent.name, folder.name):
            raise Unfit(f"it is about {facts.name}:{facts.version}")
        if set(facts.files) != {statement.LOCK, statement.SBOM}:
            raise Unfit("it is not about lock and bill of materials")
        for name, digest in facts.files.items():
            if digest_of(folder / name) != digest:
                raise Unfit(f"it says something else of {name} than is there")

    def _sign_again(self, answer: Path) -> bool:
        """Put our signature beside that of another key which counts."""
        try:
            raw = read_file(answer, dsse.MAX_BYTES)
        except FileNotFoundError:
            return False
        envelope = dsse.read(raw)
        if envelope.is_signed_by(self.key.public_key()):
            return False
        verdict = judge(raw, self.checker.trusted(), datetime.now(UTC).date())
        if verdict.state != "signed":
            raise Unfit(f"of another key: {verdict.why}")
        _write(answer, envelope.with_signature(self.key).as_bytes())
        log.info("%s:%s is signed again", answer.parent.parent.name, answer.parent.name)
        return True

    def _tell(self, words: str) -> None:
        """Say something once."""
        if words not in self._told:
            self._told.add(words)
            log.error("%s", words)


def _children(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as found:
            return sorted(
                Path(item.path)
                for item in found
                if not item.name.startswith(".") and item.is_dir(follow_symlinks=False)
            )
    except OSError:
        return []


def _write(path: Path, raw: bytes) -> None:
    """Write a file whole or not at all, for everybody to read. Raises OSError."""
    partial = path.with_name(f".{path.name}.part")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(descriptor)
    os.replace(partial, path)


def keep(signer: Signer, sleep: Callable[[float], None] = time.sleep) -> None:
    """For ever."""
    told = False
    while True:
        try:
            if not told:
                signer.tell_key()
                told = True
            signer.look()
            ALIVE.touch()
        except OSError as error:
            log.error("%s", error)
        sleep(LOOK)


def main() -> None:
    """Until it is stopped; exit 1 without a key or a site file."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        key = dsse.of_seed(Path(os.environ.get("LABCOMMONS_SIGNING_KEY", KEY)).read_text("ascii"))
        checker = Checker(
            load_site().signatures, Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
        )
    except (OSError, ValueError, SiteFileError) as error:
        raise SystemExit(f"Error: the signing key cannot be used: {error}") from error
    keep(Signer(key, checker))


if __name__ == "__main__":
    main()
