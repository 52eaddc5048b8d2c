"""A person's server in its container, for what comes into it by SSH; without a hub."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rig import persons_server
from rig.images import ours
from rig.ssh_site import free_port

UID, GID = 20003, 20000
STARTED = 1200  # tries


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout


class Console(ThreadingHTTPServer):
    """Says what somebody has to be told: ``document``."""

    def __init__(self) -> None:
        console = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = json.dumps(console.document).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Nothing is said."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.document: dict[str, Any] = {"notices": [], "leases": [], "words": {}}
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


@dataclass
class Server:
    name: str
    port: int
    hub: Any
    console: Console

    def place(self) -> dict[str, Any]:
        """As the hub says where it is."""
        return {
            "state": "ready",
            "server": "",
            "called": "main",
            "path": "/user/lab/labcommons/ssh",
            "host": "",
            "token": "good",
            "said": "It is too old for SSH.",
        }

    def run(self, *words: str) -> str:
        return docker("exec", self.name, *words, check=False)


@contextmanager
def server_in_container() -> Iterator[Server]:
    """As the agent starts one: no capability, a read-only root, the person's uid."""
    image = ours("server")
    tools = persons_server.loaded("launch/compare.py")
    hub, console, port = tools.Hub(), Console(), free_port()
    hubs, name = f"http://127.0.0.1:{hub.port}", f"lc-test-ssh-{uuid.uuid4().hex[:8]}"
    environment = {
        "HOME": "/home/lab",
        "LANG": "C.UTF-8",
        "MARKER": 'it\'s of the "server", and $HOME is no name',
        "NVIDIA_VISIBLE_DEVICES": "GPU-1",
        "JUPYTERHUB_ACTIVITY_URL": f"{hubs}/hub/api/users/lab/activity",
        "JUPYTERHUB_API_TOKEN": "its-own",
        "JUPYTERHUB_API_URL": f"{hubs}/hub/api",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-lab",
        "JUPYTERHUB_DISABLE_USER_CONFIG": "1",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": '["access:servers!server=lab/"]',
        "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/lab/oauth_callback",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/lab/",
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}/user/lab/",
        "JUPYTERHUB_USER": "lab",
        "LABCOMMONS_CONSOLE_URL": f"http://127.0.0.1:{console.server_port}",
        "LABCOMMONS_ENVIRONMENT": "py313-data:1",
        "LABCOMMONS_FULL_NAME": "Lab",
    }
    docker(
        *("run", "--detach", f"--name={name}", "--network=host", "--read-only", "--init"),
        *(f"--user={UID}:{GID}", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
        *(
            "--memory=1g",
            "--tmpfs=/tmp:mode=1777,exec",
            f"--tmpfs=/home/lab:mode=0700,uid={UID},gid={GID}",
        ),
        *(f"--env={key}={value}" for key, value in environment.items()),
        *("--workdir=/home/lab", image),
    )
    try:
        for _ in range(STARTED):
            if any("/activity" in line for line in hub.asked):
                break
            time.sleep(0.05)
        else:
            raise AssertionError(docker("logs", name))
        yield Server(name, port, hub, console)
        print(docker("logs", name))
    finally:
        docker("rm", "--force", name, check=False)
        hub.close()
        console.shutdown()
        console.server_close()
