"""Server extension: the end of a connection by SSH, which the site's service ``ssh`` brings here.

It comes as a websocket, with a token for this server. First this end says its host key, and gets
the site's certificate for it and the keys that may come in; then each side's bytes are the other's,
and OpenSSH's sshd (``-i``), as the person, does the rest: the service sees nothing of it. Whoever
can do this can open a terminal here as well.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.utils import ensure_async, url_path_join
from labcommons_notices import shared_console
from labcommons_ssh_terminals import Told
from tornado.web import HTTPError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

FOLDER = Path("/tmp/labcommons-ssh")  # noqa: S108
SSHD, KEYGEN = "/usr/sbin/sshd", "/usr/bin/ssh-keygen"
SESSION = "/opt/labcommons/bin/ssh-session"
MOST = 256 * 1024  # bytes of a message
CHUNK = 64 * 1024  # bytes that are sent at once
CONNECTIONS = 50
FIRST = 15.0  # seconds until certificate and keys are here
ENDS = 5.0  # seconds for sshd to end after its connection
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A kind and base64, nothing else: what comes is written into files that sshd reads.
KEY = re.compile(r"[a-z0-9@.-]{1,64} [A-Za-z0-9+/=]{1,16000}")
# Of the connection itself, or of the shell that it starts.
NOT_SHARED = re.compile(r"SSH_.*|TERM|PWD|OLDPWD|SHLVL|_|SHELL|USER|LOGNAME|HOME|MAIL")
SETTINGS = """\
HostKey {folder}/host_key
HostCertificate {own}/host_key-cert.pub
AuthorizedKeysFile {own}/authorized_keys
AuthenticationMethods publickey
Ciphers aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes128-ctr
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
PermitUserRC no
PermitUserEnvironment no
AllowAgentForwarding no
AllowTcpForwarding local
AllowStreamLocalForwarding no
GatewayPorts no
X11Forwarding no
PermitTunnel no
PrintMotd no
PrintLastLog no
UseDNS no
MaxAuthTries 20
LoginGraceTime 60
LogLevel QUIET
PidFile none
Subsystem sftp /usr/lib/openssh/sftp-server
ForceCommand {session} {folder}/environment
"""


def children() -> dict[str, str]:
    """What programs of sessions have in their environment: what terminals have."""
    found = {
        name: value
        for name, value in os.environ.items()
        if NAME.fullmatch(name) and not NOT_SHARED.fullmatch(name)
    }
    paths = ("/tmp/labcommons", os.environ.get("JUPYTER_PATH"))  # noqa: S108
    return found | {"JUPYTER_PATH": ":".join(path for path in paths if path)}


class HostKey:
    """This server's, made when it is needed first."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self._made: asyncio.Task[str] | None = None

    async def line(self) -> str:
        """The public half. Raises OSError."""
        if self._made is None or (self._made.done() and self._made.exception()):
            self._made = asyncio.create_task(self._make())
        return await asyncio.shield(self._made)

    async def _make(self) -> str:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)
        write(self.folder / "environment", "".join(f"{n}={v}\0" for n, v in children().items()))
        key = self.folder / "host_key"
        words = ("-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key))
        program = await asyncio.create_subprocess_exec(
            KEYGEN, *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(FIRST):
            if await program.wait():
                raise OSError("ssh-keygen made no key")
        return key.with_suffix(".pub").read_text("ascii").strip()


def write(path: Path, text: str) -> None:
    """A file for its owner alone."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def prepared(folder: Path, said: str | bytes) -> Path:
    """The folder of one connection, with what sshd reads. Raises ValueError."""
    found = json.loads(said)
    certificate, keys = str(found["certificate"]), list(found["keys"])
    lines = [line for line in map(str, keys) if KEY.fullmatch(line)]
    if not KEY.fullmatch(certificate) or not lines:
        raise ValueError("no certificate, or no key")
    own = folder / secrets.token_hex(8)
    own.mkdir(mode=0o700)
    write(own / "host_key-cert.pub", f"{certificate}\n")
    write(own / "authorized_keys", "".join(f"restrict,pty,port-forwarding {x}\n" for x in lines))
    write(own / "sshd_config", SETTINGS.format(folder=folder, own=own, session=SESSION))
    return own


class Ssh(WebSocketMixin, WebSocketHandler, JupyterHandler):  # type: ignore[misc]
    """``GET labcommons/ssh``: the websocket."""

    host_key = HostKey()
    told: Told | None = None
    _open = 0

    # What is kept alive here would keep a server that nobody uses: the service sees to its clients.
    ping_interval = 0
    max_message_size = MOST

    def set_default_headers(self) -> None:
        """None: it is no page."""

    async def get(self, *args: Any, **named: Any) -> None:
        """For the owner alone, by a program: a page's origin would be another's doing."""
        user = self.current_user
        own = user is not None and user.username == os.environ.get("JUPYTERHUB_USER")
        if not own or "Authorization" not in self.request.headers:
            raise HTTPError(403)
        if not await ensure_async(
            self.authorizer.is_authorized(self, user, "execute", "terminals")
        ):
            raise HTTPError(403)
        if Ssh._open >= CONNECTIONS:
            raise HTTPError(429)
        await super().get(*args, **named)

    async def open(self, *args: Any, **named: Any) -> None:  # type: ignore[override]
        """Say who this is."""
        Ssh._open += 1
        self._counted = True
        self._own: Path | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._work: asyncio.Task[None] | None = None
        asyncio.get_running_loop().call_later(FIRST, self._too_late)
        try:
            line = await self.host_key.line()
            await self.write_message(json.dumps({"host_key": line}))
        except (OSError, TimeoutError, WebSocketClosedError) as error:
            self.log.error("ssh: %s", error)
            self.close(1011, "no host key")

    def _too_late(self) -> None:
        if self._writer is None:
            self.close(1002, "no keys")

    async def on_message(self, message: str | bytes) -> None:  # type: ignore[override]
        """First certificate and keys; then what the client says to sshd."""
        if self._writer is not None and isinstance(message, bytes):
            with suppress(OSError):  # it has ended, which closes this
                self._writer.write(message)
                await self._writer.drain()
            return
        try:
            if self._writer is not None:
                raise ValueError("text among bytes")
            own = self._own = prepared(self.host_key.folder, message)
            if self.told is not None:  # the client has to prove its key meanwhile
                self._lines = asyncio.create_task(self.told.begin())
            await self._start(own)
        except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
            self.log.error("ssh: %s", error)
            self.close(1002, "not understood")

    async def _start(self, own: Path) -> None:
        here, there = socket.socketpair()
        with there:
            program = await asyncio.create_subprocess_exec(
                *(SSHD, "-i", "-f", str(own / "sshd_config")),
                stdin=there,
                stdout=there,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        if self.told is not None:
            self.told.add(program.pid)
        reader, self._writer = await asyncio.open_connection(sock=here, limit=CHUNK)
        self._work = asyncio.create_task(self._carry(program, reader))

    async def _carry(
        self, program: asyncio.subprocess.Process, reader: asyncio.StreamReader
    ) -> None:
        """What sshd says, to the client, until one of them ends."""
        try:
            while data := await reader.read(CHUNK):
                await self.write_message(data, binary=True)
        except (OSError, WebSocketClosedError):
            pass
        finally:
            self.close(1000)
            if self._writer is not None:
                self._writer.close()
            try:
                async with asyncio.timeout(ENDS):
                    await program.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    program.terminate()
            if self.told is not None:
                self.told.sshd.discard(program.pid)
            if self._own is not None:
                shutil.rmtree(self._own, ignore_errors=True)

    def on_close(self) -> None:
        """The client is gone: sshd sees the end of what it reads, and ends."""
        if getattr(self, "_counted", False):
            self._counted = False
            Ssh._open -= 1
        if writer := getattr(self, "_writer", None):
            writer.close()


def _load_jupyter_server_extension(app: Any) -> None:
    # In an exam nobody comes in from elsewhere.
    if os.environ.get("JUPYTERHUB_SERVER_NAME", "").startswith("exam-"):
        return
    url, token = os.environ.get("LABCOMMONS_CONSOLE_URL"), os.environ.get("JUPYTERHUB_API_TOKEN")
    console = shared_console(app, url, token) if url and token else None
    Ssh.told = Told(console, FOLDER)
    address = url_path_join(app.web_app.settings["base_url"], "labcommons/ssh")
    app.web_app.add_handlers(".*$", [(address, Ssh)])


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "labcommons_ssh"}]
