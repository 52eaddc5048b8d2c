"""What a builder of a moment is asked to do: its step, whose numbers it has, and its job.

Logins, and addresses with a login in them, are given to the steps in which no program of a package
runs, and to no other. Which folders a step is given is decided by who starts it
(``spawner.runtime``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal

from commons.principal import Principal
from commons.scopes import SERVICE_ID, Keeper, Scope, owners, personal
from commons.site import Site
from commons.store.environments import EnvironmentBuild
from environments import own_channels as names
from environments.builds import queue
from environments.credentials import with_files, without_secrets
from spawner.runtime.spec import Account, BuildStep, ImageStep, Limits

DATA = PurePosixPath("/srv/labcommons/data")  # in builders
SERVICE = Account(uid=SERVICE_ID, gid=SERVICE_ID)
# Where packages that wanted a login, and pip's, are in the builders of a job.
PRIVATE = "/private"
NO_VARIABLES: Mapping[str, str] = {}
# Where an installation keeps the packages that it fetched, in the person's own home.
HOME_CACHE = ".cache/labcommons"


def _proxies(variables: Mapping[str, str]) -> list[str]:
    return [value for name, value in variables.items() if name.lower().endswith("_proxy")]


class Works:
    """The works of one site's jobs.

    Args:
        variables: of this machine, for builders: proxies, package indexes.
    """

    def __init__(self, site: Site, variables: Mapping[str, str] = NO_VARIABLES) -> None:
        self.site, self.variables = site, variables

    def lock(self, job: EnvironmentBuild, who: Principal) -> BuildStep:
        """Choose packages, as the user of our services; fetch what wants a login of the site."""
        scope = queue.scope_of(job)
        settings = with_files(self.site.environments)
        payload = self._payload(job, None) | {
            "lock": job.lock,
            "private": PRIVATE,
            "settings": settings.model_dump(mode="json"),
            "own_channels": names.usable(scope, who, self.site),
            # Who comes next may not have the login of the proxy.
            "fetch_all": "@" in "".join(_proxies(self.variables)),
        }
        return BuildStep(
            job_id=job.id,
            step="lock",
            scope=scope.source,
            account=SERVICE,
            limits=self._limits,
            job=_job("lock", payload),
            env=dict(self.variables),
        )

    def image(self, job: EnvironmentBuild) -> ImageStep:
        """Build an image, beside which no program of a package runs."""
        files = {
            "environment.yml": job.spec,
            "labcommons.yml": job.words,
            "pixi.lock": job.lock,
        }
        return ImageStep(
            job_id=job.id,
            limits=self._limits,
            job=_job("image", self._payload(job, None) | self._signing(job)),
            files={f"environments/{job.name}/{name}": text for name, text in files.items() if text},
            env=dict(self.variables),
        )

    def _signing(self, job: EnvironmentBuild) -> dict[str, Any]:
        """What a statement about an image says of this site, and who asked."""
        decided = self.site.signatures.model_dump(mode="json", by_alias=True)
        return {"signatures": decided, "asked_by": job.requested_by}

    def of_person(
        self,
        step: Literal["install", "look", "decide", "delete"],
        job: EnvironmentBuild,
        who: Principal,
        more: dict[str, Any] | None = None,
    ) -> BuildStep:
        """An installation, a change: with the numbers of whoever asked."""
        scope = queue.scope_of(job)
        account = self._account(scope, who)
        payload = self._payload(job, who) | {"lent": str(DATA / "cache")} | (more or {})
        if step == "install":
            payload["private"] = PRIVATE
        if account == SERVICE:
            # Not the site's own cache: images are made from that.
            payload["cache"] = f"{PRIVATE}/cache"
        else:  # the packages are kept in the person's own home
            payload["cache"] = str(personal(who.name).mount / HOME_CACHE)
        return BuildStep(
            job_id=job.id,
            step=step,
            scope=scope.source,
            owner=scope.owner if scope.keeper is Keeper.PERSON else None,
            home=None if account == SERVICE else who.name,
            account=account,
            limits=self._limits,
            job=_job(step, payload),
            env=without_secrets(self.variables),
        )

    @property
    def _limits(self) -> Limits:
        builds = self.site.builds
        return Limits(
            cpu=builds.cpu,
            memory=builds.memory_bytes,
            pids=512,
            shared_memory=2**26,
            tmp=2**31,
        )

    def _account(self, scope: Scope, who: Principal) -> Account:
        """The numbers that a builder runs with: what decides what it may write."""
        if scope.keeper is Keeper.SITE:
            return SERVICE
        uid, gid, gids = who.numbers()
        own = {*gids, *who.group_ids(self.site)}
        if scope.keeper is Keeper.PERSON:
            return Account(uid=uid, gid=gid, gids=tuple(sorted(own - {gid})))
        # Files that are made belong to the members' group.
        members = owners(self.site)[scope].members
        others = {*own, gid} - {members}
        return Account(uid=uid, gid=members, gids=tuple(sorted(others)))

    def _payload(self, job: EnvironmentBuild, who: Principal | None) -> dict[str, Any]:
        """What every work is told."""
        # Without logins: who asks for a build could read what the builder can (but see lock).
        scope = queue.scope_of(job)
        settings = self.site.environments.model_copy(update={"credentials": {}})
        return {
            "name": job.name,
            "spec": job.spec,
            "words": job.words,
            "source": scope.source,
            "environments": str(scope.environments) if scope.has_folder else "",
            "umask": "027" if who is not None and scope.keeper is not Keeper.SITE else "022",
            "settings": settings.model_dump(mode="json"),
            "channel": str(DATA / "channel"),
            "cache": str(DATA / "cache"),
        }


def _job(work: str, payload: Mapping[str, Any]) -> str:
    return json.dumps({**payload, "work": work})
