"""Every setting of the installed DockerSpawner and JupyterHub has its row, and the page has it."""

from __future__ import annotations

from pathlib import Path

import pytest
from dockerspawner import SystemUserSpawner

from spawner.settings import table
from spawner.settings.table import ALIASES, TABLE, UseInstead
from spawner.spawner import LabSpawner

PAGE = Path(__file__).parents[3] / "docs" / "dockerspawner.md"


def test_every_trait_has_a_row() -> None:
    """A new version's new setting is decided on here, before anybody sets it in vain."""
    installed = {
        *LabSpawner.class_traits(config=True),
        *SystemUserSpawner.class_traits(config=True),
    }
    assert installed == {*TABLE, *ALIASES}


def test_former_names_lead_to_rows() -> None:
    assert all(new in TABLE for new in ALIASES.values())
    assert {old: new for old, (new, _) in LabSpawner._deprecated_aliases.items()} == ALIASES


def test_whoever_is_refused_is_told_what_to_use() -> None:
    assert all(rule.use for rule in TABLE.values() if isinstance(rule, UseInstead))


def test_the_page_has_the_table() -> None:
    """Written by ``python -m spawner.settings.table``."""
    assert table.markdown() in PAGE.read_text("utf-8")


@pytest.mark.parametrize(
    ("trait", "value", "taken"),
    [
        ("links", {}, True),
        ("links", {"a": "b"}, False),
        ("remove", True, True),
        ("remove", False, False),
        ("pull_policy", "never", True),
        ("pull_policy", "always", False),
        ("extra_create_kwargs", lambda _spawner: {}, False),
    ],
)
def test_what_is_so_anyway_may_be_said(trait: str, value: object, taken: bool) -> None:
    rule = TABLE[trait]
    assert isinstance(rule, UseInstead)
    assert rule.takes(value) is taken
