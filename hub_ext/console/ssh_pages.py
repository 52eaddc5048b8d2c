"""Page and REST of SSH: the keys that somebody has added, and what a client has to know."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field
from sqlalchemy.orm import Session

from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text
from commons.site import Site
from commons.ssh_keys import MOST_BYTES
from commons.store import ssh_keys
from commons.web import origins
from commons.web.operations import Part, Route, Sent, Time, Told, operation
from commons.web.refused import Refused
from hub_ext.console.handlers import Api, Base, Page

AUTHORITY = Path("ssh") / "authority.pub"  # below the data folder; the service writes it
MOST_AUTHORITY = 1000  # bytes

NO_SSH = Text("ssh_off", N_("This site has no SSH. An administrator can switch it on."))
NO_OWN_KEYS = Text(
    "ssh_no_own_keys", N_("This site takes keys of the directory alone: add yours there.")
)


class Key(Told):
    """A public key that somebody has added."""

    id: str
    fingerprint: str
    kind: str
    name: str
    line: str
    added_at: Time
    added_by: str
    used_at: Time | None


class Keys(Told):
    """The keys of who asks, the oldest first; those of the directory are not among them."""

    keys: list[Key]


class Client(Told):
    """What a client has to know."""

    host: str
    port: int
    config: str = Field(description="for ~/.ssh/config")
    known_hosts: str = Field(description="for ~/.ssh/known_hosts; empty: not known yet")


class NewKey(Sent):
    """One line of a .pub file."""

    line: Annotated[str, Field(min_length=1, max_length=4 * MOST_BYTES)]
    name: Annotated[str, Field(max_length=100)] = Field("", description="else its comment")


class _Ssh(Base):
    """What page and REST have in common."""

    def initialize(self, data: Path, **more: Any) -> None:  # type: ignore[override]
        """With the data folder."""
        super().initialize(**more)
        self.data = data

    def need_ssh(self, own_keys: bool = False) -> None:
        """Raises Refused where the site has none, or takes no keys here."""
        settings = self.site.ssh
        if settings is None:
            error = BadRequest(NO_SSH())
            error.status = 404
            raise Refused(error, self._)
        if own_keys and not settings.own_keys:
            raise Refused(BadRequest(NO_OWN_KEYS()), self._)

    async def add(self, line: str, name: str) -> dict[str, Any]:
        """A key for the viewer. Raises Refused."""
        self.need_ssh(own_keys=True)
        who = self.viewer.name
        row = await self.change(lambda s: ssh_keys.as_json(ssh_keys.add(s, who, line, name)))
        self.record("ssh-key-change", done="add", key=row["fingerprint"])
        return row

    async def client(self) -> dict[str, Any]:
        """For the viewer's client."""
        found = await asyncio.to_thread(_read, self.data / AUTHORITY)
        return client_of(self.site, self.viewer.name, found)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MOST_AUTHORITY).decode("ascii", "replace").strip()
    except OSError:
        return ""


def client_of(site: Site, name: str, authority: str) -> dict[str, Any]:
    """Host, port, and what goes into the two files of a client.

    Args:
        authority: the public key of the site's authority; empty where it is not known.
    """
    assert site.ssh is not None
    host = site.ssh.host or urlsplit(origins.public_url(site)).hostname or ""
    port = site.ssh.port
    known = host if port == 22 else f"[{host}]:{port}"
    # What keeps the connection open goes to the service: in the tunnel it would be use.
    config = (
        f"Host labcommons\n    HostName {host}\n    Port {port}\n    User {name}\n"
        f"    ServerAliveInterval 60\n\n"
        f"Host {name}.*\n    User {name}\n    ProxyJump labcommons\n"
    )
    return {
        "host": host,
        "port": port,
        "config": config,
        "known_hosts": f"@cert-authority {known},{name}.* {authority}" if authority else "",
    }


class SshPage(_Ssh, Page):
    """``GET ssh``, and ``POST`` of its form."""

    async def get(self) -> None:
        """Keys, and how to connect."""
        await self._show({})

    async def post(self) -> None:
        """Add a key, and come back; what was wrong is said above the form, which stays."""
        sent = {key: self.get_body_argument(key, "")[: 4 * MOST_BYTES] for key in ("line", "name")}
        try:
            await self.add(**sent)
        except Refused as error:
            if error.status_code == 404:
                raise
            await self._show(sent, error.sentence, error.status_code)
        else:
            self.redirect(f"{self.hub_auth.base_url}ssh")

    async def _show(self, sent: dict[str, str], wrong: str = "", status: int = 200) -> None:
        self.need_ssh()
        name, settings = self.viewer.name, self.site.ssh
        rows = await self.read(
            lambda s: [(ssh_keys.id_of(row), row) for row in ssh_keys.of(s, name)]
        )
        self.set_status(status)
        self.render_page(
            "ssh.html",
            rows=rows,
            settings=settings,
            client=await self.client(),
            user_name=name,
            sent=sent,
            wrong=wrong,
            most=ssh_keys.MOST,
        )


class KeysApi(_Ssh, Api):
    """``GET`` and ``POST api/v1/ssh/keys``."""

    @operation("One's public keys for SSH", Keys)
    async def get(self) -> None:
        """The viewer's."""
        self.need_ssh()
        name = self.viewer.name
        self.reply(
            {
                "keys": await self.read(
                    lambda s: [ssh_keys.as_json(row) for row in ssh_keys.of(s, name)]
                )
            }
        )

    @operation("Add a public key for SSH", Key, status=201, body=NewKey)
    async def post(self, body: NewKey) -> None:
        """For the viewer."""
        self.reply(await self.add(body.line, body.name))


class KeyApi(_Ssh, Api):
    """``DELETE api/v1/ssh/keys/ID``."""

    @operation("Remove a public key: connections with it end within a minute", Key)
    async def delete(self, key: str) -> None:
        """Of the viewer's."""
        self.need_ssh()
        who = self.viewer.name

        def work(session: Session) -> dict[str, Any]:
            row = ssh_keys.remove(session, who, key)
            return ssh_keys.as_json(row)

        row = await self.change(work)
        self.record("ssh-key-change", done="remove", key=row["fingerprint"])
        self.reply(row)


class ClientApi(_Ssh, Api):
    """``GET api/v1/ssh/client``."""

    @operation("What a client for SSH has to know", Client)
    async def get(self) -> None:
        """Of the viewer's."""
        self.need_ssh()
        self.reply(await self.client())


ROUTES = (
    Route("/api/v1/ssh/keys", KeysApi),
    Route("/api/v1/ssh/keys/{key}", KeyApi, {"key": Part("its id", "[0-9a-f]{32}")}),
    Route("/api/v1/ssh/client", ClientApi),
)
