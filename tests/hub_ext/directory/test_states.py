"""Accounts that are disabled, expired, locked or have a password to change, with a real ppolicy."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.directory.answers import BindAnswer, parse_policy_error, read_bind_answer
from hub_ext.directory.entry import Entry
from hub_ext.directory.errors import AccountBarred, WrongCredentials
from hub_ext.directory.standing import STANDING_ATTRIBUTES, Standing, parse_time, standing_of
from rig.slapd import LOCKOUT, PEOPLE, Slapd

pytestmark = pytest.mark.ldap

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PERSON = f"dn: uid=alice,{PEOPLE}\nchangetype: modify\n"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """One with a password policy."""
    with Slapd(tmp_path_factory.mktemp("ppolicy"), overlays=["ppolicy"]) as slapd:
        yield slapd


@pytest.fixture
def changed(strict: Slapd):
    """Give alice an attribute for one test."""
    made = []

    def change(attribute: str, value: str) -> None:
        strict.modify(f"{PERSON}replace: {attribute}\n{attribute}: {value}\n")
        made.append(attribute)

    yield change
    for attribute in made:
        strict.modify(f"{PERSON}replace: {attribute}\n")


async def barred(work) -> Standing:
    with pytest.raises(AccountBarred) as error:
        await work
    return error.value.standing


async def test_a_reset_password_must_be_changed_first(directory, strict, changed):
    changed("pwdReset", "TRUE")
    hub = directory(strict)
    assert await barred(hub.login("alice", "alice-secret")) is Standing.MUST_CHANGE
    assert await barred(hub.lookup("alice")) is Standing.MUST_CHANGE


async def test_an_account_that_an_administrator_locked_is_disabled(directory, strict, changed):
    changed("pwdAccountLockedTime", "000001010000Z")
    hub = directory(strict)
    assert await barred(hub.lookup("alice")) is Standing.DISABLED
    with pytest.raises(WrongCredentials) as refused:
        await hub.login("alice", "alice-secret")
    assert refused.value.outcome == "locked"


async def test_too_many_wrong_passwords_lock_at_the_directory_and_the_log_says_so(
    directory, strict
):
    hub = directory(strict)
    for _ in range(LOCKOUT):
        with pytest.raises(WrongCredentials):
            await hub.login("dan", "not it")
    with pytest.raises(WrongCredentials) as refused:
        await hub.login("dan", "dan-secret")
    assert refused.value.outcome == "locked"
    assert refused.value.sentence() == WrongCredentials().sentence()
    assert await barred(hub.lookup("dan")) is Standing.LOCKED


async def test_an_account_ends_on_its_day(directory, strict, changed):
    changed("pwdEndTime", "20200101000000Z")
    assert await barred(directory(strict).lookup("alice")) is Standing.EXPIRED


async def test_who_is_well_passes(directory, strict):
    assert (await directory(strict).login("alice", "alice-secret")).name == "alice"


def entry(**attributes: str) -> Entry:
    return Entry(
        "uid=x", {name.replace("_", "-").lower(): [v.encode()] for name, v in attributes.items()}
    )


@pytest.mark.parametrize(
    ("attributes", "standing"),
    [
        ({}, None),
        ({"shadowExpire": "-1"}, None),
        ({"shadowExpire": "1"}, Standing.EXPIRED),
        ({"shadowExpire": str((NOW - datetime(1970, 1, 1, tzinfo=UTC)).days + 1)}, None),
        ({"nsAccountLock": "true"}, Standing.DISABLED),
        ({"nsAccountLock": "FALSE"}, None),
        ({"krbPrincipalExpiration": "20261121115959Z"}, Standing.EXPIRED),
        ({"krbPrincipalExpiration": "20261121120001Z"}, None),
        ({"krbPasswordExpiration": "20200101000000Z"}, Standing.PASSWORD_EXPIRED),
        ({"passwordExpirationTime": "19700101000000Z"}, Standing.MUST_CHANGE),
        ({"accountUnlockTime": "19700101000000Z"}, Standing.LOCKED),
        ({"accountUnlockTime": "20200101000000Z"}, None),
        ({"pwdStartTime": "20270101000000Z"}, Standing.EXPIRED),
        ({"userAccountControl": "junk"}, None),
        ({"userAccountControl": "66048", "pwdLastSet": "0"}, None),
    ],
)
def test_each_kind_of_directory_says_it_in_its_own_words(attributes, standing):
    assert standing_of(entry(**attributes), NOW) is standing


@pytest.mark.parametrize(("minutes", "standing"), [(14, Standing.LOCKED), (16, None)])
def test_a_lock_ends_when_the_site_says_the_directory_ends_it(minutes, standing):
    since = (NOW - timedelta(minutes=minutes)).strftime("%Y%m%d%H%M%SZ")
    locked = entry(pwdAccountLockedTime=since)
    assert standing_of(locked, NOW) is Standing.LOCKED
    assert standing_of(locked, NOW, timedelta(minutes=15)) is standing


names = st.sampled_from(sorted({name for names in STANDING_ATTRIBUTES.values() for name in names}))


@given(st.dictionaries(names, st.binary(max_size=80)))
def test_whatever_stands_in_an_entry_it_is_read_without_failing(attributes):
    junk = Entry("uid=x", {name.lower(): [value] for name, value in attributes.items()})
    assert standing_of(junk, NOW) in {None, *Standing}


@given(st.binary(max_size=40))
def test_whatever_a_policy_control_holds_it_is_read_without_failing(value):
    assert parse_policy_error(value) is None or parse_policy_error(value) in range(256)


def test_the_policy_control_is_read_from_its_bytes():
    assert parse_policy_error(bytes.fromhex("3003810101")) == 1
    assert parse_policy_error(bytes.fromhex("3000")) is None
    # timeBeforeExpiration 600, then changeAfterReset
    assert parse_policy_error(bytes.fromhex("3009a004800202588101 02".replace(" ", ""))) == 2


def test_an_inactive_account_of_389_ds_is_no_proof_of_a_password():
    answer = read_bind_answer({"result": 53, "message": "Account inactivated."})
    assert answer == BindAnswer(False, Standing.DISABLED)


def test_what_a_server_says_of_itself_is_no_answer_about_a_person():
    assert read_bind_answer({"result": 51}) is None  # busy


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_none(text):
    assert parse_time(text) is None or parse_time(text).tzinfo is UTC
