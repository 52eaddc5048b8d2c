"""What a folder has of the disk: du in a container that may read all of it and write nothing."""

from __future__ import annotations

from typing import Any

from spawner.runtime import labels
from spawner.runtime.docker.body import PURPOSE, Bind, Use, container
from spawner.runtime.protocol import FolderUse, LargeFolder

SECONDS = 540  # for one folder; then it is told as far as it was seen
SMALL = 16  # MiB below which a folder is not named, and all of one is nothing
DEPTH = 2
MOST = 200_000  # bytes of what it says
NAMED = 5
_LOOK = "cd /look || exit 9; exec nice -n 19 timeout $1 du -xk0 --max-depth=$2 --threshold=$3M ."
_OVER = 124  # of timeout, whose time was over


def body(site_id: str, image: str, folder: str) -> dict[str, Any]:
    """Its container. Root without a right but to read what is others', and little of the CPU."""
    command = ["sh", "-c", _LOOK, "look", str(SECONDS), str(DEPTH), str(SMALL)]
    found = container(
        image,
        command,
        None,
        Use(2**27, 1, 16),
        labelled={labels.SITE: site_id, PURPOSE: "look"},
        env={"LC_ALL": "C"},
        binds=[Bind(folder, "/look")],
        folder="/",
        maker=True,
    )
    found["HostConfig"]["CapAdd"] = ["DAC_READ_SEARCH"]
    found["HostConfig"]["CpuShares"] = 2
    return found


def read(said: bytes, exit_code: int) -> FolderUse:
    """What du has said; names are people's, and may be anything."""
    total, found = 0, []
    for line in said.split(b"\0"):
        count, _, path = line.partition(b"\t")
        if not count.strip().isdigit() or len(count) > 18:
            continue  # the beginning is missing, or du complains
        size = int(count) * 1024
        if path == b".":
            total = size
        elif path.startswith(b"./"):
            name = path[2:].decode("utf-8", "replace")[:300]
            found.append(LargeFolder(path=name, bytes=size))
    found.sort(key=lambda one: -one.bytes)
    # A folder that is all of its parent says the same twice: the inner one says more.
    named = [
        one
        for one in found
        if not any(o.path.startswith(one.path + "/") and o.bytes > 0.9 * one.bytes for o in found)
    ]
    whole = exit_code != _OVER
    if not whole:
        outer = [one.bytes for one in found if "/" not in one.path]
        total = max(total, sum(outer))
    return FolderUse(bytes=total, largest=tuple(named[:NAMED]), whole=whole)
