"""What the agent's machine has left: the kernel's own words, and the disk's."""

from __future__ import annotations

import os
from pathlib import Path

from spawner.runtime.protocol import Free

MEMINFO = Path("/proc/meminfo")


def look(node: str, data: Path) -> Free:
    """At this moment. In a container, too: /proc/meminfo is the machine's."""
    disk = os.statvfs(data)
    lines = (line.split() for line in MEMINFO.read_text("ascii").splitlines())
    found = {line[0]: int(line[1]) * 1024 for line in lines if len(line) > 1}
    return Free(node=node, memory=found["MemAvailable:"], disk=disk.f_bavail * disk.f_frsize)
