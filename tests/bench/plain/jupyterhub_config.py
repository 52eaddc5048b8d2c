"""The peer: a stock JupyterHub with a stock DockerSpawner, as its documentation shows it."""

import os

c = get_config()  # noqa: F821
c.JupyterHub.spawner_class = "docker"
c.DockerSpawner.image = "lcbench/plain"
c.DockerSpawner.network_name = os.environ["BENCH_NETWORK"]
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.remove = True
c.DockerSpawner.prefix = "lcbench"
# Its limits lifted: what a crowd waits for is the machine alone.
c.JupyterHub.concurrent_spawn_limit = 0
c.DockerSpawner.start_timeout = c.DockerSpawner.http_timeout = 300
c.JupyterHub.hub_ip = "0.0.0.0"
c.JupyterHub.hub_connect_ip = "lcbench-hub"
c.JupyterHub.db_url = "sqlite:////tmp/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "/tmp/cookie"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://lcbench-chp:8001"
c.ConfigurableHTTPProxy.auth_token = "bench"
c.JupyterHub.services = [{"name": "bench", "api_token": os.environ["BENCH_TOKEN"]}]
c.JupyterHub.load_roles = [
    {"name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers"]}
]
