"""What JupyterHub is told about people: at login, and while they are logged in."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from tornado.web import HTTPError
from traitlets.config import Config

from commons.audit.chain import files
from commons.audit.reading import Filter, events
from commons.site import load_site
from commons.store import Store
from commons.store.blocks import Block
from hub_ext.authenticator import LDAPAuthenticator, configure_from_site
from hub_ext.directory.errors import SettingsError
from hub_ext.directory.memory import release
from hub_ext.directory.sweep import Sweep
from rig.hub_people import HubUser, login, refused
from rig.slapd import GROUPS, PEOPLE, person

pytestmark = pytest.mark.ldap


ALICE = HubUser("alice")


def restarted(authenticator, make, **changes):
    """The hub after a restart: what was written is all it knows."""
    authenticator._memory.close()
    return make(**changes)


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
    model = await site.refresh_user(HubUser("alice.novak"))
    assert model["name"] == "alice.novak"


async def test_the_account_of_a_team_is_confirmed_while_there_is_the_team(authenticator):
    site = authenticator(teams={"vision": {"leads": [], "members": ["team-vision"]}})
    for name, there in (("_team-vision", True), ("_team-gone", False), ("_course-vision", False)):
        assert await site.refresh_user(HubUser(name)) is there


async def test_nobody_logs_in_as_the_account_of_a_team(authenticator, caplog):
    site = authenticator(username_map={"alice": "_team-vision"})
    with pytest.raises(HTTPError) as refused:
        await login(site, "alice")
    assert refused.value.status_code == 403
    assert "event=alert kind=name_taken" in caplog.text


async def test_people_are_called_by_the_directorys_name_where_several_work_together(authenticator):
    model = await login(authenticator(), "alice")
    name = model["auth_state"]["display_name"]
    assert name
    assert model["user_info"] == {"name": name, "display_name": name}


def test_no_refreshes_at_all_are_called_a_mistake(authenticator, caplog):
    authenticator(auth_refresh_age=0)
    assert "auth_refresh_age=0" in caplog.text


async def test_without_groups_the_hub_is_still_told_so(authenticator):
    assert (await login(authenticator(group_base_dn=None), "alice"))["groups"] == []


def test_settings_that_cannot_work_are_refused_at_start(authenticator):
    for traits, word in [
        ({"servers": []}, "servers"),
        ({"servers": ["http://ldap.example.org"]}, "servers"),
        ({"servers": ["ldap://:99999"]}, "servers"),
        ({"user_base_dn": ""}, "user_base_dn"),
        ({"user_filter": "(uid=alice)"}, "user_filter"),
        ({"user_dn_templates": ["uid=alice"]}, "user_dn_templates"),
        ({"teams": {"vision": ["alice"]}}, "teams"),
        ({"bind_password_file": None}, "bind_password_file"),
        ({"ca_file": "/nowhere/ca.crt"}, "ca_file"),
    ]:
        with pytest.raises(SettingsError, match=word):
            authenticator(**traits)


def test_the_site_file_sets_every_trait(tmp_path):
    config = Config()
    demo = Path(__file__).parents[3] / "config" / "demo" / "site.yaml"
    configure_from_site(config, load_site(demo))
    assert config.JupyterHub.authenticator_class == "labcommons-ldap"
    traits = config.LDAPAuthenticator
    assert traits.servers == ["ldap://directory:1389"]
    assert traits.admin_groups == ["platform-admins"]
    assert traits.group_base_dn == "ou=groups,dc=lab,dc=demo"
    assert traits.number_attribute == "employeeNumber"
    assert traits.auth_refresh_strict is True
    assert traits.teams["vision"]["leads"] == ["team-vision-leads"]
    assert traits.courses["ml101"]["instructors"] == ["course-ml101-instructors"]
    assert set(traits) <= set(LDAPAuthenticator.class_traits(config=True))


# -- names and ids -----------------------------------------------------------------------------


def rename(slapd, name, new):
    slapd.modify(
        f"dn: uid={name},{PEOPLE}\nchangetype: modrdn\nnewrdn: uid={new}\ndeleteoldrdn: 1\n"
    )


def hire(slapd, name, number):
    slapd.modify(
        person(name, number, password=f"{name}-new").replace(
            "\nobjectClass::", "\nchangetype: add\nobjectClass::", 1
        )
        + "\n"
    )


async def test_a_renamed_person_keeps_name_and_home_in_the_hub(authenticator, own_slapd):
    site = authenticator(own_slapd)
    model = await login(site, "alice")
    rename(own_slapd, "alice", "novak")
    renamed = await login(site, "novak", "alice-secret")
    assert renamed["name"] == "alice"
    assert renamed["auth_state"]["id"] == model["auth_state"]["id"] != ""
    assert (await site.refresh_user(ALICE))["name"] == "alice"


async def test_a_name_given_to_another_person_inherits_nothing(authenticator, own_slapd, caplog):
    site = authenticator(own_slapd)
    await login(site, "alice")
    own_slapd.modify(f"dn: uid=alice,{PEOPLE}\nchangetype: delete\n")
    hire(own_slapd, "alice", 29999)
    assert "another person" in await refused(login(site, "alice", "alice-new"))
    assert "labcommons ldap release alice" in caplog.text
    assert "event=alert kind=name_taken" in caplog.text
    assert await site.refresh_user(ALICE) is False


async def test_a_released_name_is_the_next_persons_without_a_restart(
    authenticator, own_slapd, tmp_path
):
    site = authenticator(own_slapd)
    await login(site, "alice")
    own_slapd.modify(f"dn: uid=alice,{PEOPLE}\nchangetype: delete\n")
    hire(own_slapd, "alice", 29999)
    await refused(login(site, "alice", "alice-new"))
    site = restarted(site, authenticator, server=own_slapd)
    store = Store(f"sqlite:///{tmp_path / 'state.sqlite'}")
    await refused(login(site, "alice", "alice-new"))
    assert release(store, "alice")
    assert (await login(site, "alice", "alice-new"))["auth_state"]["uid"] == 29999
    store.close()


# -- restarts of the hub ------------------------------------------------------------------------


async def test_an_outage_counts_from_the_last_answer_also_after_a_restart(
    authenticator, own_slapd, monkeypatch
):
    site = authenticator(own_slapd, outage_grace=100)
    await login(site, "alice")
    own_slapd.stop()
    site = restarted(site, authenticator, server=own_slapd, outage_grace=100)
    assert await site.refresh_user(ALICE) is True
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 101)
    assert await site.refresh_user(ALICE) is False


async def test_an_outage_does_not_bring_a_dismissed_person_back(authenticator, own_slapd):
    site = authenticator(own_slapd)
    await login(site, "alice")
    own_slapd.modify(f"dn: uid=alice,{PEOPLE}\nchangetype: delete\n")
    assert await site.refresh_user(ALICE) is False
    own_slapd.stop()
    assert await site.refresh_user(ALICE) is False


async def test_failed_logins_count_on_after_a_restart(authenticator, caplog):
    site = authenticator(failed_login_seconds=0)
    for typed in ("alice", "ALICE ", "ａlice", "alice"):
        assert "wrong password" in await refused(login(site, typed, "not it"))
    assert "event=alert kind=lockout by=name name='alice'" in caplog.text
    assert "Too many failed logins" in await refused(login(site, "alice"))
    site = restarted(site, authenticator, failed_login_seconds=0)
    assert "Too many failed logins" in await refused(login(site, "Alice"))
    assert (await login(site, "bob"))["name"] == "bob"


async def test_an_unknown_name_is_locked_like_a_known_one(authenticator):
    site = authenticator(failed_login_seconds=0)
    for name in ("mallory", "alice"):
        messages = [await refused(login(site, name, "not it")) for _ in range(5)]
        assert ["Too many" in message for message in messages] == [False] * 4 + [True]


async def test_an_outage_counts_against_nobody(authenticator, own_slapd):
    site = authenticator(own_slapd, cool_down=0)
    own_slapd.stop()
    for _ in range(6):
        assert "cannot be reached" in await refused(login(site, "alice"))
    own_slapd.start()
    assert (await login(site, "alice"))["name"] == "alice"


async def test_a_browser_that_goes_away_does_not_take_its_failure_back(authenticator, monkeypatch):
    site = authenticator(failures_per_name=1)
    entered = asyncio.Event()

    async def gone(name, password, gate):
        gate(name)
        entered.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(site._directory, "login", gone)
        trying = asyncio.create_task(login(site, "alice"))
        await entered.wait()
        trying.cancel()
        await asyncio.wait([trying])
    assert "Too many" in await refused(login(site, "alice"))


async def test_an_address_that_guesses_many_names_is_stopped_and_others_are_not(authenticator):
    site = authenticator(failed_login_seconds=0, failures_per_address=3)
    for number in range(3):
        await refused(login(site, f"guess{number}", "x", address="192.0.2.1"))
    assert "Too many" in await refused(login(site, "alice", address="192.0.2.1"))
    assert (await login(site, "alice", address="192.0.2.2"))["name"] == "alice"


async def test_unknown_and_wrong_take_at_least_the_same_time(authenticator, monkeypatch):
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    site = authenticator(failed_login_seconds=60)
    monkeypatch.setattr("hub_ext.authenticator.asyncio.sleep", sleep)
    for name in ("alice", "mallory", ""):
        await refused(login(site, name, "not it"))
    assert len(waited) == 3
    assert all(50 < seconds <= 60 for seconds in waited)


# -- the audit trail -----------------------------------------------------------------------


async def test_every_login_refusal_lockout_and_role_change_is_an_event(
    authenticator, own_slapd, tmp_path
):
    folder = tmp_path / "audit"
    site = authenticator(
        own_slapd,
        audit_folder=str(folder),
        failed_login_seconds=0,
        admin_groups=["platform-admins"],
    )
    await login(site, "alice", address="192.0.2.7")
    for _ in range(4):
        await refused(login(site, "bob\n{}", "guess-secret", address="192.0.2.8"))
    own_slapd.modify(
        f"dn: cn=platform-admins,{GROUPS}\nchangetype: modify\n"
        f"add: member\nmember: uid=alice,{PEOPLE}\n"
    )
    await site.refresh_user(ALICE)
    own_slapd.modify(f"dn: uid=alice,{PEOPLE}\nchangetype: delete\n")
    await site.refresh_user(ALICE)
    await site.refresh_user(ALICE)
    site._audit.close()
    [path] = files(folder)
    text = path.read_text()
    events = [json.loads(line) for line in text.splitlines()]
    told = [(e["event"]["action"], e["event"].get("reason")) for e in events]
    assert told == [
        ("login", None),
        *[("login", "wrong_credentials")] * 4,
        ("role-change", None),
        ("access-refused", "account_gone"),
    ]
    first, failed, changed = events[0], events[1], events[5]
    assert first["user"]["name"] == "alice"
    assert first["source"] == {"ip": "192.0.2.7"}
    assert first["event"]["category"] == ["authentication"]
    assert failed["user"]["name"] == "bob\n{}"
    assert failed["event"]["outcome"] == "failure"
    assert changed["labcommons"]["before"]["admin"] is False
    assert changed["labcommons"]["after"]["admin"] is True
    assert "secret" not in text
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_lockout_is_an_event(authenticator, tmp_path):
    site = authenticator(
        audit_folder=str(tmp_path / "hub"), failed_login_seconds=0, failures_per_name=1
    )
    await refused(login(site, "alice", "not it"))
    await refused(login(site, "alice"))
    site._audit.close()
    reasons = [event["event"].get("reason") for event in events(tmp_path, Filter())]
    assert reasons == ["failures_by_name", "wrong_credentials", "too_many_attempts"]


async def test_a_place_for_events_that_cannot_be_written_stops_nobody(authenticator, caplog):
    site = authenticator(audit_folder="/proc/nowhere")
    assert (await login(site, "alice"))["name"] == "alice"
    site._audit.close()
    assert "/proc/nowhere" in caplog.text


# -- servers that run while nobody looks ----------------------------------------------------


class Hub:
    """As much of a hub as a sweep needs, with one running server of alice's."""

    def __init__(self):
        self.stopped = []
        spawner = SimpleNamespace(active=True, pending=None)
        user = HubUser("alice")
        user.spawners, user.stop = {"": spawner}, self.stop
        self.users = {1: user}
        self.proxy = SimpleNamespace(delete_user=self.delete_user)
        self.log = logging.getLogger("hub")

    async def delete_user(self, user, name):
        self.stopped.append("route")

    async def stop(self, name):
        self.stopped.append("server")


