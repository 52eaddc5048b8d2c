"""A prefix with R and IRkernel, as conda lays them down, made from Debian's packages.

    python3 tests/rig/r.py FOLDER/envs/NAME

Debian's R is unpacked, not installed: where its scripts name ``/usr/lib/R``, they name the prefix
afterwards. Needs Debian's mirror, apt and dpkg; some 40 MB and ten seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = ("r-base-core", "r-cran-irkernel")
# What the kernelspec of conda's r-irkernel says.
ARGV = ["{prefix}/lib/R/bin/R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"]
TIMEOUT = 120  # seconds for one command


class NoR(Exception):
    """R cannot be had on this machine; the message says why."""


def make(prefix: Path) -> None:
    """Make the prefix. Raises NoR."""
    with tempfile.TemporaryDirectory() as folder:
        root = _unpacked(Path(folder))
        home = prefix / "lib/R"
        shutil.copytree(root / "usr/lib/R", home, symlinks=True)
        shutil.copytree(root / "usr/share/R", prefix / "share/R", symlinks=True)
        for file in (root / "etc/R").iterdir():
            (home / "etc" / file.name).unlink(missing_ok=True)
            shutil.copy(file, home / "etc")
        for library in (root / "usr/lib").glob("*-linux-gnu/**/*.so*"):
            shutil.copy(library, prefix / "lib")
    ours = (("/usr/lib/R", home), ("/usr/share/R", prefix / "share/R"), ("/etc/R", home / "etc"))
    for file in (home / "bin/R", home / "etc/ldpaths", home / "etc/Renviron.ucf"):
        text = file.read_text()
        for theirs, here in ours:
            text = text.replace(theirs, str(here))
        file.write_text(text)
    (home / "etc/Renviron").unlink(missing_ok=True)
    (home / "etc/Renviron.ucf").rename(home / "etc/Renviron")
    with (home / "etc/ldpaths").open("a") as paths:
        paths.write(f'LD_LIBRARY_PATH="{prefix}/lib:$LD_LIBRARY_PATH"\nexport LD_LIBRARY_PATH\n')
    (prefix / "bin").mkdir()
    (prefix / "bin/R").symlink_to("../lib/R/bin/R")
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta/history").touch()
    kernel = prefix / "share/jupyter/kernels/ir"
    kernel.mkdir(parents=True)
    argv = [word.replace("{prefix}", str(prefix)) for word in ARGV]
    document = {"argv": argv, "display_name": "R", "language": "R"}
    (kernel / "kernel.json").write_text(json.dumps(document))


def _unpacked(folder: Path) -> Path:
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise NoR("R's packages are Debian's: this needs apt-get and root")
    (folder / "debs/partial").mkdir(parents=True)
    command = ["apt-get", "install", "--download-only", "--reinstall", "--yes"]
    command += ["--no-install-recommends", "-o", f"Dir::Cache::archives={folder}/debs"]
    try:
        _do(*command, *PACKAGES)
        for package in sorted((folder / "debs").glob("*.deb")):
            _do("dpkg-deb", "-x", str(package), str(folder / "root"))
    except (OSError, subprocess.SubprocessError) as error:
        raise NoR(f"R's packages cannot be had: {getattr(error, 'stderr', error)}") from error
    return folder / "root"


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT)


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
