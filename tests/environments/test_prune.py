"""What may go: never what is used, pinned, or among the last ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from environments.build import Places
from environments.catalog import CatalogEntry
from environments.prune import Keeping, Verdict, plan, prune_cache

NOW = datetime(2026, 11, 21)
ENTRY = CatalogEntry(
    name="data",
    version="",
    image="",
    image_id="",
    prefix="",
    python="3.13.5",
    lock_digest="",
    channels=[],
    words={},
    main_packages=[],
    packages=[],
    kernelspecs={},
    created_at=datetime(2026, 1, 1),
)


def versions(count: int) -> list[CatalogEntry]:
    """Newest first, as the catalog gives them."""
    return [
        replace(
            ENTRY,
            version=f"v{number}",
            image_id=f"sha256:{number}",
            created_at=ENTRY.created_at + timedelta(number),
        )
        for number in range(count, 0, -1)
    ]


def verdicts(
    entries: list[CatalogEntry],
    in_use: dict[str, str],
    keep: int,
    used: Mapping[tuple[str, str], datetime] | None = None,
    days: int = 30,
) -> list[Verdict]:
    return plan({"data": entries}, in_use, used or {}, Keeping.of(keep, days, NOW))


def kept(entries: list[CatalogEntry], in_use: dict[str, str], keep: int) -> list[str]:
    return [v.entry.version for v in verdicts(entries, in_use, keep) if v.keep]


def test_the_last_ones_stay() -> None:
    assert kept(versions(5), {}, 2) == ["v5", "v4"]


def test_what_a_server_uses_stays_whatever_its_age() -> None:
    assert kept(versions(5), {"data:v1": "alice"}, 1) == ["v5", "v1"]
    assert kept(versions(5), {"sha256:2": "alice"}, 1) == ["v5", "v2"]
    found = verdicts(versions(5), {"data:v1": "alice, bob"}, 1)
    assert str(found[-1].why) == "in use by alice, bob"


def test_what_somebody_used_lately_stays_and_it_is_said_when() -> None:
    days_ago = {"v1": 29, "v2": 31, "v3": -1}  # -1: by a clock that was set back since
    used = {("data", v): NOW - timedelta(days) for v, days in days_ago.items()}
    found = verdicts(versions(5), {}, 1, used)
    assert [(v.entry.version, v.keep, str(v.why)) for v in found] == [
        ("v5", True, "among the last 1"),
        ("v4", False, "older than the last 1, not used"),
        ("v3", True, "last used on 2026-11-22"),
        ("v2", False, "older than the last 1, last used on 2026-10-21"),
        ("v1", True, "last used on 2026-10-23"),
    ]
    assert found[4].as_json()["last_used"] == "2026-10-23T00:00:00Z"
    assert [v.keep for v in verdicts(versions(2), {}, 1, used, days=0)] == [True, False]


def test_what_is_pinned_stays() -> None:
    entries = versions(3)
    entries[-1] = replace(entries[-1], pinned=True)
    assert kept(entries, {}, 1) == ["v3", "v1"]


def test_withdrawn_versions_do_not_count_among_the_last() -> None:
    entries = versions(4)
    entries[0] = replace(entries[0], withdrawn_at=datetime(2026, 2, 1))
    assert kept(entries, {}, 2) == ["v3", "v2"]


def test_an_environment_whose_folder_is_gone_goes_as_a_whole_but_for_what_is_used() -> None:
    entries = [replace(entry, removed=True) for entry in versions(3)]
    assert kept(entries, {"data:v2": "alice"}, 3) == ["v2"]


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=12),
    st.integers(1, 5),
)
def test_whatever_is_decided_nothing_in_use_or_pinned_goes(
    marks: list[tuple[bool, bool, bool]], keep: int
) -> None:
    entries = [
        replace(entry, pinned=pinned, withdrawn_at=datetime(2026, 2, 1) if gone else None)
        for entry, (pinned, gone, _) in zip(versions(len(marks)), marks, strict=True)
    ]
    in_use = {
        f"data:{entry.version}": "x"
        for entry, (_, _, used) in zip(entries, marks, strict=True)
        if used
    }
    found = verdicts(entries, in_use, keep)
    assert len(found) == len(entries)
    for verdict in found:
        entry = verdict.entry
        if not verdict.keep:
            assert not entry.pinned
            assert f"data:{entry.version}" not in in_use
    offered = [verdict for verdict in found if verdict.entry.is_offered]
    assert all(verdict.keep for verdict in offered[:keep])


def test_cached_packages_that_no_lock_names_go(tmp_path: Path) -> None:
    places = Places(tmp_path / "environments", tmp_path / "data")
    packages = places.cache / "packages"
    for name in ("alpha-1.0-0", "omega-9-0"):
        (packages / name).mkdir(parents=True)
        (packages / name / "file").write_text("x" * 100)
    lock = places.versions / "data" / "v1" / "pixi.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text(
        "version: 6\nenvironments:\n  default:\n    channels:\n    - url: https://x.invalid/\n"
        "    packages:\n      linux-64:\n"
        "      - conda: https://x.invalid/noarch/alpha-1.0-0.conda\n"
        "packages:\n- conda: https://x.invalid/noarch/alpha-1.0-0.conda\n"
        f"  sha256: {'0' * 64}\n"
    )
    assert sum(prune_cache(places, dry_run=True)["packages"]) >= 100
    assert (packages / "omega-9-0").exists()
    assert prune_cache(places, young=60)["packages"] == []  # the next lock may name it
    assert sum(prune_cache(places)["packages"]) >= 100
    assert [path.name for path in packages.iterdir()] == ["alpha-1.0-0"]
