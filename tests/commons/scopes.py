"""A sixth scope, made of one row: what holds of every row of the table must hold of it, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from commons.scopes import SCOPES, SERVER_ROOT, Keeper, Position, ScopeKind
from commons.site import Site

COHORT = ScopeKind(
    "cohort",
    Keeper.GROUP,
    title="Cohort {name}",
    phrase="cohort {name}",
    folder="cohorts/{name}",
    mount=f"{SERVER_ROOT}/cohorts/{{name}}",
    kernel_label="cohort: {name}",
    account="cohort",
    section="cohorts",
    positions=(
        Position("tutor", ("cohort:{name}", "cohort:{name}:tutors"), leads=True),
        Position("fellow", ("cohort:{name}",)),
    ),
)
KINDS = [*SCOPES, COHORT.name]


@contextmanager
def a_sixth_scope() -> Iterator[None]:
    """The table has one more row."""
    SCOPES[COHORT.name] = COHORT
    try:
        yield
    finally:
        del SCOPES[COHORT.name]


def site(**sections: dict[str, dict[str, object]]) -> Site:
    """A site with some groups; cohorts, which a site file cannot have, are put into it."""
    cohorts = sections.pop("cohorts", {})
    found = Site.model_validate(
        {
            "version": 1,
            "directory": {
                "servers": ["ldaps://d.example.org"],
                "users": {"base_dn": "dc=x"},
                **sections,
            },
            "sizes": {"small": {"cpu": 1, "memory": "1G"}},
        }
    )
    team = next(iter(found.directory.teams.values()), None)
    object.__setattr__(found.directory, "cohorts", dict.fromkeys(cohorts, team))
    return found
