"""The check of the mirror, shown well and shown red."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from commons.site import Site
from commons.site.mirror import Mirror
from hub_ext.doctor import mirror, registry
from hub_ext.doctor.registry import Here

G = 2**30
WELL: dict[str, Any] = {
    "at": 4e9,  # whenever this runs
    "since": 1.0,
    "kinds": {"conda": {"hits": 3, "misses": 1, "from_cache": 3 * G}},
    "cache": {"bytes": 2 * G, "files": 9, "limit": 100 * G, "free": 50 * G},
    "places": {"a.example.org": {"failed": 0}, "b.example.org": {"failed": 1}},
}
DOWN = {"failed": 3, "problem": "timed out"}


def found(
    site: Site, data: Path, known: dict[str, Any] | None, settings: Mirror | None
) -> list[str]:
    (data / "health").mkdir(exist_ok=True)
    if known is not None:
        (data / "health" / "mirror.json").write_text(json.dumps(known))
    here = Here(site.model_copy(update={"mirror": settings}), data)
    rows = registry.examine(here, {"mirror": mirror.mirror})
    assert all(row["state"] == "ok" or row["remedy"]["zh_CN"] for row in rows)
    return [f"{row['state']}: {row['about']}{row['cause']['en']}" for row in rows]


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_unreached", lambda: "")


def test_a_site_without_a_mirror_is_not_asked_about_it(site: Site, tmp_path: Path) -> None:
    assert found(site, tmp_path, None, None) == []


@pytest.mark.usefixtures("reached")
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ["ok: it keeps 2"]),
        ({"places": {"a": DOWN, "b": {}}}, ["warning: adoes not answer", "ok"]),
        ({"places": {"a": DOWN}}, ["warning: no upstream", "ok"]),
        ({"cache": {**WELL["cache"], "free": G}}, ["warning: the mirror’s disk", "ok"]),
        ({"cache": {**WELL["cache"], "bytes": 99 * G}}, ["advice: the mirror keeps", "ok"]),
        ({"at": time.time() - 3600}, ["broken: the mirror does not run"]),
        ({"kinds": []}, ["broken: the mirror does not run"]),
    ],
)
def test_what_is_so_is_said(
    site: Site, tmp_path: Path, changed: dict[str, Any], said: list[str]
) -> None:
    rows = found(site, tmp_path, {**WELL, **changed}, Mirror())
    assert len(rows) == len(said), rows
    assert all(row.startswith(one) for row, one in zip(rows, said, strict=True)), rows


def test_one_that_is_not_reached_is_broken(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "URL", "http://127.0.0.1:9")
    rows = found(site, tmp_path, WELL, Mirror())
    assert len(rows) == 1
    assert rows[0].startswith("broken: the mirror is not reached")
