"""How servers end, whoever sees it: the cause is written once, and the person is told.

The cause is written before a server is stopped, and told after it: a hub that is killed in between
loses neither, as the next look at the server tells what is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from commons import notices
from commons.messages import Message
from commons.site import Size
from commons.store import ends
from commons.store.ends import Ending
from commons.store.models import ServerEnd
from spawner.runtime.protocol import ServerState

# Exit codes of what SIGKILL and SIGTERM ended.
KILLED, TERMINATED = 137, 143
NO_SIZES: Mapping[str, Size] = {}


def of_state(state: ServerState | None) -> Ending:
    """How a server ended that nobody of us stopped; None: there is no such container."""
    if state is None:
        return Ending("removed")
    data = {"exit_code": state.exit_code}
    if state.status == "removed":
        return Ending("removed", data=data)
    # The Engine's word alone is no proof: it stands as well where one process of many was ended.
    if state.oom_killed and state.exit_code == KILLED:
        return Ending("out_of_memory", data=data)
    if state.machine_restarted:
        return Ending("machine", data=data)
    if state.engine_restarted:
        return Ending("engine", data=data)
    return Ending("killed" if state.exit_code in (KILLED, TERMINATED) else "ended", data=data)


def said(end: Ending | ServerEnd) -> dict[str, Any]:
    """What its notice has to say; not its log, which is shown on its page."""
    data = {key: value for key, value in end.data.items() if key != "log"}
    return {"by": end.by, "message": end.message, **data}


def tell(session: Session, key: str, sizes: Mapping[str, Size] = NO_SIZES) -> None:
    """Tell the person what is written of this container's end, once; not of their own click."""
    row = ends.of(session, key)
    if row is None or row.cause == "stopped":
        return
    more: Sequence[Message] = ()
    if row.cause == "out_of_memory" and "limit_bytes" in row.data:
        known = [(size.title or name, size.memory_bytes) for name, size in sizes.items()]
        more = notices.about_memory(row.data["limit_bytes"], known)
    notices.add(
        session,
        username=row.username,
        lease_id=row.lease_id,
        server=row.server_name,
        code=row.cause,
        data=said(row),
        more=more,
        # Who holds a lease is told of its end by this key, whoever sees it first.
        key=f"stopped:{row.lease_id or row.key}",
    )
