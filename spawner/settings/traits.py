"""DockerSpawner with the traits that LabSpawner has: their defaults here, and what is refused."""

from __future__ import annotations

from typing import Any

from dockerspawner import DockerSpawner
from traitlets import default, observe, validate

from commons.web.refused import Refused
from spawner.settings.check import name_prefix, network_name, refusal
from spawner.settings.table import TABLE, UseInstead
from spawner.settings.values import NAME_TEMPLATE, unusable

_REFUSED = [
    name
    for name, rule in TABLE.items()
    if isinstance(rule, UseInstead) and name in DockerSpawner.class_traits()
]


class DockerSettings(DockerSpawner):  # type: ignore[misc]
    """The settings of JupyterHub's and DockerSpawner's; what they do: docs/dockerspawner.md."""

    @default("network_name")
    def _default_network_name(self) -> str:
        return network_name(self.resources.site)

    @default("name_template")
    def _default_name_template(self) -> str:
        return NAME_TEMPLATE

    @default("prefix")
    def _default_prefix(self) -> str:
        return name_prefix()

    @default("start_timeout")
    def _default_start_timeout(self) -> int:
        return int(self.resources.site.servers.start_timeout)

    @default("image")
    def _default_image(self) -> str:
        return ""

    @default("pull_policy")
    def _default_pull_policy(self) -> str:
        return "never"

    @default("remove")
    def _default_remove(self) -> bool:
        return True

    @validate("mem_limit")
    def _mem_limit_str(self, proposal: Any) -> Any:
        """A callable is asked at each start, when the person is known; not once, as upstream."""
        return proposal.value

    @validate("cpu_limit")
    def _cast_cpu_limit(self, proposal: Any) -> Any:
        return proposal.value

    @observe(*_REFUSED)
    def _without_effect(self, change: Any) -> None:
        """By a group, a hook or an option; what the configuration says, stops the hub before."""
        if wrong := refusal(change.name, change.new):
            self.log.error("%s", wrong)
            raise Refused(unusable(wrong), lambda message: message)
