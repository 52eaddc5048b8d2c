"""The child process in which py-rattler solves, installs, indexes and unpacks.

py-rattler's threads now and then bring the process down at its very end, after the work
was done. So it works in a process of its own, which is judged by the result it wrote and
not by how it ended. Request and result are JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from spawner.environments.errors import BuildError, LockError
from spawner.environments.files import DEFAULT_ENVIRONMENT
from spawner.environments.loopback import serve

_LOG_TAIL = 2000  # characters
_POLL = 0.05  # seconds
_LOGINS = "LABCOMMONS_WORKER_LOGINS"

OnPart = Callable[[int, int, str], None]


def call(
    work: str,
    request: Mapping[str, Any],
    timeout: float,
    *,
    logins: Mapping[str, Mapping[str, str]] | None = None,
    on_part: OnPart | None = None,
) -> dict[str, Any]:
    """Do ``work`` (solve, install, index, extract) in a child process.

    ``logins`` are the headers that some places (by their URL) want; seen by the child alone, and
    not by py-rattler, which knows a host without scheme and port.
    ``on_part`` is told how far the child has come: done, of how many, and what.
    Raises LockError when packages cannot be had together, BuildError for anything else,
    also when ``timeout`` seconds are over; the child and what it started are gone then.
    """
    with tempfile.TemporaryDirectory(prefix="labcommons-worker-") as scratch:
        result, log = Path(scratch, "result.json"), Path(scratch, "log")
        auth = Path(scratch, "auth.json")
        auth.write_text(json.dumps(logins or {}))  # the folder is this user's alone
        with log.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-I", "-m", __name__, work, str(result)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**_environment(), _LOGINS: str(auth)},
                start_new_session=True,
            )
            try:
                _talk(child, json.dumps(request).encode(), timeout, result, on_part)
            except subprocess.TimeoutExpired as error:
                raise BuildError(f"gave up after {timeout:g} s ({work})") from error
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        try:
            answer: dict[str, Any] = json.loads(result.read_bytes())
        except (OSError, ValueError) as error:
            tail = log.read_text("utf-8", "replace")[-_LOG_TAIL:].strip()
            raise BuildError(
                f"the {work} process ended without a result (status {child.returncode}): {tail}"
            ) from error
    if "unsolvable" in answer:
        raise LockError(answer["unsolvable"])
    if "error" in answer:
        raise BuildError(answer["error"])
    return answer


def _talk(
    child: subprocess.Popen[bytes],
    request: bytes,
    timeout: float,
    result: Path,
    on_part: OnPart | None,
) -> None:
    """Give the child its work and wait for its end, passing on what it says meanwhile."""
    assert child.stdin is not None
    with suppress(BrokenPipeError):
        child.stdin.write(request)
    with suppress(BrokenPipeError):
        child.stdin.close()
    deadline, said = time.monotonic() + timeout, ""
    while True:
        try:
            child.wait(min(_POLL, max(deadline - time.monotonic(), 0)))
            return
        except subprocess.TimeoutExpired:
            if time.monotonic() >= deadline:
                raise
        words = _read(_parts(result))
        if on_part and words and words != said:
            with suppress(ValueError, TypeError):
                on_part(*json.loads(words))
            said = words


def _parts(result: Path) -> Path:
    """Where the child says how far it has come."""
    return result.with_name("parts.json")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""


def _environment() -> dict[str, str]:
    """The child's variables: what it serves to itself must not go through a proxy."""
    skipped = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    no_proxy = ",".join(filter(None, (skipped, "127.0.0.1")))
    return {**os.environ, "NO_PROXY": no_proxy, "no_proxy": no_proxy}


# In the child --------------------------------------------------------------------------------


def solve(request: Mapping[str, Any]) -> dict[str, Any]:
    """Solve ``specs`` from ``sources`` into the lock file ``lock``, for each of ``platforms``."""
    import rattler
    from rattler.exceptions import SolverError

    async def work(gateway: Any, platform: str) -> list[Any]:
        records: list[Any] = await rattler.solve(
            [rattler.Channel(url) for url in request["sources"]],
            [rattler.MatchSpec(spec) for spec in request["specs"]],
            gateway=gateway,
            platforms=[platform, "noarch"],
            virtual_packages=_virtual_packages(platform, request["cuda"]),
            channel_priority=rattler.ChannelPriority.Strict,
            timeout=timedelta(seconds=request["timeout"]),
        )
        return records

    solved: dict[str, list[Any]] = {}
    with _client(request["sources"]) as client:
        gateway = rattler.Gateway(cache_dir=Path(request["cache"], "repodata"), client=client)
        for platform in request["platforms"]:
            try:
                solved[platform] = asyncio.run(work(gateway, platform))
            except SolverError as error:
                return {"unsolvable": str(error), "platform": platform}
    platforms = {name: rattler.LockPlatform(name) for name in solved}
    lock = rattler.LockFile(list(platforms.values()))
    lock.set_channels(DEFAULT_ENVIRONMENT, [rattler.LockChannel(u) for u in request["sources"]])
    for name, records in solved.items():
        for record in sorted(records, key=lambda record: str(record.url)):
            lock.add_conda_package(DEFAULT_ENVIRONMENT, platforms[name], record)
    lock.to_path(Path(request["lock"]))
    return {}


