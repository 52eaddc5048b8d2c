"""What pip and conda answer where an environment is not the person's: one sentence, one action.

    python -I -m kernels.packages pip PREFIX install cowsay

It is run by what stands before pip (config/images/server/inside) and by ``conda``. The action is a
command, and in a notebook also a button below the cell: for that, the offer is left where the
kernel, which is told a place by LABCOMMONS_OFFER, finds it when the cell has ended.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import urlsplit

from kernels import files
from kernels.current import place
from kernels.messages import Message, persons_language, say
from kernels.words import options

GO_ON = 100  # exit status: it is left to pip
OFFER = "LABCOMMONS_OFFER"
# Options of pip that take a word after them, and those with which it installs somewhere else.
_VALUES = (
    "-r --requirement -c --constraint -i --index-url --extra-index-url -f --find-links -t --target "
    "--prefix --root --src --python-version --platform --abi --implementation --progress-bar "
    "--cache-dir --proxy --timeout --retries --trusted-host --cert --client-cert --log "
    "--upgrade-strategy --only-binary --no-binary --report -C --config-settings --global-option "
    "--exists-action --use-feature --use-deprecated --python --keyring-provider -e --editable"
)
_WITH_VALUE = frozenset(_VALUES.split())
_INDEXES = frozenset(("-i", "--index-url", "--extra-index-url", "-f", "--find-links"))
_ELSEWHERE = frozenset(("-t", "--target", "--prefix", "--root", "--python", "--dry-run"))
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[^\]]*\])?\s*([<>=!~;(].*)?")
# What installs, rather than being used: its own newest version is nobody's aim.
_TOOLS = frozenset(("pip", "setuptools", "wheel"))
_NESTED = re.compile(r"(?:-r|--requirement)[\s=]*(\S+)")
# Lines of a file of requirements that change nothing where packages are locked.
_HARMLESS = frozenset(("-c", "--constraint", "--pre", "--prefer-binary", "--only-binary"))
_MAX_FILE, _MAX_ITEMS, _DEEPEST = 1024 * 1024, 500, 5
_REACH = 3.0  # seconds for an index to take a connection


@dataclass(frozen=True)
class Offer:
    """One's own copy of an environment with a change to its packages.

    Attributes:
        source, name, version: the environment; the version of an image is the server's.
        pip, add, remove: requirements of pip, specs of conda, names of either.
        channels: of conda, to look into before the environment's own.
    """

    source: str
    name: str
    version: str = ""
    pip: tuple[str, ...] = ()
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The packages as a person would say them."""
        return ", ".join((*self.pip, *self.add, *self.remove))

    @property
    def told(self) -> dict[str, str]:
        """What sentences about it say."""
        return {"name": self.name, "packages": self.words, "command": self.command}

    @property
    def command(self) -> str:
        """What does the same in a terminal."""
        words = ["labcommons", "env", "remove" if self.remove else "add"]
        if (self.source, self.name) != ("image", started()[0]):
            words += ["--from", f"{self.source}/{self.name}"]
        if self.add and not self.pip:
            words += ["--conda", *(word for name in self.channels for word in ("-c", name))]
        return shlex.join([*words, *self.pip, *self.add, *self.remove])


@dataclass
class Wanted:
    """What a command line of ``pip install`` or ``pip uninstall`` asks for.

    Attributes:
        names: requirements.
        other: what is none and cannot be locked: folders, URLs, other indexes.
        unread: a file of requirements cannot be read; pip says why.
        indexes: other places for packages than the site's.
    """

    command: str = ""
    names: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    elsewhere: bool = False
    upgrade: bool = False
    user: bool = False
    unread: bool = False
    indexes: list[str] = field(default_factory=list)


def started() -> tuple[str, str]:
    """Name and version of the image environment that the server was started with."""
    name, _, version = os.environ.get("LABCOMMONS_ENVIRONMENT", "").partition(":")
    return name, version


def environment_of(prefix: str) -> tuple[str, str]:
    """Source and name of an environment; that of the server's own Python is what it started with.

    ``("", NAME)`` for what LabCommons knows nothing of: a venv, say.
    """
    name, source = place(os.path.abspath(prefix))
    if source:
        return source, name
    if os.path.abspath(prefix).startswith("/opt/labcommons/server") and started()[0]:
        return "image", started()[0]
    return "", name


