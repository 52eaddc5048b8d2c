"""What containers had while they ran, for the history: of what is started, and of what is found."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.orm import Session

from commons.scopes import own_account
from commons.store import Store, runs
from commons.store.models import ServerRun, utcnow
from spawner.gpu.ledger.usage import moment
from spawner.runtime import labels
from spawner.runtime.protocol import ServerState
from spawner.runtime.spec import ServerSpec


def of_spec(key: str, spec: ServerSpec, account: str, environment: str) -> ServerRun:
    """Of one that was started just now."""
    return ServerRun(
        key=key,
        username=spec.user,
        server_name=spec.server,
        account=account,
        environment=environment,
        cpu=spec.limits.cpu,
        memory=spec.limits.guaranteed,
        lease_id=spec.gpus.lease if spec.gpus else None,
        began_at=utcnow(),
    )


def of_container(state: ServerState) -> ServerRun:
    """Of one that nobody wrote down, as its labels say it."""
    marks = state.labels
    return ServerRun(
        key=state.handle,
        username=state.user,
        server_name=state.server,
        account=marks.get(labels.ACCOUNT) or own_account(state.user),
        environment=marks.get(labels.ENVIRONMENT, "").partition(":")[0],
        cpu=_number(marks.get(labels.CPU, "")),
        memory=int(_number(marks.get(labels.MEMORY, ""))),
        lease_id=marks.get(labels.LEASE),
        began_at=moment(state.created),
    )


def _number(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0


async def compare(store: Store, known: set[str], containers: Iterable[ServerState]) -> None:
    """Bring the rows up to what runs. ``known``: those that were taken to run before
    ``containers``, which are all that there are, were listed.
    """
    running = {one.handle: one for one in containers if one.runs}
    new, over = running.keys() - known, known - running.keys()

    def write(session: Session) -> None:
        for key in new:
            runs.found(session, of_container(running[key]))
        runs.gone(session, over, utcnow())

    if new or over:
        await store.run(write)
