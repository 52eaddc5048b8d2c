"""What the agent refuses, whoever asks: numbers that are no person's, names that are no ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from commons.errors import RuntimeRefused
from commons.messages import Message
from commons.scopes import account_number, groups_of_site
from spawner.runtime.docker.settings import OWNER, AgentSettings
from spawner.runtime.messages import GID_OUTSIDE, NOT_BY_THE_RULES, UID_OUTSIDE
from spawner.runtime.spec import Account

# Variables that decide what a container may see; never taken from anybody but the lease.
RESERVED_PREFIXES = ("NVIDIA_", "DOCKER_RESOURCE_")
_VARIABLE = re.compile(r"[^=\x00-\x1f\x7f]{1,1000}")
# What a build may be told of this machine: proxies, package indexes, where its offline parts are.
_OF_BUILDS = re.compile(r"(?:(?i:https?|no|all|ftp)_(?i:proxy)|PIP_[A-Z_]+|LABCOMMONS_[A-Z_]+)")


def against_rules(reason: str | Message) -> RuntimeRefused:
    """The refusal of something that no honest hub asks for; a message where people may meet it."""
    said = reason if isinstance(reason, Message) else NOT_BY_THE_RULES(reason=reason)
    error = RuntimeRefused(said)
    error.status = 409
    return error


def check_account(account: Account, settings: AgentSettings) -> None:
    """Raises RuntimeRefused for a number outside the site's range, and for the machine's groups."""
    directory = settings.site.directory
    of_groups = {account_number(scope) for scope in groups_of_site(settings.site)}
    if account.uid in of_groups:
        pass  # whatever numbers people have
    elif not directory.min_uid <= account.uid <= directory.max_uid or account.uid == OWNER:
        raise against_rules(
            UID_OUTSIDE(uid=account.uid, least=directory.min_uid, most=directory.max_uid)
        )
    check_groups((account.gid, *account.gids), settings)


def check_groups(gids: Iterable[int], settings: AgentSettings) -> None:
    """Raises RuntimeRefused."""
    taken = {0, OWNER, *settings.machine_gids}
    for gid in gids:
        if gid < settings.site.directory.min_gid or gid in taken:
            raise against_rules(GID_OUTSIDE(gid=gid))


def variables(env: Mapping[str, str]) -> dict[str, str]:
    """A server's variables, without those that open devices. Raises RuntimeRefused."""
    for name, value in env.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise against_rules(f"{name[:40]!r} is no variable")
    return {n: v for n, v in env.items() if not n.upper().startswith(RESERVED_PREFIXES)}


def build_variables(env: Mapping[str, str]) -> dict[str, str]:
    """A build's variables. Raises RuntimeRefused for one that a program would be led by."""
    variables(env)
    for name in env:
        if not _OF_BUILDS.fullmatch(name):
            raise against_rules(f"{name[:40]!r} is no variable of builds")
    return dict(env)
