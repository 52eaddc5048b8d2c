"""Who gets in, with which password, as whom."""

from __future__ import annotations

import logging
import unicodedata

import pytest

from hub_ext.directory.errors import AccountUnusable, WrongCredentials
from rig.slapd import ODD_NAMES, ODD_PASSWORDS, PEOPLE, Slapd
from rig.tarpit import Tarpit

pytestmark = pytest.mark.ldap


@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
async def test_the_right_password_gives_the_person(slapd, directory, scheme):
    url = slapd.ldap_url if scheme == "ldap" else slapd.ldaps_url
    person = await directory(urls=[url]).login("alice", "alice-secret")
    account = person.account
    assert (account.uid, account.gid, person.groups.gids) == (20003, 20000, (20000, 21001))
    assert (account.display_name, account.mail) == ("Alice Example", "alice@lab.test")
    assert (account.language, account.dn) == ("en", f"uid=alice,{PEOPLE}")
    assert set(person.groups.names) == {
        *("everyone", "lab-users", "staff", "team-vision", "team-vision-posix", "wheel")
    }


async def test_a_wrong_password_and_an_unknown_name_give_the_same_error(directory):
    with pytest.raises(WrongCredentials) as wrong:
        await directory().login("alice", "bob-secret")
    with pytest.raises(WrongCredentials) as unknown:
        await directory().login("mallory", "bob-secret")
    assert wrong.value.sentence() == unknown.value.sentence()


@pytest.mark.parametrize("name", sorted(ODD_PASSWORDS))
async def test_a_password_reaches_the_directory_as_it_was_typed(directory, name):
    person = await directory().login(name, ODD_PASSWORDS[name])
    assert person.name == name


@pytest.mark.parametrize("form", ["NFC", "NFD", "wide"])
async def test_a_password_is_right_in_each_form_that_keyboards_give_it(directory, form):
    """Kind: the same letters, as other characters: of another system, or an input method."""
    typed = ODD_PASSWORDS["umlaut"]
    wide = typed.replace("12", "\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT TWO}")
    typed = wide if form == "wide" else unicodedata.normalize(form, typed)
    assert (await directory().login("umlaut", typed)).name == "umlaut"


async def test_another_form_of_a_wrong_password_counts_once(directory):
    gates: list[str] = []
    with pytest.raises(WrongCredentials):
        await directory().login(
            "umlaut", "w\N{LATIN SMALL LETTER O WITH DIAERESIS}rong", lambda n, _: gates.append(n)
        )
    assert set(gates) == {"umlaut"}


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_a_name_that_no_server_can_have_is_refused_with_the_rule(directory, name):
    """Kind: whatever a directory calls people; docs/ldap.md has the table."""
    with pytest.raises(AccountUnusable) as refused:
        await directory().login(name, f"{name}-secret")
    assert "begins with a letter a-z or a digit" in refused.value.sentence()
    assert "it must match" in refused.value.detail


async def test_names_that_are_addresses_lose_the_sites_domain(directory):
    with pytest.raises(AccountUnusable):
        await directory().login("anna@lab.test", "anna@lab.test-secret")
    ours = directory(name_domain="Lab.test")
    for typed in ("anna@lab.test", "Anna@LAB.TEST", "anna"):
        assert (await ours.login(typed, "anna@lab.test-secret")).name == "anna"
    assert (await ours.login("alice", "alice-secret")).name == "alice"
    assert (await ours.lookup("anna")).name == "anna"
    with pytest.raises(AccountUnusable):
        await directory(name_domain="other.test").login("anna@lab.test", "anna@lab.test-secret")


async def test_spaces_at_the_ends_of_a_password_matter(directory):
    with pytest.raises(WrongCredentials):
        await directory().login("spaces", ODD_PASSWORDS["spaces"].strip())


@pytest.mark.parametrize(
    "password",
    ["", "\0", "alice-secret\0", "\ud800", "x" * 10_000],
    ids=["empty", "nul", "nul at the end", "half a character", "10 kB"],
)
async def test_a_password_that_no_account_has_is_refused_without_asking(directory, password):
    with Tarpit() as nobody_asked:
        asked = directory(urls=[f"ldaps://127.0.0.1:{nobody_asked.port}"])
        with pytest.raises(WrongCredentials):
            await asked.login("alice", password)
        assert nobody_asked.connections == 0


@pytest.mark.parametrize(
    "typed",
    ["ALICE", "alice ", " alice", "ａｌｉｃｅ", "aLiCe", "\ufeffalice", "al\u200bice\u202c "],
)
async def test_a_name_comes_from_the_directory_not_from_what_was_typed(directory, typed):
    assert (await directory().login(typed, "alice-secret")).name == "alice"


async def test_a_name_in_mixed_case_becomes_lower_case(directory):
    assert (await directory().login("mixedcase", "MixedCase-secret")).name == "mixedcase"


@pytest.mark.parametrize(
    "typed",
    [
        *("*", "a*", "alice)(uid=*", "*)(objectClass=*", "(alice)", "\\61lice", "alice\\", "\\2a"),
        *('"alice"', "'alice'", "{login}", "{0}", "{}", "alice%s", "uid=alice", "alice,ou=people"),
        *("alice\nbob", "alice\0", "\n", "", "   ", "a" * 300, "~=alice", "x>=a", "a:=b", "\ud800"),
        f"uid=alice,{PEOPLE}",
    ],
)
async def test_a_name_that_is_none_finds_nobody(directory, typed):
    with pytest.raises(WrongCredentials):
        await directory().login(typed, "alice-secret")


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("nonumber", "0 values of uidNumber"),
        ("twonames", "2 values of uid"),
        ("rootlike", "uidNumber is '0'"),
        ("system", "uidNumber is '33'"),
        ("bad name", "uid is 'bad name'"),
        ("..", "uid is '..'"),
    ],
)
async def test_an_account_unfit_for_a_server_is_refused_with_its_cause(directory, name, cause):
    with pytest.raises(AccountUnusable) as refused:
        await directory().login(name, f"{name}-secret")
    assert cause in refused.value.detail
    assert "administrators" in refused.value.sentence()


async def test_what_is_wrong_with_an_account_is_told_only_for_its_password(directory):
    with pytest.raises(WrongCredentials):
        await directory().login("nonumber", "not it")


async def test_two_entries_for_one_name_let_nobody_in_and_are_reported(directory, caplog):
    for password in ("double-secret", "x"):
        with pytest.raises(WrongCredentials):
            await directory().login("double", password)
    assert "more than one entry answers to 'double'" in caplog.text


async def test_an_attribute_of_a_megabyte_is_cut(directory):
    person = await directory().login("huge", "huge-secret")
    assert person.account.display_name == "A" * 200


async def test_an_entry_with_commas_braces_and_stars_in_its_dn_is_a_person(directory):
    person = await directory().login("liwei", "liwei-secret")
    assert person.account.display_name == "Li, {Wei} (lab)*"
    assert "odd" in person.groups.names


async def test_a_referral_is_never_followed(tmp_path, directory):
    with (
        Tarpit() as elsewhere,
        Slapd(tmp_path / "slapd", referral=f"ldap://127.0.0.1:{elsewhere.port}/") as slapd,
    ):
        person = await directory(slapd).login("alice", "alice-secret")
        assert person.name == "alice"
        assert elsewhere.connections == 0


async def test_the_password_is_in_no_line_of_the_log(directory, caplog):
    caplog.set_level(logging.DEBUG)
    await directory().login("alice", "alice-secret")
    with pytest.raises(WrongCredentials):
        await directory().login("alice", "not-alices-secret")
    assert "secret" not in caplog.text
