"""Runs nft: one text applied at once, or nothing of it; a table's text read back."""

from __future__ import annotations

import subprocess

TIMEOUT = 15  # seconds
FAMILIES = ("bridge", "inet")


class NftError(Exception):
    """nft, or the kernel behind it, does not do it."""


def apply(text: str) -> None:
    """Put a ruleset in place of the former one, in one transaction. Raises NftError."""
    _run("-f", "-", stdin=text)


def listing(table: str) -> str | None:
    """The tables of a site as the kernel has them, without counts; None where one is missing."""
    known = _run("list", "tables").splitlines()
    if not all(f"table {family} {table}" in known for family in FAMILIES):
        return None
    return "".join(_run("--stateless", "list", "table", family, table) for family in FAMILIES)


def _run(*words: str, stdin: str = "") -> str:
    try:
        done = subprocess.run(
            ["nft", *words],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NftError(f"nft did not end within {TIMEOUT} s") from None
    except OSError as error:
        raise NftError(f"nft: {error.strerror}") from error
    if done.returncode:
        # "/dev/stdin:1:7-12: Error: what", then the place in the text; a later line adds nothing.
        lines = [line.rpartition("Error: ")[2] for line in done.stderr.splitlines() if line.strip()]
        raise NftError(lines[0][:300] if lines else f"nft ended with exit code {done.returncode}")
    return done.stdout
