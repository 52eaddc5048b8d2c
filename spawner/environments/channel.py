"""Choosing where each channel's packages come from: mirrors, the channel itself, or our own.

Locks keep a channel's canonical URL whatever place it was fetched from, so that a lock made
behind a mirror holds elsewhere. What has no URL of its own gets one below ``.invalid``
(RFC 2606: such a host exists nowhere).
"""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from rattler import Channel

from hub_ext.site import Environments
from spawner.environments.credentials import Credentials
from spawner.environments.errors import ChannelError

OFFLINE_URL = "https://offline.labcommons.invalid/main/"
_LOCAL_URL = "https://local.labcommons.invalid"
_INDEXES = ("noarch/repodata.json.zst", "noarch/repodata.json")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
NO_CREDENTIALS = Credentials()
_NOT_THERE = "answers with HTTP status 404"

# Told what was tried, one line each time.
Say = Callable[[str], None]
# What conda itself puts behind the name.
_DEFAULTS = ("main", "r")


@dataclass(frozen=True)
class Source:
    """One channel and the place that answers for it.

    Attributes:
        channel: what environment.yml calls it.
        url: the canonical URL, ending in "/".
        place: where it is fetched from: an http(s) URL or an absolute path.
    """

    channel: str
    url: str
    place: str

    @property
    def is_offline(self) -> bool:
        """True when our own small channel stands in."""
        return self.url == OFFLINE_URL


def canonical_url(channel: str) -> str:
    """The URL that locks keep for a channel, ending in "/"."""
    folder = local_folder(channel)
    if folder is not None:
        return f"{_LOCAL_URL}{quote(folder.as_posix().rstrip('/'))}/"
    return str(Channel(channel).base_url)


def local_folder(place: str) -> Path | None:
    """The folder that a path or a ``file://`` URL names; None for anything else."""
    if place.startswith("/"):
        return Path(place)
    url = urlsplit(place)
    return Path(unquote(url.path)) if url.scheme == "file" else None


def choose(
    channels: Iterable[str],
    settings: Environments,
    offline: Path,
    report: Say,
    credentials: Credentials = NO_CREDENTIALS,
) -> list[Source]:
    """The first place that answers, for each channel, in the channels' order.

    Places are asked side by side, each for at most ``settings.timeout`` seconds; each try
    is reported in one line. ``offline`` is our own channel's folder, which need not exist
    yet. Raises ChannelError for a channel without any place.
    """
    if settings.offline_channel == "always":
        return [Source(channel, OFFLINE_URL, str(offline)) for channel in channels]
    asked = [
        (channel, part, _ask(_places(channel, part, settings), settings.timeout, credentials))
        for channel in channels
        for part in _parts(channel)
    ]
    return [
        _first(channel, part, places, settings, offline, report) for channel, part, places in asked
    ]


def _parts(channel: str) -> tuple[str, ...]:
    return _DEFAULTS if channel == "defaults" else (channel,)


def _places(channel: str, part: str, settings: Environments) -> list[str]:
    """The mirrors of a channel and itself; ``part`` is one of the two behind ``defaults``."""
    folder = local_folder(part)
    own = str(folder) if folder is not None else str(Channel(part).base_url)
    name = part.rpartition("/")[2]
    mirrors = settings.mirrors.get(part, [])
    if part != channel and not mirrors:
        mirrors = [f"{mirror.rstrip('/')}/{name}" for mirror in settings.mirrors.get(channel, [])]
    return [*mirrors, own]


def _first(
    channel: str,
    part: str,
    places: dict[str, Future[str]],
    settings: Environments,
    offline: Path,
    report: Say,
) -> Source:
    deadline = time.monotonic() + settings.timeout
    tried = []
    for place, answer in places.items():
        try:
            problem = answer.result(max(deadline - time.monotonic(), 0))
        except FutureTimeoutError:
            problem = f"no answer within {settings.timeout} s"
        report(f"channel {channel}: {place} {problem or 'answers'}")
        if not problem:
            return Source(channel, canonical_url(part), str(local_folder(place) or place))
        tried.append(f"  {place}: {problem}")
    if settings.offline_channel == "auto":
        report(f"channel {channel}: our own offline channel stands in")
        return Source(channel, OFFLINE_URL, str(offline))
    raise ChannelError(
        "\n".join(
            [
                f"channel {channel}: no place answers. Tried:",
                *tried,
                f"Set environments.mirrors.{channel} in the site file to a place that does, or "
                "environments.offline_channel: auto for a small channel made of PyPI wheels.",
            ]
        )
    )


def _ask(places: Iterable[str], timeout: float, credentials: Credentials) -> dict[str, Future[str]]:
    """Begin to probe places; each result is "" or the reason why a place is of no use."""
    answers: dict[str, Future[str]] = {}
    for place in dict.fromkeys(places):
        answers[place] = Future()
        # Daemons, as nobody can end a look-up of a name that hangs: the process need not wait.
        arguments = (answers[place], place, timeout, credentials)
        threading.Thread(target=_answer, args=arguments, daemon=True).start()
    return answers


def _answer(answer: Future[str], place: str, timeout: float, credentials: Credentials) -> None:
    try:
        answer.set_result(probe(place, timeout, credentials))
    except Exception as error:
        answer.set_result(f"cannot be used: {error}")


def probe(place: str, timeout: float, credentials: Credentials = NO_CREDENTIALS) -> str:
    """ "" where a place serves a channel's index, else the reason why it does not."""
    folder = local_folder(place)
    if folder is not None:
        if any((folder / index).is_file() for index in _INDEXES):
            return ""
        return f"has no {_INDEXES[-1]}"
    if urlsplit(place).scheme not in ("http", "https"):
        return "is neither an http(s) URL nor a path"
    reason = ""
    for index in _INDEXES:
        reason = _fetch(f"{place.rstrip('/')}/{index}", timeout, credentials)
        if reason != _NOT_THERE:
            return reason
    return reason


def _fetch(url: str, timeout: float, credentials: Credentials) -> str:
    request = urllib.request.Request(url)  # noqa: S310  (the scheme was checked)
    for name, value in credentials.headers(url).items():
        request.add_unredirected_header(name, value)  # not for whom the host sends us to
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            head = response.read(64)
            if response.status != 200:
                return f"answers with HTTP status {response.status}"
    except urllib.error.HTTPError as error:
        remedy = "; set environments.credentials in the site file" if error.code == 401 else ""
        return f"answers with HTTP status {error.code}{remedy}"
    except urllib.error.URLError as error:
        return f"does not answer: {error.reason}"
    except (OSError, ValueError) as error:
        return f"does not answer: {error}"
    if head.startswith(_ZSTD_MAGIC) or head.lstrip().startswith(b"{"):
        return ""
    return "answers with something that is no channel index"
