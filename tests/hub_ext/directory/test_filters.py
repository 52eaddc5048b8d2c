"""What somebody types can never change what a search asks for."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from ldap3.operation.search import MATCH_EQUAL, compile_filter, parse_filter
from ldap3.utils.dn import parse_dn

from commons.directory_names import normal_dn
from commons.i18n import gettext_for
from hub_ext.directory.accounts import (
    clean_login,
    entry_attributes,
    escape_filter_value,
    login_dns,
    password_bytes,
    read_account,
    throttle_key,
)
from hub_ext.directory.entry import Entry
from hub_ext.directory.errors import (
    AccountBarred,
    AccountUnusable,
    Denied,
    NameTaken,
    NotAdmitted,
    TooManyAttempts,
)
from hub_ext.directory.settings import DirectoryServer, DirectorySettings
from hub_ext.directory.standing import Standing
from rig.slapd import PEOPLE

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
hostile = st.text(st.sampled_from("()*\\&|!=<>~: \t\n\0{}a0é中"), min_size=1)


@given(texts | hostile)
def test_any_text_becomes_one_equality_with_exactly_its_bytes(text):
    search_filter = "(&(objectClass=person)(uid={login}))".replace(
        "{login}", escape_filter_value(text)
    )
    root = parse_filter(search_filter, None, True, True, None, False)
    both = root.elements[0]
    assert len(both.elements) == 2
    assert both.elements[1].tag == MATCH_EQUAL
    assert both.elements[1].assertion["attr"] == "uid"
    sent = compile_filter(both.elements[1])["equalityMatch"]["assertionValue"]
    assert bytes(sent) == text.encode()


@given(texts | hostile)
def test_an_escaped_value_has_no_character_with_a_meaning(text):
    assert re.fullmatch(r"(?:[A-Za-z0-9]|\\[0-9a-f]{2})+", escape_filter_value(text))


@given(st.text())
def test_a_login_is_clean_or_nothing(text):
    login = clean_login(text)
    assert login is None or (login.isprintable() and login == login.strip() and len(login) <= 256)


@given(st.text())
def test_a_password_is_sent_unchanged_or_not_at_all(text):
    password = password_bytes(text)
    assert password is None or (password and password.decode() == text and b"\0" not in password)


def test_dns_that_differ_in_case_and_spaces_are_the_same():
    assert normal_dn("CN=Staff, OU=Groups,dc=lab") == normal_dn("cn=staff,ou=groups,DC=LAB")
    assert normal_dn("cn=a\\,b,dc=lab") != normal_dn("cn=a,b=,dc=lab")


def test_dns_that_differ_in_their_escapes_are_the_same():
    assert normal_dn("cn=a\\,b \\C3\\BC,dc=lab") == normal_dn("cn=a\\2Cb ü,dc=lab")


values = st.lists(st.binary(max_size=20) | st.from_regex(rb"[a-z0-9]{1,12}", fullmatch=True))


@given(st.fixed_dictionaries(dict.fromkeys(("uid", "uidnumber", "gidnumber", "cn"), values)))
def test_whatever_stands_in_an_entry_it_is_an_account_or_refused(attributes):
    settings = DirectorySettings(PEOPLE, servers=(DirectoryServer("ldap.lab.test", 636, True),))
    try:
        account = read_account(Entry("uid=x", attributes), settings)
    except AccountUnusable:
        return
    assert account.uid >= 1000
    assert account.gid >= 1000
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", account.name)


def test_public_keys_are_read_where_they_are_asked_for_and_within_bounds():
    attributes = {
        "uid": [b"alice"], "uidnumber": [b"20003"], "gidnumber": [b"20000"],
        "sshpublickey": [b"ssh-ed25519 AAAA alice", b"x" * 100_000, b"\xff", b" "],
        "ipasshpubkey": [b"ssh-ed25519 AAAA alice", *(b"key %d" % number for number in range(50))],
    }  # fmt: skip
    plain = DirectorySettings(PEOPLE, servers=(DirectoryServer("ldap.lab.test", 636, True),))
    with_keys = replace(plain, ssh_key_attributes=("sshPublicKey", "ipaSshPubKey"))
    assert read_account(Entry("uid=alice", attributes), plain).ssh_keys == ()
    assert "sshPublicKey" not in entry_attributes(plain)
    assert "sshPublicKey" in entry_attributes(with_keys)
    keys = read_account(Entry("uid=alice", attributes), with_keys).ssh_keys
    assert keys[:3] == ("ssh-ed25519 AAAA alice", "\ufffd", "key 0")
    assert len(keys) == 20


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_login_stays_one_value_of_a_dn(text):
    settings = DirectorySettings(
        PEOPLE,
        servers=(DirectoryServer("ldap.lab.test", 636, True),),
        user_dn_templates=(f"uid={{login}},{PEOPLE}",),
    )
    login = clean_login(text)
    if login is not None:
        [dn] = login_dns(settings, login)
        kinds = [kind for kind, _, _ in parse_dn(dn)]
        assert kinds == ["uid", "ou", "dc", "dc"]


@given(st.text(max_size=40))
def test_every_way_to_type_a_name_is_one_key(text):
    settings = DirectorySettings(PEOPLE, servers=(DirectoryServer("ldap.lab.test", 636, True),))
    key = throttle_key(None, text, settings)
    assert throttle_key(None, f"  {text} ", settings) == key


def test_every_message_of_the_directory_is_there_in_chinese():
    for error in (
        *(AccountBarred(standing, "uid=x") for standing in Standing),
        *(TooManyAttempts(60, ""), Denied([]), NameTaken("a", "b", "c"), NotAdmitted([])),
    ):
        assert error.sentence(gettext_for("zh_CN")) != error.sentence()
