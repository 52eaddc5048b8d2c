"""Images of environments, as builds ask for them: published, tried and tagged by the agent.

A builder has no way to the Engine. What an image may hold and what it may be started with is the
agent's to decide (``spawner.runtime.docker.images``); here is what a build wants of it.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import date
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from commons.errors import LabError
from commons.messages import Message
from commons.signatures.statement import Identity
from environments import compiler
from environments.bytecode import Hands, ask, python_needs
from environments.errors import BuildError
from environments.install import TRY, judge
from environments.lock import Lock
from environments.messages import making as texts
from environments.spec import EnvironmentSpec
from spawner.runtime import client
from spawner.runtime.protocol import Dangling, EngineState, ImageStore
from spawner.runtime.spec import CheckImage, CompileModules

T = TypeVar("T")

# Run in the image as a stranger, after its modules were imported: it must be nobody's but root's.
# Modes are looked at, as on a read-only file system nothing is writable anyway.
_OWNERS = """
import os, stat
open_to_others = [
    os.path.join(folder, name)
    for folder, folders, files in os.walk(sys.prefix)
    for name in (".", *folders, *files)
    for status in [os.lstat(os.path.join(folder, name))]
    if status.st_uid != 0 or (not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o022)
]
if open_to_others:
    sys.exit(f"others could change {open_to_others[0]}")
