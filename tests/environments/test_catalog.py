"""The catalog: newest first, replaced only as a whole."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from hub_ext.store import Store
from spawner.environments import catalog
from spawner.environments.catalog import CatalogEntry

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
