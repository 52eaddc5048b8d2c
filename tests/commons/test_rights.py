"""Who may do what: every row of the table, written down once more; and what holds of all rows."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.errors import NotAllowed
from commons.principal import Principal
from commons.rights import METRICS_SCOPE, RIGHTS, Action, Resource, Who, can, check
from commons.scopes import IMAGE, SCOPES, SHARED, Keeper, Scope, personal

from .scopes import KINDS, a_sixth_scope

DOCUMENT = Path(__file__).parents[2] / "docs/rights.md"
VISION, ML, ALICE = Scope("team", "vision"), Scope("course", "ml101"), personal("alice")
SCOPES_ASKED = {"image": IMAGE, "shared": SHARED, "team": VISION, "course": ML, "personal": ALICE}
PEOPLE = {
    "eve": Principal("eve"),  # of nothing
    "max": Principal.from_groups("max", False, ["team:vision", "course:ml101:students"]),
    "lea": Principal.from_groups("lea", False, ["team:vision:leads", "course:ml101:instructors"]),
    "alice": Principal("alice"),
    "hal": Principal("hal"),  # who holds it, or has asked for it
    "carol": Principal("carol", admin=True),
    "tom": Principal("tom", token_scopes=frozenset({METRICS_SCOPE})),
}
ALL = "eve max lea alice hal carol tom"
# For each action: who may, in images and shared, in a team and a course, in what is alice's.
EXPECTED = {
    Action.RUN_JOB: ("", "", "alice"),
    Action.SEE_JOB: ("", "", "alice carol"),
    Action.END_JOB: ("", "", "alice carol"),
    Action.SEE_SERVER: ("hal carol", "hal lea carol", "hal carol"),
    Action.RUN_SERVER: ("hal carol", "hal lea carol", "hal carol"),
    Action.READ_CHANNEL: (ALL, "max lea carol", ""),
    Action.FILL_CHANNEL: ("carol", "lea", ""),
    Action.YANK_PACKAGE: ("carol", "lea carol", ""),
    Action.SEE: (ALL, "max lea carol", "alice carol"),
    Action.USE: (ALL, "max lea", "alice"),
    Action.LOOK: ("", "", "alice"),
    Action.CREATE: ("carol", "lea", "alice"),
    Action.PUBLISH: ("", "lea", ""),
    Action.PROMOTE: ("carol", "", ""),
    Action.DELETE: ("carol", "lea", "alice"),
    Action.DECIDE: ("carol", "lea", "alice"),
    Action.SEE_BUILD: ("hal carol", "hal lea carol", "hal carol"),
    Action.END_BUILD: ("hal carol", "hal lea carol", "hal carol"),
    Action.CHARGE: ("", "max lea", "alice"),
    Action.SEE_LEASE: ("hal carol", "hal lea carol", "hal carol"),
    Action.END_LEASE: ("hal carol", "hal lea carol", "hal carol"),
    Action.EXTEND_LEASE: ("hal carol", "hal lea carol", "hal carol"),
    Action.KEEP_LEASE: ("hal carol", "hal lea carol", "hal carol"),
    Action.READ_QUOTA: (ALL, "max lea carol", "alice carol"),
    Action.READ_USAGE: ("hal carol", "hal lea carol", "hal carol"),
    Action.READ_TOTAL: ("carol", "max lea carol", "carol"),
    Action.LOOK_AFTER: ("carol", "lea carol", "carol"),
    Action.GIVE_UP: ("carol", "lea carol", "carol"),
    Action.START_AHEAD: ("carol", "lea carol", ""),
    Action.RUN_COURSE: ("", "lea carol", ""),
    Action.ATTEND: ("", "lea carol", ""),
    Action.HAND_IN: ("", "max lea hal", ""),
    Action.GRADE: ("", "lea carol", ""),
    Action.ENTER_SHARED: ("", "max lea carol", ""),
    Action.RUN_SHARED: ("", "lea carol", ""),
    Action.MAKE_SHARED: ("", "lea carol", ""),
    Action.ADMINISTER: ("carol", "carol", "carol"),
    Action.READ_METRICS: ("carol tom", "", ""),
}
# What alice's server may do with what is hers alone, and with the lease that it is about.
BY_SERVER = {
    Action.SEE, Action.CREATE, Action.DELETE, Action.DECIDE, Action.SEE_BUILD, Action.END_BUILD,
    Action.SEE_LEASE, Action.EXTEND_LEASE, Action.KEEP_LEASE,
    Action.RUN_JOB, Action.SEE_JOB, Action.END_JOB,
}  # fmt: skip
SERVER = Principal("alice", server="")


@pytest.mark.parametrize(("action", "kind"), list(product(Action, SCOPES_ASKED)))
def test_each_row_lets_those_in_that_it_names_and_tells_the_others_why(
    action: Action, kind: str
) -> None:
    scope = SCOPES_ASKED[kind]
    site, group, person = EXPECTED[action]
    expected = {Keeper.SITE: site, Keeper.GROUP: group, Keeper.PERSON: person}[scope.keeper]
    resource = Resource(scope, holder="hal")
    verdicts = {name: can(who, action, resource) for name, who in PEOPLE.items()}
    assert {name for name, verdict in verdicts.items() if verdict} == set(expected.split())
    for name, verdict in verdicts.items():
        if verdict:
            assert verdict.by
            check(PEOPLE[name], action, resource)
            continue
        assert verdict.reason is not None
        assert "{" not in str(verdict.reason)
        assert "–" not in str(verdict.reason)
        with pytest.raises(NotAllowed) as caught:
            check(PEOPLE[name], action, resource)
        assert (caught.value.code, str(caught.value)) == (
            verdict.reason.code,
            str(verdict.reason),
        )


def test_who_assists_in_a_course_looks_after_its_people_and_changes_nothing_of_it() -> None:
    tim = Principal.from_groups("tim", False, ["course:ml101:assistants"])
    assert {action for action in Action if can(tim, action, ML)} == {
        Action.SEE, Action.USE, Action.CHARGE, Action.READ_QUOTA, Action.READ_TOTAL, Action.ATTEND,
        Action.HAND_IN, Action.GRADE,
        Action.ENTER_SHARED, Action.RUN_SHARED, Action.READ_CHANNEL,
    }  # fmt: skip
    assert can(tim, Action.ATTEND, ML).by == Who.ASSISTANT
    assert not can(tim, Action.ATTEND, Scope("course", "art7"))


def test_every_action_has_its_row_and_its_test() -> None:
    assert set(RIGHTS) == set(Action) == set(EXPECTED)


@pytest.mark.parametrize("action", list(Action))
def test_a_servers_own_token_has_what_is_its_owners_alone(action: Action) -> None:
    mine = Resource(ALICE, holder="alice", server="")
    assert bool(can(SERVER, action, mine)) is (action in BY_SERVER)
    assert bool(can(SERVER, action, replace(mine, server=None))) is (action in BY_SERVER)
    for other in ("second", "?"):
        assert not can(SERVER, action, replace(mine, server=other))
    charged = Resource(VISION, holder="alice", server="")  # her lease, charged to her team
    lease = action in BY_SERVER and "lease" in action
    assert bool(can(SERVER, action, charged)) is (
        lease
        or ("build" in action and action in BY_SERVER)
        or action is Action.HAND_IN  # for its owner, once the hub says that they are in the course
    )
    for scope in (IMAGE, SHARED, VISION, ML, personal("bob")):
        verdict = can(SERVER, action, scope)
        assert not verdict
        assert verdict.reason is not None
        assert verdict.reason.code == "person_wanted"


def test_what_is_hidden_from_a_server_is_not_there_for_it() -> None:
    for action, code in ((Action.SEE_BUILD, "no_build"), (Action.EXTEND_LEASE, "lease_unknown")):
        verdict = can(SERVER, action, Resource(VISION, holder="bob", server=""))
        assert verdict.reason is not None
        assert (verdict.reason.code, verdict.denial and verdict.denial.status) == (code, 404)


def test_an_image_for_some_groups_is_used_by_their_members_and_seen_by_administrators() -> None:
    image = Resource(IMAGE, audience=[VISION, ML])
    users = {name for name, who in PEOPLE.items() if can(who, Action.USE, image)}
    seers = {name for name, who in PEOPLE.items() if can(who, Action.SEE, image)}
    assert (users, seers) == ({"max", "lea"}, {"max", "lea", "carol"})


def test_a_verdict_says_by_what_somebody_may() -> None:
    assert can(PEOPLE["lea"], Action.SEE_BUILD, Resource(VISION, holder="lea")).by == (
        Who.LEAD | Who.HOLDER
    )
    refused = can(PEOPLE["max"], Action.PUBLISH, VISION)
    assert refused.by == Who.LEAD
    assert str(refused.reason).startswith("The environments of “team-vision” are changed by its")


def test_the_table_in_the_documentation_is_this_one() -> None:
    """Written anew with ``LABCOMMONS_WRITE_RIGHTS=1``."""
    rows = []
    for action, right in RIGHTS.items():
        cells = [
            ", ".join(sorted(one.name.lower() for one in who if one.name)) or "–"
            for who in (right.site, right.group, right.person)
        ]
        rows.append(f"| {' | '.join([action, *cells, 'yes' if right.servers else ''])} |\n")
    text = DOCUMENT.read_text()
    before, head, after = text.partition("|---|---|---|---|---|\n")
    rest = after[after.index("\n\n") + 1 :]
    if os.environ.get("LABCOMMONS_WRITE_RIGHTS"):
        DOCUMENT.write_text(text := before + head + "".join(rows) + rest)
    assert text == before + head + "".join(rows) + rest


# -- what holds of all rows -----------------------------------------------------------------------

NAMES = st.sampled_from(["alice", "bob", "vision", ""])
GROUPS = st.sets(
    st.sampled_from(
        [
            "team:vision", "team:vision:leads", "team:bio", "course:ml101:students",
            "course:ml101:instructors", "cohort:vision", "cohort:vision:tutors", "staff",
        ]
    )
)  # fmt: skip
ASKED = st.builds(
    Resource,
    st.builds(Scope, st.sampled_from([*KINDS, "club"]), NAMES | st.just("ml101")),
    holder=NAMES,
    server=st.none() | st.just(""),
    audience=st.lists(st.sampled_from([VISION, ML]), max_size=2),
)
ACTIONS = st.sampled_from([*Action, "fly"])


@given(NAMES, ACTIONS, ASKED)
def test_without_a_position_one_has_ones_own_and_what_is_everybodys(
    name: str, action: str, asked: Resource
) -> None:
    with a_sixth_scope():
        if can(Principal(name), action, asked):
            own = name and name in (asked.holder, asked.scope.owner)
            assert own or (asked.scope.keeper is Keeper.SITE and not asked.audience)


@given(NAMES, st.booleans(), GROUPS, GROUPS, ACTIONS, ASKED)
def test_more_groups_never_take_a_right_away(
    name: str, admin: bool, groups: set[str], more: set[str], action: str, asked: Resource
) -> None:
    with a_sixth_scope():
        if can(Principal.from_groups(name, admin, groups), action, asked):
            assert can(Principal.from_groups(name, admin, groups | more), action, asked)
            assert can(Principal.from_groups(name, True, groups), action, asked)


@given(NAMES, GROUPS, ACTIONS, ASKED)
def test_a_server_may_nothing_that_its_owner_may_not(
    name: str, groups: set[str], action: str, asked: Resource
) -> None:
    with a_sixth_scope():
        if can(Principal(name, server=""), action, asked):
            assert can(Principal.from_groups(name, False, groups), action, asked)
            assert asked.scope == personal(name) or asked.server == ""
            assert name in (asked.holder, asked.scope.owner)


@given(st.text(), st.text(), NAMES)
def test_what_is_in_no_row_nobody_may(action: str, kind: str, name: str) -> None:
    admin = Principal.from_groups("carol", True, ["team:vision:leads"])
    if action not in list(Action):
        assert not can(admin, action, VISION)
        assert can(admin, action, VISION).reason is not None
    if kind not in SCOPES:
        for known in Action:
            assert not can(admin, known, Scope(kind, name))