"""

# The same for other kernels than Python's, with what every server image has.
_PLAIN_CHECK = """
test -r "$1/conda-meta/history" || { echo "not readable for everyone"; exit 1; }
open=$(find "$1" \\( ! -uid 0 -o ! -type l -perm /022 \\) -print -quit)
test -z "$open" || { echo "others could change $open"; exit 1; }
"""
# Where the agent lays things in the container that compiles.
_PACKAGES = PurePosixPath("/packages")


class Images:
    """The images of this site. Every method raises BuildError, with what the agent said.

    Args:
        connect: gives the agent's images; the default is the one that the variables
            LABCOMMONS_AGENT_* name.
    """

    def __init__(self, connect: Callable[[], ImageStore] = client.from_environment) -> None:
        self._connect = connect

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """Of a thread of its own: builds are threads that wait."""
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="agent", daemon=True).start()
        atexit.register(self._close)
        return loop

    def _close(self) -> None:
        close = getattr(self._store, "close", None)
        if close is not None:
            asyncio.run_coroutine_threadsafe(close(), self._loop).result(5)

    @cached_property
    def _store(self) -> ImageStore:
        return self._connect()

    def _ask(self, doing: Message, work: Callable[[ImageStore], Coroutine[Any, Any, T]]) -> T:
        async def call() -> T:
            return await work(self._store)

        try:
            return asyncio.run_coroutine_threadsafe(call(), self._loop).result()
        except LabError as error:
            raise BuildError(texts.IMAGE_DOING(doing=doing, reason=error.message)) from error
        except OSError as error:
            raise BuildError(texts.IMAGE_DOING(doing=doing, reason=error)) from error

    def id_of(self, image: str) -> str | None:
        """An image's id; None where there is no such image."""
        return self._ask(texts.LOOKING_FOR(image=image), lambda store: store.resolve(image))

    def identity(self, image: str) -> Identity | None:
        """What an image is, as it is signed; None where there is no such image."""
        found = self._ask(texts.LOOKING_FOR(image=image), lambda store: store.identity(image))
        return Identity(found.id, found.media_type, found.layers) if found else None

    def updated(self, image: str) -> date | None:
        """When Debian's updates went into an image (deploy/images.py); None where not said."""
        return self._ask(texts.LOOKING_FOR(image=image), lambda store: store.updated(image))

    def engine_state(self) -> EngineState:
        """What the Engine is."""
        return self._ask(texts.LOOKING_FOR(image="Docker Engine"), lambda s: s.engine_state())

    def build(
        self,
        name: str,
        version: str,
        base: str,
        folder: Path,
        prefix: str,
        labels: Mapping[str, str],
    ) -> str:
        """Put a folder's files at ``prefix`` on top of the server image; the new image's id."""
        return self._ask(
            texts.PUBLISHING(),
            lambda store: store.publish(name, version, base, folder, prefix, labels),
        )

    def check(
        self,
        spec: EnvironmentSpec,
        image: str,
        prefix: str,
        modules: Sequence[str] | None,
    ) -> None:
        """Try an image's environment in a container without rights, network or disk.

        Python must import ``modules``; None where the environment has no Python.
        """
        program = [
            f"{prefix}/bin/python",
            "-I",
            "-B",
            "-c",
            f"import sys\n{_OWNERS}\n{TRY}",
            *(modules or ()),
        ]
        if modules is None:
            program = ["/bin/sh", "-c", _PLAIN_CHECK, "check", prefix]
        variables = {
            **spec.variables,
            "HOME": "/tmp",  # noqa: S108  (the container's)
            "CONDA_PREFIX": prefix,
            "LANG": "C.UTF-8",
            "PATH": f"{prefix}/bin:/usr/bin:/bin",
        }
        task = CheckImage(image=image, program=tuple(program), env=variables)
        end = self._ask(texts.TRYING(), lambda store: store.check(task))
        if end.exit_code:
            words = (end.errors or end.output)[-800:].strip()
            raise BuildError(texts.CHECK_FAILED(status=end.exit_code, words=words))
        if modules is not None:
            judge(spec, modules, end.output, end.errors, prefix)

    def compile(
        self, image: str, cache: Path, prefix: Path, lock: Lock, hands: Hands, work: Path
    ) -> int:
        """``bytecode.CompileWith``: by the lock's Python alone, beside nothing.

        It runs from the package cache with what it needs itself and no other package, in a
        container of ``image`` that may write to ``out`` in ``work`` only. ``prefix`` and ``work``
        are in ``cache``.
        """
        needs = python_needs(lock)
        minor = ".".join(needs[0].version.split(".")[:2])
        ask(work, Path("/prefix"), Path("/out"), hands)
        task = CompileModules(
            image=image,
            program=(
                str(_PACKAGES / needs[0].stem / "bin" / f"python{minor}"),
                *("-I", "-S", "-B", "-W", "ignore", "-c"),
                Path(compiler.__file__).read_text("utf-8"),
                "/request.json",
            ),
            prefix=str(prefix.relative_to(cache)),
            work=str(work.relative_to(cache)),
            env={
                "LD_LIBRARY_PATH": ":".join(str(_PACKAGES / item.stem / "lib") for item in needs),
                "LANG": "C.UTF-8",
            },
        )
        return self._ask(texts.COMPILING(), lambda store: store.compile(task)).exit_code

    def tag(self, image: str, name: str, version: str) -> None:
        """Give an image its name."""
        self._ask(
            texts.TAGGING(name=name, version=version), lambda store: store.tag(image, name, version)
        )

    def discard(self, image: str) -> None:
        """Remove an image and its names; never an error, it only takes room.

        One that a container runs from stays, as an image that no row names.
        """
        with suppress(BuildError):
            self._ask(texts.REMOVING(), lambda store: store.discard(image))

    def in_use(self) -> Mapping[str, str]:
        """Who has a container of which ``name:version``; also of images by their id."""
        return self._ask(texts.LISTING_SERVERS(), lambda store: store.in_use())

    def prune_dangling(self, dry_run: bool) -> Dangling:
        """Remove images of ours without a name, which nothing uses and no build of a week needs."""
        return self._ask(texts.LISTING_IMAGES(), lambda store: store.prune_dangling(dry_run))

    def orphans(self, known: Collection[str]) -> list[str]:
        """Images of this site's environments that no row of the catalog names.

        Young ones may be of a build that goes on.
        """
        return self._ask(texts.LISTING_IMAGES(), lambda store: store.orphans(tuple(known)))
