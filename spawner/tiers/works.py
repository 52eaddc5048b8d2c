"""What a builder of a moment is given: its task, its account, and no more folders than it needs.

Logins, and addresses with a login in them, are given to the works in which no program of a package
runs, and to no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hub_ext.store.environments import EnvironmentBuild
from spawner.environments.credentials import LOGINS, with_files
from spawner.environments.files import BYTECODE
from spawner.resources import Resources
from spawner.tiers import jobs
from spawner.tiers.body import DATA, SERVICE, Account, Mount
from spawner.tiers.builders import Work
from spawner.tiers.groups import SHARED_OWNER, group_ids, owners
from spawner.tiers.machine import Machine
from spawner.tiers.people import Requester
from spawner.tiers.tier import Kind, Tier

# Packages that wanted a login, and pip's: in a job's folder, and at the root of its builders.
PRIVATE = "private"
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

    def __init__(self, resources: Resources, variables: Mapping[str, str] = NO_VARIABLES) -> None:
        self.shared, self.variables = resources, variables

    def lock(self, job: EnvironmentBuild) -> Work:
        """Choose packages, as the user of our services; fetch what wants a login of the site."""
        settings = with_files(self.shared.site.environments)
        payload = self._payload(job, None) | {
            "lock": job.lock,
            "private": f"/{PRIVATE}",
            "settings": settings.model_dump(mode="json"),
            # Who comes next may not have the login of the proxy.
            "fetch_all": "@" in "".join(_proxies(self.variables)),
        }
        mounts = [*self._data("channel", "cache"), self._private(job, read_only=False)]
        if settings.credentials:
            mounts.append(Mount(str(self.shared.host_data / "logins"), str(LOGINS)))
        return Work("lock", payload, SERVICE, mounts, trusted=True)

    def image(self, job: EnvironmentBuild, machine: Machine) -> Work:
        """Build an image, with Docker's socket, beside which no program of a package runs."""
        files = {
            f"environments/{job.name}/environment.yml": job.spec,
            **({f"environments/{job.name}/labcommons.yml": job.words} if job.words else {}),
            **({f"environments/{job.name}/pixi.lock": job.lock} if job.lock else {}),
        }
        mounts = self._data("channel", "cache", "locks", "store", "versions", "logs")
        mounts.append(self._read("advisories"))
        mounts.append(Mount(machine.socket, "/var/run/docker.sock", read_only=False))
        pgpass = self.shared.host_data / "secrets" / "pgpass"
        mounts.append(Mount(str(pgpass), "/run/labcommons/pgpass"))
        return Work(
            "image",
            self._payload(job, None),
            Account(SHARED_OWNER, SHARED_OWNER, (machine.group,)),
            mounts,
            network=machine.network,
            env=machine.variables,
            files=files,
            trusted=True,
        )

    def of_person(
        self,
        name: str,
        job: EnvironmentBuild,
        who: Requester,
        more: dict[str, Any] | None = None,
    ) -> Work:
        """An installation, a change: with the numbers of whoever asked."""
        tier, host = jobs.tier_of(job), self.shared.host_data
        account = self._account(tier, who)
        mounts = [
            self._read("channel"),
            self._read("advisories"),
            Mount(str(host / tier.folder), str(tier.mount), read_only=False),
        ]
        bytecode = Path("cache", BYTECODE)  # that the site's own builds have compiled
        if (self.shared.data / bytecode).is_dir():
            mounts.append(self._read(bytecode))
        payload = self._payload(job, who) | {"lent": str(DATA / "cache")} | (more or {})
        if name == "install":
            mounts.append(self._private(job, read_only=account != SERVICE))
            payload["private"] = f"/{PRIVATE}"
        if account == SERVICE:
            # Not the site's own cache: images are made from that.
            return Work(name, payload | {"cache": f"/{PRIVATE}/cache"}, account, mounts)
        assert who.identity is not None
        home = Tier(Kind.PERSONAL, who.identity.name)
        if tier != home:  # for the packages that are kept there
            mounts.append(Mount(str(host / home.folder), str(home.mount), read_only=False))
        cache = {"cache": str(home.mount / HOME_CACHE)}
        return Work(name, payload | cache, account, mounts, home=str(home.mount))

    def _read(self, name: str | Path) -> Mount:
        """A folder of the data folder, to read."""
        return Mount(str(self.shared.host_data / name), str(DATA / name))

    def _data(self, *names: str) -> list[Mount]:
        """Folders of the data folder, to write to."""
        return [
            Mount(str(self.shared.host_data / name), str(DATA / name), read_only=False)
            for name in names
        ]

    def _private(self, job: EnvironmentBuild, read_only: bool = True) -> Mount:
        """What was fetched for a job with the site's logins."""
        place = self.shared.host_data / "builds" / job.id / PRIVATE
        return Mount(str(place), f"/{PRIVATE}", read_only)

    def _account(self, tier: Tier, who: Requester) -> Account:
        """The numbers that a builder runs with: what decides what it may write."""
        if tier.kind is Kind.SHARED or who.identity is None:
            return SERVICE
        me = who.identity
        own = {*me.gids, *group_ids(self.shared.site, who.person)}
        if tier.kind is Kind.PERSONAL:
            return Account(me.uid, me.gid, tuple(sorted(own)))
        # Files that are made belong to the members' group.
        members = owners(self.shared.site)[tier].members
        return Account(me.uid, members, tuple(sorted({*own, me.gid} - {members})))

    def _payload(self, job: EnvironmentBuild, who: Requester | None) -> dict[str, Any]:
        """What every work is told."""
        # Without logins: who asks for a build could read what the builder can (but see lock).
        tier = jobs.tier_of(job)
        settings = self.shared.site.environments.model_copy(update={"credentials": {}})
        return {
            "name": job.name,
            "spec": job.spec,
            "words": job.words,
            "source": tier.source,
            "environments": "" if tier.kind is Kind.IMAGE else str(tier.environments),
            "umask": "027" if who is not None and tier.kind is not Kind.SHARED else "022",
            "settings": settings.model_dump(mode="json"),
            "channel": str(DATA / "channel"),
            "cache": str(DATA / "cache"),
        }
