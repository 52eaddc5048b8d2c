"""A channel on the disk: killed at any moment, full, changed by several at once."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from commons.errors import LabError
from commons.site import Channels, Environments
from environments.channels import child, shelf
from environments.channels.inspect import NotTaken
from environments.channels.shelf import Shelf
from rig.packages import conda, here_is_installed, index, member

pytestmark = here_is_installed

# Kills itself in a change, at a step that is named.
KILLED = """
import os, signal, sys
from pathlib import Path
from commons.site import Channels, Environments
from environments.channels import child, shelf

step, data, package = sys.argv[1:]
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
index = die if step == "index" else child.index
one = shelf.Shelf(Path(data), "site", index, Channels())
if step in ("_begin_index", "_keep_shards", "_write", "_settle"):
    setattr(shelf, step, die)
if step == "replace":
    os.replace = die
with one.incoming() as file:
    file.write(Path(package).read_bytes())
    file.flush()
    if step == "sending":
        die()
    name = Path(package).name
    found = child.check(Path(file.name), name, Channels(), Environments())
    one.add(Path(file.name), name, found, "alice")
"""
STEPS = ("sending", "_begin_index", "index", "_keep_shards", "_write", "_settle", "replace")


def add(one: Shelf, path: Path) -> bool:
    with one.incoming() as file:
        file.write(path.read_bytes())
        file.flush()
        found = child.check(Path(file.name), path.name, Channels(), Environments())
        return one.add(Path(file.name), path.name, found, "alice")[1]


def seen(one: Shelf) -> set[str]:
    """What the index offers; all of it is there."""
    folder = one.folder / "current/noarch"
    document = json.loads((folder / "repodata.json").read_bytes())
    offered = document["packages.conda"]
    assert all((folder / name).stat().st_size == item["size"] for name, item in offered.items())
    return set(offered)


@pytest.fixture
def one(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "data", "site", child.index, Channels())


def packages(folder: Path, *versions: str, text: bytes = b"") -> list[Path]:
    return [
        conda(folder / f"tool-{one}-0.conda", index(version=one), [member("share/x", text)])
        for one in versions
    ]


def test_killed_anywhere_nothing_is_half_there(one: Shelf, tmp_path: Path) -> None:
    first, second, third = packages(tmp_path / "made", "1.0", "2.0", "3.0")
    other = packages(tmp_path / "other", "2.0", text=b"other")[0]
    assert add(one, first)
    for step in STEPS:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, step, str(tmp_path / "data"), str(second)],
            check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, step
        assert seen(one) == {first.name}, step
        assert [kept.file for kept in one.packages()] == [first.name], step
    # What is written next is neither what was cut off nor hindered by it.
    assert add(one, other)
    assert add(one, third)
    assert seen(one) == {first.name, other.name, third.name}
    assert (one.folder / "current/noarch" / other.name).read_bytes() == other.read_bytes()
    assert sorted(p.name for p in one.folder.iterdir()) == [
        ".incoming", ".lock", "a", "b", "current",
    ]  # fmt: skip


def test_what_was_being_sent_goes_with_the_next_change(one: Shelf, tmp_path: Path) -> None:
    made = packages(tmp_path / "made", "1.0")[0]
    left = one.folder / ".incoming/p-left"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    os.utime(left, (0, 0))
    with one.incoming() as under_way:
        os.utime(under_way.name, (0, 0))
        add(one, made)
        assert not left.exists()
        assert Path(under_way.name).exists(), "somebody still sends it"


def test_a_full_disk_leaves_the_channel_as_it_was(
    one: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = packages(tmp_path / "made", "1.0", "2.0")
    add(one, first)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shelf, "_write", full)
        with pytest.raises(LabError) as refused:
            add(one, second)
    assert (refused.value.status, refused.value.code) == (507, "channel_disk_full")
    assert seen(one) == {first.name}
    assert add(one, second)


def test_an_index_that_cannot_be_made_changes_nothing(one: Shelf, tmp_path: Path) -> None:
    first, second = packages(tmp_path / "made", "1.0", "2.0")
    add(one, first)

    def broken(folder: Path, removed: Mapping[str, Any]) -> None:
        (folder / "noarch/repodata.json").write_text("{")
        child.index(folder / "none", removed)

    with pytest.raises(LabError) as refused:
        add(Shelf(tmp_path / "data", "site", broken, Channels()), second)
    assert refused.value.code == "channel_not_indexed"
    assert seen(one) == {first.name}
    assert add(one, second)
    assert seen(one) == {first.name, second.name}


def test_changes_at_once_come_one_after_the_other(one: Shelf, tmp_path: Path) -> None:
    made = packages(tmp_path / "made", "1.0", "2.0", "3.0")
    threads = [threading.Thread(target=add, args=(one, path)) for path in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen(one) == {path.name for path in made}


def test_a_channel_has_a_limit(tmp_path: Path) -> None:
    first, second = packages(tmp_path / "made", "1.0", "2.0")
    small = Shelf(tmp_path / "data", "site", child.index, Channels(size="1K"))
    add(small, first)
    with pytest.raises(LabError) as refused:
        add(small, second)
    assert refused.value.code == "channel_full"
    assert seen(small) == {first.name}


def test_an_earlier_index_finds_its_parts(one: Shelf, tmp_path: Path) -> None:
    """Who has read the list of shards asks for them, whatever has come meanwhile."""
    first, second, third = packages(tmp_path / "made", "1.0", "2.0", "3.0")
    add(one, first)
    shards = {path.name for path in (one.folder / "current/noarch/shards").iterdir()}
    add(one, second)
    add(one, third)
    assert shards <= {path.name for path in (one.folder / "current/noarch/shards").iterdir()}


def test_a_bomb_ends_with_the_process_that_reads_it(tmp_path: Path) -> None:
    path = conda(tmp_path / "tool-1.0-0.conda", members=[member("zeros", bytes(2**26))])
    assert path.stat().st_size < 2**16
    with pytest.raises(NotTaken) as refused:
        child.check(path, path.name, Channels(unpacked="1M"), Environments())
    assert refused.value.code == "package_too_much"


def test_a_known_hole_is_refused(tmp_path: Path) -> None:
    about = b"Metadata-Version: 2.1\nName: tool\nVersion: 1.0\n"
    path = conda(
        tmp_path / "tool-1.0-0.conda",
        members=[member("site-packages/tool-1.0.dist-info/METADATA", about)],
    )
    advisories = tmp_path / "osv.json"
    hole = {"package": {"ecosystem": "PyPI", "name": "tool"}, "versions": ["1.0"]}
    advisories.write_text(json.dumps({"id": "X-1", "affected": [hole]}))
    scan = {"advisories": str(advisories)}
    with pytest.raises(NotTaken) as refused:
        child.check(path, path.name, Channels(), Environments.model_validate({"scan": scan}))
    assert refused.value.code == "package_holes"
    scan |= {"ignore": {"X-1": "not reached"}}  # type: ignore[dict-item]
    settings = Environments.model_validate({"scan": scan})
    assert child.check(path, path.name, Channels(), settings).index["name"] == "tool"
