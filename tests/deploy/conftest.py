"""Fixtures of the deployment's tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    done = subprocess.run(
        [sys.executable, "-c", BUILD_PROXY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return "labcommons/proxy"


BUILD_PROXY = """
import sys
from deploy import base, engine, images
from deploy.engine import CACHE
from deploy.steps import Progress
docker, progress = engine.find(), Progress(3, CACHE / "log" / "tests")
with progress.step("Debian") as step:
    base.ensure_debian(docker, step)
base.write_context(CACHE / "base")
for image in (images.BASE, *(i for i in images.IMAGES if i.name == "proxy")):
    with progress.step(image.tag) as step:
        images.ensure(image, docker, step)
"""
