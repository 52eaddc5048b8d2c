"""A kernel in place of one that cannot start: it answers every cell with the reason.

Run by the server's own Python as a program: ``standin.py CONNECTION_FILE``; the explanation is
in the variable LABCOMMONS_EXPLANATION. It runs no code of anybody's. Once the environment is
repaired, restarting the kernel starts the real one. Protocol: "Messaging in Jupyter", 5.4.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import zmq
from jupyter_client.session import Session

VARIABLE = "LABCOMMONS_EXPLANATION"
ERROR = "KernelCannotStart"
_PROTOCOL = "5.4"


class StandIn:
    """The sockets of one connection, and the same answer on all of them."""

    def __init__(self, connection: dict[str, Any], explanation: str) -> None:
        self.explanation = explanation
        self.session = Session(
            key=connection["key"].encode(), signature_scheme=connection["signature_scheme"]
        )
        self._connection = connection
        self._context = zmq.Context()
        self.shell = self._bind(zmq.ROUTER, "shell_port")
        self.control = self._bind(zmq.ROUTER, "control_port")
        self._stdin = self._bind(zmq.ROUTER, "stdin_port")
        self.heartbeat = self._bind(zmq.REP, "hb_port")
        self.iopub = self._bind(zmq.PUB, "iopub_port")
        self._count = 0

    def _bind(self, kind: int, port: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 1000
        separator = "-" if self._connection["transport"] == "ipc" else ":"
        address = f"{self._connection['ip']}{separator}{self._connection[port]}"
        socket.bind(f"{self._connection['transport']}://{address}")
        return socket

    def run(self) -> None:
        """Answer until a shutdown is asked for, or whoever started us is gone."""
        parent = os.getppid()
        poller = zmq.Poller()
        for socket in (self.shell, self.control, self.heartbeat):
            poller.register(socket, zmq.POLLIN)
        self.session.send(self.iopub, "status", {"execution_state": "starting"}, ident=b"status")
        going = True
        while going:
            for socket, _ in poller.poll(1000):
                if socket is self.heartbeat:
                    socket.send(socket.recv())
                else:
                    going = self._serve(socket) and going
            going = going and os.getppid() == parent
        self._context.destroy(linger=1000)

    def _serve(self, socket: zmq.Socket[bytes]) -> bool:
        """Answer one message; False where it was the last."""
        try:
            identities, parts = self.session.feed_identities(socket.recv_multipart())
            message = self.session.deserialize(parts)
        except (ValueError, KeyError, TypeError):
            return True  # not signed with this connection's key
        kind = message["header"]["msg_type"]
        self._publish("status", {"execution_state": "busy"}, message)
        if (content := self._answer(kind, message)) is not None:
            reply = kind.removesuffix("_request") + "_reply"
            self.session.send(socket, reply, content, parent=message, ident=identities)
        self._publish("status", {"execution_state": "idle"}, message)
        return bool(kind != "shutdown_request")

    def _publish(self, kind: str, content: dict[str, Any], parent: dict[str, Any]) -> None:
        self.session.send(self.iopub, kind, content, parent=parent, ident=kind.encode())

    def _answer(self, kind: str, message: dict[str, Any]) -> dict[str, Any] | None:
        content = message["content"]
        if kind == "execute_request":
            return self._execute(content, message)
        if kind == "complete_request":
            at = content.get("cursor_pos", 0)
            return {
                "status": "ok",
                "matches": [],
                "cursor_start": at,
                "cursor_end": at,
                "metadata": {},
            }
        answers: dict[str, dict[str, Any]] = {
            "kernel_info_request": {
                "protocol_version": _PROTOCOL,
                "implementation": "labcommons-explanation",
                "implementation_version": "1",
                # Of no language, so that no notebook is marked as one of another version.
                "language_info": {
                    "name": "python",
                    "mimetype": "text/x-python",
                    "file_extension": ".py",
                    "version": "",
                },
                "banner": self.explanation,
                "help_links": [],
            },
            "is_complete_request": {"status": "complete"},
            "inspect_request": {"found": False, "data": {}, "metadata": {}},
            "history_request": {"history": []},
            "comm_info_request": {"comms": {}},
            "interrupt_request": {},
            "shutdown_request": {"restart": bool(content.get("restart"))},
        }
        if kind in answers:
            return {"status": "ok", **answers[kind]}
        if kind.endswith("_request"):
            return {"status": "error", "ename": ERROR, "evalue": self.explanation, "traceback": []}
        return None

    def _execute(self, content: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
        error = {
            "ename": ERROR,
            "evalue": self.explanation,
            # Red and bold, as a Python's own traceback ends.
            "traceback": [f"\x1b[1;31m{ERROR}\x1b[0m: {self.explanation}"],
        }
        if not content.get("silent"):
            self._count += 1
            said = {"code": content.get("code", ""), "execution_count": self._count}
            self._publish("execute_input", said, message)
            self._publish("error", error, message)
        return {"status": "error", "execution_count": self._count, **error}


def main() -> None:
    """Serve the connection file that is the first argument."""
    # An interrupt finds nothing to interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(sys.argv[1], encoding="utf-8") as file:
        connection = json.load(file)
    StandIn(connection, os.environ.get(VARIABLE, "The kernel cannot start.")).run()


if __name__ == "__main__":
    main()
