"""The servers of a domain from its DNS SRV records (RFC 2782).

DNS is not authenticated: whoever can forge an answer could name a host of their own, with a
good certificate for it. Only hosts within the domain itself are therefore taken.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiodns
import pycares

from .servers import Log, Servers
from .settings import DirectoryServer

# Seconds: DNS is asked again no sooner, and no later, whatever the records' time to live says.
_SHORTEST, _LONGEST = 60, 3600
_MAX_SERVERS = 16


@dataclass(frozen=True)
class Srv:
    """One SRV record."""

    host: str
    port: int
    priority: int
    weight: int
    ttl: int


class Discovery:
    """Keeps ``servers`` as DNS says; what was known stays while DNS does not answer."""

    def __init__(
        self,
        domain: str,
        servers: Servers,
        timeout: float,
        log: Log,
        nameservers: Sequence[str] = (),
    ) -> None:
        """``nameservers`` (``"127.0.0.1:53"``) are asked in place of the machine's."""
        self._domain = domain.rstrip(".").lower()
        self._servers = servers
        self._timeout = timeout
        self._log = log
        self._nameservers = list(nameservers)
        self._asks_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Ask DNS when the last answer is old. Never raises: without servers a login says so.

        Waits for the answer only while no server is known.
        """
        if time.monotonic() < self._asks_at:
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all())
        if not self._servers.known:
            await asyncio.shield(self._asking)

    async def _ask_all(self) -> None:
        try:
            records = await self._records()
        except Exception:
            # For example a resolver that cannot read the machine's settings.
            self._log.exception("directory: DNS could not be asked for %s", self._domain)
            records = []
        self._asks_at = time.monotonic() + _SHORTEST
        if records:
            self._servers.replace(order(records))
            ttl = min(record.ttl for _, record in records)
            self._asks_at = time.monotonic() + min(max(ttl, _SHORTEST), _LONGEST)

    async def _records(self) -> list[tuple[bool, Srv]]:
        resolver = aiodns.DNSResolver(
            nameservers=self._nameservers or None, timeout=self._timeout, tries=1
        )
        try:
            # ldaps first: TLS from the start is one round trip less.
            for service in ("_ldaps", "_ldap"):
                found = await self._ask(resolver, f"{service}._tcp.{self._domain}")
                if found:
                    return [(service == "_ldaps", record) for record in found]
        finally:
            await resolver.close()
        self._log.error(
            "directory: DNS gives no server for %s (_ldaps._tcp and _ldap._tcp); "
            "those known before stay in use. Check dns_domain and the machine's resolver",
            self._domain,
        )
        return []

    async def _ask(self, resolver: aiodns.DNSResolver, name: str) -> list[Srv]:
        try:
            async with asyncio.timeout(self._timeout):
                answer = await resolver.query_dns(name, "SRV")
        except (aiodns.error.DNSError, TimeoutError) as error:
            self._log.info("directory: DNS has no %s: %s", name, error)
            return []
        records = [
            Srv(
                str(record.data.target).rstrip(".").lower(),
                record.data.port,
                record.data.priority,
                record.data.weight,
                record.ttl,
            )
            for record in answer.answer
            if isinstance(record.data, pycares.SRVRecordData)
        ]
        return [record for record in records if self._trusted(record)]

    def _trusted(self, record: Srv) -> bool:
        if record.host.endswith(f".{self._domain}") and record.port:
            return True
        self._log.error(
            "directory: DNS names %r as a server of %s; it is not within that domain and is not "
            "used. Name it in servers if it is right",
            record.host[:253],
            self._domain,
        )
        return False


def order(records: Sequence[tuple[bool, Srv]]) -> list[DirectoryServer]:
    """Servers by priority, and by chance within one, heavier ones rather first (RFC 2782)."""
    ranked = sorted(
        records,
        # Efraimidis and Spirakis: sorting by u^(1/w) draws by weight without putting back.
        key=lambda item: (
            item[1].priority,
            -(random.random() ** (1 / max(item[1].weight, 0.01))),  # noqa: S311
        ),
    )
    return [DirectoryServer(srv.host, srv.port, ldaps) for ldaps, srv in ranked[:_MAX_SERVERS]]
