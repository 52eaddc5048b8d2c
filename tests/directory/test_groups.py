"""Which groups somebody is in."""

from __future__ import annotations

import pytest

from rig.slapd import MANY_GROUPS

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
