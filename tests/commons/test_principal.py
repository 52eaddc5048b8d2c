"""Who asks: the same person by groups, by auth_state and by token; a server is its owner's name."""

from __future__ import annotations

from typing import Any

import pytest

from commons.errors import NotAllowed
from commons.principal import Principal
from commons.scopes import Scope

VISION, NLP, ML = Scope("team", "vision"), Scope("team", "nlp"), Scope("course", "ml101")
GROUPS = ["staff", "team:vision", "team:vision:leads", "team:nlp", "course:ml101:students"]
POSITIONS = {VISION: "lead", NLP: "member", ML: "student"}
SERVER = ["access:servers!server=bob/", "users:activity!user=bob"]
STATE: dict[str, Any] = {
    "uid": 20002,
    "gid": 20000,
    "gids": [20000, 21001],
    "language": "zh-CN",
    "teams": {"vision": "lead", "nlp": "member"},
    "courses": {"ml101": "student"},
}


def model(**more: Any) -> dict[str, Any]:
    return {"name": "bob", "groups": GROUPS, "admin": True, "scopes": [], **more}


def test_groups_and_auth_state_say_the_same_positions() -> None:
    by_groups = Principal.from_groups("bob", False, GROUPS)
    by_state = Principal.from_auth_state("bob", False, STATE)
    assert by_groups.positions == by_state.positions == POSITIONS
    assert by_groups.led == by_state.led == [VISION]
    assert [scope.source for scope in by_state.scopes] == [
        "image", "shared", "team-nlp", "team-vision", "course-ml101", "personal",
    ]  # fmt: skip


def test_the_directory_says_numbers_and_language() -> None:
    found = Principal.from_auth_state("bob", False, STATE)
    assert found.numbers() == (20002, 20000, (21001,))
    assert found.language == "zh-CN"
    for missing in ({}, {"uid": None, "gid": 20000}, {"uid": "x", "gid": 1}):
        nobody = Principal.from_auth_state("bob", False, missing)
        with pytest.raises(NotAllowed, match="account number of “bob”"):
            nobody.numbers()


def test_an_administrator_is_one_by_a_token_that_says_so() -> None:
    assert Principal.from_hub(model(scopes=["admin-ui"])).admin
    assert not Principal.from_hub(model()).admin
    assert not Principal.from_hub(model(scopes=["admin-ui"], admin=False)).admin


def test_a_server_has_its_owners_name_and_nothing_else() -> None:
    found = Principal.from_hub(model(scopes=[*SERVER, "admin-ui"]))
    assert (found.name, found.server) == ("bob", "")
    assert (found.admin, found.positions, found.led) == (False, {}, [])
    assert found.accounts == ("user:bob",)
    for more in ({"admin": True}, {"positions": POSITIONS}):
        with pytest.raises(ValueError, match="nothing else"):
            Principal("bob", server="", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("groups", "accounts"),
    [
        ([], ("user:x",)),
        (["team:a"], ("group:a", "user:x")),
        (["team:a", "course:c:students"], ("group:a", "user:x", "course:c")),
        (["team:b", "team:a"], ("user:x", "group:a", "group:b")),
        (["course:c:instructors"], ("user:x", "course:c")),
    ],
)
def test_the_only_team_is_charged_first_else_the_person(
    groups: list[str], accounts: tuple[str, ...]
) -> None:
    assert Principal.from_groups("x", False, groups).accounts == accounts


def test_a_command_takes_somebody_for_a_lead_of_what_it_is_about() -> None:
    found = Principal.assumed("bob", [VISION, ML, Scope("shared"), Scope("personal", "bob")])
    assert found.positions == {VISION: "lead", ML: "instructor"}
