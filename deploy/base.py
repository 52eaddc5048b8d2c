"""Debian 13 as an image, from the nearest place that has it: a registry, or Debian's mirror."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

from deploy import apt
from deploy.engine import CACHE, Engine
from deploy.settings import ROOT
from deploy.shell import CommandFailed, Failure, child, end_group, output
from deploy.steps import Step

SUITE = "trixie"
DEBIAN = "labcommons/debian:13"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
HOST_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
REGISTRY_TIMEOUT = 20  # seconds until a registry has to say that it has the image
PULL_TIMEOUT = 600


def ensure_debian(engine: Engine, step: Step) -> None:
    """Have the image DEBIAN: pulled through the site's registry, pulled, or bootstrapped.

    REFRESH=yes gets Debian's updates even when it is there; all images are built anew then.
    """
    fresh = os.environ.get("REFRESH") == "yes"
    if not fresh and engine.docker("image", "inspect", "--format", "{{.Id}}", DEBIAN):
        step.result = "up to date"
        return
    places = [f"debian:{SUITE}-slim"]
    if registry := os.environ.get("LABCOMMONS_REGISTRY"):
        places.insert(0, f"{registry.rstrip('/')}/debian:{SUITE}-slim")
    for place in places:
        if _pull(engine, place, step):
            step.run(["docker", "tag", place, DEBIAN], timeout=60, env=engine.env)
            step.result = f"pulled {place}"
            return
    _bootstrap(engine, step)
    step.result = "bootstrapped from Debian's mirror (no registry answered)"


def write_context(folder: Path) -> None:
    """What the base image copies: its script under config/images, and the CA bundle.

    Raises Failure when LABCOMMONS_CA_BUNDLE names no PEM file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "config" / "images" / "base" / "setup.sh", folder)
    (folder / "ca-bundle.crt").write_bytes(_ca_bundle())


def debian_sources(targets: str) -> str:
    """Lines of a sources.list for SUITE from the repositories this machine uses, or "".

    ``targets`` is what ``apt-get indextargets`` prints, one URL a line. An override is
    LABCOMMONS_DEBIAN_MIRROR.
    """
    urls = [u for u in targets.splitlines() if u.startswith(("http://", "https://"))]
    override = os.environ.get("LABCOMMONS_DEBIAN_MIRROR")
    mirror = override or next((u for u in urls if re.search(r"/debian/?$", u)), "")
    if not mirror:
        return ""
    lines = [f"deb {mirror} {SUITE} main", f"deb {mirror} {SUITE}-updates main"]
    security = os.environ.get("LABCOMMONS_DEBIAN_SECURITY") or next(
        (u for u in urls if re.search(r"/debian-security/?$", u)), ""
    )
    if security:
        lines.append(f"deb {security} {SUITE}-security main")
    return "\n".join(lines) + "\n"


def _ca_bundle() -> bytes:
    named = os.environ.get("LABCOMMONS_CA_BUNDLE")
    path = Path(named) if named else HOST_BUNDLE
    try:
        bundle = path.read_bytes()
    except OSError as error:
        if not named:
            return b""
        raise Failure(
            f"LABCOMMONS_CA_BUNDLE={named}: {error.strerror}", "name a PEM file"
        ) from error
    if b"-----BEGIN CERTIFICATE-----" not in bundle:
        raise Failure(f"{path} has no certificate in it", "set LABCOMMONS_CA_BUNDLE to a PEM file")
    return bundle


def _pull(engine: Engine, place: str, step: Step) -> bool:
    """Pull an image; False when the registry does not answer, or not in time.

    The first line comes when the registry has answered; a slow line may take long after it.
    """
    step.note(f"$ docker pull {place}")
    with child(
        ["docker", "pull", place],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **engine.env},
    ) as process:
        assert process.stdout
        clock = threading.Timer(REGISTRY_TIMEOUT, end_group, [process])
        try:
            clock.start()
            for line in process.stdout:
                step.note(line.rstrip())
                if "Pulling from" in line:
                    clock.cancel()
                    clock = threading.Timer(PULL_TIMEOUT, end_group, [process])
                    clock.start()
            return process.wait() == 0
        finally:
            clock.cancel()


def _bootstrap(engine: Engine, step: Step) -> None:
    """Make Debian's minimal system with mmdebstrap, and import it."""
    step.remedy = (
        "set LABCOMMONS_REGISTRY to a registry that has debian:trixie-slim, or "
        "LABCOMMONS_DEBIAN_MIRROR to a Debian mirror that this machine reaches"
    )
    apt.install(["mmdebstrap", "debian-archive-keyring"], step)
    CACHE.mkdir(exist_ok=True)
    archive = CACHE / "debian.tar"
    command: list[str | Path] = [
        "mmdebstrap", "--variant=minbase", "--include=ca-certificates",
        "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
    ]  # fmt: skip
    if KEYRING.exists():
        command.append(f"--keyring={KEYRING}")
    command += [SUITE, archive]
    sources = debian_sources(
        output(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]) or ""
    )
    if sources:
        step.note(sources)
        listing = CACHE / "debian.list"
        listing.write_text(sources, "utf-8")
        command.append(listing)
    try:
        step.run(command, timeout=1200)
        step.run(["docker", "import", archive, DEBIAN], timeout=300, env=engine.env)
    except CommandFailed as error:
        raise CommandFailed(
            f"no registry and no Debian mirror gave a base image: {error}"
        ) from error
    finally:
        archive.unlink(missing_ok=True)
