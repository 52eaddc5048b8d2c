"""What the agent's machine has left: the kernel's own words, and the disks'."""

from __future__ import annotations

from pathlib import Path

from commons.reserve import left
from spawner.runtime.protocol import Free

MEMINFO = Path("/proc/meminfo")

# Both are where the Engine keeps this process's own container: what it may write, and what is known
# of it.
ENGINE = (Path("/"), Path("/etc/hostname"))


def look(node: str, data: Path) -> Free:
    """At this moment. In a container, too: /proc/meminfo is the machine's."""
    lines = (line.split() for line in MEMINFO.read_text("ascii").splitlines())
    found = {line[0]: int(line[1]) * 1024 for line in lines if len(line) > 1}
    # The data folder itself is not there: its folders are mounted one by one. This one is always
    # on its disk, where homes can have another.
    disk = left(data / "agent")
    return Free(node=node, memory=found["MemAvailable:"], disk=disk, engine=of_engine())


def of_engine() -> int:
    """Bytes of the disk on which the Engine makes containers, the fuller one where it has two."""
    return min(left(place) for place in ENGINE)
