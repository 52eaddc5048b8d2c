"""Fetching through the mirror all that locks name, so that the site can then be cut off.

Each file is compared with its lock as it comes; what is kept already is read from the cache and
compared, too. It can be ended at any time, and goes on where it was: what is there is not fetched
again.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from commons.site import Site
from environments.channel import canonical_url
from environments.errors import LockError
from environments.files import LOCK_FILE
from environments.lock import Lock, read_lock
from environments.mirror.conf import CONTROL_PORT
from environments.mirror.simple import HTML, JSON

URL = f"http://mirror-control:{CONTROL_PORT}"
AT_ONCE = 6
TRIES = 3
STOP_AFTER = 25  # failures, one after another: it is not the packages
TIMEOUT = 300.0  # seconds without a byte
CHUNK = 1 << 20  # bytes
_PYPI = re.compile(r"/packages/([0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{60}/[^/]+)$")


@dataclass(frozen=True)
class Item:
    """One file.

    Attributes:
        path: on the mirror.
        sha256: empty for an index, which changes.
        size: bytes, as far as the lock knows.
        accept: of PyPI's pages, which are kept in two forms.
    """

    path: str
    sha256: str = ""
    size: int = 0
    accept: str = ""


@dataclass
class Filled:
    """What came of it: files that were kept already, that are new, and why others are not there."""

    files: int = 0
    kept: int = 0
    fetched: int = 0
    bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    stopped: bool = False

    @property
    def is_whole(self) -> bool:
        return not self.failed and not self.stopped


def locks_of(environments: Path, data: Path) -> list[Path]:
    """The committed locks of a site, and those of its versions."""
    found = [
        *environments.glob(f"*/{LOCK_FILE}"),
        *(data / "locks").glob(f"*/{LOCK_FILE}"),
        *(data / "versions").glob(f"*/*/{LOCK_FILE}"),
    ]
    return sorted(path for path in found if path.is_file())


def read_all(paths: Iterable[Path]) -> Iterator[Lock]:
    """The locks, each for the first of the platforms that it has. Raises LockError."""
    for path in paths:
        try:
            yield read_lock(path)
        except LockError:
            yield read_lock(path, "linux-aarch64")


def items_of(locks: Iterable[Lock], site: Site) -> tuple[list[Item], list[str]]:
    """What to fetch, each once, and the addresses that do not go through the mirror."""
    assert site.mirror is not None
    channels = {canonical_url(name): name for name in site.mirror.places(site.written)}
    found: dict[str, Item] = {}
    left_out: dict[str, None] = {}
    for lock in locks:
        for package in lock.packages:
            base = next((url for url in channels if package.url.startswith(url)), None)
            if base is None:
                left_out[package.url] = None
                continue
            home = f"/conda/{channels[base]}"
            path = f"{home}/{unquote(package.url.removeprefix(base))}"
            found[path] = Item(path, package.sha256, package.size)
            for subdir in ("noarch", package.subdir or "noarch"):
                for name in ("repodata.json.zst", "repodata_shards.msgpack.zst"):
                    found.setdefault(f"{home}/{subdir}/{name}", Item(f"{home}/{subdir}/{name}"))
        for wheel in lock.pip:
            inside = _PYPI.search(urlsplit(wheel.url).path)
            if inside is None:
                left_out[wheel.url] = None
                continue
            path = f"/pypi/packages/{unquote(inside[1])}"
            found[path] = Item(path, wheel.sha256)
            page = f"/pypi/simple/{wheel.name}/"
            for accept in (JSON, HTML):
                found.setdefault(f"{page} {accept}", Item(page, accept=accept))
    return sorted(found.values(), key=lambda item: (bool(item.sha256), item.path)), list(left_out)


def fill(
    items: list[Item], tell: Callable[[Filled], None], url: str = URL, at_once: int = AT_ONCE
) -> Filled:
    """Fetch all of them; ``tell`` is called now and then with what came of it so far."""
    filled, lock, row = Filled(len(items)), threading.Lock(), 0
    waiting, running = iter(items), set[Future[tuple[Item, str, bool, int]]]()
    with ThreadPoolExecutor(at_once) as pool:
        while True:
            while len(running) < at_once * 2 and row < STOP_AFTER:
                item = next(waiting, None)
                if item is None:
                    break
                running.add(pool.submit(_one, item, url))
            if not running:
                break
            done, running = wait(running, timeout=1, return_when=FIRST_COMPLETED)
            for one in done:
                item, problem, kept, size = one.result()
                with lock:
                    filled.bytes += size
                    if problem:
                        filled.failed[item.path] = problem
                    elif kept:
                        filled.kept += 1
                    else:
                        filled.fetched += 1
                    row = row + 1 if problem else 0
            tell(filled)
    filled.stopped = next(waiting, None) is not None
    return filled


def _one(item: Item, url: str) -> tuple[Item, str, bool, int]:
    """Whether it could not be had, and why; whether it was kept already; bytes."""
    problem, size = "", 0
    for number in range(TRIES):
        headers = {"X-LabCommons-Sha256": item.sha256} if item.sha256 else {}
        if number and item.sha256:
            # What is kept may be what is wrong.
            headers["X-LabCommons-Anew"] = "1"
        if item.accept:
            headers["Accept"] = item.accept
        request = urllib.request.Request(f"{url}{quote(item.path)}", headers=headers)  # noqa: S310
        total = hashlib.sha256()
        try:
            with _OPENER.open(request, timeout=TIMEOUT) as answer:
                kept = answer.headers.get("X-Cache") in ("HIT", "STALE", "REVALIDATED")
                size = 0
                while piece := answer.read(CHUNK):
                    total.update(piece)
                    size += len(piece)
                said = answer.headers.get("Content-Length")
            if said is not None and size != int(said):
                problem = "cut off: see what the mirror says: docker compose logs mirror"
            elif item.sha256 and total.hexdigest() != item.sha256:
                problem = "other bytes than the lock says"
            else:
                return item, "", kept, size
        except urllib.error.HTTPError as error:
            problem = error.read(2000).decode("utf-8", "replace").strip() or str(error)
            if error.code == 404:
                # A channel need not have every kind of index.
                return item, problem if item.sha256 else "", True, 0
        except (OSError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
    return item, problem, False, 0


# Of this machine's networks: no proxy is in between.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
