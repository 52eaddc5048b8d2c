"""The check of backups, shown well and shown red."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from commons.site import Site
from commons.site.backup import Backup
from hub_ext.backup.making import State as Known
from hub_ext.backup.places import Room
from hub_ext.doctor import registry
from hub_ext.doctor.backups import backups
from hub_ext.doctor.registry import Here

HOUR = 3600.0
WELL = {"ready": True, "made": 1.0, "moment": time.time() - HOUR, "verified": 1.0}


def found(
    site: Site, data: Path, known: dict[str, Any] | None, target: str = "/srv/b"
) -> list[str]:
    (data / "health").mkdir(exist_ok=True)
    if known is not None:
        Known(**known).write(Room(data).state)
    here = Here(site.model_copy(update={"backup": Backup(target=target)}), data)
    rows = registry.examine(here, {"backups": backups})
    assert all(row["state"] == "ok" or row["remedy"]["zh_CN"] for row in rows)
    return [f"{row['state']}: {row['cause']['en']}" for row in rows]


def test_all_is_well(site: Site, tmp_path: Path) -> None:
    said = found(site, tmp_path, WELL)
    assert [one.partition(":")[0] for one in said] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("known", "state", "words"),
    [
        (None, "broken", "no recovery key"),
        ({"ready": True}, "warning", "none was made yet"),
        ({**WELL, "moment": time.time() - 37 * HOUR}, "broken", "the last one is of"),
        ({**WELL, "problem": "no space left"}, "broken", "failed: no space left"),
        ({"ready": True, "problem": "no space left"}, "broken", "failed: no space left"),
        ({**WELL, "verify_problem": "store.sqlite is damaged"}, "broken", "cannot be read back"),
        ({**WELL, "unread": 3}, "advice", "are not in it: 3"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    site: Site, tmp_path: Path, known: dict[str, Any] | None, state: str, words: str
) -> None:
    said = found(site, tmp_path, known)
    assert any(one.startswith(state) and words in one for one in said), said


def test_a_site_without_backups_is_advised(site: Site, tmp_path: Path) -> None:
    assert found(site, tmp_path, None, "") == ["advice: no backups are made"]
