"""Who is let in, and for how long: what a site wrote holds, with a real slapd."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from click.testing import CliRunner
from tornado.web import HTTPError

from commons.site import SiteFileError, load_site
from hub_ext.admin_cli import site as site_commands
from hub_ext.directory.errors import SettingsError
from rig.hub_people import Browser, HubUser, login, refused
from rig.slapd import GROUPS, PEOPLE, Slapd, group

pytestmark = pytest.mark.ldap

SUSPENDED = f"cn=Suspended #2,{GROUPS}"
COOKIE = "__Host-labcommons-device"


@pytest.fixture
def suspended(tmp_path):
    """A directory whose group has a name that ldap3's parser refuses."""
    more = [group("Suspended #2", "uid=alice,ou=people")]
    with Slapd(tmp_path / "slapd", more=more) as server:
        yield server


@pytest.mark.parametrize(
    "written",
    [
        SUSPENDED.replace(",", ", "),
        SUSPENDED.replace(" #", r"\20\23"),
        SUSPENDED.upper(),
        "suspended  #2",
    ],
)
async def test_a_denied_group_keeps_out_however_its_name_is_written(
    authenticator, suspended, written
):
    site = authenticator(suspended, denied_groups=[written])
    assert "may not use this site" in await refused(login(site, "alice"))
    assert await login(site, "bob")


async def test_a_denied_group_with_two_names_keeps_out_by_each(authenticator, own_slapd):
    own_slapd.modify(
        f"dn: cn=two,{GROUPS}\nchangetype: add\nobjectClass: groupOfNames\ncn: two\ncn: Gesperrt\n"
        f"member: uid=alice,{PEOPLE}\n"
    )
    for name in ("two", "GESPERRT"):
        site = authenticator(own_slapd, denied_groups=[name])
        assert "may not use this site" in await refused(login(site, "alice"))


async def test_a_denied_group_outside_the_base_keeps_out_by_member_of(authenticator, tmp_path):
    with Slapd(tmp_path / "memberof", overlays=["memberof"]) as slapd:
        slapd.modify(
            f"dn: cn=left,{PEOPLE}\nchangetype: add\nobjectClass: groupOfNames\n"
            f"member: uid=alice,{PEOPLE}\n"
        )
        for name in ("left", f"cn=LEFT, {PEOPLE}"):
            site = authenticator(slapd, denied_groups=[name], group_membership="memberof")
            assert "may not use this site" in await refused(login(site, "alice"))
            assert await login(site, "bob")


# What is set; who is let in of alice, bob and carol. JupyterHub's reading: a name or a group.
RULES = (
    ({}, "alice bob carol"),
    ({"allowed_users": {"alice"}}, "alice"),
    ({"allowed_users": {"Alice"}, "admin_users": {"carol"}}, "alice carol"),
    ({"allowed_groups": ["platform-admins"]}, "carol"),
    ({"allow_all": False, "allowed_groups": ["platform-admins"]}, "carol"),
    ({"allowed_users": {"bob"}, "allowed_groups": ["platform-admins"]}, "bob carol"),
    ({"allow_all": True, "allowed_users": {"alice"}}, "alice bob carol"),
    ({"allow_all": False}, ""),
    ({"whitelist": {"bob"}}, "bob"),
    ({"blocked_users": {"bob"}}, "alice carol"),
    ({"allowed_users": {"bob"}, "blocked_users": {"bob"}}, ""),
    ({"allowed_users": {"carol"}, "denied_groups": ["platform-admins"]}, ""),
    ({"allow_existing_users": True}, ""),
)


@pytest.mark.parametrize(("traits", "let_in"), RULES, ids=lambda value: str(value)[:60])
async def test_who_is_allowed_is_read_as_jupyterhub_reads_it(authenticator, traits, let_in):
    site = authenticator(failed_login_seconds=0, **traits)
    if site.allowed_users:  # as JupyterHub's init_users does
        site.allowed_users = {site.normalize_username(name) for name in site.allowed_users}
        site.allowed_users |= site.admin_users
    found = []
    for name in ("alice", "bob", "carol"):
        with suppress(HTTPError):
            found += [name] if await login(site, name) else []
        if "blocked_users" not in traits:  # those are looked at when somebody logs in
            assert bool(await site.refresh_user(HubUser(name))) == (name in found)
    assert " ".join(found) == let_in