def _virtual_packages(platform: str, cuda: str | None) -> list[Any]:
    """What the machines that run it have: this one's system, a plain processor, and CUDA as said.

    This machine's own processor and driver are left out: a lock must not depend on where it
    was made.
    """
    import rattler

    def generic(name: str, version: str, build: str) -> Any:
        return rattler.GenericVirtualPackage(
            rattler.PackageName(name), rattler.Version(version), rattler.BuildString(build)
        )

    found = [package.into_generic() for package in rattler.VirtualPackage.detect()]
    system = [p for p in found if p.name.normalized in ("__unix", "__linux", "__glibc")]
    processor = "x86_64" if platform == "linux-64" else platform.partition("-")[2]
    system.append(generic("__archspec", "1", processor))
    if cuda:
        system.append(generic("__cuda", cuda, "0"))
    return system


def install(request: Mapping[str, Any]) -> dict[str, Any]:
    """Install the packages of ``lock`` into ``staging``, as if it were ``prefix``."""
    import rattler

    # Lock files that others could open, they could lock.
    os.umask(0o077)
    environment = rattler.LockFile.from_path(Path(request["lock"])).environment(DEFAULT_ENVIRONMENT)
    # A LockPlatform made here would not be found: it must come from the lock itself.
    platform = next(p for p in environment.platforms() if p.name == request["platform"])
    records = environment.conda_repodata_records_for_platform(platform) or []
    specs = [rattler.MatchSpec(spec)._match_spec for spec in request["specs"]]

    async def work() -> None:
        await rattler.install(
            records,
            Path(request["staging"]),
            cache_dir=Path(request["cache"], "packages"),
            requested_specs=specs,
            alternative_target_prefix=Path(request["prefix"]),
            client=client,
            show_progress=False,
            reporter=_Reporter(Path(request["parts"]), len(records)),
        )

    with _client(request["sources"]) as client:
        asyncio.run(work())
    return {}


class _Reporter:
    """Writes down how many packages are there; py-rattler calls it from its threads."""

    def __init__(self, path: Path, total: int) -> None:
        self._path, self._total = path, total
        self._linked = self._fetched = 0
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *_: 0
        raise AttributeError(name)

    def on_populate_cache_complete(self, cache_entry: int) -> None:
        with self._lock:
            self._fetched += 1
            self._write(f"{self._fetched} of {self._total} packages fetched")

    def on_link_complete(self, index: int) -> None:
        with self._lock:
            self._linked += 1
            self._write(f"{self._linked} of {self._total} packages installed")

    def _write(self, words: str) -> None:
        partial = self._path.with_suffix(".part")
        partial.write_text(json.dumps([self._fetched + self._linked, 2 * self._total, words]))
        partial.rename(self._path)


def index(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the index of the channel in ``folder``."""
    import rattler.index

    asyncio.run(rattler.index.index_fs(Path(request["folder"]), write_shards=False))
    return {}


def extract(request: Mapping[str, Any]) -> dict[str, Any]:
    """Unpack the conda package ``package`` into ``folder``."""
    from rattler.package_streaming import extract as unpack

    unpack(Path(request["package"]), Path(request["folder"]))
    return {}


@contextmanager
def _client(sources: Mapping[str, str]) -> Iterator[Any]:
    """A client that fetches canonical URLs (the keys) from their places (the values)."""
    from rattler.networking import Client
    from rattler.networking.middleware import MirrorMiddleware, RetryMiddleware

    logins = json.loads(Path(os.environ[_LOGINS]).read_bytes())
    local = [place for place in sources.values() if place.startswith("/") or place in logins]
    with serve(local, logins) as urls:
        served = dict(zip(local, urls, strict=True))
        mirrors = {
            url: [served.get(place, place)]
            for url, place in sources.items()
            if served.get(place, place).rstrip("/") != url.rstrip("/")
        }
        yield Client(
            [RetryMiddleware(2), MirrorMiddleware(mirrors)],
            timeout=60,
        )


_WORKS = {"solve": solve, "install": install, "index": index, "extract": extract}


def main() -> None:
    """``python -m spawner.environments.worker WORK RESULT``, the request on standard input."""
    work, result = sys.argv[1], Path(sys.argv[2])
    try:
        request = json.load(sys.stdin)
        answer = _WORKS[work](request | {"parts": str(_parts(result))})
    except Exception as error:  # whatever it was, the parent must be able to say it
        answer = {"error": str(error) or type(error).__name__}
    partial = result.with_suffix(".part")
    partial.write_text(json.dumps(answer))
    partial.rename(result)
    os._exit(0)  # there is nothing else to end, and at the end py-rattler's threads crash


if __name__ == "__main__":
    main()
