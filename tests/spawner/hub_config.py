"""A real hub with LabSpawner, without directory and proxy: for tests that kill it."""

import os

from jupyterhub.proxy import Proxy

from spawner.runtime.spec import Account

PORT = int(os.environ["HUB_PORT"])
UIDS = {"alice": 20003, "bob": 20002}


class NoProxy(Proxy):
    """Routes are only remembered, and lost with the hub."""

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


def identity(spawner, _auth_state):
    return Account(uid=UIDS[spawner.user.name], gid=20000)


c = get_config()  # noqa: F821 - JupyterHub gives it
c.JupyterHub.bind_url = f"http://127.0.0.1:{PORT}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{PORT}"
c.JupyterHub.db_url = f"sqlite:///{os.environ['HUB_HOME']}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{os.environ['HUB_HOME']}/cookie_secret"
c.JupyterHub.cleanup_servers = False
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.spawner_class = "labcommons-docker"
c.LabSpawner.identity_hook = identity
c.Spawner.poll_interval = 5
c.Spawner.http_timeout = 30
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0.1}
c.JupyterHub.services = [{"name": "test", "api_token": os.environ["HUB_TOKEN"]}]
c.JupyterHub.load_roles = [
    {
        "name": "test",
        "scopes": ["admin:users", "admin:servers", "read:tokens"],
        "services": ["test"],
    }
]
