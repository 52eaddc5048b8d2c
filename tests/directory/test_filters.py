"""What somebody types can never change what a search asks for."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from ldap3.operation.search import MATCH_EQUAL, compile_filter, parse_filter

from hub_ext.directory.accounts import clean_login, escape_filter_value, password_bytes
from hub_ext.directory.groups import normal_dn

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


def test_a_dn_that_is_none_is_still_comparable():
    assert normal_dn("Not A DN") == "not a dn"
