"""``signatures``: who may have signed the images that servers start from, and what is done else."""

from __future__ import annotations

import base64
import binascii
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from commons.site.parts import Section


def _public(text: str) -> str:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise ValueError(
            "must be an Ed25519 key's public half, 32 bytes in base64, as “labcommons env keys” "
            "shows it"
        )
    return text


class SigningKey(Section):
    """A key whose signatures count, from one day to another, both of them included (UTC)."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    public: Annotated[str, AfterValidator(_public)] = Field(
        description="its public half, as “labcommons env keys” shows it"
    )
    since: date | None = Field(None, alias="from")
    until: date | None = None

    @model_validator(mode="after")
    def _in_order(self) -> SigningKey:
        if self.since and self.until and self.until < self.since:
            raise ValueError(f"until: {self.until} is before from: {self.since}")
        return self


class Signatures(Section):
    """Of images of environments. Without ``keys`` the site's own key counts, and it alone."""

    policy: Literal["off", "warn", "refuse"] = "warn"
    keys: list[SigningKey] = Field([], max_length=8)
