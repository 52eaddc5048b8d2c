"""Which groups somebody is in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.directory_names import normal_dn
from hub_ext.directory.accounts import escape_filter_value
from hub_ext.directory.entry import Entry
from hub_ext.directory.groups import _primary_group_sid, _rdn_term
from rig.slapd import GROUPS, MANY_GROUPS, PEOPLE, SUFFIX, Slapd, record

pytestmark = pytest.mark.ldap


async def groups_of(directory, name):
    return (await directory.lookup(name)).groups


async def test_groups_in_groups_count_and_a_cycle_ends(directory):
    names = (await groups_of(directory(), "bob")).names
    assert {"team-vision", "staff", "everyone"} <= set(names)


async def test_the_depth_limit_is_kept_and_said(directory, caplog):
    names = (await groups_of(directory(group_depth=1), "bob")).names
    assert "team-vision" in names
    assert "staff" not in names
    assert "deeper than group_depth=1" in caplog.text


async def test_posix_groups_count_by_name_and_as_primary_group(directory):
    membership = await groups_of(directory(), "bob")
    assert {"lab-users", "team-vision-posix"} <= set(membership.names)
    assert membership.gids == (20000, 21001)


async def test_nobody_gets_the_gid_of_root_through_a_group(directory, caplog):
    membership = await groups_of(directory(), "alice")
    assert "wheel" in membership.names
    assert 0 not in membership.gids
    assert "min_gid=1000" in caplog.text


async def test_a_group_with_a_second_name_gives_none_of_them(directory, caplog):
    names = (await groups_of(directory(), "alice")).names
    assert "platform-admins" not in names
    assert "hobby" not in names
    assert "cn=hobby" in caplog.text


async def test_more_groups_than_a_server_gives_at_once_are_all_read(directory):
    names = (await groups_of(directory(), "many")).names
    assert sum(name.startswith("many-") for name in names) == MANY_GROUPS


async def test_without_a_base_for_groups_there_is_only_the_primary_gid(directory):
    membership = await groups_of(directory(group_base_dn=None), "alice")
    assert membership.names == ()
    assert membership.gids == (20000,)


async def test_an_unknown_name_is_nobody(directory):
    assert await directory().lookup("mallory") is None


async def test_unique_members_count(directory):
    assert "unique" in (await groups_of(directory(), "dan")).names


def add_group(slapd: Slapd, name: str, *members: str) -> None:
    """Through the running server, as the memberof overlay sees no other way."""
    lines = "".join(f"member: {member},{SUFFIX}\n" for member in members)
    slapd.modify(f"dn: cn={name},{GROUPS}\nchangetype: add\nobjectClass: groupOfNames\n{lines}")


async def test_a_server_that_keeps_member_of_is_asked_for_it_level_by_level(directory, tmp_path):
    with Slapd(tmp_path / "memberof", overlays=["memberof"]) as slapd:
        # A comma, brackets and a letter that is not ASCII, in a DN and then in a filter.
        add_group(slapd, "inner\\, (ü)*", "uid=alice,ou=people")
        add_group(slapd, "outer", "cn=inner\\, (ü)*,ou=groups", "uid=dan,ou=people")
        groups = await groups_of(directory(slapd, group_membership="memberof"), "alice")
    assert {"inner, (ü)*", "outer", "lab-users"} <= set(groups.names)


async def test_a_name_that_occurs_elsewhere_is_not_taken_for_a_group_in_member_of(
    directory, tmp_path
):
    elsewhere = [record(f"ou=inner,{GROUPS}", "organizationalUnit", ("ou", "inner"))]
    with Slapd(tmp_path / "memberof", overlays=["memberof"], more=elsewhere) as slapd:
        add_group(slapd, "team,ou=inner", "uid=alice,ou=people")
        add_group(slapd, "team", "uid=bob,ou=people")
        groups = await groups_of(directory(slapd, group_membership="memberof"), "alice")
    assert normal_dn(f"cn=team,ou=inner,{GROUPS}") in groups.dns
    assert normal_dn(f"cn=team,{GROUPS}") not in groups.dns


async def test_dynamic_groups_count(directory, tmp_path):
    dynamic = record(
        f"cn=english,{GROUPS}",
        "groupOfURLs",
        ("cn", "english"),
        ("memberURL", f"ldap:///{PEOPLE}??sub?(preferredLanguage=en)"),
    )
    with Slapd(tmp_path / "dynlist", overlays=["dynlist"], more=[dynamic]) as slapd:
        hub = directory(slapd, group_membership="memberof")
        assert "english" in (await groups_of(hub, "alice")).names
        assert "english" not in (await groups_of(hub, "bob")).names
        # The overlay expands groups in groups itself.
        assert {"team-vision", "staff"} <= set((await groups_of(hub, "bob")).names)


@given(st.binary(max_size=80), st.binary(max_size=12))
def test_whatever_a_sid_holds_it_is_read_without_failing(sid, relative):
    entry = Entry("cn=x", {"objectsid": [sid], "primarygroupid": [relative]})
    found = _primary_group_sid(entry)
    assert found is None or (len(found) == len(sid) and found[:-4] == sid[:-4])


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_name_in_a_dn_is_asked_for_by_exactly_that_name(name):
    dn = "cn=" + "".join(f"\\{byte:02x}" for byte in name.encode()) + ",ou=groups,dc=lab"
    assert _rdn_term(dn.encode()) == f"(cn={escape_filter_value(name)})"


@given(st.binary(max_size=60))
def test_whatever_stands_in_member_of_it_is_read_without_failing(value):
    term = _rdn_term(value)
    assert term is None or term.startswith("(")
