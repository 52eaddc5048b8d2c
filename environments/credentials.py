"""Logins to hosts with packages: read from files and variables, handed on, never shown."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from commons.site import Credential, Environments
from commons.site.environments import LOOPBACK
from environments.errors import ChannelError
from environments.messages import making as texts

_MAX_BYTES = 64 * 1024
_HTTPS_PORT = 443
# In builders: the data folder's `logins`, where an administrator puts files with secrets.
LOGINS = Path("/run/labcommons/logins")


def with_files(settings: Environments) -> Environments:
    """The settings with those logins alone whose secret is a file below LOGINS.

    Variables of a builder that an administrator calls are not there when the hub calls one.
    """
    kept = {
        host: item
        for host, item in settings.credentials.items()
        if (path := item.password_file or item.token_file) and path.is_relative_to(LOGINS)
    }
    return settings.model_copy(update={"credentials": kept})


@dataclass(frozen=True)
class _Login:
    username: str
    secret: str


@dataclass(frozen=True)
class Credentials:
    """The logins of a site, by host, port and path. Nothing of them is in its ``repr``.

    They are sent over TLS, to this machine itself, and nowhere else: not to another port of the
    host, where somebody else may listen.
    """

    _logins: Mapping[str, _Login] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, settings: Mapping[str, Credential]) -> Credentials:
        """Read the secrets. Raises ChannelError that names the file or variable."""
        return cls(
            {host: _Login(item.username, _secret(host, item)) for host, item in settings.items()}
        )

    def headers(self, url: str) -> dict[str, str]:
        """The HTTP headers of a request to a URL; none where no login is for exactly that place."""
        login = self._for(url)
        if login is None:
            return {}
        if not login.username:
            return {"Authorization": f"Bearer {login.secret}"}
        pair = base64.b64encode(f"{login.username}:{login.secret}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    def of(self, places: Iterable[str]) -> dict[str, dict[str, str]]:
        """The headers of each place that has a login."""
        return {place: found for place in places if (found := self.headers(place))}

    def in_url(self, url: str) -> str:
        """A package index's URL with its login in it, for pip alone. Tokens go as a password."""
        login = self._for(url)
        if login is None:
            return url
        parts = urlsplit(url)
        pair = f"{quote(login.username or '__token__', '')}:{quote(login.secret, '')}"
        return urlunsplit(parts._replace(netloc=f"{pair}@{parts.netloc.rpartition('@')[2]}"))

    def _for(self, url: str) -> _Login | None:
        """The login for a URL: its host, its port and, where one is named, a path above it."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or _HTTPS_PORT
        except ValueError:
            return None
        if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
            return None
        for place, login in self._logins.items():
            name, _, path = place.partition("/")
            wanted = urlsplit(f"//{name}")
            if (wanted.hostname, wanted.port or _HTTPS_PORT) != (host, port):
                continue
            above = f"/{path.strip('/')}/" if path.strip("/") else "/"
            if f"{parts.path}/".startswith(above) and ".." not in unquote(parts.path).split("/"):
                return login
        return None


def without_secrets(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of a machine without those whose addresses have a login in them."""
    return {key: value for key, value in variables.items() if "@" not in value}


def _secret(host: str, item: Credential) -> str:
    path = item.password_file or item.token_file
    variable = item.password_variable or item.token_variable
    where = f"environments.credentials.{host}"
    if path:
        try:
            with path.open("rb") as file:
                secret = file.read(_MAX_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else texts.SECRET_NOT_UTF8()
            raise ChannelError(
                texts.SECRET_UNREADABLE(key=where, file=path, reason=reason)
            ) from error
    else:
        secret = os.environ.get(variable, "").strip()
    if not secret or any(character.isspace() for character in secret):
        raise ChannelError(
            texts.SECRET_WRONG(key=where, file=path, variable=None if path else variable)
        )
    return secret
