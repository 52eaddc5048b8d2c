"""Whether the hub and the agents have read the same site file.

Where they differ the hub goes on: each acts by its own, the agent's decides what may run, and its
refusals say so. What only one of them knows (a new mount, a team) fails until both have read it.
"""

from __future__ import annotations

from commons.errors import LabError, RuntimeSilent
from commons.i18n import N_
from commons.messages import Text
from spawner.runtime.protocol import Node, Runtime

EVERY = 30.0  # seconds between two looks

SITE_FILES_DIFFER = Text(
    "site_files_differ",
    N_(
        "The agent on {node} has read another site file than the hub: what only one of them knows "
        "is refused until both have read the same. Run 'make up' to start them anew."
    ),
)


class SiteFilesDiffer(LabError):
    """Some agent acts by another site file."""


async def compare(runtime: Runtime, ours: str) -> None:
    """Raises SiteFilesDiffer; an agent that does not answer, or does not say, is no news."""
    try:
        nodes = await runtime.nodes()
    except RuntimeSilent:
        return
    for node in differing(nodes, ours):
        raise SiteFilesDiffer(SITE_FILES_DIFFER(node=node))


def differing(nodes: list[Node], ours: str) -> list[str]:
    """The nodes whose agents say that they have read another site file."""
    return [node.name for node in nodes if node.site_digest not in ("", ours)]
