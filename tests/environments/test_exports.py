"""What is exported, made again elsewhere: on the same channel, without anything of ours."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rattler
from rattler.networking.middleware import MirrorMiddleware

from environments import export
from environments.files import FILE_NAMES
from environments.inventory import Installed, inventory
from rig import explicit
from rig.web import web

from .test_maker import CACHE, SPEC, Workshop

pytestmark = pytest.mark.channel
CONDA_ONLY = SPEC.split("  - pip:", maxsplit=1)[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A shop, its spec and lock, and the prefix made from them."""
    CACHE.mkdir(parents=True, exist_ok=True)
    shop = Workshop(tmp_path_factory.mktemp("exports"))
    spec = shop.spec(CONDA_ONLY, None)
    locked = shop.lock(spec)
    shop.maker.make_prefix(spec, locked, shop.prefix(), source="personal")
    return shop, spec, locked


def conda_packages(prefix: Path) -> set[tuple[str, ...]]:
    def facts(item: Installed) -> tuple[str, ...]:
        return item.name, item.version, item.build, item.subdir, item.url, item.sha256

    return {facts(item) for item in inventory(prefix) if item.kind == "conda"}


@pytest.mark.parametrize("format", ["explicit", "pixi.lock", "conda-lock"])
def test_an_export_makes_the_same_environment_elsewhere(
    made: Any, tmp_path: Path, format: str
) -> None:
    shop, spec, locked = made
    file, prefix = tmp_path / FILE_NAMES[format], tmp_path / "again"
    file.write_text(export.export(spec, locked.lock, format))
    [channel] = locked.lock.channels
    with web(CACHE / "channel") as place:
        client = rattler.Client([MirrorMiddleware({channel: [place]})])
        if format == "explicit":
            records = explicit.records(file.read_text())
        else:
            found = rattler.LockFile.from_path(file).environment("default")
            assert found is not None
            [platform] = found.platforms()
            records = found.conda_repodata_records_for_platform(platform)
            assert records is not None
        asyncio.run(
            rattler.install(
                records, prefix, cache_dir=tmp_path / "cache", client=client, show_progress=False
            )
        )
    assert conda_packages(prefix) == conda_packages(shop.prefix())
    program = "import ipykernel, six, sys; print(sys.prefix, six.__version__)"
    done = [
        subprocess.run([folder / "bin/python", "-c", program], capture_output=True, text=True)
        for folder in (prefix, shop.prefix())
    ]
    assert [one.returncode for one in done] == [0, 0], done
    assert done[0].stdout.split()[1] == done[1].stdout.split()[1]


def test_an_explicit_list_refuses_what_was_changed_since(made: Any, tmp_path: Path) -> None:
    _, spec, locked = made
    text = export.export(spec, locked.lock, "explicit")
    line = next(line for line in text.splitlines() if "/six-" in line)
    wrong = f"@EXPLICIT\n{line[:-4]}0000\n"
    [channel] = locked.lock.channels
    with web(CACHE / "channel") as place, pytest.raises(Exception, match="hash mismatch"):
        explicit.create(tmp_path / "again", wrong.replace(channel, f"{place}/"), tmp_path / "cache")


def test_a_dockerfile_writes_files_of_any_length_in_words_that_linux_takes(made: Any) -> None:
    _, spec, locked = made
    many = locked.lock.packages * 40
    text = export.export(spec, replace(locked.lock, packages=many), "dockerfile")
    instructions = text.replace("\\\n", "").splitlines()
    assert max(map(len, instructions)) < 128 * 1024
    assert text.count("#sha256:") == len(many)