@pytest.mark.parametrize(
    ("traits", "words"),
    [
        ({"allow_all": True, "allowed_groups": ["x"]}, "take one away"),
        ({"denied_groups": ["x"], "group_base_dn": None}, "group_base_dn"),
        ({"denied_groups": ["cn=#2,ou=x"]}, "denied_groups: .*RFC 4514"),
        ({"admin_groups": ["gpu=yes"]}, "admin_groups: .*not a whole one"),
        ({"teams": {"a": {"leads": ["cn=a,"]}}}, "teams: "),
        ({"request_otp": True}, "second factor"),
    ],
)
def test_what_would_not_hold_stops_the_hub(authenticator, traits, words):
    with pytest.raises(SettingsError, match=words):
        authenticator(**traits)


SITE = """version: 1
sizes: {{small: {{cpu: 1, memory: 1G}}}}
directory:
  servers: ["{url}"]
  ca_file: {ca}
  bind_dn: "{bind}"
  bind_password_file: {password}
  users: {{base_dn: "{people}"}}
  groups: {{base_dn: "{groups}"}}
  platform_admins: [nobody-has-this]
  denied_groups:
    - suspended
    - "{denied}"
"""


def site_file(path, slapd, denied):
    traits = slapd.traits()
    path.write_text(
        SITE.format(
            url=traits["servers"][0], ca=traits["ca_file"], bind=traits["bind_dn"],
            password=traits["bind_password_file"], people=PEOPLE, groups=GROUPS, denied=denied,
        )
    )  # fmt: skip
    return path


def test_a_group_that_cannot_be_read_is_told_with_its_line(tmp_path, slapd):
    path = site_file(tmp_path / "site.yaml", slapd, "cn=#2,ou=groups")
    with pytest.raises(SiteFileError, match=r"denied_groups\.1: .*RFC 4514.*\(line 13\)"):
        load_site(path)


def test_a_denied_group_that_the_directory_has_not_is_wrong(tmp_path, own_slapd):
    own_slapd.modify(
        f"dn: cn=suspended,{GROUPS}\nchangetype: add\nobjectClass: groupOfNames\n"
        f"member: uid=alice,{PEOPLE}\n"
    )
    path = site_file(tmp_path / "site.yaml", own_slapd, f"cn=suspendet,{GROUPS}")
    done = CliRunner().invoke(site_commands, ["check", str(path)])
    assert done.exit_code == 1
    assert "'cn=suspendet," in done.output
    assert "keeps nobody out" in done.output
    path = site_file(tmp_path / "site.yaml", own_slapd, f"CN=Suspended , {GROUPS}")
    done = CliRunner().invoke(site_commands, ["check", str(path)])
    assert done.exit_code == 0
    assert "'nobody-has-this' (platform_admins) is not in the directory" in done.output
    own_slapd.stop()
    done = CliRunner().invoke(site_commands, ["check", str(path)])
    assert done.exit_code == 0
    assert "not checked" in done.output


async def test_a_running_hub_says_which_groups_are_unknown_and_goes_on(authenticator, caplog):
    site = authenticator(denied_groups=["suspendet"])
    await site._look_for_groups()
    assert "'suspendet' (denied_groups) is not in the directory" in caplog.text
    assert await login(site, "alice")


# -- sessions ---------------------------------------------------------------------------------


async def test_a_dismissed_person_is_out_at_the_next_look(authenticator, own_slapd):
    site, user = authenticator(own_slapd), HubUser("alice")
    await login(site, "alice")
    before = user.orm_user.cookie_id
    assert await site.refresh_user(user)
    assert user.orm_user.cookie_id == before
    own_slapd.modify(f"dn: uid=alice,{PEOPLE}\nchangetype: delete\n")
    assert await site.refresh_user(user) is False
    after = user.orm_user.cookie_id
    assert after != before
    assert await site.refresh_user(user) is False
    assert user.orm_user.cookie_id == after


