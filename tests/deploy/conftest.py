"""Fixtures of the deployment's tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rig.images import ours

ROOT = Path(__file__).resolve().parents[2]
# `deploy` is run from a checkout and never installed.
sys.path.insert(0, str(ROOT))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The variables of the process, without those that decide about a deployment."""
    for name in list(os.environ):
        if name.startswith(("LABCOMMONS_", "COMPOSE_")):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def checkout(tmp_path: Path, environment: pytest.MonkeyPatch) -> Path:
    """As much of a checkout as settings are about."""
    for name in ("site.yaml", "demo/site.yaml"):
        (tmp_path / "config" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "config" / name).write_text("version: 1\n")
    return tmp_path


@pytest.fixture(scope="session")
def proxy_image() -> str:
    """The image of the proxy, built as `make up` builds it."""
    return ours("proxy")
