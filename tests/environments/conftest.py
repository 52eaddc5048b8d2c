"""Fixtures for environments: specs in a folder, small channels, a builder that keeps its words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from environments.spec import EnvironmentSpec, load_spec
from rig.channel import TinyChannel

WriteSpec = Callable[..., EnvironmentSpec]


@pytest.fixture
def write_spec(tmp_path: Path) -> WriteSpec:
    """Write an environment's files and load them."""

    def write(
        *dependencies: str, channels: str = "conda-forge", name: str = "tiny", words: str = ""
    ) -> EnvironmentSpec:
        folder = tmp_path / "environments" / name
        folder.mkdir(parents=True, exist_ok=True)
        listed = "".join(f"  - {item}\n" for item in dependencies)
        (folder / "environment.yml").write_text(
            f"name: {name}\nchannels: [{channels}]\ndependencies:\n{listed}"
        )
        if words:
            (folder / "labcommons.yml").write_text(words)
        return load_spec(folder)

    return write


@pytest.fixture
def channel(tmp_path: Path) -> TinyChannel:
    """Two versions of alpha, and beta, which needs the older one."""
    tiny = TinyChannel(tmp_path / "tiny")
    tiny.add("alpha", "1.0")
    tiny.add("alpha", "2.0")
    tiny.add("beta", "1.0", depends=("alpha <2",))
    return tiny.index()
