"""Starts a kernel for programs that know nothing of us: activates, then becomes the kernel.

    python -I launch.py KERNELSPEC CONNECTION_FILE

Run by the server's Python, as kernelspecs of ``kernels.mirror`` say; whoever runs it may be any
Jupyter of any environment (papermill in one of the person's own, say). The process stays the
same, so interrupts and waiting work as with any kernel. KERNELSPEC is the mirror's file, which
names the environment. Where that cannot start, the stand-in explains.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":  # run by its path, so that it works wherever it is
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kernels import limits, usage
from kernels.activation import SCRIPT_TIMEOUT, without_active
from kernels.preparation import KernelCannotStart, Start, prepare, stand_in
from kernels.words import in_language, persons_language, say

# The site file's section "kernels", as settings of our classes.
SETTINGS = "LABCOMMONS_KERNEL_SETTINGS"


def command(kernelspec: str) -> list[str]:
    """The argv of a kernel that is started this way."""
    return [sys.executable, "-I", __file__, kernelspec, "{connection_file}"]


def main(kernelspec: str, connection_file: str) -> None:
    """Become the kernel, or what explains why it cannot start."""
    metadata = json.loads(Path(kernelspec).read_bytes())["metadata"]
    settings = json.loads(os.environ.get(SETTINGS) or "{}").get("CondaProvisioner", {})
    try:
        timeout = settings.get("activation_timeout", SCRIPT_TIMEOUT)
        start = prepare(metadata, (), without_active(os.environ), timeout)
        usage.report_apart(Path(kernelspec).parent.name, metadata["labcommons"])
        with suppress(OSError, ValueError):
            limits.apply(0, settings.get("limits", {}), settings.get("nice", 0))
        _become(start, connection_file)
    except OSError as error:
        reason = say("The kernel cannot start: {error}.", error=error.strerror)
    except KernelCannotStart as error:
        reason = str(error)
    _become(stand_in(in_language(persons_language())(reason), os.environ), connection_file)


def _become(start: Start, connection_file: str) -> None:
    """Replace this process. Raises OSError."""
    words = [word.replace("{connection_file}", connection_file) for word in start.argv]
    os.execve(words[0], words, start.env)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
