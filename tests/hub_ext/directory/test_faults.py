"""Servers that are down, silent, wrong or not who they say they are."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from hub_ext.directory.connection import make_tls_context
from hub_ext.directory.errors import DirectoryUnavailable, SettingsError
from rig.slapd import Slapd
from rig.tarpit import Tarpit, drip, garbage, hang_up, refuse_start_tls, silent

pytestmark = pytest.mark.ldap

SILENT_TIMES = {"timeout": 1, "login_deadline": 1.0}


async def refused(directory) -> str:
    """The causes for which nobody can log in now."""
    with pytest.raises(DirectoryUnavailable) as unavailable:
        await directory.login("alice", "alice-secret")
    return unavailable.value.detail


async def test_a_server_that_is_down_makes_the_directory_unavailable(directory, own_slapd):
    own_slapd.stop()
    assert "refused" in await refused(directory(own_slapd))


async def test_people_log_in_again_when_the_server_is_back(directory, own_slapd):
    hub = directory(own_slapd)
    own_slapd.kill()
    await refused(hub)
    own_slapd.start()
    assert (await hub.login("alice", "alice-secret")).name == "alice"


@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
@pytest.mark.parametrize("behaviour", [garbage, hang_up, refuse_start_tls, silent, drip])
async def test_a_server_that_misbehaves_is_one_clear_outcome(directory, scheme, behaviour):
    with Tarpit(behaviour) as bad:
        causes = await refused(directory(urls=[f"{scheme}://127.0.0.1:{bad.port}"], **SILENT_TIMES))
    assert str(bad.port) in causes or "deadline" in causes


async def test_the_event_loop_runs_on_while_a_server_is_silent(directory):
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    with Tarpit(silent) as server:
        hub = directory(urls=[f"ldap://127.0.0.1:{server.port}"], **SILENT_TIMES)
        ticker = asyncio.create_task(tick())
        await refused(hub)
        ticker.cancel()
    assert ticks >= 10


async def test_a_second_server_is_asked_when_the_first_is_down(directory, slapd, own_slapd):
    own_slapd.stop()
    hub = directory(slapd, urls=[own_slapd.ldap_url, slapd.ldap_url])
    assert (await hub.login("alice", "alice-secret")).name == "alice"


async def test_a_silent_server_is_asked_once_and_then_rests(directory, slapd):
    with Tarpit(silent) as first:
        hub = directory(urls=[f"ldap://127.0.0.1:{first.port}", slapd.ldap_url], timeout=1)
        for _ in range(3):
            assert (await hub.login("alice", "alice-secret")).name == "alice"
        assert first.connections == 1


async def test_a_thread_kept_waiting_byte_by_byte_is_free_after_the_deadline(directory, slapd):
    with Tarpit(drip) as first:
        hub = directory(
            urls=[f"ldap://127.0.0.1:{first.port}", slapd.ldap_url], threads=1, **SILENT_TIMES
        )
        await refused(hub)
        assert (await hub.login("alice", "alice-secret")).name == "alice"


async def test_a_lookup_does_not_wait_for_servers_that_all_rest(directory):
    with Tarpit(silent) as server:
        hub = directory(urls=[f"ldap://127.0.0.1:{server.port}"], timeout=1)
        await refused(hub)
        with pytest.raises(DirectoryUnavailable, match="rests"):
            await hub.lookup("alice")
        assert server.connections == 1


async def test_a_wrong_password_is_tried_at_one_server_only(directory, slapd, own_slapd):
    own_slapd.modify(
        "dn: uid=alice,ou=people,dc=lab,dc=test\n"
        "changetype: modify\nreplace: userPassword\nuserPassword: other\n"
    )
    hub = directory(slapd, urls=[slapd.ldap_url, own_slapd.ldap_url])
    with pytest.raises(Exception, match="wrong password"):
        await hub.login("alice", "other")


@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
async def test_a_certificate_of_another_ca_is_refused(directory, slapd, own_slapd, scheme):
    url = own_slapd.ldap_url if scheme == "ldap" else own_slapd.ldaps_url
    assert "certificate was refused" in await refused(directory(slapd, urls=[url]))


@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
async def test_an_expired_certificate_is_refused(directory, tmp_path, scheme):
    with Slapd(tmp_path / "slapd", expired=True) as slapd:
        url = slapd.ldap_url if scheme == "ldap" else slapd.ldaps_url
        assert "expired" in await refused(directory(slapd, urls=[url]))


@pytest.mark.parametrize("hosts", [["other.lab.test"], ["localhost"], ["127.0.0.2"]])
@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
async def test_a_certificate_for_another_host_or_address_is_refused(
    directory, tmp_path, hosts, scheme
):
    with Slapd(tmp_path / "slapd", hosts=hosts) as slapd:
        url = slapd.ldap_url if scheme == "ldap" else slapd.ldaps_url
        assert "mismatch" in await refused(directory(slapd, urls=[url]))


async def test_a_host_name_is_as_good_as_an_address(directory, slapd):
    url = slapd.ldap_url.replace("127.0.0.1", "localhost")
    assert (await directory(urls=[url]).login("alice", "alice-secret")).name == "alice"


async def test_a_refused_service_account_is_named_with_the_remedy(directory, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("not it")
    assert "check bind_dn and the password" in await refused(directory(bind_password_file=wrong))


async def test_a_missing_password_file_is_named(directory, tmp_path):
    missing = tmp_path / "missing"
    assert str(missing) in await refused(directory(bind_password_file=missing))


async def test_a_base_that_does_not_exist_is_named(directory):
    assert "ou=nowhere" in await refused(directory(user_base_dn="ou=nowhere,dc=lab,dc=test"))


async def test_more_people_than_threads_at_once_all_get_in(directory):
    hub = directory(threads=2)
    people = await asyncio.gather(*(hub.login("bob", "bob-secret") for _ in range(40)))
    assert {person.name for person in people} == {"bob"}


def test_a_ca_file_that_cannot_be_read_is_an_error_at_once(directory, tmp_path):
    with pytest.raises(SettingsError, match="ca_file"):
        directory(ca_file=tmp_path / "missing")
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(SettingsError, match="ca_file"):
        directory(ca_file=tmp_path / "junk")


def test_tls_is_always_verified_and_never_old():
    context = make_tls_context(None)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("answer", [2, 80])
async def test_nothing_is_sent_to_a_server_that_refuses_tls(directory, answer):
    """protocolError and other, as servers without TLS answer StartTLS."""
    heard = bytearray()

    def refuse(connection):
        request = connection.recv(4096)
        connection.sendall(
            b"\x30\x0c\x02\x01" + request[4:5] + b"\x78\x07\x0a\x01" + bytes([answer, 4, 0, 4, 0])
        )
        while more := connection.recv(4096):
            heard.extend(more)

    with Tarpit(refuse) as server:
        causes = await refused(directory(urls=[f"ldap://127.0.0.1:{server.port}"], **SILENT_TIMES))
    assert str(server.port) in causes
    # An unbind at most: neither the service account's name nor anybody's password.
    assert len(heard) <= 16
    assert b"labcommons" not in heard
    assert b"secret" not in heard
