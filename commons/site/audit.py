"""``audit``: how long the trail is kept, and where it is sent to."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from commons.site.parts import Name, Section

_SCHEMES = {"syslog": ("tls",), "elasticsearch": ("https", "http"), "splunk": ("https", "http")}


class AuditTarget(Section):
    """Somewhere events are sent to.

    Its secrets are files below ``data/shipping``: ``NAME.token`` (an API key of Elasticsearch as it
    stands after ``ApiKey``, or a token of Splunk's event collector), ``NAME.ca.crt`` (of whom the
    certificate must be, where that is nobody whom the machine trusts), ``NAME.crt`` and
    ``NAME.key`` (a client's certificate, for syslog).
    """

    name: Name
    kind: Literal["syslog", "elasticsearch", "splunk"]
    url: str = Field(description="tls://HOST:PORT of a syslog server; https://HOST:PORT of others")
    index: str = Field("labcommons-audit", pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")
    acknowledged: bool = Field(
        True, description="Splunk: wait until the indexers have it; the token must have that, too"
    )

    @model_validator(mode="after")
    def _right_url(self) -> AuditTarget:
        url = urlsplit(self.url)
        schemes = _SCHEMES[self.kind]
        if url.scheme not in schemes or not url.hostname or url.username or url.query:
            raise ValueError(
                f"url: {self.url!r} must be {schemes[0]}://HOST[:PORT], without a name, a password "
                "or a question mark"
            )
        return self


class Audit(Section):
    """The audit trail."""

    keep_days: int = Field(400, ge=1, le=36500)
    checkpoint_minutes: int = Field(60, ge=1, le=1440)
    targets: list[AuditTarget] = Field([], max_length=8)

    def without_targets(self) -> Audit:
        """The same, sent nowhere."""
        return self.model_copy(update={"targets": []})

    @model_validator(mode="after")
    def _names_are_one(self) -> Audit:
        names = [target.name for target in self.targets]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"targets: {name!r} is there twice")
        return self
