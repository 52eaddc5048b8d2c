"""Which server is asked, over which connection: DNS, kept connections, and those that died."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections import Counter

import pytest

from hub_ext.directory.discovery import Discovery, Srv, order
from hub_ext.directory.errors import DirectoryUnavailable, ServerFailed, WrongCredentials
from hub_ext.directory.servers import Servers
from hub_ext.directory.settings import DirectoryServer
from rig.dns import NameServer
from rig.slapd import PEOPLE
from rig.tarpit import Tarpit, silent

pytestmark = pytest.mark.ldap

LOG = logging.getLogger("servers")
A, B = DirectoryServer("a.lab.test", 636, True), DirectoryServer("b.lab.test", 636, True)


async def discovered(records) -> tuple[DirectoryServer, ...]:
    servers = Servers((), 30, LOG)
    with NameServer(records) as dns:
        await Discovery("lab.test", servers, 2, LOG, [dns.address]).refresh()
    return servers.known


async def test_dns_names_the_servers_in_their_order():
    known = await discovered(
        {"_ldap._tcp.lab.test": [(20, 0, 389, "b.lab.test"), (10, 0, 1389, "a.lab.test")]}
    )
    assert known == (
        DirectoryServer("a.lab.test", 1389, False),
        DirectoryServer("b.lab.test", 389, False),
    )


async def test_servers_with_tls_from_the_start_come_before_others():
    known = await discovered(
        {
            "_ldap._tcp.lab.test": [(0, 0, 389, "a.lab.test")],
            "_ldaps._tcp.lab.test": [(0, 0, 636, "a.lab.test")],
        }
    )
    assert known == (A,)


async def test_a_host_outside_the_domain_is_not_believed(caplog):
    known = await discovered(
        {"_ldaps._tcp.lab.test": [(0, 0, 636, "lab.test.evil.example"), (0, 0, 636, "a.lab.test")]}
    )
    assert known == (A,)
    assert "evil.example" in caplog.text


async def test_dns_that_does_not_answer_takes_no_known_server_away(caplog):
    servers = Servers([A], 30, LOG)
    with NameServer({}) as dns:
        discovery = Discovery("lab.test", servers, 2, LOG, [dns.address])
        await discovery.refresh()
        while "check dns_domain" not in caplog.text.lower():
            await asyncio.sleep(0.01)
        await discovery.refresh()
        assert len(dns.asked) == 2  # ldaps and ldap, once each
    assert servers.known == (A,)


async def test_nobody_waits_for_dns_while_a_server_is_known():
    servers = Servers([A], 30, LOG)
    with NameServer({"_ldaps._tcp.lab.test": [(0, 0, 636, "b.lab.test")]}) as dns:
        await Discovery("lab.test", servers, 2, LOG, [dns.address]).refresh()
        assert servers.known == (A,)
        while servers.known == (A,):
            await asyncio.sleep(0.01)
    assert servers.known == (B,)


async def test_a_domain_without_servers_is_an_outage_that_says_so(directory):
    hub = directory(servers=(), dns_domain="nowhere.invalid", timeout=1)
    with pytest.raises(DirectoryUnavailable, match="DNS has named no server"):
        await hub.login("alice", "alice-secret")


def test_heavier_servers_come_first_more_often():
    records = [(True, Srv("a", 636, 0, 90, 60)), (True, Srv("b", 636, 0, 10, 60))]
    first = Counter(order(records)[0].host for _ in range(500))
    assert first["a"] > 3 * first["b"] > 0


# -- fail-over -----------------------------------------------------------------------------


def fail(server: DirectoryServer) -> str:
    raise ServerFailed(str(server), "no")


def test_a_server_that_has_rested_is_tried_by_one_caller_while_others_ask_the_next():
    servers = Servers([A, B], 0.0, LOG)
    assert servers.attempt(lambda server: "b" if server == B else fail(server)) == "b"
    trying, done = threading.Event(), threading.Event()

    def slow(server: DirectoryServer) -> str:
        trying.set()
        done.wait(5)
        return server.host

    thread = threading.Thread(target=servers.attempt, args=(slow,))
    thread.start()
    trying.wait(5)
    assert servers.attempt(lambda server: server.host) == "b.lab.test"
    done.set()
    thread.join()
    assert servers.attempt(lambda server: server.host) == "a.lab.test"


def test_a_server_that_keeps_somebody_waiting_is_not_asked_first(monkeypatch):
    monkeypatch.setattr("hub_ext.directory.servers._SLOW", 0.01)
    servers = Servers([A, B], 30, LOG)
    trying, done = threading.Event(), threading.Event()

    def slow(server: DirectoryServer) -> str:
        trying.set()
        done.wait(5)
        return server.host

    thread = threading.Thread(target=servers.attempt, args=(slow,))
    thread.start()
    trying.wait(5)
    time.sleep(0.05)
    assert servers.attempt(lambda server: server.host) == "b.lab.test"
    done.set()
    thread.join()


async def test_others_log_in_while_one_waits_for_a_silent_server(directory, slapd):
    with Tarpit(silent) as first:
        hub = directory(urls=[f"ldap://127.0.0.1:{first.port}", slapd.ldap_url], timeout=1)
        for _ in range(3):
            assert (await hub.login("bob", "bob-secret")).name == "bob"
        assert first.connections == 1


# -- kept connections ----------------------------------------------------------------------


class Counted:
    """Counts the sessions that a directory opens, and what they bind as."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from hub_ext.directory.connection import Session

        self.binds: list[str] = []
        bind = Session.bind

        def counted(session, dn, password):
            self.binds.append(dn)
            return bind(session, dn, password)

        monkeypatch.setattr(Session, "bind", counted)


