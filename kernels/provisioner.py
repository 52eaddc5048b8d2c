"""The provisioner ``labcommons-conda``: a kernel in its activated conda environment."""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import Mapping, Sequence
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Float

from kernels.activation import SCRIPT_TIMEOUT, ActivationError, Activator
from kernels.discovery import check_program, how_to_install
from kernels.kernelspec import SpecError

# The module that ipykernel's kernelspec starts: python -m ipykernel_launcher.
_LAUNCHER = "ipykernel_launcher"
# Shared by all kernels of the process, for what it remembers.
_ACTIVATOR = Activator()


class KernelCannotStart(RuntimeError):
    """Why a kernel cannot start and what to do, in words that the notebook shows."""


class CondaProvisioner(LocalProvisioner):
    """Starts a kernel as a shell would in which its environment was activated.

    The environment is the one that ``metadata.labcommons.prefix`` of the kernelspec names.
    """

    activation_timeout = Float(
        SCRIPT_TIMEOUT,
        min=0.1,
        help="""Seconds that an environment's activation scripts may take before the start is
        given up, e.g. ``c.CondaProvisioner.activation_timeout = 60``.""",
    ).tag(config=True)

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Check and activate the environment. Raises KernelCannotStart."""
        prefix = self._prefix()
        base = dict(kwargs.pop("env", os.environ))
        # A restart comes here too: by now the environment may have changed, or be gone.
        environment = await asyncio.to_thread(
            prepare, prefix, self.kernel_spec.argv, base, self.activation_timeout
        )
        prepared: dict[str, Any] = await super().pre_launch(env=environment, **kwargs)
        return prepared

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the process. Raises KernelCannotStart."""
        try:
            return await super().launch_kernel(cmd, **kwargs)
        except OSError as error:
            raise KernelCannotStart(
                f"The kernel cannot start: {cmd[0]}: {error.strerror}. If the environment was "
                "moved, create it again; else ask an administrator."
            ) from error

    def _prefix(self) -> str:
        known = self.kernel_spec.metadata.get("labcommons")
        prefix = known.get("prefix") if isinstance(known, dict) else None
        if not isinstance(prefix, str) or not os.path.isabs(prefix) or not self.kernel_spec.argv:
            raise KernelCannotStart(
                f"The kernel {self.kernel_spec.display_name!r} names no environment to start in; "
                "choose another kernel from the list."
            )
        return prefix


def prepare(
    prefix: str, argv: Sequence[str], base: Mapping[str, str], timeout: float
) -> dict[str, str]:
    """The variables for a kernel in a prefix, once it is sure that it can start there.

    Raises KernelCannotStart with cause and remedy. Reads the disk and may run activation
    scripts for ``timeout`` seconds: not for an event loop.
    """
    try:
        os.stat(f"{prefix}/conda-meta")
    except PermissionError as error:
        raise KernelCannotStart(
            f"You may not read the environment {prefix}. Ask whoever maintains it for access, "
            "or choose another kernel."
        ) from error
    except OSError as error:
        raise KernelCannotStart(
            f"The environment {prefix} is gone. Choose another kernel, or create it again."
        ) from error
    try:
        check_program(argv[0])
    except SpecError as error:
        raise KernelCannotStart(
            f"The kernel of {prefix} cannot start: {error}. To repair it, {how_to_install(prefix)}"
        ) from error
    try:
        variables = _ACTIVATOR.activate(prefix, base, timeout)
    except ActivationError as error:
        raise KernelCannotStart(f"The kernel cannot start: {error}.") from error
    if _LAUNCHER in argv and "PYTHONPATH" not in variables and not may_have_ipykernel(prefix):
        raise KernelCannotStart(
            f"The environment {prefix} has a kernelspec, but no ipykernel to run it; "
            f"{how_to_install(prefix)}"
        )
    return variables


def may_have_ipykernel(prefix: str) -> bool:
    """False only where its own packages are plainly without ipykernel.

    A ``.pth`` file or a ``pyvenv.cfg`` can bring packages from elsewhere.
    """
    if os.path.exists(f"{prefix}/pyvenv.cfg"):
        return True
    for folder in glob.glob(f"{glob.escape(prefix)}/lib/python3*/site-packages"):
        if os.path.exists(f"{folder}/{_LAUNCHER}.py") or glob.glob(f"{glob.escape(folder)}/*.pth"):
            return True
    return False
