"""The catalog: newest first, replaced only as a whole."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from commons.principal import Principal
from commons.rights import Action, can
from commons.store import Store
from environments import catalog
from environments.catalog import CatalogEntry

NOON = datetime(2026, 5, 1, 12)


def entry(name: str = "data", version: str = "20260501-aaaaaaaa", **changes: Any) -> CatalogEntry:
    values: dict[str, Any] = {
        "name": name,
        "version": version,
        "image": f"labcommons/env-{name}:{version}",
        "image_id": "sha256:1",
        "prefix": f"/opt/conda/envs/{name}",
        "python": "3.13.5",
        "lock_digest": "d" * 64,
        "channels": ["https://conda.example.org/main/"],
        "words": {"title": {"en": "Data", "zh_CN": "数据"}, "description": ""},
        "main_packages": [{"name": "numpy", "version": "2.3"}],
        "packages": [{"name": "numpy", "version": "2.3", "build": "0", "channel": "x"}],
        "kernelspecs": {"python3": {"argv": ["python"]}},
        "created_at": NOON,
    }
    return CatalogEntry(**(values | changes))


def record(store: Store, *entries: CatalogEntry) -> None:
    for item in entries:
        store.transact(lambda session, item=item: catalog.record(session, item))


def newest(store: Store) -> dict[str, list[CatalogEntry]]:
    return store.transact(catalog.newest, read=True)


def test_an_empty_catalog_is_empty(store: Store) -> None:
    assert newest(store) == {}


def test_what_was_recorded_comes_back_unchanged(store: Store) -> None:
    record(store, entry())
    assert newest(store) == {"data": [entry()]}


def test_who_needs_no_lists_of_packages_reads_all_else(store: Store) -> None:
    record(store, entry())
    found = store.transact(lambda s: catalog.newest(s, packages=False), read=True)
    assert found == {"data": [entry(packages=[])]}


def test_the_newest_version_comes_first_and_names_are_in_order(store: Store) -> None:
    older = entry(version="20260430-bbbbbbbb", created_at=NOON - timedelta(days=1))
    record(store, entry(), older, entry(name="bio"))
    found = newest(store)
    assert list(found) == ["bio", "data"]
    assert found["data"] == [entry(), older]


def test_recording_a_version_again_replaces_it(store: Store) -> None:
    record(store, entry(), entry(image_id="sha256:2"))
    found = newest(store)
    assert [item.image_id for item in found["data"]] == ["sha256:2"]


def test_a_build_is_found_by_its_digest_whatever_the_day(store: Store) -> None:
    record(store, entry())
    assert store.transact(lambda s: catalog.find(s, "data", "aaaaaaaa"), read=True) == entry()
    assert store.transact(lambda s: catalog.find(s, "data", "bbbbbbbb"), read=True) is None
    assert store.transact(lambda s: catalog.find(s, "bio", "aaaaaaaa"), read=True) is None


def test_what_was_decided_outlives_a_new_build_of_the_same_version(store: Store) -> None:
    record(store, entry())
    version = entry().version
    store.transact(lambda s: catalog.pin(s, "data", version, True))
    store.transact(lambda s: catalog.withdraw(s, "data", version, "a hole"))
    store.transact(lambda s: catalog.deprecate(s, "data", version, "old"))
    record(store, entry(image_id="sha256:2", tag="1.0.0"))
    [found] = newest(store)["data"]
    assert (found.image_id, found.tag, found.pinned) == ("sha256:2", "1.0.0", True)
    assert (found.withdrawn_reason, found.deprecated_reason) == ("a hole", "old")
    assert found.state == "withdrawn"
    store.transact(lambda s: catalog.withdraw(s, "data", version, None))
    assert newest(store)["data"][0].state == "deprecated"


def test_what_cannot_be_started_is_not_offered(store: Store) -> None:
    older = entry(version="20260430-bbbbbbbb", created_at=NOON - timedelta(days=1))
    record(store, entry(), older, entry(name="bio"))
    store.transact(lambda s: catalog.withdraw(s, "data", entry().version, "a hole"))
    assert store.transact(lambda s: catalog.set_present(s, ["data"])) == ["bio"]
    offered = store.transact(lambda s: catalog.newest(s, offered_only=True), read=True)
    assert offered == {"data": [older]}
    assert len(newest(store)["data"]) == 2
    assert store.transact(lambda s: catalog.set_present(s, ["data", "bio"])) == []
    assert "bio" in store.transact(lambda s: catalog.newest(s, offered_only=True), read=True)


def test_a_version_is_found_by_name_tag_or_as_the_newest_offered(store: Store) -> None:
    older = entry(version="20260430-bbbbbbbb", created_at=NOON - timedelta(days=1), tag="1.0.0")
    record(store, entry(), older)

    def get(version: str) -> str:
        found = store.transact(lambda s: catalog.get(s, "data", version), read=True)
        return found.version

    assert get("") == entry().version
    assert get("1.0.0") == get(older.version) == older.version
    store.transact(lambda s: catalog.withdraw(s, "data", entry().version, "a hole"))
    assert get("") == older.version
    with pytest.raises(catalog.NoSuchVersion, match="20260430-bbbbbbbb"):
        get("9.9.9")
    with pytest.raises(catalog.NoSuchVersion, match="there are: data"):
        store.transact(lambda s: catalog.get(s, "nope"), read=True)


def test_rows_from_before_the_migration_are_offered_to_everyone(store: Store) -> None:
    record(store, entry())
    [found] = newest(store)["data"]
    assert (found.state, found.findings, found.size) == ("offered", [], 0)
    assert can(Principal("eve"), Action.USE, found.resource)
