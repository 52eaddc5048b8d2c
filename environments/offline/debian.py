"""CPython from Debian's own packages, as a conda package that works in any prefix.

For machines that reach a Debian mirror and no conda channel. Everything happens in a
private state of apt, so neither root nor the machine's own lists are needed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from environments.errors import BuildError
from environments.messages import making as texts
from environments.offline.package import Member, Metadata, write_package

# Python minor version -> the Debian release that has it.
SUITES = {"3.11": "bookworm", "3.13": "trixie"}
MIRROR_VARIABLE = "LABCOMMONS_DEBIAN_MIRROR"
TIMEOUT = 300  # seconds for one run of apt
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Part of Debian's libc6, which every Debian image has.
_GLIBC = re.compile(r"(lib(c|m|dl|rt|util|pthread|resolv|anl|mvec)|ld-linux-x86-64)\.so\.\d+")
# What wheels expect to find on the system beside glibc (manylinux policies), and its package.
_FOR_WHEELS = ("libstdc++.so.6", "libgcc_s.so.1")
_FOR_WHEELS_PACKAGE = "libstdc++6"
_LEFT_OUT = ("test", "idlelib", "tkinter", "turtledemo", "__pycache__", "ensurepip", "lib2to3")
_PATHS = """\
import site, sys; site.addsitedir(f"{sys.prefix}/lib/python%s/site-packages")
"""
_SCHEMES = """
for _scheme in ("posix_local", "deb_system"):
    _INSTALL_SCHEMES[_scheme] = _INSTALL_SCHEMES["posix_prefix"]
"""


@dataclass(frozen=True)
class StagedPython:
    """A CPython prefix that can be moved anywhere.

    Attributes:
        version: full version, such as 3.13.5.
        glibc: the oldest glibc that it runs with.
        revision: Debian's revision of it.
    """

    prefix: Path
    version: str
    glibc: str
    revision: str

    @property
    def minor(self) -> str:
        """Major and minor version, such as 3.13."""
        return ".".join(self.version.split(".")[:2])

    @property
    def program(self) -> Path:
        """The interpreter."""
        return self.prefix / "bin" / f"python{self.minor}"

    def metadata(self) -> Metadata:
        """What the solver knows of its package."""
        return Metadata(
            name="python",
            version=self.version,
            build=f"debian_{re.sub(r'[^A-Za-z0-9]', '_', self.revision)}",
            depends=(f"__glibc >={self.glibc}",),
            license="Python-2.0",
            site_packages=f"lib/python{self.minor}/site-packages",
        )

    def write(self, channel: Path) -> Path:
        """Write the package into a channel's folder."""
        return write_package(channel, self.metadata(), self._members())

    def _members(self) -> Iterator[Member]:
        for path in sorted(self.prefix.rglob("*")):
            name = path.relative_to(self.prefix).as_posix()
            if path.is_symlink():
                yield Member(name, mode=0o777, link=os.readlink(path))
            elif path.is_file():
                yield Member(name, path.read_bytes(), stat.S_IMODE(path.stat().st_mode))


def stage_python(minor: str, work: Path) -> StagedPython:
    """Fetch a Python from Debian and make it movable, below the folder ``work``.

    Raises BuildError when Debian's mirror does not have it or does not answer.
    """
    shutil.rmtree(work, ignore_errors=True)
    debs = _fetch(minor, work / "apt")
    root = work / "root"
    for deb in debs:
        # glibc must be the image's own: it and the kernel's loader belong together.
        if not deb.name.startswith("libc6_"):
            _run(["dpkg-deb", "-x", str(deb), str(root)])
    prefix = work / "prefix"
    _copy_python(root, minor, prefix)
    _make_movable(prefix, root)
    program = prefix / "bin" / f"python{minor}"
    check = "import ssl, sqlite3, ctypes, lzma, bz2, zlib, readline, curses, uuid, pyexpat, decimal"
    version = _run(
        [str(program), "-I", "-c", f"{check}, platform; print(platform.python_version())"]
    ).strip()
    shutil.rmtree(root)
    return StagedPython(prefix, version, _needed_glibc(debs), _revision(debs, minor))


def _mirror() -> str:
    """The Debian mirror of the site's choice, else the one that this machine uses itself."""
    if mirror := os.environ.get(MIRROR_VARIABLE):
        return mirror.rstrip("/")
    # The plan only: nothing is fetched or written, and no lists need be there.
    plan = _run(["apt-get", "update", "--print-uris", "-oDebug::NoLocking=true"])
    for mirror in re.findall(r"'(\S+)/dists/[^/\s]+/InRelease'", plan):
        if mirror.endswith("/debian"):
            return str(mirror)
    raise BuildError(texts.NO_DEBIAN(variable=MIRROR_VARIABLE))


