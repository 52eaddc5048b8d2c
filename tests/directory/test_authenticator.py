"""What JupyterHub is told about people: at login, and while they are logged in."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from tornado.web import HTTPError
from traitlets.config import Config

from hub_ext.authenticator import LDAPAuthenticator, configure_from_site
from hub_ext.directory.errors import SettingsError
from hub_ext.site import load_site
from rig.slapd import GROUPS, PEOPLE

pytestmark = pytest.mark.ldap

ALICE = SimpleNamespace(name="alice")


@pytest.fixture
def authenticator(slapd, tmp_path):
    """Made anew with the same ``state_database``, it is the hub after a restart."""

    def make(server=slapd, **traits):
        state = {"state_database": f"sqlite:///{tmp_path / 'state.sqlite'}"}
        config = Config({"LDAPAuthenticator": {**server.traits(), **state, **traits}})
        made = LDAPAuthenticator(config=config)
        made.log = logging.getLogger("authenticator")
        return made

    return make


def login(authenticator, name, password=None):
    data = {"username": name, "password": password or f"{name}-secret"}
    return authenticator.get_authenticated_user(None, data)


async def test_a_login_gives_name_groups_and_auth_state(authenticator):
    model = await login(authenticator(), "alice")
    assert model["name"] == "alice"
    assert model["groups"] == model["auth_state"]["groups"]
    assert "team-vision" in model["groups"]
    assert model["auth_state"]["uid"] == 20003


async def test_members_of_an_admin_group_are_administrators_and_others_are_not(authenticator):
    site = authenticator(admin_groups=["Platform-Admins"])
    assert (await login(site, "carol"))["admin"] is True
    assert (await login(site, "alice"))["admin"] is False


async def test_admin_users_count_besides_admin_groups(authenticator):
    site = authenticator(admin_groups=["platform-admins"], admin_users={"alice"})
    assert (await login(site, "alice"))["admin"] is True
    assert (await login(site, "bob"))["admin"] is False


async def test_without_admin_groups_jupyterhub_decides(authenticator):
    assert (await login(authenticator(admin_users={"alice"}), "alice"))["admin"] is True
    assert (await authenticator().refresh_user(ALICE))["admin"] is None


async def test_only_allowed_groups_get_in_nested_ones_too(authenticator):
    site = authenticator(allowed_groups=["staff"])
    assert (await login(site, "alice"))["name"] == "alice"
    with pytest.raises(HTTPError) as refused:
        await login(site, "dan")
    assert refused.value.status_code == 403
    assert "none of the groups" in refused.value.log_message


async def test_who_is_not_allowed_is_told_so_only_for_the_right_password(authenticator):
    with pytest.raises(HTTPError) as refused:
        await login(authenticator(allowed_groups=["staff"]), "dan", "not it")
    assert "wrong password" in refused.value.log_message


@pytest.mark.parametrize("data", [None, [], "alice", {}, {"username": 1, "password": ["x"]}])
async def test_data_that_is_no_form_is_a_wrong_login(authenticator, data):
    with pytest.raises(HTTPError) as refused:
        await authenticator(failed_login_seconds=0).authenticate(None, data)
    assert refused.value.status_code == 403


async def test_every_login_is_one_line_without_its_password(authenticator, caplog, own_slapd):
    caplog.set_level(logging.DEBUG)
    site = authenticator(own_slapd, failed_login_seconds=0)
    await login(site, "alice")
    for name in ("mallory", "nonumber", "a\n2026 event=login outcome=ok name='root'" + "x" * 99):
        with pytest.raises(HTTPError):
            await login(site, name)
    own_slapd.stop()
    with pytest.raises(HTTPError):
        await login(site, "alice")
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("event=login")]
    assert [line.split()[1] for line in lines] == [
        "outcome=ok",
        "outcome=wrong_credentials",
        "outcome=account_unusable",
        "outcome=wrong_credentials",
        "outcome=directory_unavailable",
    ]
    assert "name='alice' address=-" in lines[0]
    assert "\n" not in lines[3]
    assert "x" * 65 not in lines[3]
    assert "-secret" not in caplog.text


async def test_a_refresh_brings_new_groups_and_takes_lost_ones(authenticator, own_slapd):
    site = authenticator(own_slapd, admin_groups=["platform-admins"])
    await login(site, "alice")
    own_slapd.modify(
        f"dn: cn=platform-admins,{GROUPS}\nchangetype: modify\n"
        f"add: member\nmember: uid=alice,{PEOPLE}\n\n"
        f"dn: cn=team-vision,{GROUPS}\nchangetype: modify\n"
        f"delete: member\nmember: uid=alice,{PEOPLE}\n"
    )
    model = await site.refresh_user(ALICE)
    assert model["admin"] is True
    assert "platform-admins" in model["groups"]
    assert "team-vision" not in model["groups"]
    assert model["auth_state"]["groups"] == model["groups"]


async def test_a_person_who_left_must_log_in_again(authenticator, own_slapd):
    site = authenticator(own_slapd)
    await login(site, "alice")
    own_slapd.modify(f"dn: uid=alice,{PEOPLE}\nchangetype: delete\n")
    assert await site.refresh_user(ALICE) is False


async def test_a_person_who_is_no_longer_allowed_must_log_in_again(authenticator, own_slapd):
    site = authenticator(own_slapd, allowed_groups=["team-vision"])
    assert (await site.refresh_user(ALICE))["name"] == "alice"
    own_slapd.modify(
        f"dn: cn=team-vision,{GROUPS}\nchangetype: modify\n"
        f"delete: member\nmember: uid=alice,{PEOPLE}\n"
    )
    assert await site.refresh_user(ALICE) is False


async def test_a_person_whose_account_broke_must_log_in_again(authenticator, own_slapd, caplog):
    site = authenticator(own_slapd)
    own_slapd.modify(
        f"dn: uid=alice,{PEOPLE}\nchangetype: modify\nreplace: uidNumber\nuidNumber: 0\n"
    )
    assert await site.refresh_user(ALICE) is False
    assert "uidNumber is '0'" in caplog.text


async def test_an_outage_keeps_what_was_known(authenticator, own_slapd, caplog):
    site = authenticator(own_slapd)
    await login(site, "alice")
    own_slapd.stop()
    assert await site.refresh_user(ALICE) is True
    assert "kept" in caplog.text


async def test_an_outage_longer_than_the_grace_asks_for_a_new_login(authenticator, own_slapd):
    site = authenticator(own_slapd, outage_grace=0)
    await login(site, "alice")
    own_slapd.stop()
    assert await site.refresh_user(ALICE) is False


async def test_after_an_outage_the_directory_counts_again(authenticator, own_slapd):
    site = authenticator(own_slapd, cool_down=0)
    await login(site, "alice")
    own_slapd.stop()
    assert await site.refresh_user(ALICE) is True
    own_slapd.start()
    own_slapd.modify(f"dn: uid=alice,{PEOPLE}\nchangetype: delete\n")
    assert await site.refresh_user(ALICE) is False


async def test_a_name_mapped_by_the_hub_is_found_again(authenticator):
    site = authenticator(username_map={"alice": "alice.novak"})
    assert (await login(site, "alice"))["name"] == "alice.novak"
    model = await site.refresh_user(SimpleNamespace(name="alice.novak"))
    assert model["name"] == "alice.novak"


def test_settings_that_cannot_work_are_refused_at_start(authenticator):
    for traits, word in [
        ({"servers": []}, "servers"),
        ({"servers": ["http://ldap.example.org"]}, "servers"),
        ({"servers": ["ldap://:99999"]}, "servers"),
        ({"user_base_dn": ""}, "user_base_dn"),
        ({"user_filter": "(uid=alice)"}, "user_filter"),
        ({"bind_password_file": None}, "bind_password_file"),
        ({"ca_file": "/nowhere/ca.crt"}, "ca_file"),
    ]:
        with pytest.raises(SettingsError, match=word):
            authenticator(**traits)


def test_the_site_file_sets_every_trait(tmp_path):
    config = Config()
    demo = Path(__file__).parents[2] / "config" / "demo" / "site.yaml"
    configure_from_site(config, load_site(demo))
    assert config.JupyterHub.authenticator_class == "labcommons-ldap"
    traits = config.LDAPAuthenticator
    assert traits.servers == ["ldap://directory:1389"]
    assert traits.admin_groups == ["platform-admins"]
    assert traits.group_base_dn == "ou=groups,dc=lab,dc=demo"
    assert traits.auth_refresh_strict is True
    assert set(traits) <= set(LDAPAuthenticator.class_traits(config=True))