async def test_the_service_account_binds_once_and_every_person_on_a_new_connection(
    directory, monkeypatch
):
    counted = Counted(monkeypatch)
    hub = directory()
    for _ in range(3):
        await hub.login("alice", "alice-secret")
        with pytest.raises(WrongCredentials):
            await hub.login("alice", "not it")
    assert counted.binds.count(f"uid=alice,{PEOPLE}") == 6
    assert len(counted.binds) == 7


async def test_a_restarted_server_costs_nobody_a_failed_login(directory, own_slapd, caplog):
    hub = directory(own_slapd)
    await hub.login("alice", "alice-secret")
    own_slapd.stop()
    own_slapd.start()
    assert (await hub.login("alice", "alice-secret")).name == "alice"
    assert (await hub.lookup("bob")).name == "bob"
    assert "rests" not in caplog.text


async def test_a_connection_with_an_answer_on_its_way_is_not_used_again(directory, own_slapd):
    hub = directory(own_slapd)
    await hub.lookup("alice")
    [(_, session)] = next(iter(hub.pool._idle.values()))
    session._connection.socket.shutdown(socket.SHUT_RDWR)
    assert (await hub.lookup("bob")).name == "bob"
    [(_, replacement)] = next(iter(hub.pool._idle.values()))
    assert replacement is not session


async def test_small_packets_do_not_wait(directory, slapd):
    hub = directory()
    await hub.lookup("alice")
    [(_, session)] = next(iter(hub.pool._idle.values()))
    sock = session._connection.socket
    assert isinstance(sock, ssl.SSLSocket)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.gettimeout() <= 2


async def test_nothing_is_read_of_a_servers_schema(directory):
    hub = directory()
    await hub.lookup("alice")
    [(_, session)] = next(iter(hub.pool._idle.values()))
    assert session._connection.server.schema is None
    assert session._connection.auto_referrals is False


# -- people who are their own service account ------------------------------------------------


async def test_with_dn_templates_people_need_no_service_account(directory):
    hub = directory(
        user_dn_templates=(f"uid={{login}},ou=nowhere,{PEOPLE}", f"uid={{login}},{PEOPLE}"),
        bind_dn=None,
        bind_password_file=None,
    )
    person = await hub.login("alice", "alice-secret")
    assert "team-vision" in person.groups.names
    for name, password in [
        *(("alice", "not it"), ("mallory", "x")),
        (f"alice,{PEOPLE}", "alice-secret"),
        ("alice+cn=x", "alice-secret"),
    ]:
        with pytest.raises(WrongCredentials):
            await hub.login(name, password)
    with pytest.raises(DirectoryUnavailable, match="set bind_dn"):
        await hub.lookup("alice")


async def test_with_dn_templates_and_a_service_account_refreshes_work(directory):
    hub = directory(user_dn_templates=(f"uid={{login}},{PEOPLE}",))
    assert (await hub.login("alice", "alice-secret")).name == "alice"
    assert (await hub.lookup("alice")).name == "alice"
    assert await hub.lookup("mallory") is None
