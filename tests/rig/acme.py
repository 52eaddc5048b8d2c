"""An ACME authority (Debian's pebble) and a name server with a key (Debian's knot), for tests."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from rig.certificates import Authority

SECRET = "c2VjcmV0LW9mLXRoZS10ZXN0cy0wMDAwMDAwMDAwMDA="
KNOT = """
server:
  rundir: "{folder}"
  listen: {address}@{port}
database:
  storage: "{folder}"
log:
  - target: "{folder}/knot.log"
    any: info
key:
  - id: labcommons
    algorithm: hmac-sha256
    secret: {secret}
acl:
  - id: updates
    key: labcommons
    action: update
zone:
  - domain: {zone}
    storage: "{folder}"
    file: zone
    acl: updates
"""
ZONE = """
$ORIGIN {zone}.
@ 60 IN SOA ns admin 1 60 60 600 60
@ 60 IN NS ns
ns 60 IN A 127.0.0.1
"""


class AcmeWorld:
    """``with AcmeWorld(folder) as world``: ``directory``, ``nameserver``, ``ca_file``.

    With ``hook`` the authority asks pebble-challtestsrv, which a program tells at port ``told``;
    else the name server, which takes updates with the key alone.
    """

    def __init__(
        self,
        folder: Path,
        hook: bool = False,
        eab: Mapping[str, str] = {},
        address: str = "127.0.0.1",
        zone: str = "example.org",
    ) -> None:
        self.folder, self.address, self.zone = folder, address, zone
        self.hook, self.eab = hook, dict(eab)
        self._stack = ExitStack()

    def __enter__(self) -> AcmeWorld:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        (self.folder / "tls").mkdir(parents=True)
        authority = Authority(self.folder / "tls", "ACME server's CA")
        self.ca_file = authority.ca_file
        crt, key = authority.issue(self.address)
        acme, management, dns, self.told = free_ports(4)
        self.directory = f"https://{self.address}:{acme}/dir"
        self.nameserver = f"{self.address}:{dns}"
        if self.hook:
            words = ["pebble-challtestsrv", "-dns01", self.nameserver]
            words += ["-management", f"127.0.0.1:{self.told}"]
            self._run(*words, *(f"-{name}=" for name in ("http01", "https01", "tlsalpn01")))
        else:
            (self.folder / "zone").write_text(ZONE.format(zone=self.zone))
            config = self.folder / "knot.conf"
            words = {"address": self.address, "zone": self.zone, "port": dns, "secret": SECRET}
            config.write_text(KNOT.format(folder=self.folder, **words))
            knot = shutil.which("knotd", path=f"{os.environ['PATH']}:/usr/sbin") or "knotd"
            self._run(knot, "-c", str(config))
        settings = {
            "listenAddress": f"{self.address}:{acme}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(crt), "privateKey": str(key), "httpPort": 5002, "tlsPort": 5001,
            "externalAccountBindingRequired": bool(self.eab), "externalAccountMACKeys": self.eab,
        }  # fmt: skip
        (self.folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
        self._run(
            "pebble", "-config", str(self.folder / "pebble.json"), "-dnsserver", self.nameserver
        )
        wait_for(self.address, acme)
        wait_for(self.address, dns)

    def _run(self, *words: str) -> None:
        name = Path(words[0]).name
        log = self._stack.enter_context((self.folder / f"{name}.log.txt").open("w"))
        settings = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        process = subprocess.Popen(
            words, stdout=log, stderr=log, cwd="/", env={**os.environ, **settings}
        )
        self._stack.callback(process.wait, 10)
        self._stack.callback(process.kill)

    def __exit__(self, *_error: object) -> None:
        self._stack.close()


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def wait_for(address: str, port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        with suppress(OSError), socket.create_connection((address, port), 1):
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing answers at port {port}")
        time.sleep(0.05)
