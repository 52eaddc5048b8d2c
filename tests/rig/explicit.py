"""What makes an environment from conda's ``@EXPLICIT`` list, where no conda can be had.

    python explicit.py create --yes --prefix FOLDER --file explicit.txt
    python explicit.py clean --all --yes

takes the words of micromamba, mamba and conda that an exported Dockerfile uses, and installs with
py-rattler: each package from its URL, checked against its SHA-256. Needs nothing of the project.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from urllib.parse import urlsplit

from rattler import Client, PackageRecord, RepoDataRecord, install
from rattler.package.build_string import BuildString


def records(text: str) -> list[RepoDataRecord]:
    """What an explicit list names."""
    _, marker, lines = text.partition("@EXPLICIT\n")
    assert marker, "no explicit list"
    return [_record(*line.split("#sha256:")) for line in lines.splitlines()]


def _record(url: str, sha256: str) -> RepoDataRecord:
    channel, subdir, file = urlsplit(url)._replace(query="").geturl().rsplit("/", 2)
    name, version, build = file.removesuffix(".conda").rsplit("-", 2)
    noarch = "python" if subdir == "noarch" else None
    package = PackageRecord(
        name, version, BuildString(build), 0, subdir, noarch=noarch, sha256=bytes.fromhex(sha256)
    )
    return RepoDataRecord(package, file, url, f"{channel}/")


def create(prefix: Path, text: str, cache: Path, client: Client | None = None) -> None:
    """Make the environment; a package with another hash is refused."""
    asyncio.run(install(records(text), prefix, cache_dir=cache, client=client, show_progress=False))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["create", "clean"])
    for flag in ("--yes", "--all"):
        parser.add_argument(flag, action="store_true")
    for option in ("--prefix", "--file"):
        parser.add_argument(option, type=Path)
    chosen = parser.parse_args()
    if chosen.verb == "create":
        create(chosen.prefix, chosen.file.read_text("utf-8"), Path("/tmp/packages"))
        os._exit(0)  # at the end of Python, py-rattler's threads may crash


if __name__ == "__main__":
    main()
