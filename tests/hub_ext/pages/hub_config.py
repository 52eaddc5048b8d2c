"""A real JupyterHub with our pages, without directory and Docker.

Logging in takes any name with the password ``demo``; ``carol`` is an administrator. The
spawner gives the form model of ``PAGES_MODEL``, refuses the size ``refused`` and takes
``PAGES_START_SECONDS`` to start a server of one page.
"""

import asyncio
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from jupyterhub.proxy import Proxy
from jupyterhub.spawner import Spawner
from tornado import web

from commons.site import load_site
from hub_ext.pages import jinja_environment_options, template_paths, template_vars

HOME = Path(os.environ["PAGES_HOME"])
PORT = int(os.environ["PAGES_PORT"])


class NoProxy(Proxy):
    """Routes are only remembered: the tests talk to the hub itself."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = {}

    async def start(self):
        pass

    async def add_route(self, routespec, target, data):
        self.table[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec):
        self.table.pop(routespec, None)

    async def get_all_routes(self):
        return self.table


class _Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a server")

    def log_message(self, *_args):
        pass


class StubSpawner(Spawner):
    """Steps of progress and a one-page server; what it is asked for is not examined."""

    httpd = None

    async def get_options_form(self):
        return Path(os.environ["PAGES_MODEL"]).read_text("utf-8")

    async def options_from_form(self, form):
        options = {key: form[key][0] for key in ("environment", "size") if key in form}
        if options.get("size") == "refused":
            refusal = web.HTTPError(409, "refused")
            refusal.jupyterhub_message = (HOME / "refusal.txt").read_text("utf-8")
            raise refusal
        (HOME / "form.json").write_text(json.dumps({key: form[key] for key in sorted(form)}))
        return options | {"gpus": int(form.get("gpus", ["0"])[0])}

    async def start(self):
        steps = [
            "Asking for 1 GPU",
            "Got A100 (simulated)",
            "Preparing your home",
            "Starting a container with py313-data:20261121-ab12cd34",
        ]
        self.steps = []
        for number, step in enumerate(steps, 1):
            self.steps.append({"progress": 20 * number, "message": step})
            await asyncio.sleep(float(os.environ.get("PAGES_START_SECONDS", "0")) / len(steps))
        if self.user_options.get("size") == "waits":
            await self._wait_in_the_queue()
        if self.user_options.get("size") == "fails":
            failure = web.HTTPError(409, "failed")
            failure.jupyterhub_message = (HOME / "refusal.txt").read_text("utf-8")
            raise failure
        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
        Thread(target=self.httpd.serve_forever, daemon=True).start()
        return "127.0.0.1", self.httpd.server_port

    async def _wait_in_the_queue(self):
        """Second, then first, until the file ``go`` is there."""
        for position in (2, 1):
            reason = {"code": "gpus_busy", "data": {}, "sentence": "0 of 2 A100 are free."}
            queue = {"position": position, "expected_start": 2_000_000_000, "reasons": [reason]}
            self.steps.append({"progress": 5, "message": f"Number {position}", "queue": queue})
            await asyncio.sleep(2)
        while not (HOME / "go").exists():
            await asyncio.sleep(0.1)
        queue = {"of": "turn", "position": 3, "expected_start": time.time() + 60, "reasons": []}
        self.steps.append({"progress": 16, "message": "Number 3 in line", "queue": queue})
        while (HOME / "in-line").exists():
            await asyncio.sleep(0.1)

    async def progress(self):
        shown = 0
        while True:
            for step in self.steps[shown:]:
                yield step
                shown += 1
            await asyncio.sleep(0.05)

    async def stop(self, now=False):
        while (HOME / "slow-stop").exists():
            await asyncio.sleep(0.05)
        if self.httpd:
            self.httpd.shutdown()
            self.httpd = None

    async def poll(self):
        return None if self.httpd else 0


c = get_config()  # noqa: F821 - JupyterHub gives it
c.JupyterHub.bind_url = f"http://127.0.0.1:{PORT}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{PORT}"
c.JupyterHub.db_url = f"sqlite:///{HOME / 'hub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(HOME / "cookie_secret")
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.spawner_class = StubSpawner
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = "demo"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {"carol"}
c.JupyterHub.allow_named_servers = True
c.JupyterHub.named_server_limit_per_user = 3
c.JupyterHub.tornado_settings = {
    "slow_spawn_timeout": 0.5,
    # The tests' client is without TLS.
    "xsrf_cookie_kwargs": {"secure": False},
}
c.JupyterHub.template_paths = template_paths
c.JupyterHub.template_vars = template_vars(load_site())
c.JupyterHub.jinja_environment_options = jinja_environment_options
c.JupyterHub.services = json.loads(os.environ.get("PAGES_SERVICES", "[]"))
c.JupyterHub.load_roles = [{"name": "user", "scopes": ["self", "access:services"]}]
