"""What was done by hand to a built environment is on its page, until it is kept or undone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from commons.scopes import personal
from commons.store import Store
from environments.builds import drift, repository

FACTS: dict[str, Any] = {
    "python": "3.13.5", "tag": None, "lock_digest": "ab", "packages": [], "size": 1, "spec": "",
    "words": "", "lock": "", "kernels": {}, "findings": [], "origin": None, "exports": {},
}  # fmt: skip


def test_a_look_puts_it_on_the_page_and_the_next_takes_it_away(store: Store) -> None:
    """Kind: an environment that is other than its lock says."""
    scope = personal("alice")
    told: list[dict[str, Any]] = []

    def looked(changes: object) -> list[dict[str, Any]]:
        item = {"name": "mine", "version": "1", "digest": "sha256:ab", "changes": changes}
        told.extend(store.transact(lambda s: repository.seen(s, scope, [item])))
        row = store.transact(lambda s: repository.current(s, scope, "mine"), read=True)
        assert row is not None
        return list(row.findings)

    now = datetime.now(UTC).replace(tzinfo=None)
    store.transact(
        lambda s: repository.record(
            s, scope, "mine", "1", built_by="alice", created_at=now, facts=FACTS, kept={"1"}
        )
    )
    by_hand = {"pip": {"cowsay": [None, "6.1"], "tomli": ["2", None]}, "conda": {}}
    [found] = looked(by_hand)
    assert found["code"] == drift.CODE
    assert "cowsay 6.1, without tomli" in found["message"]
    assert found["change"] == {"add": [], "pip": ["cowsay==6.1"], "remove": ["tomli"]}
    # The audit trail has it once, however often it is looked at.
    assert looked(by_hand) == [found]
    assert told == [{"environment": "mine", "version": "1", **found["change"]}]
    assert looked({}) == []
    live = {"name": "own", "version": repository.LIVE, "digest": "x", "packages": []}
    assert store.transact(lambda s: repository.seen(s, scope, [live])) == [
        {"environment": "own", "version": repository.LIVE}
    ]


def test_what_a_folder_says_is_checked() -> None:
    """Kind: a person's word about their own folder, which the hub reads."""
    hostile = {
        "pip": {
            "ok": [None, "1"], "-r x": [None, "1"], "a b": [None, "1"], "x": [None, "1; evil"],
            "y": "ab", "z": [None, None], "w": [1, 2], "v": [None, "1", "2"],
        },
        "conda": [], "other": {"a": [None, "1"]},
    }  # fmt: skip
    assert drift.checked(hostile) == {"pip": {"ok": (None, "1")}}
    assert len(drift.checked({"pip": {f"p{n}": [None, "1"] for n in range(5000)}})["pip"]) == 300
    for nothing in (None, [], "x", {"pip": None}):
        assert drift.checked(nothing) == {}
