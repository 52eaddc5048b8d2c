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
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from rattler import Channel

from commons.messages import Message
from commons.site import Environments
from environments import own_channels as names
from environments.channel_names import names_of
from environments.credentials import Credentials
from environments.errors import ChannelError
from environments.messages import channels as own_texts
from environments.messages import making as texts
from environments.messages import steps

OFFLINE_URL = "https://offline.labcommons.invalid/main/"
_LOCAL_URL = "https://local.labcommons.invalid"
_INDEXES = ("noarch/repodata.json.zst", "noarch/repodata.json")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
NO_CREDENTIALS = Credentials()
_NOT_THERE = texts.HTTP_STATUS(status=404)

# Told what was tried, one line each time.
Say = Callable[[Message], None]
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
    if (own := names.called(channel)) is not None:
        return names.url_of(own)
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
    optional: Collection[str] = (),
) -> list[Source]:
    """The first place that answers, for each channel, in the channels' order.

    Places are asked side by side, each for at most ``settings.timeout`` seconds; each try
    is reported in one line. ``offline`` is our own channel's folder, which need not exist
    yet; beside it are the site's own ones. Raises ChannelError for a channel without any place; one
    of the ``optional`` is left out then, where there is another one.
    """
    channels = list(channels)
    own = {one: its for one in channels if (its := _own(one, offline.parent))}
    for channel, source in own.items():
        if problem := probe(source.place, settings.timeout):
            report(steps.SILENT(channel=channel, place=source.place, problem=problem))
            if channel not in optional or len(channels) == 1:
                raise ChannelError(own_texts.EMPTY(channel=channel))
            channels.remove(channel)
            report(steps.LEFT_OUT(channel=channel))
    if settings.offline_channel == "always":
        return [
            own.get(channel) or Source(channel, OFFLINE_URL, str(offline)) for channel in channels
        ]
    asked = [
        (channel, part, _ask(places, settings.timeout, credentials))
        for channel in channels
        for part in _parts(channel)
        for places in [_places(channel, part, settings) if channel not in own else []]
    ]
    found: list[Source] = []
    for channel, part, places in asked:
        tried: list[Message] = []
        if channel in own:
            found.append(own[channel])
            continue
        if canonical_url(part) == OFFLINE_URL and settings.offline_channel != "never":
            found.append(Source(channel, OFFLINE_URL, str(offline)))
            continue
        if first := _first(channel, part, places, settings, report, tried):
            found.append(first)
        elif channel in optional and found:
            report(steps.LEFT_OUT(channel=channel))
        elif settings.offline_channel == "auto":
            report(steps.STANDS_IN(channel=channel))
            found.append(Source(channel, OFFLINE_URL, str(offline)))
        else:
            raise ChannelError(texts.CHANNEL_SILENT(channel=channel, tried=tried))
    return found


def _own(channel: str, data: Path) -> Source | None:
    """One of the site's own, at its folder; None of others."""
    name = names.called(channel)
    return Source(channel, names.url_of(name), str(names.place(data, name))) if name else None


def _parts(channel: str) -> tuple[str, ...]:
    return _DEFAULTS if channel == "defaults" else (channel,)


def _places(channel: str, part: str, settings: Environments) -> list[str]:
    """The mirrors of a channel and itself; ``part`` is one of the two behind ``defaults``.

    After a URL of another host come the mirrors of what is called as the end of its path is: who
    copied the URL of a public mirror, of another country perhaps, wants what the site's has.
    """
    folder = local_folder(part)
    if folder is not None:
        return [*settings.mirrors.get(part, []), str(folder)]
    own = str(Channel(part).base_url)
    mirrors = settings.mirrors.get(part) or next(
        (places for name, places in settings.mirrors.items() if _same(name, own)), []
    )
    if part != channel and not mirrors:
        mirrors = _below(settings.mirrors.get(channel, []), part)
    if mirrors:
        return [*mirrors, own]
    return [own, *_namesakes(part, settings)]