def is_own(prefix: str) -> bool:
    """Whether a person may change an environment in place.

    What a lead has built for a team is theirs by its owner, and a version all the same: no.
    """
    return environment_of(prefix)[0] in ("", "personal") and os.access(prefix, os.W_OK)


def offer(prefix: str, **change: Iterable[str]) -> Offer:
    """The offer for an environment."""
    source, name = environment_of(prefix)
    name_started, version = started()
    if not source:
        source, name = "image", name_started
    return Offer(
        source,
        name,
        version if (source, name) == ("image", name_started) else "",
        **{key: tuple(items) for key, items in change.items()},
    )


def make(made: Offer, said: Message) -> None:
    """Say it, and leave the offer for the kernel."""
    tell(said)
    if target := os.environ.get(OFFER):
        leave(target, made, said)


def leave(target: str, made: Offer, said: Message) -> None:
    """Put an offer where the kernel looks for it; one line for each."""
    document = {**asdict(made), "sentence": said.in_words(persons_language())}
    document["command"] = made.command
    with suppress(OSError), open(target, "a", encoding="utf-8") as file:
        file.write(json.dumps(document) + "\n")


def tell(message: Message) -> None:
    """Say something where a person reads it, behind what was printed before."""
    sys.stdout.flush()
    print(message.in_words(persons_language()), file=sys.stderr, flush=True)


# pip ----------------------------------------------------------------------------------------------


def pip(prefix: str, words: Sequence[str]) -> int:
    """The exit status of ``pip WORDS`` for an environment; GO_ON leaves it to pip."""
    try:
        wanted = read(words)
    except files.AddressError as error:
        tell(say("file_not_read", path=error.filename, error=error.strerror))
        return 1
    if wanted.elsewhere or wanted.unread:
        return GO_ON
    if is_own(prefix):
        return _own(prefix, wanted)
    return (_remove if wanted.command == "uninstall" else _add)(prefix, wanted)


def _remove(prefix: str, wanted: Wanted) -> int:
    there = [name for name in wanted.names if is_installed(prefix, _name(name))]
    if not there:
        return GO_ON  # pip says so
    made = offer(prefix, remove=there)
    make(made, say("read_only_remove", **made.told))
    return 1


def _add(prefix: str, wanted: Wanted) -> int:
    kept = [name for name in wanted.names if _is_kept(prefix, name, wanted)]
    missing = [name for name in wanted.names if name not in kept]
    if not wanted.upgrade:
        missing = [name for name in missing if not is_installed(prefix, name)]
    here = [name for name in wanted.names if name not in (*missing, *kept)]
    for name in here:
        print(f"Requirement already satisfied: {name} in {prefix}")
    if wanted.other:
        made = offer(prefix, pip=missing, add=["pip"])
        make(made, say("read_only_other", **made.told))
        return 1
    if not missing:
        if kept:
            tell(say("pip_is_kept", packages=", ".join(kept)))
        return 0 if wanted.names else GO_ON
    if wanted.indexes:
        tell(say("index_of_the_site", indexes=", ".join(wanted.indexes)))
    made = offer(prefix, pip=missing)
    make(made, say("read_only_add", **made.told))
    return 1


def _is_kept(prefix: str, name: str, wanted: Wanted) -> bool:
    """Whether it is pip's newest, or what usually comes with it, that is asked for: no package."""
    if name not in _TOOLS:
        return False  # a version, too, has its reason
    return name == "pip" or "pip" in wanted.names or is_installed(prefix, name)


def _own(prefix: str, wanted: Wanted) -> int:
    if wanted.user:
        tell(say("not_in_home", name=environment_of(prefix)[1]))
    if wanted.command == "install" and environment_of(prefix)[0] and not _index_answers():
        if wanted.names and not wanted.other:
            made = offer(prefix, pip=wanted.names)
            make(made, say("index_away", **made.told))
        else:
            tell(say("index_away_other"))
        return 1
    return GO_ON


