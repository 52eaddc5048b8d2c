"""The site's limits of one process: setrlimit(2) and nice(1); and who ends first without memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from contextlib import suppress

from kernels.cgroup import prefer_to_end


def apply(pid: int, limits: Mapping[str, int], nice: int) -> None:
    """Limit a process; 0 is this one. Raises OSError, ValueError.

    ``limits`` are by name (``RLIMIT_NOFILE``), in bytes, seconds or numbers; a lower hard one
    that is in force stays. ``nice`` is on top of our own. Whatever they are, the process ends
    before the server does where there is no memory left.
    """
    with suppress(OSError):  # it has ended
        prefer_to_end(pid or "self")
    for name, wanted in limits.items():
        kind = getattr(resource, name)
        _, hard = resource.prlimit(pid, kind)
        low = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.prlimit(pid, kind, (low, low))
    if nice:
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, pid, min(ours + nice, 19))
