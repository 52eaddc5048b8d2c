"""Logins to hosts with packages: read from files and variables, handed on, never shown."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from hub_ext.site import Credential, Environments
from spawner.environments.errors import ChannelError

_MAX_BYTES = 64 * 1024
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
    """The logins of a site, by host. Nothing of them is in its ``repr``."""

    _logins: Mapping[str, _Login] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, settings: Mapping[str, Credential]) -> Credentials:
        """Read the secrets. Raises ChannelError that names the file or variable."""
        return cls(
            {host: _Login(item.username, _secret(host, item)) for host, item in settings.items()}
        )

    def for_rattler(self) -> dict[str, Any]:
        """The document of py-rattler's ``RATTLER_AUTH_FILE``, which knows hosts without ports."""
        return {
            host.partition(":")[0]: {
                "BasicHTTP": {"username": login.username, "password": login.secret}
            }
            if login.username
            else {"BearerToken": login.secret}
            for host, login in self._logins.items()
        }

    def headers(self, url: str) -> dict[str, str]:
        """The HTTP headers of a request to a URL."""
        parts = urlsplit(url)
        login = self._logins.get(parts.netloc) or self._logins.get(parts.hostname or "")
        if login is None:
            return {}
        if not login.username:
            return {"Authorization": f"Bearer {login.secret}"}
        pair = base64.b64encode(f"{login.username}:{login.secret}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    @contextmanager
    def for_pip(self) -> Iterator[dict[str, str]]:
        """Variables for pip: a netrc file that is gone afterwards. Tokens go as a password."""
        if not self._logins:
            yield {}
            return
        with TemporaryDirectory(prefix="labcommons-netrc-") as folder:
            netrc = Path(folder, "netrc")
            netrc.touch(0o600)
            netrc.write_text(
                "".join(
                    f"machine {host.partition(':')[0]} login {login.username or '__token__'} "
                    f"password {login.secret}\n"
                    for host, login in self._logins.items()
                )
            )
            yield {"NETRC": str(netrc)}


def _secret(host: str, item: Credential) -> str:
    path = item.password_file or item.token_file
    variable = item.password_variable or item.token_variable
    where = f"environments.credentials.{host}"
    if path:
        try:
            with path.open("rb") as file:
                secret = file.read(_MAX_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ChannelError(f"{where}: {path}: {reason}") from error
    else:
        secret = os.environ.get(variable, "").strip()
    if not secret or any(character.isspace() for character in secret):
        raise ChannelError(
            f"{where}: {path or f'variable {variable}'} must hold one word, the secret"
        )
    return secret
