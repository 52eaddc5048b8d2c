"""The agent as a program of its own, with real certificates: to be killed at any moment.

``LCTEST_DIE_AT=create`` and the like: it kills itself (SIGKILL) as soon as the Engine has carried
out a call of that name for the second argument after the colon, as in ``start:1``.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from docker.api.client import APIClient


def arm(when: str) -> None:
    """Die right after the ``number``th call of a method of Docker's client."""
    method, _, number = when.partition(":")
    left = int(number or 1)
    whole = getattr(APIClient, method)

    def dying(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal left
        found = whole(self, *args, **kwargs)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(APIClient, method, dying)


if __name__ == "__main__":
    from spawner.runtime.agent.__main__ import main

    if when := os.environ.get("LCTEST_DIE_AT"):
        arm(when)
    sys.exit(main())
