"""Images of environments: built, tried in a container, and tagged, through the Docker Engine."""

from __future__ import annotations

import os
import stat
import tarfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path, PurePosixPath
from typing import IO, Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import Mount
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import RequestException, Timeout

from spawner.environments import compiler
from spawner.environments.bytecode import TIMEOUT, Hands, ask, python_needs
from spawner.environments.errors import BuildError
from spawner.environments.install import CHECK_TIMEOUT, TRY, judge
from spawner.environments.lock import Lock
from spawner.environments.package import EPOCH
from spawner.environments.spec import EnvironmentSpec

CALL_TIMEOUT = 600  # seconds for one call to the Engine, and between two words of a build
_YOUNG = 3600  # seconds
UPDATED = "labcommons.updated"  # the label; see deploy/images.py
NO_MOUNTS: Mapping[str, tuple[str, str]] = {}
_NOBODY = "65534:65534"
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
# What a container of ours for an environment's own programs may use.
_MEMORY, _PROCESSES = "4g", 512
_PACKAGES = PurePosixPath("/packages")


class Images:
    """The images of one Engine. Every method raises BuildError, saying what Docker said."""

    def __init__(self) -> None:
        self._client: Any = None

    @contextmanager
    def _api(self, doing: str) -> Iterator[Any]:
        try:
            if self._client is None:
                self._client = docker.from_env(timeout=CALL_TIMEOUT)
            yield self._client.api
        except APIError as error:
            raise BuildError(f"{doing}: Docker refused: {error.explanation or error}") from error
        except (DockerException, RequestException, OSError) as error:
            raise BuildError(
                f"{doing}: Docker does not answer ({str(error)[:300]}); see that it runs and that "
                "DOCKER_HOST or /var/run/docker.sock leads to it"
            ) from error

    def id_of(self, image: str) -> str | None:
        """An image's id; None where there is no such image."""
        with self._api(f"looking for image {image}") as api:
            try:
                return str(api.inspect_image(image)["Id"])
            except ImageNotFound:
                return None

    def updated(self, image: str) -> date | None:
        """When Debian's updates went into an image (deploy/images.py); None where not said."""
        with self._api(f"looking for image {image}") as api:
            try:
                labels = api.inspect_image(image)["Config"].get("Labels") or {}
                return date.fromisoformat((labels.get(UPDATED) or "")[:10])
            except (ImageNotFound, ValueError):
                return None

    def build(
        self, name: str, base: str, folder: Path, prefix: str, labels: Mapping[str, str]
    ) -> str:
        """Put a folder's files at ``prefix`` on top of an image; returns the new image's id.

        They become root's, writable to nobody else, and all of one time. A container that is
        never started is filled and committed: a Dockerfile's COPY takes twice the time, as
        it unpacks the same files once more, and wants a builder that newer Engines lack.
        """
        with self._api("building the image") as api, _container(api, "build", name) as container:
            config = dict(api.inspect_image(base)["Config"] or {})
            config["Labels"] = {**(config.get("Labels") or {}), **labels}
            api.create_container(base, name=container)
            with _archive(folder, prefix) as stream:
                api.put_archive(container, "/", stream)
            # With the base's own configuration: a container's has more in it, as its host name.
            return str(api.commit(container, message="labcommons env build", conf=config)["Id"])

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
        status, said, errors = self._run("check", spec.name, image, program, _NOBODY, variables)
        if status:
            words = (errors or said)[-800:].strip()
            raise BuildError(f"the image does not pass its check (status {status}): {words}")
        if modules is not None:
            judge(spec, modules, said, errors, prefix)

    def compile(
        self,
        name: str,
        image: str,
        packages: Path,
        prefix: Path,
        lock: Lock,
        hands: Hands,
        on_host: Path,
        work: Path,
    ) -> int:
        """``bytecode.CompileWith``: by the lock's Python alone, beside nothing.

        It runs from the package cache with what it needs itself and no other package, in a
        container of ``image`` that may write to ``out`` in ``work`` only. Paths are as the
        Engine's machine sees them; ``on_host`` is ``work`` there.
        """
        needs = python_needs(lock)
        minor = ".".join(needs[0].version.split(".")[:2])
        ask(work, Path("/prefix"), Path("/out"), hands)
        program = [
            str(_PACKAGES / needs[0].stem / "bin" / f"python{minor}"),
            *("-I", "-S", "-B", "-W", "ignore", "-c", Path(compiler.__file__).read_text("utf-8")),
            "/request.json",
        ]
        libraries = ":".join(str(_PACKAGES / item.stem / "lib") for item in needs)
        status, _, _ = self._run(
            "compile",
            name,
            image,
            program,
            f"{os.getuid()}:{os.getgid()}",
            {"LD_LIBRARY_PATH": libraries, "LANG": "C.UTF-8"},
            {
                str(packages): (str(_PACKAGES), "ro"),
                str(prefix): ("/prefix", "ro"),
                str(on_host / "request.json"): ("/request.json", "ro"),
                str(on_host / "out"): ("/out", "rw"),
            },
            TIMEOUT,
        )
        return status

    def _run(
        self,
        purpose: str,
        name: str,
        image: str,
        program: Sequence[str],
        user: str,
        variables: Mapping[str, str],
        mounts: Mapping[str, tuple[str, str]] = NO_MOUNTS,
        timeout: float = CHECK_TIMEOUT,
    ) -> tuple[int, str, str]:
        """Run a program in a container without rights, network or disk: status, output, errors.

        ``mounts``: a path of the Engine's machine, where it is in the container, and how.
        """
        with self._api("trying the image") as api, _container(api, purpose, name) as container:
            limits = api.create_host_config(
                network_mode="none",
                cap_drop=["ALL"],
                read_only=True,
                security_opt=["no-new-privileges:true"],
                pids_limit=_PROCESSES,
                mem_limit=_MEMORY,
                memswap_limit=_MEMORY,
                tmpfs={"/tmp": "size=64m"},  # noqa: S108  (the container's)
                log_config={"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
                mounts=[
                    Mount(target, source, type="bind", read_only=how == "ro")
                    for source, (target, how) in mounts.items()
                ],
            )
            api.create_container(
                image,
                name=container,
                entrypoint=list(program),
                command=[],
                user=user,
                environment=dict(variables),
                working_dir="/",
                host_config=limits,
            )
            api.start(container)
            status = self._status(api, container, timeout)
            said, errors = (
                api.logs(container, tail=40, stdout=not wrong, stderr=wrong).decode(
                    "utf-8", "replace"
                )
                for wrong in (False, True)
            )
        return status, said, errors

    @staticmethod
    def _status(api: Any, name: str, timeout: float) -> int:
        try:
            return int(api.wait(name, timeout=timeout)["StatusCode"])
        except (RequestsConnectionError, Timeout) as error:
            raise BuildError(f"it did not end within {timeout:g} s; try again") from error

    def tag(self, image: str, repository: str, version: str) -> None:
        """Give an image its name."""
        with self._api(f"tagging {repository}:{version}") as api:
            api.tag(image, repository, version, force=True)

    def discard(self, image: str) -> None:
        """Remove an image and its names; never an error, it only takes room.

        One that a container runs from stays, as an image that no row names.
        """
        with suppress(BuildError), self._api("removing the image") as api, suppress(NotFound):
            for tag in api.inspect_image(image).get("RepoTags") or ():
                api.remove_image(tag, noprune=False)
            with suppress(NotFound):
                api.remove_image(image, noprune=False)

    def in_use(self) -> dict[str, str]:
        """Who has a container of which ``name:version``; also of images by their id."""
        with self._api("listing containers") as api:
            found: dict[str, str] = {}
            filters = {"label": "labcommons.environment"}
            for item in api.containers(all=True, filters=filters):
                labels = item.get("Labels") or {}
                who = labels.get("labcommons.user") or (item.get("Names") or ["a container"])[0]
                for key in (labels["labcommons.environment"], item.get("ImageID") or ""):
                    found[key] = f"{found[key]}, {who}" if key in found else who
            return found

    def orphans(self, known: Collection[str]) -> list[str]:
        """Images of this site's environments that no row of the catalog names.

        Young ones may be of a build that goes on.
        """
        site = os.environ.get("LABCOMMONS_SITE_ID")
        if not site:
            return []
        filters = {"label": [f"labcommons.site={site}", "labcommons.environment"]}
        with self._api("listing images") as api:
            return [
                item["Id"]
                for item in api.images(all=True, filters=filters)
                if item["Id"] not in known and time.time() - item["Created"] > _YOUNG
            ]


@contextmanager
def _container(api: Any, purpose: str, name: str) -> Iterator[str]:
    """A container's name; it is gone afterwards, as is one that a killed build left behind."""
    container = f"{os.environ.get('LABCOMMONS_SITE_ID') or 'labcommons'}-env-{purpose}-{name}"

    def remove() -> None:
        with suppress(NotFound):
            api.remove_container(container, force=True, v=True)

    remove()
    try:
        yield container
    finally:
        remove()


@contextmanager
def _archive(folder: Path, prefix: str) -> Iterator[IO[bytes]]:
    """A folder as a tar stream, written by a thread while Docker reads it."""
    reader, writer = os.pipe()
    failures: list[Exception] = []

    def write() -> None:
        try:
            with (
                os.fdopen(writer, "wb") as stream,
                tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
            ):
                _add_folder(tar, folder, PurePosixPath(prefix).relative_to("/"))
        except BrokenPipeError:
            pass  # Docker has given up reading; it says why
        except Exception as error:  # or what was written until then would pass for all of it
            failures.append(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    with os.fdopen(reader, "rb") as stream:
        yield stream
    thread.join()
    if failures:
        raise BuildError(f"reading {folder}: {failures[0]}")


def _add_folder(tar: tarfile.TarFile, folder: Path, prefix: PurePosixPath) -> None:
    """Add a folder's contents below a prefix, and the folders above that are made with it."""
    for above in reversed(prefix.parents[:-2]):
        tar.addfile(_entry(str(above), tarfile.DIRTYPE, 0o755))
    for path in [folder, *sorted(folder.rglob("*"))]:
        name = str(prefix / path.relative_to(folder).as_posix())
        status = path.lstat()
        mode = 0o755 if status.st_mode & 0o100 else 0o644
        if stat.S_ISLNK(status.st_mode):
            entry = _entry(name, tarfile.SYMTYPE, 0o777)
            entry.linkname = os.readlink(path)
            tar.addfile(entry)
        elif stat.S_ISDIR(status.st_mode):
            tar.addfile(_entry(name, tarfile.DIRTYPE, 0o755))
        elif stat.S_ISREG(status.st_mode):
            entry = _entry(name, tarfile.REGTYPE, mode)
            entry.size = status.st_size
            with path.open("rb") as file:
                tar.addfile(entry, file)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, EPOCH
    entry.uname = entry.gname = "root"
    return entry
