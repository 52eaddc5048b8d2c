"""What a restore has left for a database server, where the site names none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy import backup
from deploy.builder import SQLITE
from deploy.shell import Failure


class Step:
    """Remembers what is run."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def run(self, words: list[str], **_more: Any) -> None:
        self.words = [str(word) for word in words]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def loaded(profiles: tuple[str, ...], **urls: str) -> list[str]:
        def found(*names: str) -> dict[str, str]:
            return {name: urls.get(name, SQLITE) for name in names}

        monkeypatch.setattr(backup, "databases", found)
        step, site = Step(), SimpleNamespace(project="lab", profiles=profiles, data=tmp_path)
        backup.load(SimpleNamespace(env={}), site, step)  # type: ignore[arg-type]
        return step.words

    return loaded


def test_without_a_server_the_remedy_is_said(load: Any) -> None:
    with pytest.raises(Failure, match="names no server") as error:
        load(("demo",))
    assert ".env.restored" in error.value.remedy


def test_the_sites_own_server_is_on_its_network_and_another_is_not(load: Any) -> None:
    url = {"LABCOMMONS_DATABASE_URL": "postgresql+psycopg://db.example.org/labcommons"}
    assert "--network=lab_control" in load(("postgres",), **url)
    assert "--network=bridge" in load(("demo",), **url)