async def test_an_outage_ends_no_session(authenticator, own_slapd):
    site, user = authenticator(own_slapd, outage_grace=0), HubUser("alice")
    await login(site, "alice")
    before = user.orm_user.cookie_id
    own_slapd.stop()
    assert await site.refresh_user(user) is False
    assert user.orm_user.cookie_id == before


def change_password(slapd, name, password):
    slapd.modify(
        f"dn: uid={name},{PEOPLE}\nchangetype: modify\n"
        f"replace: userPassword\nuserPassword: {password}\n"
    )
    slapd.modify(f"dn: uid={name},{PEOPLE}\nchangetype: modify\ndelete: pwdReset\n")


async def test_a_changed_password_ends_the_logins_with_the_old_one(authenticator, tmp_path):
    with Slapd(tmp_path / "ppolicy", overlays=["ppolicy"]) as slapd:
        site, user = authenticator(slapd, failed_login_seconds=0), HubUser("dan")
        change_password(slapd, "dan", "first")
        model = await login(site, "dan", "first")
        user.state = model["auth_state"]
        assert user.state["password_time"]
        assert await site.refresh_user(user)
        # As if that had been later than their last visit.
        user.state = {**user.state, "password_time": "20200101000000Z"}
        before = user.orm_user.cookie_id
        assert await site.refresh_user(user) is False
        assert user.orm_user.cookie_id != before
        # Once: what is made afterwards stays.
        again = user.orm_user.cookie_id
        assert await site.refresh_user(user)
        assert user.orm_user.cookie_id == again
        # At a login with the new password, too, before anybody looked.
        user.state = {**user.state, "password_time": "20200101000000Z"}
        await login(site, "dan", "first", Browser("192.0.2.1", user))
        assert user.orm_user.cookie_id != again


# -- lock-outs --------------------------------------------------------------------------------


async def test_wrong_passwords_from_elsewhere_do_not_lock_ones_own_browser(authenticator):
    site = authenticator(failed_login_seconds=0)
    mine = Browser("192.0.2.1", cookie_host_prefix_enabled=True)
    await login(site, "alice", address=mine)
    assert mine.set[COOKIE] | {"expires_days": 0} == {
        "expires_days": 0, "path": "/", "secure": True, "httponly": True, "samesite": "Lax",
    }  # fmt: skip
    for number in range(6):
        await refused(login(site, "alice", "guess", f"203.0.113.{number}"))
    assert "Too many" in await refused(login(site, "alice", address="203.0.113.77"))
    assert await login(site, "alice", address=mine)


async def test_a_forged_or_anothers_browser_helps_nobody(authenticator):
    site = authenticator(failed_login_seconds=0)
    other = Browser("192.0.2.9")
    await login(site, "bob", address=other)
    forged = Browser("192.0.2.9")
    forged.cookies["labcommons-device"] = json.dumps(
        {"name": "alice", "nonce": "x", "password": ""}
    ).encode()
    for _ in range(4):
        await refused(login(site, "alice", "guess", "203.0.113.1"))
    for browser in (other, forged):
        assert "Too many" in await refused(login(site, "alice", address=browser))


async def test_a_hundred_forged_names_do_not_shut_out_a_campus(authenticator):
    site = authenticator(failed_login_seconds=0, failures_per_address=20)
    campus = "203.0.113.99"
    for name in ("bob", "carol"):
        await login(site, name, address=campus)
    for number in range(25):
        await refused(login(site, f"nobody{number}", "x", campus))
    assert await login(site, "alice", address=campus)
    for number in range(60):
        await refused(login(site, f"nobody{number}", "x", campus))
    assert "Too many" in await refused(login(site, "dan", address=campus))
    assert await login(site, "bob", address=campus)
