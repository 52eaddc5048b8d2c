"""An event of the trail as a line of a table."""

from __future__ import annotations

from typing import Any

from commons.audit.chain import encode

COLUMNS = (
    "time",
    "writer",
    "sequence",
    "person",
    "action",
    "outcome",
    "reason",
    "address",
    "about",
)


def row(event: dict[str, Any]) -> dict[str, Any]:
    """The cells of an event, by ``COLUMNS``."""
    said = event["event"]
    details = event.get("labcommons", {})
    chain = details.get("chain", {})
    about = {name: value for name, value in details.items() if name not in ("chain", "signature")}
    return {
        "time": str(event.get("@timestamp", "")),
        "writer": chain.get("writer", ""),
        "sequence": said.get("sequence", ""),
        "person": event.get("user", {}).get("name", ""),
        "action": said.get("action", ""),
        "outcome": said.get("outcome", ""),
        "reason": said.get("reason", ""),
        "address": event.get("source", {}).get("ip", ""),
        "about": " ".join(f"{name}={plain(value)}" for name, value in about.items()),
    }


def cells(event: dict[str, Any]) -> list[str]:
    """For a spreadsheet: what it would take for a formula is text (OWASP, CSV injection)."""
    found = row(event)
    return [as_text(str(found[name])) for name in COLUMNS]


def as_text(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def plain(value: object) -> str:
    """A value in one line of characters that can be seen."""
    text = value if isinstance(value, str) else encode({"": value})[4:-1].decode("ascii")
    return text if text.isprintable() else ascii(text)
