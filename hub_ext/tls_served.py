"""What nginx serves: certificate and key as one file, and what is known of the certificates.

Two files cannot change at once; one can. ``tls/server.crt`` and ``server.key`` are where they are
made, or put by an administrator; only a pair that belongs together becomes
``tls/served/server.pem``, in one move, and the proxy looks at nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from hub_ext import tls
from hub_ext.tls import Outcome, TLSError

SERVED = Path("served", "server.pem")
STATE = "certificates.json"


def publish(folder: Path) -> bool:
    """Give nginx the pair that lies in the folder; whether that is another than before.

    Raises TLSError for two files that are no pair: what was served before goes on.
    """
    crt, key_file = folder / "server.crt", folder / "server.key"
    try:
        chain, key = crt.read_bytes(), key_file.read_bytes()
        first = x509.load_pem_x509_certificate(chain)
    except (OSError, ValueError) as error:
        raise TLSError(f"{crt} and {key_file}: cannot be read: {error}") from error
    if tls.read_key(key_file).public_key() != first.public_key():
        raise TLSError(
            f"{key_file} is not the key of {crt}: put the right pair there. "
            "What was served before goes on until then"
        )
    target = folder / SERVED
    target.parent.mkdir(mode=0o700, exist_ok=True)
    both = key.rstrip() + b"\n" + chain
    if target.exists() and target.read_bytes() == both:
        return False
    tls.write(target, both, 0o600)
    return True


def report(
    place: Path, outcomes: Iterable[Outcome], folder: Path, problem: str = "", own: bool = True
) -> None:
    """Write down what is known, for doctor and the pages: the ends, and why one is not renewed.

    ``own``: one that is not of our CA was put there by an administrator, who has to renew it.
    """
    files = [(outcome.file, own and outcome.state == "foreign") for outcome in outcomes]
    if (folder / SERVED).exists():
        files.append((folder / SERVED, False))
    rows: list[dict[str, Any]] = []
    for file, theirs in files:
        found = tls.read_certificate(file)
        rows.append(
            {
                "name": "served" if file.name == SERVED.name else file.name,
                "own": theirs,
                "not_after": found.not_valid_after_utc.isoformat(),
                "days": tls.lifetime(found).total_seconds() / 86400,
            }
        )
    text = json.dumps(
        {"at": datetime.now(UTC).isoformat(), "problem": problem, "certificates": rows}
    )
    tls.write(place / STATE, text.encode(), 0o644)
