"""What is around a machine: a host on a link of its own, with the metadata services' address.

In a network namespace of its own, beside the one that the test runs in.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from types import TracebackType

HOST, METADATA, LINK = "198.51.100.1", "169.254.169.254", "198.51.100.254"

# Answers "here" on TCP 80 of all addresses, and "198.51.100.7" to every question on UDP 53.
SERVE = r"""
import socket, sys, threading
def web():
    server = socket.create_server(("0.0.0.0", 80))
    print("up", flush=True)
    while True:
        one, _ = server.accept()
        one.sendall(b"here"); one.close()
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); names.bind(("0.0.0.0", 53))
threading.Thread(target=web, daemon=True).start()
while True:
    asked, who = names.recvfrom(4096)
    question = asked[12:asked.index(b"\0", 12) + 5]
    a = asked[12:].split(b"\0", 1)[1][:2] == b"\0\1"
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\xc6\x33\x64\x07" if a else b""
    names.sendto(asked[:2] + b"\x81\x80\0\1" + bytes([0, a]) + b"\0\0\0\0" + question + answer, who)
"""


class Outside:
    """Up while the block runs."""

    def __init__(self) -> None:
        short = uuid.uuid4().hex[:6]
        self.name, self.link, self.inner = f"lcout-{short}", f"lco{short}o", f"lco{short}i"

    def __enter__(self) -> Outside:
        try:
            self._do("ip", "netns", "add", self.name)
            self._do("ip", "link", "add", self.link, "type", "veth", "peer", "name", self.inner,
                     "netns", self.name)  # fmt: skip
            self._do("ip", "address", "add", f"{LINK}/24", "dev", self.link)
            self._do("ip", "link", "set", self.link, "up")
            for words in (
                ("ip", "address", "add", f"{HOST}/24", "dev", self.inner),
                ("ip", "address", "add", f"{METADATA}/32", "dev", self.inner),
                ("ip", "link", "set", self.inner, "up"),
            ):
                self._do("nsenter", f"--net=/run/netns/{self.name}", *words)
            self._do("ip", "route", "add", f"{METADATA}/32", "via", HOST)
            self._server = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.name}", sys.executable, "-c", SERVE],
                stdout=subprocess.PIPE,
            )
            assert self._server.stdout is not None
            assert self._server.stdout.readline() == b"up\n"
        except BaseException:
            self._remove()
            raise
        return self

    def _remove(self) -> None:
        subprocess.run(["ip", "link", "delete", self.link], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "delete", self.name], check=False, capture_output=True)

    @staticmethod
    def _do(*words: str) -> None:
        subprocess.run(words, check=True, timeout=30)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.kill()
        self._server.wait()
        self._remove()
