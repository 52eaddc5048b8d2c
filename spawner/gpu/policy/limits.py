"""Which limits concern a request, and which subject of the quotas document says them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from commons.scopes import DEFAULT, own_account
from spawner.gpu.policy.state import Budget, Quota, Subject

NO_QUOTA = Quota()


class LimitScope(NamedTuple):
    """Whose GPUs are counted together; "" leaves out a part of the question.

    ``LimitScope("alice")`` is all that alice holds, ``LimitScope("alice", "group:vision")`` what
    she holds for vision, ``LimitScope("", "group:vision", "A100")`` all A100 of vision. A limit
    of the default names its field of ``Quota`` in ``unless``: what is charged to an account that
    says that field itself is under that account's limit, and does not count here.
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


class Limit(NamedTuple):
    """At most ``most`` GPUs of a scope at once, because ``source`` says so.

    ``code`` is that of the reason why something waits for it.
    """

    code: Literal[
        "person_gpus", "person_type", "person_own", "person_ceiling", "group_gpus", "group_type"
    ]
    source: Subject
    scope: LimitScope
    most: int


class BudgetLimit(NamedTuple):
    """A budget that a lease is charged to. ``key`` names it in ``Usage.budgets``."""

    code: Literal["person_budget", "group_budget"]
    key: str
    source: Subject
    scope: LimitScope
    budget: Budget

    def of(self, user: str) -> BudgetLimit:
        """The same budget of a person, of another one."""
        scope = self.scope._replace(user=user)
        return self._replace(key=_budget_key(user, scope), scope=scope)


def person_subjects(user: str, account: Subject) -> tuple[Subject, ...]:
    """Where a limit of a person is looked up: the person, the account charged, the default."""
    own = own_account(user)
    return (own, DEFAULT) if account == own else (own, account, DEFAULT)


def person_limit(
    field: str, user: str, account: Subject, quotas: Mapping[Subject, Quota]
) -> tuple[Any, Subject] | None:
    """What holds for a person for one field of ``Quota``, and which subject says it."""
    for subject in person_subjects(user, account):
        value = getattr(quotas.get(subject, NO_QUOTA), field)
        if value is not None:
            return value, subject
    return None


def usual_time_limit(user: str, account: Subject, quotas: Mapping[Subject, Quota]) -> float | None:
    """Seconds that count where no time limit is asked for: the default, within the most."""
    found = (
        person_limit(field, user, account, quotas) for field in ("default_time_limit", "time_limit")
    )
    return min((float(one[0]) for one in found if one), default=None)


def person_scope(field: str, user: str, account: Subject, source: Subject) -> LimitScope:
    """What a limit of a person counts, by who says it: what it limits, and nothing else."""
    if source == own_account(user):
        return LimitScope(user)
    if source == account:
        return LimitScope(user, account)
    return LimitScope(user, unless=field)


def count_limits(user: str, account: Subject, quotas: Mapping[Subject, Quota]) -> tuple[Limit, ...]:
    """All limits on GPUs at once that concern a person charging an account."""
    return (*person_counts(user, account, quotas), *group_counts(account, quotas))


def person_counts(user: str, account: Subject, quotas: Mapping[Subject, Quota]) -> Iterator[Limit]:
    """The limits on what the person holds."""
    general, models = False, set()
    for source in person_subjects(user, account):
        quota = quotas.get(source, NO_QUOTA)
        if quota.max_gpus is not None and not general:
            general = True
            scope = person_scope("max_gpus", user, account, source)
            yield Limit("person_gpus", source, scope, quota.max_gpus)
        for model, most in quota.max_by_type.items():
            if model not in models:
                models.add(model)
                scope = person_scope("max_by_type", user, account, source)._replace(model=model)
                yield Limit("person_type", source, scope, most)
    if account == own_account(user):
        own = person_limit("own_gpus", user, account, quotas)
        if own:
            yield Limit("person_own", own[1], LimitScope(user, account), own[0])


def person_ceiling(
    user: str, accounts: Collection[Subject], quotas: Mapping[Subject, Quota]
) -> Limit | None:
    """The most that a person holds over all accounts together; ``accounts`` are those they use.

    What ``user:NAME`` says (its ``max_gpus`` counts all anyhow), else the ceiling of the default.
    Where nobody says one, using several accounts gives no more than the most generous of them does.
    """
    own, scope = quotas.get(own_account(user), NO_QUOTA), LimitScope(user)
    if own.ceiling is not None:
        return Limit("person_ceiling", own_account(user), scope, own.ceiling)
    if own.max_gpus is not None:
        return None
    general = quotas.get(DEFAULT, NO_QUOTA).ceiling
    if general is not None:
        return Limit("person_ceiling", DEFAULT, scope, general)
    if len(accounts) < 2:
        return None
    said = [person_limit("max_gpus", user, account, quotas) for account in sorted(accounts)]
    found = [one for one in said if one]
    if len(found) < len(said):
        return None
    most, source = max(found, key=lambda one: int(one[0]))
    return Limit("person_ceiling", source, scope, most)


def group_counts(account: Subject, quotas: Mapping[Subject, Quota]) -> Iterator[Limit]:
    """The limits on what all people of an account hold."""
    quota = quotas.get(account, NO_QUOTA)
    if quota.grp_gpus is not None:
        yield Limit("group_gpus", account, LimitScope("", account), quota.grp_gpus)
    for model, most in quota.grp_by_type.items():
        yield Limit("group_type", account, LimitScope("", account, model), most)


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
        yield BudgetLimit("person_budget", _budget_key(user, scope), source, scope, budget)


def _budget_key(user: str, scope: LimitScope) -> str:
    return f"{scope.account}/{user}" if scope.account else own_account(user)


def group_budgets(account: Subject, quotas: Mapping[Subject, Quota]) -> Iterator[BudgetLimit]:
    """The budget of all people of an account together."""
    budget = quotas.get(account, NO_QUOTA).grp_budget
    if budget is not None:
        yield BudgetLimit("group_budget", account, account, LimitScope("", account), budget)
