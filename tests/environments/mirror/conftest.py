"""An upstream on this machine, and the mirror before it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from commons.site import Site
from rig.channel import TinyChannel
from rig.nginx_mirror import LIMITS, LocalMirror, local_mirror, mirrored
from rig.upstream import Upstream, upstream


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Upstream]:
    """A channel ``lab`` with two packages, and an index with a wheel."""
    channel = TinyChannel(tmp_path / "upstream" / "lab")
    channel.add("a")
    channel.add("b", depends=("a",))
    channel.index()
    with upstream(tmp_path / "upstream") as one:
        one.add_wheel("tiny", _wheel(tmp_path), "tiny-1.0-py3-none-any.whl")
        yield one


@pytest.fixture
def mirror(site: Site, there: Upstream, tmp_path: Path) -> Iterator[LocalMirror]:
    with local_mirror(mirrored(site, there), tmp_path / "data", LIMITS) as one:
        yield one


def _wheel(folder: Path) -> bytes:
    path = folder / "tiny.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        about = "tiny-1.0.dist-info"
        wheel.writestr("tiny.py", "here = True\n")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(
            f"{about}/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\nGenerator: rig\n",
        )
        wheel.writestr(f"{about}/RECORD", "tiny.py,,\n")
    return path.read_bytes()
