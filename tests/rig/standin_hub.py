"""The hub as configured for a site, with stand-ins for directory, Docker, proxy and servers.

``python standin_hub.py`` with the site's variables and HUB_PORT, HUB_TOKEN, RECORD. All else is
the site's own: tokens and their scopes, roles, services, and what the hub asks servers with.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from jupyterhub.app import JupyterHub
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.proxy import Proxy
from jupyterhub.spawner import SimpleLocalProcessSpawner

from hub_ext.app import LabCommonsHub
from hub_ext.guarded_hub import GuardedHub

HERE = Path(__file__).parent
# alice: a member; bob: her team's lead; erin: another team's; dan: an instructor.
GROUPS = {
    "team:vision": ["alice", "bob"],
    "team:vision:leads": ["bob"],
    "team:speech": ["erin"],
    "team:speech:leads": ["erin"],
    "course:ml101:instructors": ["dan"],
}


class NoProxy(Proxy):  # type: ignore[misc]
    """Routes are only remembered."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table: dict[str, Any] = {}

    async def start(self) -> None:
        """There is nothing to start."""

    async def add_route(self, routespec: str, target: str, data: Any) -> None:
        self.table[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec: str) -> None:
        self.table.pop(routespec, None)

    async def get_all_routes(self) -> dict[str, Any]:
        return self.table


class StandInSpawner(SimpleLocalProcessSpawner):  # type: ignore[misc]
    """Servers are processes of ``standin_server.py``."""

    def get_env(self) -> dict[str, str]:
        return {**super().get_env(), "RECORD": os.environ["RECORD"], "PATH": os.environ["PATH"]}

    async def whereabouts(self) -> tuple[str, str]:
        return self.server.url, self.api_token


class Ask(BaseHandler):  # type: ignore[misc]
    """``GET /hub/ask/USER``: the hub asks this person's server what goes on, as its watch does."""

    async def get(self, user: str) -> None:
        self.finish(str(await LabCommonsHub.instance()._goes_on((user, ""))))


class Hub(LabCommonsHub):
    """Without Docker and what watches over it."""

    initialize = JupyterHub.initialize
    load_config_file = JupyterHub.load_config_file
    start = JupyterHub.start
    init_tornado_settings = GuardedHub.init_tornado_settings

    def _hold_room(self) -> None:
        """Its only database is the hub's."""


def configure(c: Any) -> None:
    """What is put in the place of the site's."""
    url = f"http://127.0.0.1:{os.environ['HUB_PORT']}"
    c.JupyterHub.bind_url = c.JupyterHub.hub_bind_url = c.JupyterHub.hub_connect_url = url
    c.JupyterHub.public_url = c.JupyterHub.subdomain_host = ""
    c.JupyterHub.proxy_class = NoProxy
    c.JupyterHub.spawner_class = StandInSpawner
    c.Spawner.ip = "127.0.0.1"
    c.Spawner.cmd = [sys.executable, str(HERE / "standin_server.py")]
    c.Spawner.args = []
    c.JupyterHub.authenticator_class = "dummy"
    c.DummyAuthenticator.password = "demo"
    c.Authenticator.allow_all = True
    c.Authenticator.admin_users = {"carol"}
    c.JupyterHub.load_groups = {group: {"users": users} for group, users in GROUPS.items()}
    c.JupyterHub.extra_handlers = [("/ask/([a-z]+)", Ask)]
    c.JupyterHub.services.append({"name": "test", "api_token": os.environ["HUB_TOKEN"]})
    c.JupyterHub.load_roles.append(
        {
            "name": "test",
            "services": ["test"],
            "scopes": ["admin:users", "admin:servers", "admin:groups", "tokens"],
        }
    )


if __name__ == "__main__":
    Hub.launch_instance(["--config", str(HERE / "standin_hub_config.py")])
