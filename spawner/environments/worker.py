"""The child process in which py-rattler solves, installs and indexes.

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from spawner.environments.errors import BuildError, LockError
from spawner.environments.loopback import serve

DEFAULT_ENVIRONMENT = "default"
_LOG_TAIL = 2000  # characters


def call(work: str, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Do ``work`` (solve, install, index) in a child process.

    Raises LockError when packages cannot be had together, BuildError for anything else,
    also when ``timeout`` seconds are over; the child and what it started are gone then.
    """
    with tempfile.TemporaryDirectory(prefix="labcommons-worker-") as scratch:
        result, log = Path(scratch, "result.json"), Path(scratch, "log")
        with log.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", __name__, work, str(result)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,
            )
            try:
                child.communicate(json.dumps(request).encode(), timeout)
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


def _environment() -> dict[str, str]:
    """The child's variables: what it serves to itself must not go through a proxy."""
    skipped = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    no_proxy = ",".join(filter(None, (skipped, "127.0.0.1")))
    return {**os.environ, "NO_PROXY": no_proxy, "no_proxy": no_proxy}


# In the child --------------------------------------------------------------------------------


def solve(request: Mapping[str, Any]) -> dict[str, Any]:
    """Solve ``specs`` from ``sources`` into the lock file ``lock``."""
    import rattler
    from rattler.exceptions import SolverError

    async def work() -> list[Any]:
        records: list[Any] = await rattler.solve(
            [rattler.Channel(url) for url in request["sources"]],
            request["specs"],
            gateway=rattler.Gateway(cache_dir=Path(request["cache"], "repodata"), client=client),
            virtual_packages=rattler.VirtualPackage.detect(),
            channel_priority=rattler.ChannelPriority.Strict,
            timeout=timedelta(seconds=request["timeout"]),
        )
        return records

    with _client(request["sources"]) as client:
        try:
            records = asyncio.run(work())
        except SolverError as error:
            return {"unsolvable": str(error)}
    platform = rattler.LockPlatform(str(rattler.Subdir.current()))
    lock = rattler.LockFile([platform])
    lock.set_channels(DEFAULT_ENVIRONMENT, [rattler.LockChannel(u) for u in request["sources"]])
    for record in sorted(records, key=lambda record: str(record.url)):
        lock.add_conda_package(DEFAULT_ENVIRONMENT, platform, record)
    lock.to_path(Path(request["lock"]))
    return {}


def install(request: Mapping[str, Any]) -> dict[str, Any]:
    """Install the packages of ``lock`` into ``staging``, as if it were ``prefix``."""
    import rattler

    environment = rattler.LockFile.from_path(Path(request["lock"])).environment(DEFAULT_ENVIRONMENT)
    # A LockPlatform made here would not be found: it must come from the lock itself.
    platform = next(p for p in environment.platforms() if p.subdir == rattler.Subdir.current())
    records = environment.conda_repodata_records_for_platform(platform)
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
        )

    with _client(request["sources"]) as client:
        asyncio.run(work())
    return {}


def index(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the index of the channel in ``folder``."""
    import rattler.index

    asyncio.run(rattler.index.index_fs(Path(request["folder"]), write_shards=False))
    return {}


@contextmanager
def _client(sources: Mapping[str, str]) -> Iterator[Any]:
    """A client that fetches canonical URLs (the keys) from their places (the values)."""
    from rattler.networking import Client
    from rattler.networking.middleware import MirrorMiddleware, RetryMiddleware

    local = [place for place in sources.values() if place.startswith("/")]
    with serve(map(Path, local)) as urls:
        served = dict(zip(local, urls, strict=True))
        mirrors = {
            url: [served.get(place, place)]
            for url, place in sources.items()
            if served.get(place, place).rstrip("/") != url.rstrip("/")
        }
        yield Client([RetryMiddleware(2), MirrorMiddleware(mirrors)], timeout=60)


_WORKS = {"solve": solve, "install": install, "index": index}


def main() -> None:
    """``python -m spawner.environments.worker WORK RESULT``, the request on standard input."""
    work, result = sys.argv[1], Path(sys.argv[2])
    try:
        answer = _WORKS[work](json.load(sys.stdin))
    except Exception as error:  # whatever it was, the parent must be able to say it
        answer = {"error": str(error) or type(error).__name__}
    partial = result.with_suffix(".part")
    partial.write_text(json.dumps(answer))
    partial.rename(result)


if __name__ == "__main__":
    main()