def read(words: Sequence[str]) -> Wanted:
    """What a command line asks for; files of requirements are read. Raises AddressError."""
    wanted = Wanted()
    for option, value in options(words, _WITH_VALUE):
        if not option:
            _take(wanted, value)
        wanted.elsewhere |= option in _ELSEWHERE
        wanted.user |= option == "--user"
        wanted.upgrade |= option in ("-U", "--upgrade", "--force-reinstall", "-I")
        if option in _INDEXES:
            wanted.indexes.append(value)
        if option in ("-e", "--editable"):
            wanted.other.append(value)
        elif option in ("-r", "--requirement"):
            _take_file(wanted, value)
    return wanted


def _take(wanted: Wanted, word: str) -> None:
    if not wanted.command:
        wanted.command = word
    elif _REQUIREMENT.fullmatch(word.strip()) and not os.path.isfile(word):
        wanted.names.append(word.strip())
    else:
        wanted.other.append(word)


def _take_file(wanted: Wanted, path: str, depth: int = 0) -> None:
    """A file of requirements, and those that it names."""
    try:
        raw = files.read_named(path, _MAX_FILE + 1)
    except files.AddressError:
        raise
    except OSError:
        wanted.unread = True
        return
    marked = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = raw[:_MAX_FILE].decode("utf-16" if marked else "utf-8-sig", "replace")
    for line in text.replace("\\\n", " ").splitlines():
        item = re.sub(r"(^|\s)#.*|\s--hash=\S+", "", line).strip()
        if not item or len(wanted.names) >= _MAX_ITEMS:
            continue
        if (nested := _NESTED.fullmatch(item)) and depth < _DEEPEST:
            _take_file(wanted, os.path.join(os.path.dirname(path), nested[1]), depth + 1)
        elif item.startswith("-"):
            if item.split("=")[0].split()[0] not in _HARMLESS:
                wanted.other.append(item)
        else:
            _take(wanted, item)


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]*", requirement)
    return re.sub(r"[-_.]+", "-", found[0] if found else "").lower()


def is_installed(prefix: str, requirement: str) -> bool:
    """Whether a requirement is met by what is installed; its own dependencies are not asked."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = Requirement(requirement)
    except InvalidRequirement:
        return False
    if wanted.marker is not None:
        return False
    for site in sorted(Path(prefix, "lib").glob("python3*/site-packages")):
        for item in distributions(name=wanted.name, path=[str(site)]):
            return wanted.specifier.contains(item.version, prereleases=True)
    return False


def _index_answers() -> bool:
    """Whether the package index takes a connection; not asked where a proxy stands between."""
    if any(name.lower() in ("https_proxy", "all_proxy", "http_proxy") for name in os.environ):
        return True
    address = urlsplit(os.environ.get("PIP_INDEX_URL") or _pips_own())
    if address.scheme in ("", "file"):
        return True
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        with socket.create_connection((address.hostname or "", port), _REACH):
            return True
    except (OSError, ValueError):
        return bool(os.environ.get("PIP_NO_INDEX"))


def _pips_own() -> str:
    """The index that pip asks where nobody names one; "" where there is no pip to say it."""
    try:
        from pip._internal.models.index import PyPI
    except ImportError:
        return ""
    return str(PyPI.simple_url)


# R ------------------------------------------------------------------------------------------------


def r_packages(prefix: str, names: Sequence[str]) -> int:
    """What ``install.packages`` answers where the environment is not the person's.

    conda has CRAN's packages by their names in small letters, ready made.
    """
    there = {path.name for path in Path(prefix).glob("lib/R/*library/*")}
    missing = [name for name in names if name not in there]
    if not missing:
        told = {"packages": ", ".join(names), "name": environment_of(prefix)[1]}
        tell(say("r_here_already", **told))
        return 0
    made = offer(prefix, add=[f"r-{name.lower()}" for name in missing])
    make(made, say("read_only_add", **made.told))
    return 1


def main(words: Sequence[str]) -> int:
    """``pip PREFIX WORDS…``, or ``r PREFIX PACKAGES…`` of R's ``install.packages``."""
    what, prefix, *rest = words
    return r_packages(prefix, rest) if what == "r" else pip(prefix, rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
