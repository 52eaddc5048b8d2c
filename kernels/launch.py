"""Starts a kernel for programs that know nothing of us: activates, then becomes the kernel.

    python -I launch.py KERNELSPEC CONNECTION_FILE [WORDS]

Run by the server's Python, as kernelspecs of ``kernels.mirror`` say; whoever runs it may be any
Jupyter of any environment (papermill in one of the person's own, say). The process stays the
same, so interrupts and waiting work as with any kernel. KERNELSPEC is the mirror's file, which
names the environment; or it is one of a name of elsewhere (``python3``), which means the active
environment's kernel, as in a shell, and otherwise the one that it ``stands_for``. Where a kernel
cannot start, the stand-in explains.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run by its path, so that it works wherever it is
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kernels import limits, usage
from kernels.activation import SCRIPT_TIMEOUT, without_active
from kernels.messages import persons_language, say, why
from kernels.preparation import KernelCannotStart, Start, prepare, stand_in

# The site file's section "kernels", as settings of our classes.
SETTINGS = "LABCOMMONS_KERNEL_SETTINGS"


def command(kernelspec: str) -> list[str]:
    """The argv of a kernel that is started this way."""
    return [sys.executable, "-I", __file__, kernelspec, "{connection_file}"]


def main(kernelspec: str, connection_file: str, *more: str) -> None:
    """Become the kernel, or what explains why it cannot start.

    ``more`` is for the kernel: nbclient has some for those that are called ``python3``.
    """
    kernelspec = meant(kernelspec, os.environ.get("CONDA_PREFIX", ""))
    metadata = json.loads(Path(kernelspec).read_bytes())["metadata"]
    settings = json.loads(os.environ.get(SETTINGS) or "{}").get("CondaProvisioner", {})
    try:
        timeout = settings.get("activation_timeout", SCRIPT_TIMEOUT)
        start = prepare(metadata, (), without_active(os.environ), timeout)
        usage.report_apart(Path(kernelspec).parent.name, metadata["labcommons"])
        with suppress(OSError, ValueError):
            limits.apply(0, settings.get("limits", {}), settings.get("nice", 0))
        _become(replace(start, argv=(*start.argv, *more)), connection_file)
    except OSError as error:
        reason = say("kernel_cannot_start", error=why(error))
    except KernelCannotStart as error:
        reason = error.message
    _become(stand_in(reason.in_words(persons_language()), os.environ), connection_file)


def meant(kernelspec: str, active: str) -> str:
    """The file of the kernel that one of a name of elsewhere means; any other is itself."""
    file = Path(kernelspec)
    language, mark = _said(file)
    if "stands_for" not in mark:
        return kernelspec
    if active and not mark.get("fixed"):
        real = os.path.realpath(active)
        for other in sorted(file.parents[1].glob("conda-*/kernel.json")):
            theirs, of = _said(other)
            prefix = of.get("prefix")
            if theirs == language and isinstance(prefix, str) and os.path.realpath(prefix) == real:
                return str(other)
    # By its name alone it is not found where nothing stands for it, and prepare says so.
    return str(file.parents[1] / (mark["stands_for"] or file.parent.name) / file.name)


def _said(file: Path) -> tuple[str, Mapping[str, Any]]:
    """The language and our mark of a kernelspec; of one that is not ours, none."""
    try:
        document = json.loads(file.read_bytes())
        mark = document["metadata"]["labcommons"]
        return str(document["language"]).lower(), mark if isinstance(mark, Mapping) else {}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "", {}


def _become(start: Start, connection_file: str) -> None:
    """Replace this process. Raises OSError."""
    words = [word.replace("{connection_file}", connection_file) for word in start.argv]
    os.execve(words[0], words, start.env)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
