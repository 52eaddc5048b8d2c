"""Debian packages: what is missing, which versions are offered, and installing them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.shell import Failure, output
from deploy.steps import Step

# Debian's own switch: a package's start script asks this program first, and 101 means "no".
POLICY = Path("/usr/sbin/policy-rc.d")
MARK = "# Written by LabCommons while it installs packages; may be removed."


def available() -> bool:
    """Whether this is a machine with apt, and we may use it."""
    return bool(shutil.which("apt-get")) and os.geteuid() == 0


def missing(packages: Sequence[str]) -> list[str]:
    """Those of the packages that are not installed."""
    return [
        name
        for name in packages
        if output(["dpkg-query", "-W", "-f", "${db:Status-Status}", name]) != "installed"
    ]


def candidate(package: str) -> str:
    """The version apt would install, "" where it knows none."""
    policy = output(["apt-cache", "policy", package]) or ""
    found = re.search(r"^ *Candidate: (\S+)$", policy, re.MULTILINE)
    return found[1] if found and found[1] != "(none)" else ""


def update(step: Step) -> None:
    """Fetch the package lists."""
    step.run(["apt-get", "update", "-q"], timeout=300)


def install(packages: Sequence[str], step: Step, *, start_services: bool = True) -> None:
    """Install what is missing of the packages, in one go.

    Raises Failure with the command to type where we may not install.
    """
    wanted = missing(packages)
    if not wanted:
        return
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *wanted]
    if not available():
        raise Failure(
            f"missing on this machine: {' '.join(wanted)}",
            f"as root, run: apt-get update && {' '.join(command)}"
            if shutil.which("apt-get")
            else "install them with this machine's package manager",
        )
    update(step)
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    if start_services:
        step.run(command, timeout=1800, env=environment)
    else:
        with _services_stay_down():
            step.run(command, timeout=1800, env=environment)


@contextmanager
def _services_stay_down() -> Iterator[None]:
    """While packages are installed whose daemons nobody asked to start (slapd on port 389)."""
    ours = not POLICY.exists() or MARK in POLICY.read_text("utf-8", errors="replace")
    if ours:
        POLICY.write_text(f"#!/bin/sh\n{MARK}\nexit 101\n", "utf-8")
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)
