"""How commands ask for builds in somebody's name, and wait for them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click
from sqlalchemy.orm import Session

from commons.errors import LabError, in_terminal
from commons.principal import Principal
from commons.scopes import Scope, parse_source
from commons.site import load_site
from commons.store import Store
from commons.store.environments import BuildState, EnvironmentBuild
from environments.builds import queue

F = TypeVar("F", bound=Callable[..., Any])
_PAUSE = 0.3  # seconds between two looks at a build


def common(command: F) -> F:
    """The options that all of them have."""
    for decorate in (
        click.option("--user", default="", help="In whose name, and with whose rights."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--wait/--no-wait", default=True, help="Wait until it is done (default)."),
    ):
        command = decorate(command)
    return command


def which_one(which: str) -> tuple[str, str]:
    """SOURCE and NAME of what a command names."""
    source, _, name = which.partition("/")
    if not name:
        raise click.UsageError("write SOURCE/NAME, for example team-vision/torch-study")
    return source, name


def scope_named(source: str, user: str) -> Scope:
    """The scope of a source. Raises UsageError."""
    if source == "personal" and not user:
        raise click.UsageError("whose? name the person with --user")
    try:
        return parse_source(source, user)
    except LabError as error:
        raise click.UsageError(in_terminal(error)) from error


def person_for(user: str, *scopes: Scope) -> Principal:
    """The person as far as this side knows: the hub asks the directory before it starts."""
    return Principal.assumed(user, scopes, admin=True)


def limits() -> Any:
    """What the site file says of builds."""
    return load_site().builds


def ask(work: Callable[[Session], EnvironmentBuild], as_json: bool, wait: bool) -> None:
    """Ask for a job, wait for its end and print what came of it."""
    store = Store()
    try:
        job = store.transact(work)
    except LabError as error:
        raise click.ClickException(in_terminal(error)) from error
    if wait:
        job = _wait(store, job.id)
    row = row_of(job)
    if as_json:
        click.echo(json.dumps(row, indent=2, ensure_ascii=False))
    elif not wait:
        click.echo(f"{row['id']}  {row['state']}")
    if job.state in (BuildState.FAILED, BuildState.CANCELLED):
        raise click.ClickException(job.message or "it was cancelled")
    if wait and not as_json:
        click.echo(f"{row['source']}/{row['name']}  {row['version'] or 'deleted'}")


def _wait(store: Store, job_id: str) -> EnvironmentBuild:
    told = ""
    while True:
        job = store.transact(lambda s: queue.get(s, job_id), read=True)
        if job is None:
            raise click.ClickException("the build was removed meanwhile")
        words = f"[{job.percent:3d}%] {job.message or job.state}"
        if words != told and job.state in queue.LIVE:
            click.echo(words, err=True)
            told = words
        if job.state not in queue.LIVE:
            return job
        time.sleep(_PAUSE)


def row_of(job: EnvironmentBuild) -> dict[str, Any]:
    """A job as JSON-ready data."""
    return {
        "id": job.id,
        "action": job.action,
        "source": queue.scope_of(job).source,
        "owner": job.owner,
        "name": job.name,
        "requested_by": job.requested_by,
        "state": str(job.state),
        "percent": job.percent,
        "message": job.message,
        "version": job.version,
        "queued": f"{job.queued_at.isoformat(timespec='seconds')}Z",
    }
