"""From groups of the directory to rights here."""

from __future__ import annotations

import pytest

from commons.directory_names import normal_dn
from hub_ext.directory.errors import Denied, NotAdmitted, SettingsError
from hub_ext.directory.groups import Groups
from hub_ext.directory.roles import RoleMap, check_admitted, read_positions, roles_of

GROUPS = Groups(
    names=("Lab-Users", "ml101", "vision", "vision-leads"),
    dns=tuple(normal_dn(f"cn={n},ou=groups,dc=lab") for n in ("vision", "vision-leads")),
)
MAP = RoleMap(
    teams={
        "vision": (("vision-leads",), ("vision",)),
        "speech": (("speech-leads",), ("speech",)),
    },
    courses={"ml101": (("ml101-staff",), ("tutors",), ("ML101",))},
)


def test_the_higher_position_counts_and_case_does_not():
    roles = roles_of(GROUPS, MAP)
    assert roles.teams == {"vision": "lead"}
    assert roles.courses == {"ml101": "student"}


def test_who_assists_is_that_whatever_else_and_has_a_group_of_their_own():
    tutor = roles_of(Groups(names=("Tutors", "ml101")), MAP)
    assert tutor.courses == {"ml101": "assistant"}
    assert "course:ml101:assistants" in tutor.hub_groups
    assert "course:ml101:students" not in tutor.hub_groups
    assert roles_of(Groups(names=("tutors", "ml101-staff")), MAP).courses == {"ml101": "instructor"}
    listed = roles_of(GROUPS, MAP, {"ml101": "assistant"})
    assert listed.courses == {"ml101": "assistant"}


def test_positions_are_groups_of_the_hub():
    names = set(roles_of(GROUPS, MAP).hub_groups)
    assert {"team:vision", "team:vision:leads", "course:ml101:students", "vision"} <= names
    assert "course:ml101:instructors" not in names


def test_a_directorys_group_with_the_name_of_one_of_ours_gives_nothing():
    forged = Groups(names=("team:vision:leads", "Course:ml101:instructors", "x"))
    assert roles_of(forged, MAP).hub_groups == ("x",)


def test_a_site_may_say_which_groups_the_hub_gets():
    mapped = RoleMap(hub_groups={"gpu": ("vision", "speech"), "none": ("speech",)})
    assert roles_of(GROUPS, mapped).hub_groups == ("gpu",)


def test_a_group_may_be_named_by_its_dn():
    right = RoleMap(admins=("CN=vision, ou=groups,dc=lab",))
    wrong = RoleMap(admins=("cn=vision,ou=elsewhere,dc=lab",))
    assert roles_of(GROUPS, right).admin
    assert not roles_of(GROUPS, wrong).admin


def test_denied_wins_over_allowed():
    check_admitted(GROUPS, RoleMap(allowed=("lab-users",)))
    with pytest.raises(NotAdmitted):
        check_admitted(GROUPS, RoleMap(allowed=("others",)))
    with pytest.raises(Denied):
        check_admitted(GROUPS, RoleMap(allowed=("lab-users",), denied=("ml101",)))


def test_a_position_that_does_not_exist_is_named():
    with pytest.raises(SettingsError, match="leads and members"):
        read_positions({"vision": {"boss": ["x"]}}, "teams", "leads", "members")
