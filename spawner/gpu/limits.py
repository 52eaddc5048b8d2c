"""Which limits concern a request, and which subject of the quotas document says them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from spawner.gpu.state import Budget, Quota, Subject

NO_QUOTA = Quota()


@dataclass(frozen=True)
class Scope:
    """Whose GPUs are counted together; "" leaves out a part of the question.

    ``Scope("alice")`` is all that alice holds, ``Scope("alice", "group:vision")`` what she holds
    for vision, ``Scope("", "group:vision", "A100")`` all A100 of vision. A limit of the default
    names its field of ``Quota`` in ``unless``: what is charged to an account that says that field
    itself is under that account's limit, and does not count here.
    """

    user: str = ""
    account: Subject = ""
    model: str = ""
    unless: str = ""

    def counts(
        self, user: str, account: Subject, model: str, quotas: Mapping[Subject, Quota]
    ) -> bool:
        """Whether a lease of this person, account and model is counted."""
        if (
            self.user not in ("", user)
            or self.account not in ("", account)
            or self.model not in ("", model)
        ):
            return False
        if not self.unless:
            return True
        said = getattr(quotas.get(account, NO_QUOTA), self.unless)
        return self.model not in said if isinstance(said, Mapping) else said is None


@dataclass(frozen=True)
class Limit:
    """At most ``most`` GPUs of a scope at once, because ``source`` says so.

    ``code`` is that of the reason why something waits for it.
    """

    code: Literal["person_gpus", "person_type", "group_gpus", "group_type"]
    source: Subject
    scope: Scope
    most: int


@dataclass(frozen=True)
class BudgetLimit:
    """A budget that a lease is charged to. ``key`` names it in ``Usage.budgets``."""

    code: Literal["person_budget", "group_budget"]
    key: str
    source: Subject
    scope: Scope
    budget: Budget


def person_subjects(user: str, account: Subject) -> tuple[Subject, ...]:
    """Where a limit of a person is looked up: the person, the account charged, the default."""
    return tuple(dict.fromkeys((f"user:{user}", account, "default")))


def _said(
    user: str, account: Subject, quotas: Mapping[Subject, Quota]
) -> list[tuple[Subject, Quota]]:
    """The quotas that say something of a person, the one that wins first."""
    return [(s, quotas[s]) for s in person_subjects(user, account) if s in quotas]


def person_limit(
    field: str, user: str, account: Subject, quotas: Mapping[Subject, Quota]
) -> tuple[Any, Subject] | None:
    """What holds for a person for one field of ``Quota``, and which subject says it."""
    for subject, quota in _said(user, account, quotas):
        value = getattr(quota, field)
        if value is not None:
            return value, subject
    return None


def person_scope(field: str, user: str, account: Subject, source: Subject) -> Scope:
    """What a limit of a person counts, by who says it: what it limits, and nothing else."""
    if source == f"user:{user}":
        return Scope(user)
    if source == account:
        return Scope(user, account)
    return Scope(user, unless=field)


def count_limits(user: str, account: Subject, quotas: Mapping[Subject, Quota]) -> tuple[Limit, ...]:
    """All limits on GPUs at once that concern a person charging an account."""
    return (*person_counts(user, account, quotas), *group_counts(account, quotas))


def person_counts(user: str, account: Subject, quotas: Mapping[Subject, Quota]) -> Iterator[Limit]:
    """The limits on what the person holds."""
    general, models = False, set()
    for source, quota in _said(user, account, quotas):
        if quota.max_gpus is not None and not general:
            general = True
            scope = person_scope("max_gpus", user, account, source)
            yield Limit("person_gpus", source, scope, quota.max_gpus)
        for model, most in quota.max_by_type.items():
            if model not in models:
                models.add(model)
                scope = replace(person_scope("max_by_type", user, account, source), model=model)
                yield Limit("person_type", source, scope, most)


def group_counts(account: Subject, quotas: Mapping[Subject, Quota]) -> Iterator[Limit]:
    """The limits on what all people of an account hold."""
    quota = quotas.get(account, NO_QUOTA)
    if quota.grp_gpus is not None:
        yield Limit("group_gpus", account, Scope("", account), quota.grp_gpus)
    for model, most in quota.grp_by_type.items():
        yield Limit("group_type", account, Scope("", account, model), most)


def budget_limits(
    user: str, account: Subject, quotas: Mapping[Subject, Quota]
) -> tuple[BudgetLimit, ...]:
    """All budgets that a lease of a person, charged to an account, counts against."""
    return (*person_budgets(user, account, quotas), *group_budgets(account, quotas))


def person_budgets(
    user: str, account: Subject, quotas: Mapping[Subject, Quota]
) -> Iterator[BudgetLimit]:
    """The budget of the person."""
    found = person_limit("budget", user, account, quotas)
    if found:
        budget, source = found
        scope = person_scope("budget", user, account, source)
        key = f"{account}/{user}" if scope.account else f"user:{user}"
        yield BudgetLimit("person_budget", key, source, scope, budget)


def group_budgets(account: Subject, quotas: Mapping[Subject, Quota]) -> Iterator[BudgetLimit]:
    """The budget of all people of an account together."""
    budget = quotas.get(account, NO_QUOTA).grp_budget
    if budget is not None:
        yield BudgetLimit("group_budget", account, account, Scope("", account), budget)
