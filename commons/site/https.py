"""``https``: where the certificate comes from, when not from the site's own CA."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from commons.site.parts import Section

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"


class Acme(Section):
    """An authority that gives certificates by ACME (RFC 8555), proved through the DNS (DNS-01).

    How the record gets into the zone: one of ``nameserver``, ``hook``, ``provider``. Secrets are
    files below ``data/acme``: ``nsupdate.key`` (the key for ``nameserver``, as tsig-keygen writes
    it), ``settings`` (lines NAME=VALUE for ``provider`` and ``hook``), ``eab-hmac``, and ``ca.crt``
    where nobody whom the machine trusts has signed the authority's own certificate.
    """

    directory: str = LETS_ENCRYPT
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)
    nameserver: str = Field("", pattern=r"^([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])?(:\d{1,5})?$")
    hook: str = Field("", description="a program below config/, called with present or cleanup")
    provider: str = Field("", pattern=r"^[a-z0-9]*$", description="one that lego knows")
    eab_kid: str = Field("", max_length=200, description="of an account that exists there")
    resolvers: list[str] = Field([], max_length=4)
    check_dns: bool = Field(True, description="wait until the zone's servers have the record")

    @model_validator(mode="after")
    def _one_way(self) -> Acme:
        url = urlsplit(self.directory)
        if url.scheme != "https" or not url.hostname or url.username:
            raise ValueError(f"directory: {self.directory!r} must be https://HOST/…")
        if len([way for way in (self.nameserver, self.hook, self.provider) if way]) != 1:
            raise ValueError(
                "name one way into the zone: nameserver (RFC 2136), hook (a program of yours), or "
                "provider (one of https://go-acme.github.io/lego/dns/)"
            )
        if self.provider in ("exec", "rfc2136", "manual"):
            raise ValueError("provider: use nameserver for RFC 2136 and hook for a program")
        place = PurePosixPath(self.hook)
        if self.hook and (place.is_absolute() or ".." in place.parts):
            raise ValueError(f"hook: {self.hook!r} must be a path below config/, such as dns-hook")
        return self


class Https(Section):
    """The certificate that browsers see."""

    acme: Acme | None = None
