"""A network for the browser in which there is nothing but the site.

Docker's interfaces come and go in the test bed's network, and Chromium breaks off what it
loads whenever that happens; a page that needs anything from elsewhere fails here, too.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployment import Deployment
from playwright.sync_api import Browser, sync_playwright

CLONE_NEWNET = 0x40000000


class BrowserNetwork:
    """A network namespace whose 127.0.0.1 leads, on the given ports, to ours."""

    def __init__(self, *ports: int) -> None:
        self.ports = ports

    def __enter__(self) -> BrowserNetwork:
        self.keeper = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"],
            stdout=subprocess.PIPE,
        )
        assert self.keeper.stdout is not None
        assert self.keeper.stdout.readline() == b"up\n"
        self.path = Path(f"/proc/{self.keeper.pid}/ns/net")
        for port in self.ports:
            ready = threading.Event()
            threading.Thread(target=self._listen, args=(port, ready), daemon=True).start()
            assert ready.wait(10)
        return self

    def _listen(self, port: int, ready: threading.Event) -> None:
        """Listen there, connect here: a socket stays in the network it was made in."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(self.path, os.O_RDONLY)
        _enter(there)
        server = socket.create_server(("127.0.0.1", port), backlog=128)
        _enter(here)
        os.close(there)
        os.close(here)
        ready.set()
        while True:
            accepted, _ = server.accept()
            try:
                onward = socket.create_connection(("127.0.0.1", port), timeout=10)
            except OSError:
                accepted.close()
                continue
            onward.settimeout(None)
            for pair in ((accepted, onward), (onward, accepted)):
                threading.Thread(target=_pump, args=pair, daemon=True).start()

    def command(self, program: str, folder: Path) -> Path:
        """A script that runs a program inside."""
        script = folder / "inside"
        script.write_text(f'#!/bin/sh\nexec nsenter --net={self.path} {program} "$@"\n')
        script.chmod(0o755)
        return script

    def __exit__(self, *_error: object) -> None:
        self.keeper.kill()
        self.keeper.wait()


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):  # of this thread alone
        raise OSError(ctypes.get_errno(), "setns")


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()


CHROMIUM = [
    "--no-sandbox",  # the tests run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium(site: Deployment) -> Iterator[Browser]:
    """Chromium that trusts the site's CA and no exceptions."""
    with (
        tempfile.TemporaryDirectory() as home,
        BrowserNetwork(8443) as network,
        sync_playwright() as playwright,
    ):
        for place in (".pki/nssdb", ".local/share/pki/nssdb"):
            folder = Path(home, place)
            folder.mkdir(parents=True)
            for command in (
                ["-N", "--empty-password"],
                ["-A", "-n", "LabCommons", "-t", "C,,", "-i", str(site.ca_file)],
            ):
                subprocess.run(["certutil", "-d", f"sql:{folder}", *command], check=True)
        browser = playwright.chromium.launch(
            executable_path=network.command("chromium", Path(home)),
            args=CHROMIUM,
            env={**os.environ, "HOME": home},  # type: ignore[dict-item]
        )
        yield browser
        browser.close()
