"""The kernel list of a user's server: every environment at once, by its name."""

from __future__ import annotations

import os
import sys
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from traitlets import Dict, List, Unicode, default

from kernels.discovery import Discovery, Environment, FoundKernel, Source, State
from kernels.kernelspec import kernel_names, native_spec


class CondaKernelSpecManager(KernelSpecManager):
    """Kernels of conda environments, found live, beside the kernelspecs on JUPYTER_PATH.

    Each listing looks at the disk, and reads again only what has changed. Where an
    environment's kernel is also on JUPYTER_PATH (the registry's plain kernelspec, for tools
    without this class), both have one name and the live one is used.
    """

    sources = List(
        Dict(per_key_traits={"id": Unicode(), "pattern": Unicode(), "label": Unicode()}),
        default_value=[
            {"id": "image", "pattern": "/opt/conda/envs/*", "label": ""},
            {"id": "personal", "pattern": "~/.conda/envs/*", "label": "personal"},
        ],
        help="""Where environments are looked for, in order: ``id`` for kernel names,
        ``pattern`` as a glob of prefixes, ``label`` for people (none for the image's own).

        Example::

            c.CondaKernelSpecManager.sources = [
                {"id": "image", "pattern": "/opt/conda/envs/*", "label": ""},
                {"id": "team-bio", "pattern": "/shared/bio/envs/*", "label": "team: bio"},
            ]
        """,
    ).tag(config=True)

    @default("ensure_native_kernel")
    def _no_native_kernel(self) -> bool:
        # The server's own Python is not for people's work.
        return False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._discovery = Discovery()
        self._listed: list[Environment] = []
        self._specs: dict[str, tuple[FoundKernel, KernelSpec]] = {}
        self._said: set[tuple[str, str]] = set()

    def find_kernel_specs(self) -> dict[str, str]:
        """Kernel names and their resource folders."""
        specs = {
            name: folder
            for name, folder in super().find_kernel_specs().items()
            if not self._is_own(folder)
        }
        specs |= {name: found.resource_dir for name, (found, _) in self._scan().items()}
        if self.allowed_kernelspecs:
            specs = {n: folder for n, folder in specs.items() if n in self.allowed_kernelspecs}
        return specs

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The kernelspec of a name. Raises NoSuchKernel."""
        name = kernel_name.lower()
        if self.allowed_kernelspecs and name not in self.allowed_kernelspecs:
            raise NoSuchKernel(kernel_name)
        if found := self._scan().get(name):
            return found[1]
        folder = self._find_spec_directory(name)
        if folder is None or self._is_own(folder):
            raise NoSuchKernel(kernel_name)
        return super().get_kernel_spec(kernel_name)

    def get_all_specs(self) -> dict[str, Any]:
        """Kernel names, with resource folder and kernelspec of each."""
        folders = self.find_kernel_specs()
        listed: dict[str, Any] = {}
        for name, folder in folders.items():
            try:
                mine = self._specs.get(name)
                spec = mine[1] if mine else super().get_kernel_spec(name)
            except NoSuchKernel:
                continue
            except Exception:
                self.log.warning("Kernelspec in %s cannot be used", folder, exc_info=True)
                continue
            listed[name] = {"resource_dir": folder, "spec": spec.to_dict()}
        return listed

    def _is_own(self, folder: str) -> bool:
        """Whether a kernelspec belongs to the server environment, which is never offered."""
        if self.ensure_native_kernel:
            return False
        return os.path.realpath(folder).startswith(os.path.realpath(sys.prefix) + os.sep)

    def _scan(self) -> dict[str, tuple[FoundKernel, KernelSpec]]:
        """All kernels of environments by name; built again only when something changed."""
        environments = self._discovery.scan([Source(**source) for source in self.sources])
        if environments != self._listed:
            self._listed = environments
            self._specs = self._build(environments)
            self._say_problems(environments)
        return self._specs

    def _build(self, environments: list[Environment]) -> dict[str, tuple[FoundKernel, KernelSpec]]:
        kernels = [
            (environment.place, found)
            for environment in environments
            for found in environment.kernels
        ]
        names = kernel_names([(place, found.own_name) for place, found in kernels])
        return {
            name: (
                found,
                KernelSpec(
                    name=name,
                    resource_dir=found.resource_dir,
                    **native_spec(place, found.own_name, found.spec),
                ),
            )
            for name, (place, found) in zip(names, kernels, strict=True)
        }

    def _say_problems(self, environments: list[Environment]) -> None:
        """Log each problem once for as long as it is the same."""
        problems: set[tuple[str, str]] = set()
        for environment in environments:
            prefix = environment.place.prefix
            if environment.state is not State.HEALTHY:
                problems.add((prefix, environment.reason))
            else:
                problems |= {(f"{prefix} ({own})", why) for own, why in environment.problems}
        for where, why in sorted(problems - self._said):
            self.log.warning("Environment %s is not among the kernels: %s", where, why)
        self._said = problems
