"""How long it takes to see whether an image is the one that was signed, before a container is made.

For statements of a small, a usual and the largest allowed environment: with the file read and
checked anew, and when it has not changed since. Writes tests/bench/results/signatures.md.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # not this folder: it has an environments.py

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from commons.signatures import dsse, statement
from commons.signatures.check import ENVELOPE, Checker, Image
from commons.signatures.signer import Signer
from commons.signatures.statement import Facts, Identity
from commons.site import Signatures

PACKAGES = (50, 400, 5000)
TIMES = 200
LAYERS = tuple(f"sha256:{number:064x}" for number in range(12))


def measure(packages: int) -> list[str]:
    """One row: bytes of the envelope, milliseconds with it anew, and as it is known."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        for name in ("signing", "versions/data/1"):
            (data / name).mkdir(parents=True)
        key = Ed25519PrivateKey.generate()
        checker = Checker(Signatures(policy="refuse"), data)
        Signer(key, checker).tell_key()
        image = Image("data", "1", f"sha256:{'a' * 64}", "d" * 64, LAYERS)
        facts = Facts("data", "1", Identity(image.id, layers=LAYERS), image.lock_digest, {})
        materials = [
            statement.resource(
                f"package-{number} 1.2.{number}",
                f"{number:064x}",
                uri=f"https://channel.example.org/linux-64/package-{number}-1.2.{number}-py313_0.conda",
            )
            for number in range(packages)
        ]
        payload = statement.compose(facts, "lab", "", materials, "1")
        path = data / "versions/data/1" / ENVELOPE
        path.write_bytes(dsse.Envelope(payload).with_signature(key).as_bytes())
        anew, known = [], []
        for number in range(TIMES):
            os.utime(path, ns=(number, number))
            for times in (anew, known):
                begun = time.perf_counter()
                assert checker.refusal(image) is None
                times.append((time.perf_counter() - begun) * 1000)
        size = path.stat().st_size
    spread = [
        f"{statistics.median(times):.2f} (at most {max(times):.1f})" for times in (anew, known)
    ]
    return [str(packages), f"{size // 1024} kB", *spread]


def main() -> None:
    """Print the table and write it down."""
    lines = [
        "# Checking a signature before a start",
        "",
        f"{os.cpu_count()} cores, Python {platform.python_version()}; medians of {TIMES}, in ms.",
        "",
        "| packages | envelope | file anew | not changed since |",
        "|---|---|---|---|",
        *(f"| {' | '.join(measure(packages))} |" for packages in PACKAGES),
        "",
    ]
    text = "\n".join(lines)
    print(text)
    (HERE / "results" / "signatures.md").write_text(text)


if __name__ == "__main__":
    main()
