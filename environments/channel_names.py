"""What a channel may be called in an environment.yml, and what its name is where it is a URL."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from commons.messages import Message
from environments.messages import spec as texts

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_SCHEMES = ("https", "http", "file")
SUBDIR = re.compile(r"(noarch|(linux|osx|win|emscripten|wasi|freebsd|zos)-\w+)")


def channel_problem(channel: str) -> Message | None:
    """Why a text is no channel, or None. Relative paths would depend on where one stands."""
    if "://" in channel:
        return _url_problem(channel)
    if channel.startswith("/"):
        return texts.CHANNEL_UP(channel=channel) if ".." in channel.split("/") else None
    if not _NAME.fullmatch(channel) or len(channel) > 200:
        return texts.CHANNEL_NAME(channel=channel[:200])
    return _platform_problem(channel)


def _platform_problem(channel: str) -> Message | None:
    above, _, last = channel.rstrip("/").rpartition("/")
    if SUBDIR.fullmatch(last):
        return texts.CHANNEL_PLATFORM(channel=channel, instead=above or "conda-forge")
    return None


def _url_problem(channel: str) -> Message | None:
    try:
        url = urlsplit(channel)
        host, secret = url.hostname, url.username or url.password
        _ = url.port
    except ValueError:
        return texts.CHANNEL_URL(channel=channel)
    if secret or "/t/" in url.path:
        return texts.CHANNEL_SECRET()
    if url.query or url.fragment or ".." in url.path.split("/"):
        return texts.CHANNEL_QUERY(channel=channel)
    if bool(host) != (url.scheme in ("http", "https")) or url.scheme not in _SCHEMES:
        return texts.CHANNEL_SCHEME(channel=channel)
    return _platform_problem(channel)


def names_of(channel: str) -> tuple[str, ...]:
    """What a channel can be called by: of a URL, the ends of its path, the longest first."""
    if "://" not in channel:
        return (channel,)
    parts = [part for part in urlsplit(channel).path.split("/") if part]
    return (channel, *("/".join(parts[number:]) for number in range(len(parts))))
