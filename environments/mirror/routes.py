"""What a path of the mirror asks for: where it is had, how long it is kept, how it begins. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from commons.site import Environments
from commons.site.mirror import CHANNEL, PRESETS, PYPI_FILES, Mirror

# Seconds that an answer is kept before it is asked for again; what never changes, for ever.
INDEX, NEVER_CHANGES, NOT_THERE, NOT_KEPT = 300, 10 * 365 * 86400, 30, 0

_SUBDIR = r"(?P<subdir>noarch|[a-z]{3,10}-[a-z0-9_]{1,16})"
_CONDA = re.compile(
    rf"/conda/(?P<channel>{CHANNEL.pattern})/{_SUBDIR}/(?P<file>[\w.!+~%-]{{1,250}})"
)
_SHARD = re.compile(
    rf"/conda/(?P<channel>{CHANNEL.pattern})/{_SUBDIR}/"
    r"(?P<file>(?:shards/)?[0-9a-f]{64}\.msgpack\.zst)"
)
_ABOUT = re.compile(rf"/conda/(?P<channel>{CHANNEL.pattern})/(?P<file>channeldata\.json)")
_INDEX = re.compile(
    r"(?:current_repodata|repodata|repodata_from_packages|patch_instructions|run_exports"
    r"|repodata_shards)\.(?:json|json\.zst|json\.bz2|msgpack\.zst)"
)
_PACKAGE = re.compile(r"[\w.!+~%-]+\.(?:conda|tar\.bz2)")
_PAGE = re.compile(r"/pypi/simple/(?P<project>[A-Za-z0-9](?:[\w.-]{0,98}[A-Za-z0-9])?)/")
_FILE = re.compile(
    r"/pypi/packages/(?P<path>(?P<a>[0-9a-f]{2})/(?P<b>[0-9a-f]{2})/(?P<c>[0-9a-f]{60})/"
    r"(?P<file>[\w.!+~%-]{1,250}))"
)
_OTHER_FILE = re.compile(r"/pypi/at/(?P<place>[0-9])/(?P<path>[\w./!+~%@-]{1,900})")

_ZSTD, _BZIP, _ZIP, _GZIP = b"\x28\xb5\x2f\xfd", b"BZh", b"PK", b"\x1f\x8b"
_BEGINS = {
    ".zst": (_ZSTD,),
    ".bz2": (_BZIP,),
    ".conda": (_ZIP,),
    ".whl": (_ZIP,),
    ".zip": (_ZIP,),
    ".gz": (_GZIP,),
    ".json": (b"{",),
    ".metadata": (b"Metadata-Version",),
}


@dataclass(frozen=True)
class Wanted:
    """What one path asks for.

    Attributes:
        kind: ``conda`` or ``pypi``, for counting.
        urls: where it is had, nearest first.
        keep: seconds.
        page: of PyPI's index: it has links that have to lead here.
        begins: what its first bytes are one of; empty: anything but a web page.
        blake2: its digest, where its address has it (as PyPI's files do).
        project: the normalised name that a page is about.
    """

    kind: str
    urls: tuple[str, ...]
    keep: int
    page: bool = False
    begins: tuple[bytes, ...] = ()
    blake2: str = ""
    project: str = ""


class Routes:
    """The paths that one site's mirror answers."""

    def __init__(self, mirror: Mirror, written: Environments) -> None:
        self.channels = mirror.places(written)
        self.indexes = mirror.indexes(written)

    def wanted(self, path: str) -> Wanted | None:
        """What a path (decoded, without a query) asks for; None where it is nothing of ours."""
        if ".." in path.split("/") or not path.isascii():
            return None
        for pattern in (_SHARD, _CONDA, _ABOUT):
            if found := pattern.fullmatch(path):
                return self._conda(found, path)
        if found := _PAGE.fullmatch(path):
            name = re.sub(r"[-_.]+", "-", found["project"]).lower()
            urls = tuple(f"{index}/{name}/" for index in self.indexes)
            return Wanted("pypi", urls, INDEX, page=True, project=name)
        if found := _FILE.fullmatch(path):
            bases = map(files_of, self.indexes)
            urls = tuple(f"{base}/packages/{_quoted(found['path'])}" for base in bases)
            whole = found["file"].endswith(".metadata")
            digest = "" if whole else found["a"] + found["b"] + found["c"]
            begins = begin_of(found["file"])
            return Wanted("pypi", urls, NEVER_CHANGES, begins=begins, blake2=digest)
        if (found := _OTHER_FILE.fullmatch(path)) and int(found["place"]) < len(self.indexes):
            host = "/".join(self.indexes[int(found["place"])].split("/")[:3])
            begins = begin_of(found["path"])
            return Wanted(
                "pypi", (f"{host}/{_quoted(found['path'])}",), NEVER_CHANGES, begins=begins
            )
        return None

    def _conda(self, found: re.Match[str], path: str) -> Wanted | None:
        places, file = self.channels.get(found["channel"]), found["file"]
        if places is None:
            return None
        inside = path.removeprefix(f"/conda/{found['channel']}/")
        urls = tuple(f"{place}/{_quoted(inside)}" for place in places)
        if found.re is _SHARD or _PACKAGE.fullmatch(file):
            return Wanted("conda", urls, NEVER_CHANGES, begins=begin_of(file))
        if found.re is _ABOUT or _INDEX.fullmatch(file):
            return Wanted("conda", urls, INDEX, begins=begin_of(file))
        return None


def begin_of(file: str) -> tuple[bytes, ...]:
    """How a file of that name begins."""
    return next((begins for end, begins in _BEGINS.items() if file.endswith(end)), ())


def files_of(index: str) -> str:
    """Where an index of PyPI's has its files: what stands before ``/packages/``."""
    if index == PRESETS["official"][2]:
        return PYPI_FILES
    return index.removesuffix("/simple")


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("+", "%2B").replace("!", "%21")