def sweep(site, hub, grace):
    return Sweep(hub, site.refresh_user, site._memory, grace, site._server_stopped, site.log)


async def test_a_dismissed_persons_server_is_stopped_after_the_grace(authenticator, own_slapd):
    site, hub = authenticator(own_slapd), Hub()
    await login(site, "alice")
    await sweep(site, hub, 0).once()
    assert hub.stopped == []
    own_slapd.modify(f"dn: uid=alice,{PEOPLE}\nchangetype: delete\n")
    await sweep(site, hub, 3600).once()
    await sweep(site, hub, None).once()
    assert hub.stopped == []
    await sweep(site, hub, 0).once()
    assert hub.stopped == ["route", "server"]


async def test_an_outage_and_a_broken_entry_stop_no_server(authenticator, own_slapd):
    site, hub = authenticator(own_slapd, outage_grace=0), Hub()
    await login(site, "alice")
    own_slapd.modify(
        f"dn: uid=alice,{PEOPLE}\nchangetype: modify\nreplace: uidNumber\nuidNumber: 0\n"
    )
    await sweep(site, hub, 0).once()
    own_slapd.stop()
    await sweep(site, hub, 0).once()
    assert hub.stopped == []


async def test_the_hub_starts_the_sweep_and_the_memory(authenticator):
    site = authenticator(sweep_interval=1)
    assert site.get_handlers(Hub())
    assert site._loaded
    assert not site._sweep.done()
    site._sweep.cancel()


async def test_who_is_blocked_here_is_told_why_and_only_for_the_right_password(authenticator):
    site = authenticator(failed_login_seconds=0)
    state = (await login(site, "alice"))["auth_state"]
    alice = HubUser("alice", state)

    async def blocked(name: str) -> Block | None:
        at = datetime(2026, 11, 29)
        return Block(name, "Ask carol first", "carol", at, None) if name == "alice" else None

    site.blocked = blocked
    with pytest.raises(HTTPError) as refused:
        await login(site, "alice")
    assert (refused.value.status_code, "Ask carol first" in refused.value.log_message) == (
        403,
        True,
    )
    with pytest.raises(HTTPError) as refused:
        await login(site, "alice", "not it")
    assert "carol" not in refused.value.log_message
    assert await site.refresh_user(alice) is False
    assert await site.refresh_user(HubUser("bob"))
    known = site._memory.person("alice")
    assert (known.reason, known.dismissed) == ("blocked", False)
    site.blocked = None
    assert await site.refresh_user(alice)
    assert site._memory.person("alice").barred is None
