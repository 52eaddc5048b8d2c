"""``backup``: where copies of the site go, when, and which of them stay."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from commons.site.parts import Section
from commons.units import parse_duration

_PATH = re.compile(r"/[\w./+@-]+")
_HOST = r"(?:\w[\w.-]*@)?\w[\w.-]*"
_SFTP = re.compile(rf"sftp:(?:{_HOST}:[\w./+@-]+|//{_HOST}(?::\d{{1,5}})?/[\w./+@-]+)")


class Keep(Section):
    """How many of the newest backups of different days, weeks and months stay."""

    daily: int = Field(7, ge=1, le=1000)
    weekly: int = Field(5, ge=0, le=1000)
    monthly: int = Field(12, ge=0, le=1000)


class Backup(Section):
    """Copies of the site.

    Logins to the target are files below ``data/backup``: ``ssh/id`` and ``ssh/known_hosts`` for
    SFTP, ``environment`` (lines such as ``AWS_ACCESS_KEY_ID=…``) for S3 and rest-server.
    """

    target: str = Field("", description="a folder, sftp:USER@HOST:/FOLDER (with a port: "
                        "sftp://USER@HOST:PORT//FOLDER), s3:https://HOST/BUCKET or "
                        "rest:https://HOST/; nothing: no backups")  # fmt: skip
    at: str = Field("02:30", pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="each night, UTC")
    homes: bool = Field(True, description="with people's homes")
    teams: bool = Field(True, description="with the folders of teams and courses")
    keep: Keep = Keep()
    warn_after: str = Field("36h", description="the age of the last one that is told")

    @field_validator("target")
    @classmethod
    def _is_target(cls, target: str) -> str:
        kind, _, rest = target.partition(":")
        url = urlsplit(rest)
        remote = url.scheme in ("https", "http") and url.hostname and not url.password
        if (
            not target
            or _PATH.fullmatch(target)
            or _SFTP.fullmatch(target)
            or (kind in ("s3", "rest") and remote)
        ):
            return target
        raise ValueError(
            f"{target!r} must be a folder such as /srv/backup, sftp:USER@HOST:/FOLDER, "
            "s3:https://HOST/BUCKET or rest:https://HOST/, without a password"
        )

    @field_validator("warn_after")
    @classmethod
    def _is_duration(cls, text: str) -> str:
        parse_duration(text)
        return text

    @property
    def is_folder(self) -> bool:
        """Whether the target is a folder of this machine."""
        return self.target.startswith("/")