def _same(name: str, url: str) -> bool:
    with suppress(Exception):  # what is no channel at all
        return canonical_url(name) == url
    return False


def _below(places: Iterable[str], name: str) -> list[str]:
    return [f"{place.rstrip('/')}/{name.rpartition('/')[2]}" for place in places]


def _namesakes(url: str, settings: Environments) -> list[str]:
    """The mirrors of the channel that the end of a URL's path names, such as ``pkgs/main``."""
    for name in names_of(url):
        if name in settings.mirrors:
            return settings.mirrors[name]
        above, _, last = name.partition("/")
        if above == "pkgs" and last in _DEFAULTS:
            return settings.mirrors.get(last) or _below(settings.mirrors.get("defaults", []), last)
    return []


def _first(
    channel: str,
    part: str,
    places: dict[str, Future[Message | None]],
    settings: Environments,
    report: Say,
    tried: list[Message],
) -> Source | None:
    """The first place that answers; ``tried`` gets why the others do not."""
    deadline = time.monotonic() + settings.timeout
    for place, answer in places.items():
        try:
            problem = answer.result(max(deadline - time.monotonic(), 0))
        except FutureTimeoutError:
            problem = texts.NO_ANSWER(seconds=settings.timeout)
        said = steps.SILENT if problem else steps.ANSWERS
        report(said(channel=channel, place=place, problem=problem))
        if not problem:
            return Source(channel, canonical_url(part), str(local_folder(place) or place))
        tried.append(texts.TRIED(place=place, problem=problem))
    return None


def _ask(
    places: Iterable[str], timeout: float, credentials: Credentials
) -> dict[str, Future[Message | None]]:
    """Begin to probe places; each result is None or the reason why a place is of no use."""
    answers: dict[str, Future[Message | None]] = {}
    for place in dict.fromkeys(places):
        answers[place] = Future()
        # Daemons, as nobody can end a look-up of a name that hangs: the process need not wait.
        arguments = (answers[place], place, timeout, credentials)
        threading.Thread(target=_answer, args=arguments, daemon=True).start()
    return answers


def _answer(
    answer: Future[Message | None], place: str, timeout: float, credentials: Credentials
) -> None:
    try:
        answer.set_result(probe(place, timeout, credentials))
    except Exception as error:
        answer.set_result(texts.PLACE_UNUSABLE(reason=error))


def probe(place: str, timeout: float, credentials: Credentials = NO_CREDENTIALS) -> Message | None:
    """None where a place serves a channel's index, else the reason why it does not."""
    folder = local_folder(place)
    if folder is not None:
        if any((folder / index).is_file() for index in _INDEXES):
            return None
        return texts.NO_INDEX(index=_INDEXES[-1])
    if urlsplit(place).scheme not in ("http", "https"):
        return texts.NO_PLACE()
    reason: Message | None = None
    for index in _INDEXES:
        reason = _fetch(f"{place.rstrip('/')}/{index}", timeout, credentials)
        if reason != _NOT_THERE:
            return reason
    return reason


def _fetch(url: str, timeout: float, credentials: Credentials) -> Message | None:
    request = urllib.request.Request(url)  # noqa: S310  (the scheme was checked)
    for name, value in credentials.headers(url).items():
        request.add_unredirected_header(name, value)  # not for whom the host sends us to
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            head = response.read(64)
            if response.status != 200:
                return texts.HTTP_STATUS(status=response.status)
    except urllib.error.HTTPError as error:
        return (texts.HTTP_LOGIN if error.code == 401 else texts.HTTP_STATUS)(status=error.code)
    except urllib.error.URLError as error:
        return texts.SILENT(reason=error.reason)
    except (OSError, ValueError) as error:
        return texts.SILENT(reason=error)
    if head.startswith(_ZSTD_MAGIC) or head.lstrip().startswith(b"{"):
        return None
    return texts.NOT_AN_INDEX()
