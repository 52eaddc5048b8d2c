"""Active Directory's ways. Against a stand-in that answers as Microsoft documents: no slapd can."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_ext.directory.errors import AccountBarred, AccountUnusable, WrongCredentials
from hub_ext.directory.standing import Standing
from rig.responder import IN_CHAIN, Responder

ROOT = "dc=corp,dc=test"
PEOPLE, GROUPS = f"ou=staff,{ROOT}", f"ou=groups,{ROOT}"
SERVICE = f"cn=hub,ou=services,{ROOT}"
ALICE = f"cn=Alice Example,{PEOPLE}"
GUID = uuid.UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff")
DOMAIN_SID = bytes([1, 5, 0, 0, 0, 0, 0, 5]) + b"".join(
    number.to_bytes(4, "little") for number in (21, 1004336348, 1177238915, 682003330)
)


def sid(relative: int) -> bytes:
    return DOMAIN_SID[:1] + bytes([5]) + DOMAIN_SID[2:] + relative.to_bytes(4, "little")


def user(name: str, relative: int, **more: bytes) -> dict[str, list[bytes]]:
    attributes = {
        "objectCategory": b"person",
        "objectClass": b"user",
        "sAMAccountName": name.encode(),
        "userPrincipalName": f"{name.lower()}@corp.test".encode(),
        "objectGUID": uuid.UUID(int=GUID.int + relative - 1001).bytes_le,
        "objectSid": sid(relative),
        "primaryGroupID": b"513",
        "uidNumber": str(20000 + relative).encode(),
        "gidNumber": b"20000",
        "displayName": f"{name} Example".encode(),
        "userAccountControl": b"512",
        "accountExpires": b"9223372036854775807",
        "pwdLastSet": b"133000000000000000",
        **more,
    }
    return {key: [value] for key, value in attributes.items()}


def group(name: str, *members: str, relative: int = 0) -> dict[str, list[bytes]]:
    entry = {"objectClass": [b"group"], "cn": [name.encode()]}
    entry["member"] = [member.encode() for member in members]
    if relative:
        entry["objectSid"] = [sid(relative)]
    return entry


@pytest.fixture
def active_directory(tmp_path: Path) -> Iterator[Responder]:
    entries = {
        PEOPLE: {"objectClass": [b"organizationalUnit"]},
        ALICE: user("Alice", 1001),
        f"cn=team,{GROUPS}": group("team", ALICE),
        f"cn=staff,{GROUPS}": group("staff", f"cn=team,{GROUPS}"),
        f"cn=all,{GROUPS}": group("all", f"cn=staff,{GROUPS}", f"cn=Domain Users,{GROUPS}"),
        f"cn=Domain Users,{GROUPS}": group("Domain Users", relative=513),
        f"cn=others,{GROUPS}": group("others", f"cn=nobody,{PEOPLE}"),
    }
    with Responder(tmp_path / "ad", entries, {SERVICE: "service", ALICE: "alice-secret"}) as server:
        yield server


@pytest.fixture
def connect(active_directory, directory, tmp_path, slapd):
    password = tmp_path / "password"
    password.write_text("service")

    def make(**changes):
        preset = {
            "user_filter": "(&(objectCategory=person)(objectClass=user)"
            "(|(sAMAccountName={login})(userPrincipalName={login})))",
            "name_attribute": "sAMAccountName",
            "id_attribute": "objectGUID",
            "group_filter": "(objectClass=group)",
            "group_membership": "in-chain",
        }
        return directory(
            urls=[active_directory.url],
            server_type="active-directory",
            ca_file=active_directory.ca_file,
            bind_dn=SERVICE,
            bind_password_file=password,
            user_base_dn=PEOPLE,
            group_base_dn=GROUPS,
            netbios_domain="CORP",
            **{**preset, **changes},
        )

    return make


@pytest.mark.parametrize(
    "typed", ["alice", "ALICE", "alice@corp.test", "CORP\\alice", "corp\\Alice"]
)
async def test_people_log_in_by_any_of_their_names(connect, typed):
    person = await connect().login(typed, "alice-secret")
    assert person.name == "alice"


@pytest.mark.parametrize("typed", ["OTHER\\alice", "\\alice", "CORP\\", "CORP\\CORP\\alice"])
async def test_another_domains_name_is_nobodys(connect, typed):
    with pytest.raises(WrongCredentials):
        await connect().login(typed, "alice-secret")


async def test_the_guid_is_the_stable_id_and_finds_a_renamed_person(connect, active_directory):
    hub = connect()
    person = await hub.login("alice", "alice-secret")
    assert person.account.id == str(GUID)
    entry = active_directory.entries.pop(ALICE)
    active_directory.entries[f"cn=Alice Novak,{PEOPLE}"] = {**entry, "sAMAccountName": [b"novak"]}
    assert (await hub.lookup("alice", str(GUID))).name == "novak"


async def test_the_chain_and_the_primary_group_are_walked_by_the_server(connect, active_directory):
    """11, 13: in-chain where the server has it; the primary group is in no member list."""
    person = await connect().lookup("alice")
    assert set(person.groups.names) == {"team", "staff", "all", "Domain Users"}
    assert IN_CHAIN in active_directory.filters


@pytest.mark.parametrize(
    ("code", "standing"),
    [
        ("530", Standing.NOT_NOW),
        ("531", Standing.NOT_NOW),
        ("532", Standing.PASSWORD_EXPIRED),
        ("533", Standing.DISABLED),
        ("701", Standing.EXPIRED),
        ("773", Standing.MUST_CHANGE),
    ],
)
async def test_a_sub_code_tells_the_person_what_is_wrong(connect, active_directory, code, standing):
    active_directory.refusals[ALICE.lower()] = code
    with pytest.raises(AccountBarred) as barred:
        await connect().login("alice", "alice-secret")
    assert barred.value.standing is standing
    with pytest.raises(WrongCredentials):
        await connect().login("alice", "not it")


async def test_a_lock_is_for_the_log_only_as_any_password_shows_it(connect, active_directory):
    active_directory.refusals[ALICE.lower()] = "775"
    with pytest.raises(WrongCredentials) as refused:
        await connect().login("alice", "not it")
    assert refused.value.outcome == "locked"
    assert refused.value.sentence() == WrongCredentials().sentence()


@pytest.mark.parametrize(
    ("attribute", "value", "standing"),
    [
        ("userAccountControl", b"514", Standing.DISABLED),
        ("accountExpires", b"132000000000000000", Standing.EXPIRED),
        ("lockoutTime", b"133000000000000000", Standing.LOCKED),
        ("pwdLastSet", b"0", Standing.MUST_CHANGE),
        ("msDS-User-Account-Control-Computed", b"16", Standing.LOCKED),
        ("msDS-User-Account-Control-Computed", b"8388608", Standing.PASSWORD_EXPIRED),
    ],
)
async def test_a_refresh_reads_the_account_state(
    connect, active_directory, attribute, value, standing
):
    hub = connect()
    assert (await hub.lookup("alice")).name == "alice"
    active_directory.entries[ALICE][attribute] = [value]
    with pytest.raises(AccountBarred) as barred:
        await hub.lookup("alice")
    assert barred.value.standing is standing


async def test_a_lock_that_the_directory_has_lifted_by_time_is_none(connect, active_directory):
    active_directory.entries[ALICE]["lockoutTime"] = [b"133000000000000000"]
    assert (await connect(lockout_seconds=900).lookup("alice")).name == "alice"


async def test_a_person_without_a_number_is_told_so(connect, active_directory):
    del active_directory.entries[ALICE]["uidNumber"]
    with pytest.raises(AccountUnusable):
        await connect().lookup("alice")
