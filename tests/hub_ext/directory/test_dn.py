"""Distinguished names, however they are written, are the same or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.directory_names import MAX_DN, InvalidDN, check_group, normal_dn, parse_dn, prepared
from hub_ext.directory.errors import Denied, SettingsError
from hub_ext.directory.groups import Groups
from hub_ext.directory.roles import RoleMap, check_admitted, read_groups_of, roles_of

SUSPENDED = "cn=Suspended #2,ou=groups,dc=lab"
SAME = (
    ("cn=Suspended #2, ou=groups, dc=lab", SUSPENDED),
    ("CN = suspended  #2 ; OU=Groups;DC=LAB", SUSPENDED),
    (
        "2.5.4.3=Suspended #2,organizationalUnitName=groups,0.9.2342.19200300.100.1.25=lab",
        SUSPENDED,
    ),
    ("OID.2.5.4.3=Suspended #2,ou=groups,dc=lab", SUSPENDED),
    ('cn="Suspended #2",ou=groups,dc=lab', SUSPENDED),
    (r"cn=Suspended\20\232,ou=groups,dc=lab", SUSPENDED),
    (r"cn=\53uspended \#2,ou=groups,dc=lab", SUSPENDED),
    ("cn=#0c0c53757370656e646564202332,ou=groups,dc=lab", SUSPENDED),
    ("cn=#040C53757370656e646564202332,ou=groups,dc=lab", SUSPENDED),
    (b"cn=Suspended #2,ou=groups,dc=lab", SUSPENDED),
    ("cn=Sus\u00adpended\u200b #2,ou=groups,dc=lab", SUSPENDED),
    ("cn=Suspended\u00a0#2,ou=groups,dc=lab", SUSPENDED),
    ("ou=b+cn=a,dc=lab", "cn=A + ou=B,dc=lab"),
    (r"cn=a\,b,dc=lab", r'cn="a,b",dc=lab'),
    (r"cn=a\2Cb\3Dc,dc=lab", r"cn=a\,b=c,dc=lab"),
    ("cn=Zu\u0308rich,dc=lab", r"cn=z\C3\BCrich,dc=lab"),
    ("cn=STRASSE,dc=lab", "cn=straße,dc=lab"),
    ("cn=ﬁnance,dc=lab", "cn=Finance,dc=lab"),
    (r"cn=\ a\ ,dc=lab", "cn=a,dc=lab"),
    ("cn=研究,dc=lab", r"cn=\E7\A0\94\E7\A9\B6,dc=lab"),
    ("cn=C#/F#,dc=lab", r"cn=C\23/F\#,dc=lab"),
    ("cn=<all> users,dc=lab", r"cn=\<all\> users,dc=lab"),
)
DIFFERENT = (
    ("cn=Suspended #2,ou=groups,dc=lab", "cn=Suspended #20,ou=groups,dc=lab"),
    ("cn=a,dc=lab", "cn=a,ou=x,dc=lab"),
    (r"cn=a\,b,dc=lab", "cn=a,cn=b,dc=lab"),
    ("cn=a+ou=b,dc=lab", "cn=a,ou=b,dc=lab"),
    (r"cn=a\+ou\=b,dc=lab", "cn=a+ou=b,dc=lab"),
    ("cn=a,dc=lab", "uid=a,dc=lab"),
    (r"cn=\FF,dc=lab", r"cn=\FE,dc=lab"),
    ("cn=#300a,dc=lab", r"cn=\#300b,dc=lab"),
    (r"cn=a\\,dc=lab", r"cn=a,dc=lab"),
)
WRONG = (
    "", " ", "staff", "cn", "=a,dc=lab", "cn=a,", "cn=a,dc", "cn=a,,dc=lab", "cn=#2 all,dc=lab",
    'cn="a,dc=lab', 'cn=a"b,dc=lab', "cn=a\\", "cn=a,dc=lab\\", "c n=a,dc=lab", "cn=#0,dc=lab",
    "cn=" + "a" * MAX_DN, "cn=\ud800,dc=lab",
)  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_name_written_in_another_way(one, other):
    assert normal_dn(one) == normal_dn(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_another_name(one, other):
    assert normal_dn(one) != normal_dn(other)


@pytest.mark.parametrize("text", WRONG)
def test_what_is_none_is_said_to_be_none(text):
    with pytest.raises(InvalidDN):
        normal_dn(text)


@given(st.text(max_size=300) | st.binary(max_size=300))
def test_nothing_else_is_ever_raised_and_the_form_is_its_own(text):
    try:
        once = normal_dn(text)
    except InvalidDN:
        return
    assert normal_dn(once) == once


@pytest.mark.parametrize("text", ["cn=" + '"' * 16_000, "+" * 16_000, "cn=a" + "\\" * 15_001])
def test_the_longest_nonsense_is_answered_with_a_short_word(text):
    with pytest.raises(InvalidDN) as caught:
        normal_dn(text)
    assert len(str(caught.value)) < 300


VALUES = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=20
).filter(lambda text: prepared(text))
WAYS = st.lists(st.integers(0, 2), min_size=40, max_size=40)


def written(value: str, ways: list[int]) -> str:
    """A value as RFC 4514 allows it: each character as it is, with a backslash, or in digits."""
    found = ""
    for place, character in enumerate(value):
        special = character in '\\",;+<>=#' or character == " "
        way = ways[place % len(ways)]
        if way == 2 or character in "\t\r\n\x0b\x0c\x85" or character.isspace():
            found += "".join(f"\\{byte:02x}" for byte in character.encode())
        elif special and (way == 1 or character not in " =#" or place in (0, len(value) - 1)):
            found += f"\\{character}"
        else:
            found += character
    return found


@given(VALUES, WAYS, WAYS)
def test_any_value_is_the_same_in_every_way_of_writing_it(value, one, other):
    first, second = (f"cn={written(value, ways)},ou=groups,dc=lab" for ways in (one, other))
    assert normal_dn(first) == normal_dn(second)
    assert parse_dn(first)[0] == (("cn", value),)
    group = Groups(dns=(normal_dn(first),))
    with pytest.raises(Denied):
        check_admitted(group, RoleMap(denied=(second,)))
    assert roles_of(group, RoleMap(admins=(second,))).admin


@given(VALUES, VALUES)
def test_different_values_are_never_the_same(one, other):
    names = [normal_dn(f"cn={written(value, [2])},dc=lab") for value in (one, other)]
    assert (names[0] == names[1]) == (prepared(one) == prepared(other))


def test_who_is_in_a_group_that_cannot_be_made_out_is_denied():
    unclear = Groups(names=("staff",), unclear=("at 'x'",))
    check_admitted(unclear, RoleMap())
    with pytest.raises(Denied, match="unclear"):
        check_admitted(unclear, RoleMap(denied=("suspended",)))


def test_a_denied_group_counts_by_each_of_its_names():
    two_names = Groups(names=(), aliases=frozenset({"suspended", "gesperrt"}))
    with pytest.raises(Denied):
        check_admitted(two_names, RoleMap(denied=("Gesperrt ",)))
    assert not roles_of(two_names, RoleMap(admins=("gesperrt",))).admin


@pytest.mark.parametrize("text", ["cn=#2,dc=lab", "gpu=yes", "cn=a,", " ", "\u200b"])
def test_a_site_is_told_what_names_no_group(text):
    with pytest.raises(ValueError, match=r"DN|names no group"):
        check_group(text)
    with pytest.raises(SettingsError, match="denied_groups: "):
        read_groups_of([text], "denied_groups")
