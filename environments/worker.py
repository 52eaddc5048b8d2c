"""The child process in which py-rattler solves, installs and unpacks.

py-rattler's threads now and then bring the process down at its very end, after the work
was done. So it works in a process of its own, which is judged by the result it wrote and
not by how it ended. Request and result are JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from commons.messages import Message, verbatim
from environments.child import ENDING_WITH_US
from environments.errors import BuildError, LockError
from environments.files import DEFAULT_ENVIRONMENT
from environments.loopback import serve
from environments.messages import making as texts
from environments.messages import steps
from environments.package_names import near

_LOG_TAIL = 2000  # characters
_POLL = 0.05  # seconds
_LOGINS = "LABCOMMONS_WORKER_LOGINS"


class Unsolvable(LockError):
    """Packages that cannot be had together: the solver's words, and what is not there at all.

    Each of ``faults`` has a ``name``, and ``near``, names like it, or ``asked`` and ``versions``.
    """

    def __init__(self, reason: Message, faults: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(reason)
        self.faults = faults


OnPart = Callable[[int, int, Message], None]


def call(
    work: str,
    request: Mapping[str, Any],
    timeout: float,
    *,
    logins: Mapping[str, Mapping[str, str]] | None = None,
    on_part: OnPart | None = None,
    module: str = __name__,
    limits: Sequence[str] = (),
) -> dict[str, Any]:
    """Do ``work`` (solve, exact, install, extract; or another module's) in a child process.

    ``logins`` are the headers that some places (by their URL) want; seen by the child alone, and
    not by py-rattler, which knows a host without scheme and port. ``limits``: prlimit's words.
    ``on_part`` is told how far the child has come: done, of how many, and what.
    Raises LockError when packages cannot be had together, BuildError for anything else,
    also when ``timeout`` seconds are over; the child and what it started are gone then, and the
    child when this process is killed.
    """
    with tempfile.TemporaryDirectory(prefix="labcommons-worker-") as scratch:
        result, log = Path(scratch, "result.json"), Path(scratch, "log")
        auth = Path(scratch, "auth.json")
        auth.write_text(json.dumps(logins or {}))  # the folder is this user's alone
        with log.open("wb") as output:
            child = subprocess.Popen(
                [
                    *(*ENDING_WITH_US, *(("prlimit", *limits, "--") if limits else ())),
                    *(sys.executable, "-I", "-m", module),
                    *(work, str(result), str(os.getpid())),
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**_environment(), _LOGINS: str(auth)},
                start_new_session=True,
            )
            try:
                _talk(child, json.dumps(request).encode(), timeout, result, on_part)
            except subprocess.TimeoutExpired as error:
                raise BuildError(texts.WORKER_GAVE_UP(seconds=f"{timeout:g}", work=work)) from error
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        try:
            answer: dict[str, Any] = json.loads(result.read_bytes())
        except (OSError, ValueError) as error:
            tail = log.read_text("utf-8", "replace")[-_LOG_TAIL:].strip()
            raise BuildError(
                texts.WORKER_ENDED(work=work, status=child.returncode, words=tail)
            ) from error
    if "unsolvable" in answer:
        raise Unsolvable(verbatim(answer["unsolvable"]), answer.get("faults") or [])
    if "error" in answer:
        raise BuildError(verbatim(answer["error"]))
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
                done, of, part = json.loads(words)
                on_part(done, of, Message.from_json(part))
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
            locked_packages=_preferred(request, platform),
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
                with suppress(Exception):  # the reason itself is worth more
                    faults = asyncio.run(_faults(gateway, request, platform, str(error)))
                    return {"unsolvable": str(error), "faults": faults}
                return {"unsolvable": str(error), "faults": []}
    _write_lock(request, solved)
    return {}


def _write_lock(request: Mapping[str, Any], chosen: Mapping[str, Sequence[Any]]) -> None:
    """Write the records that were chosen for each platform into the lock file."""
    import rattler

    platforms = {name: rattler.LockPlatform(name) for name in chosen}
    lock = rattler.LockFile(list(platforms.values()))
    lock.set_channels(DEFAULT_ENVIRONMENT, [rattler.LockChannel(u) for u in request["sources"]])
    for name, records in chosen.items():
        for record in sorted(records, key=lambda record: str(record.url)):
            lock.add_conda_package(DEFAULT_ENVIRONMENT, platforms[name], record)
    lock.to_path(Path(request["lock"]))


def exact(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the lock file ``lock`` of exactly ``packages``: each is of one of the sources.

    What an index knows of a package is taken from there, as a lock may say little or, made by
    somebody, anything; ``wrong`` are those whose hash the index has otherwise, ``unknown`` those
    that neither an index nor the lock itself has a SHA-256 of.
    """
    import rattler

    packages, platform = request["packages"], request["platform"]
    names = sorted({package["name"] for package in packages})

    async def look(gateway: Any, url: str) -> dict[tuple[str, str, str], Any]:
        found = await gateway.query(
            [rattler.Channel(url)], [platform, "noarch"], names, recursive=False
        )
        records = (record for part in found for record in part)
        return {(url, str(record.subdir), record.file_name): record for record in records}

    known: dict[tuple[str, str, str], Any] = {}
    with _client(request["sources"]) as client:
        gateway = rattler.Gateway(cache_dir=Path(request["cache"], "repodata"), client=client)
        for url in request["sources"]:
            known |= asyncio.run(look(gateway, url))
    chosen, wrong, unknown = [], [], []
    for package in packages:
        record = known.get((package["channel"], package["subdir"], package["file"]))
        if record is None and package["sha256"]:
            record = _record(package)
        if record is None or record.sha256 is None:
            unknown.append(package["file"])
        elif any(
            package[kind] and digest and digest.hex() != package[kind]
            for kind, digest in (("sha256", record.sha256), ("md5", record.md5))
        ):
            wrong.append(package["file"])
        else:
            chosen.append(record)
    if not wrong and not unknown:
        _write_lock(request, {platform: chosen})
    return {"wrong": wrong, "unknown": unknown}


def _record(package: Mapping[str, Any]) -> Any:
    """What a lock says of a package that is in no index any more."""
    import rattler

    noarch = package["subdir"] == "noarch"
    record = rattler.PackageRecord(
        package["name"],
        package["version"],
        rattler.BuildString(package["build"]),
        0,
        package["subdir"],
        noarch="python" if noarch else None,
        depends=package["depends"],
        sha256=bytes.fromhex(package["sha256"]),
        md5=bytes.fromhex(package["md5"]) if package["md5"] else None,
        license=package["license"] or None,
    )
    url = f"{package['channel']}{package['subdir']}/{package['file']}"
    return rattler.RepoDataRecord(record, package["file"], url, package["channel"])


# The solver's sentence about what was asked for itself, not by other packages.
_NO_CANDIDATES = re.compile(r"No candidates were found for ([^\s\[]+)([^\n]*)\.\s*$", re.MULTILINE)


async def _faults(
    gateway: Any, request: Mapping[str, Any], platform: str, reason: str
) -> list[dict[str, Any]]:
    """What was asked for and is not there at all: each name, and those like it or its versions."""
    import rattler

    channels, platforms = [rattler.Channel(url) for url in request["sources"]], [platform, "noarch"]
    names = {name.normalized for name in await gateway.names(channels, platforms)}
    found: list[dict[str, Any]] = []
    for spec in request["specs"]:
        name = rattler.MatchSpec(spec).name
        if name is not None and name.normalized not in names:
            found.append({"name": name.normalized, "near": near(name.normalized, names)})
    if found or (match := _NO_CANDIDATES.search(reason)) is None:
        return found
    answers = await gateway.query(channels, platforms, [match[1]], recursive=False)
    newest = sorted({record.version for part in answers for record in part}, reverse=True)
    asked = f"{match[1]}{match[2]}".strip()
    return [{"name": match[1], "asked": asked, "versions": [str(one) for one in newest[:5]]}]


def _preferred(request: Mapping[str, Any], platform: str) -> list[Any]:
    """The conda packages of the lock ``prefer`` that come from the sources, for one platform."""
    import rattler

    if not request.get("prefer"):
        return []
    sources = tuple(f"{url.rstrip('/')}/" for url in request["sources"])
    try:
        lock = rattler.LockFile.from_path(Path(request["prefer"]))
        environment = lock.environment(DEFAULT_ENVIRONMENT)
        here = next(p for p in environment.platforms() if p.name == platform)
        records = environment.conda_repodata_records_for_platform(here) or []
        return [record for record in records if str(record.url).startswith(sources)]
    except Exception:  # py-rattler raises many kinds: a wish is not worth a failure
        return []


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
            self._write(steps.FETCHED(done=self._fetched, total=self._total))

    def on_link_complete(self, index: int) -> None:
        with self._lock:
            self._linked += 1
            self._write(steps.INSTALLED(done=self._linked, total=self._total))

    def _write(self, said: Message) -> None:
        partial = self._path.with_suffix(".part")
        done = self._fetched + self._linked
        partial.write_text(json.dumps([done, 2 * self._total, said.as_json()]))
        partial.rename(self._path)


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


_WORKS = {"solve": solve, "exact": exact, "install": install, "extract": extract}


def main(works: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = _WORKS) -> None:
    """``python -m environments.worker WORK RESULT PARENT``, the request on standard input."""
    work, result, parent = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if os.getppid() != parent:
        sys.exit("who asked has ended")  # before its end would have ended this process
    try:
        request = json.load(sys.stdin)
        answer = works[work](request | {"parts": str(_parts(result))})
    except Exception as error:  # whatever it was, the parent must be able to say it
        answer = {"error": str(error) or type(error).__name__}
    partial = result.with_suffix(".part")
    partial.write_text(json.dumps(answer))
    partial.rename(result)
    os._exit(0)  # there is nothing else to end, and at the end py-rattler's threads crash


if __name__ == "__main__":
    main()
