"""What servers' containers are called, which tells nobody whose they are.

Docker's name server tells every server the names of all others in its network, by their addresses.
So a name ends with what is keyed with a secret of the site: it can neither be read nor found by
trying. Who is who is in the labels.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from functools import cache
from pathlib import Path

KEY_FILE = "names-key"


def server_key(site_id: str, user: str, server: str) -> str:
    """How the name of a person's server ends: no two servers have the same."""
    # No name of a server or of a person has NUL in it.
    whose = f"{site_id}\0{user}\0{server}".encode("utf-8", "surrogatepass")
    return hmac.new(_key(), whose, hashlib.sha256).hexdigest()[:32]


def escaped(text: str) -> str:
    """A text as part of a container's name; no two have the same."""
    return re.sub(r"[^a-z0-9.-]", lambda match: f"_{ord(match[0]):x}_", text)


@cache
def _key() -> bytes:
    """The site's secret, data/secrets/names-key; none where there is no deployment."""
    try:
        return Path(os.environ.get("LABCOMMONS_SECRETS", "/run/labcommons"), KEY_FILE).read_bytes()
    except FileNotFoundError:
        return b""
