"""`labcommons ldap`: what an administrator sees of the directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from commons.store import Store
from hub_ext.directory.memory import Memory, Remembered
from rig.slapd import GROUPS, PEOPLE, Slapd

pytestmark = pytest.mark.ldap

ROOT = Path(__file__).parents[3]


@pytest.fixture
def ldap(slapd, tmp_path):
    """Run the command with a site file for the rig's slapd."""

    def run(
        *arguments: str,
        server: Slapd = slapd,
        typed: str = "",
        lang: str = "C",
        group: str = "ldap",
        **directory,
    ):
        traits = server.traits()
        site = {
            "version": 1,
            "directory": {
                "servers": [server.ldap_url],
                "ca_file": traits["ca_file"],
                "bind_dn": traits["bind_dn"],
                "bind_password_file": traits["bind_password_file"],
                "timeout": 2,
                "users": {"base_dn": PEOPLE},
                "groups": {"base_dn": GROUPS},
                "platform_admins": ["platform-admins"],
                "teams": {"vision": {"leads": ["nobody"], "members": ["team-vision"]}},
                **directory,
            },
            "sizes": {"small": {"cpu": 1, "memory": "1G"}},
        }
        (tmp_path / "site.yaml").write_text(json.dumps(site))
        return subprocess.run(
            [sys.executable, "-m", "hub_ext.cli", group, *arguments],
            env={
                "PATH": "/usr/bin:/bin",
                "LANG": lang,
                "PYTHONPATH": str(ROOT),
                "LABCOMMONS_SITE_FILE": str(tmp_path / "site.yaml"),
                "LABCOMMONS_DATABASE_URL": f"sqlite:///{tmp_path / 'state.sqlite'}",
            },
            cwd=tmp_path,
            input=typed,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_a_check_says_line_by_line_what_it_found(ldap):
    done = ldap("check", "Alice")
    assert done.returncode == 0, done.stderr + done.stdout
    for line in (
        *("ok    tls: TLSv1.3", "note  certificate: valid for 29 more days", "ok    bind: as cn="),
        *("ok    people: ou=people", "ok    groups: ou=groups", "ok    uidNumber: '20003'"),
        *("ok    teams: vision (member)", "ok    login: would be let in as alice"),
        "ok    administrator: no",
    ):
        assert line in done.stdout
    assert "secret" not in done.stdout


def test_a_check_says_who_would_be_refused_and_why(ldap):
    done = ldap("check", "rootlike")
    assert done.returncode == 1
    assert "WRONG login: would be refused: account_unusable" in done.stdout
    assert "must be a number from 1000" in done.stdout


def test_a_check_names_each_server_that_fails_with_the_remedy(ldap, slapd):
    done = ldap("check", "--json", servers=[slapd.ldap_url, "ldaps://127.0.0.1:1"])
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["right"] is False
    assert {f["level"] for f in found["servers"][slapd.ldap_url]} <= {"ok", "note"}
    [failed] = found["servers"]["ldaps://127.0.0.1:1"]
    assert (failed["topic"], failed["code"]) == ("connection", "directory_server_failed")
    assert failed["data"]["cause"] == failed["text"]


def test_what_a_check_finds_is_data_for_programs(ldap):
    found = json.loads(ldap("check", "--json", "Alice").stdout)
    by_topic = {finding["topic"]: finding for finding in found["person"]}
    teams = by_topic["teams"]
    assert (teams["code"], teams["data"]) == ("directory_value", {"value": ["vision (member)"]})
    assert by_topic["login"]["code"] == "directory_would_be_let_in"
    assert by_topic["login"]["data"] == {"name": "alice"}
    assert by_topic["courses"]["text"] == "none"
    refused = json.loads(ldap("check", "--json", "rootlike").stdout)["person"][-1]
    assert refused["data"] == {"outcome": "account_unusable"}


def test_a_check_of_the_site_names_its_unknown_groups(ldap):
    done = ldap("check", "--json", group="site", platform_admins=["no-such-group"])
    assert done.returncode == 0, done.stderr
    assert "'no-such-group' (platform_admins) is not in the directory" in done.stderr
    [finding] = (
        one
        for one in json.loads(done.stdout)["findings"]
        if one["data"]["group"] == "no-such-group"
    )
    assert (finding["level"], finding["code"]) == ("note", "directory_group_absent")
    denied = ldap("check", group="site", denied_groups=["no-such-group"])
    assert denied.returncode == 1
    assert "keeps nobody out" in denied.stderr


def test_a_check_speaks_the_language_of_the_terminal(ldap):
    assert "administrator: 否" in ldap("check", "Alice", lang="zh_CN.UTF-8").stdout
    assert "administrator: no" in ldap("check", "Alice", lang="de_DE.UTF-8").stdout


def test_a_check_of_nobody_says_so(ldap):
    done = ldap("check", "mallory")
    assert done.returncode == 1
    assert "no single entry answers to 'mallory'" in done.stdout


def test_a_base_that_is_not_there_is_said(ldap):
    done = ldap("check", groups={"base_dn": "ou=nowhere,dc=lab,dc=test"})
    assert done.returncode == 1
    assert "WRONG groups: ou=nowhere" in done.stdout


def test_a_password_can_be_tried_without_the_hub(ldap):
    right = ldap("login", "alice", "--password-stdin", "--json", typed="alice-secret\n")
    assert right.returncode == 0, right.stderr
    assert json.loads(right.stdout)["name"] == "alice"
    refused = ldap("login", "alice", "--password-stdin", "--json", typed="not it\n")
    assert json.loads(refused.stdout)["code"] == "wrong_credentials"
    wrong = ldap("login", "alice", "--password-stdin", typed="not it\n")
    assert wrong.returncode == 1
    assert "wrong_credentials" in wrong.stderr
    denied = ldap(
        "login", "alice", "--password-stdin", typed="alice-secret\n", denied_groups=["staff"]
    )
    assert denied.returncode == 1
    assert "denied" in denied.stderr


def test_a_name_is_released_once(ldap, tmp_path, caplog):
    store = Store(f"sqlite:///{tmp_path / 'state.sqlite'}")
    memory = Memory(store, caplog)
    memory.load(0)
    for name in ("alice", "bob", "carol"):
        memory.remember(Remembered(name, f"id-{name}", 1.0))
    memory.close()
    assert ldap("release", "alice").returncode == 0
    again = ldap("release", "alice")
    assert again.returncode == 1
    assert "nobody is remembered as 'alice'" in again.stderr
    assert ldap("release", "--all").returncode == 0
    assert ldap("release", "--all").returncode == 1
    assert ldap("release").returncode == 2


def test_settings_that_cannot_work_are_one_line(ldap):
    done = ldap("check", ca_file="/nowhere/ca.crt")
    assert done.returncode == 1
    assert "ca_file: /nowhere/ca.crt cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