def _fetch(minor: str, apt: Path) -> list[Path]:
    """Download a Python and all that it needs, down to the C library."""
    archives = apt / "cache" / "archives"
    for folder in (apt / "lists" / "partial", archives / "partial"):
        folder.mkdir(parents=True)
    (apt / "status").touch()
    suite, sources = SUITES[minor], apt / "sources.list"
    sources.write_text(f"deb [signed-by={_KEYRING}] {_mirror()} {suite} main\n")
    settings = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": apt,
        "Dir::State::Lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Debug::NoLocking": "true",
        "APT::Sandbox::User": "root",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "30",
        "Acquire::https::Timeout": "30",
        "Acquire::Languages": "none",
    }
    get = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
    # Where the mirror is down, apt keeps to its old lists and calls that a success.
    _run([*get, "-oAPT::Update::Error-Mode=any", "update"])
    # With an empty list of installed packages, apt fetches the whole closure.
    wanted = (f"python{minor}", _FOR_WHEELS_PACKAGE)
    _run([*get, "install", "--download-only", "-y", "--no-install-recommends", *wanted])
    return sorted(archives.glob("*.deb"))


def _copy_python(root: Path, minor: str, prefix: Path) -> None:
    """Lay Debian's files out as a conda prefix has them."""
    library = Path("lib", f"python{minor}")
    shutil.copytree(
        root / "usr" / library,
        prefix / library,
        symlinks=True,
        ignore=shutil.ignore_patterns(*_LEFT_OUT, "*.pyc", "EXTERNALLY-MANAGED", "dist-packages"),
    )
    for link in [path for path in prefix.rglob("*") if path.is_symlink()]:
        if not link.resolve().is_relative_to(prefix.resolve()) or not link.exists():
            link.unlink()
    (prefix / "bin").mkdir()
    shutil.copy2(root / "usr" / "bin" / f"python{minor}", prefix / "bin" / f"python{minor}")
    for alias in ("python3", "python"):
        (prefix / "bin" / alias).symlink_to(f"python{minor}")
    # Debian installs into dist-packages, a conda prefix into site-packages. `site` is frozen
    # into the program, so a .pth adds the folder; sysconfig is not, so its schemes are set.
    (prefix / library / "site-packages").mkdir()
    (prefix / library / "site-packages" / "README.txt").write_text("Packages are put here.\n")
    (prefix / library / "dist-packages").mkdir()
    pth = prefix / library / "dist-packages" / "site-packages.pth"
    pth.write_text(_PATHS % minor)
    for schemes in (prefix / library / "sysconfig.py", prefix / library / "sysconfig/__init__.py"):
        if schemes.is_file():
            schemes.write_text(schemes.read_text() + _SCHEMES)


def _make_movable(prefix: Path, root: Path) -> None:
    """Put the shared libraries into the prefix and let everything find them there.

    DT_RPATH, as old as it is: unlike RUNPATH, the program's also serves the libraries that
    it loads later, such as a wheel's.
    """
    available = {path.name: path for path in root.rglob("*.so*") if path.is_file()}
    queue = [path for path in prefix.rglob("*") if _is_elf(path)]
    program = next(path for path in queue if path.parent.name == "bin")
    wanted = list(_FOR_WHEELS)
    while queue:
        path = queue.pop()
        needed = _patchelf("--print-needed", path).split()
        own = [name for name in needed if not _GLIBC.fullmatch(name)]
        if own or path == program:
            path.chmod(0o755)
            origin = os.path.relpath(prefix / "lib", path.parent)
            _patchelf("--force-rpath", "--set-rpath", f"$ORIGIN/{origin}", path)
        for name in [*own, *wanted]:
            target = prefix / "lib" / name
            if target.exists():
                continue
            if name not in available:
                raise BuildError(texts.LIBRARY_MISSING(file=path.name, library=name))
            shutil.copy2(available[name].resolve(), target)
            queue.append(target)
        wanted = []


def _is_elf(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _needed_glibc(debs: Sequence[Path]) -> str:
    fields = [_run(["dpkg-deb", "-f", str(deb), "Depends", "Pre-Depends"]) for deb in debs]
    found = re.findall(r"\blibc6 \(>= (\d+)\.(\d+)", "\n".join(fields))
    return "{}.{}".format(*max((int(major), int(minor)) for major, minor in found))


def _revision(debs: Sequence[Path], minor: str) -> str:
    deb = next(deb for deb in debs if deb.name.startswith(f"python{minor}-minimal_"))
    return _run(["dpkg-deb", "-f", str(deb), "Version"]).strip().rpartition("-")[2]


def _patchelf(*arguments: str | Path) -> str:
    beside = Path(sys.executable).with_name("patchelf")
    return _run([str(beside) if beside.exists() else "patchelf", *map(str, arguments)])


def _run(command: Sequence[str]) -> str:
    """The output of a command; BuildError with the end of its words when it fails."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise BuildError(texts.PROGRAM_MISSING(program=command[0])) from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(texts.PROGRAM_GAVE_UP(program=command[0], seconds=TIMEOUT)) from error
    if done.returncode:
        words = (done.stderr or done.stdout)[-800:].strip()
        raise BuildError(texts.PROGRAM_FAILED(program=command[0], words=words))
    return done.stdout
