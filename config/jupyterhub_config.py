"""JupyterHub's configuration: the site file mapped to traits. Overrides go to the end.

Everything an ordinary site decides is in site.yaml; `labcommons site check` checks it. What
DockerSpawner's settings do here is in docs/dockerspawner.md: the hub does not start with one that
would have no effect, and says what to use instead.
"""

import os
from pathlib import Path

from commons.site import load_site
from commons.web import origins
from hub_ext.authenticator import configure_from_site
from hub_ext.pages import jinja_environment_options, template_paths, template_vars

site = load_site()
data = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
secrets = Path(os.environ.get("LABCOMMONS_SECRETS", "/run/labcommons"))


def secret(name: str) -> str:
    return (secrets / name).read_text("utf-8").strip()


c = get_config()

# -- the hub, behind nginx and its proxy -----------------------------------------------
c.JupyterHub.public_url = origins.public_url(site) + "/"
# This name has an address in the network control alone: nothing listens where users' servers are.
hub_url = os.environ.get("LABCOMMONS_HUB_URL", "http://hub-control:8081")
c.JupyterHub.hub_bind_url = c.JupyterHub.hub_connect_url = hub_url
if origins.apart(site):
    # People's servers have other hosts than the hub, so that their pages have nothing of it.
    c.JupyterHub.subdomain_host = origins.public_url(site)
    c.JupyterHub.subdomain_hook = origins.subdomain_hook(site)
    c.JupyterHub.cookie_host_prefix_enabled = True
c.JupyterHub.db_url = os.environ.get(
    "LABCOMMONS_HUB_DATABASE_URL", f"sqlite:///{data / 'hub' / 'jupyterhub.sqlite'}"
)
# `make up` has copied it by then.
c.JupyterHub.upgrade_db = True
c.JupyterHub.cookie_secret = bytes.fromhex(secret("cookie-secret"))
c.CryptKeeper.keys = [bytes.fromhex(secret("crypt-key"))]
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = os.environ.get("LABCOMMONS_PROXY_API_URL", "http://chp-api:8001")
c.ConfigurableHTTPProxy.auth_token = secret("proxy-token")
# Servers outlive the hub.
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = False
c.JupyterHub.tornado_settings = {
    "cookie_options": {"secure": True, "samesite": "Lax"},
    # A person waits on the progress page, not on a hanging request.
    "slow_spawn_timeout": 2,
}
# A login ends by itself after a day, and at once when somebody signs out.
c.JupyterHub.cookie_max_age_days = 1
c.JupyterHub.allow_named_servers = True
c.JupyterHub.named_server_limit_per_user = 3
c.JupyterHub.template_paths = template_paths
c.JupyterHub.template_vars = template_vars(site)
c.JupyterHub.jinja_environment_options = jinja_environment_options

# A look at the loop every 50 ms is a seventh of what an idle hub costs.
c.PeriodicMetricsCollector.event_loop_interval_resolution = 1.0

# -- login --------------------------------------------------------------------------------
configure_from_site(c, site)

# -- servers ------------------------------------------------------------------------------
c.JupyterHub.spawner_class = "labcommons-docker"
c.Spawner.disable_user_config = True
c.Spawner.http_timeout = 30
c.Spawner.poll_interval = 20
# Who waits for a GPU is pending, too: JupyterHub's limit would turn away a class while others
# queue. How many containers start at once: docs/starts.md.
c.JupyterHub.concurrent_spawn_limit = 0
c.Spawner.consecutive_failure_limit = 0  # one broken environment must not end the hub
c.Spawner.ip = "0.0.0.0"
c.Spawner.default_url = "/lab"
# What a server's own token may do: say that it is used, and ask the console for what the console
# gives to servers (docs/security.md). What runs in a server is whatever its owner installed: it
# has none of the owner's other rights.
c.Spawner.server_token_scopes = [
    "users:activity!user",
    "access:servers!server",
    "access:services!service=labcommons",
]
# Hub and console, as users' servers reach them.
c.Spawner.hub_connect_url = origins.GATE

# -- services -----------------------------------------------------------------------------
SERVICES = {
    "labcommons": ("http://console:8083", "console-token"),
    "kernels": ("http://kernels:8082", "kernels-token"),
}
c.JupyterHub.services = [
    {
        "name": name,
        "url": os.environ.get(f"LABCOMMONS_{name.upper()}_URL", url),
        "api_token": secret(token),
        # Without a host: the hub's own.
        "oauth_redirect_uri": f"/services/{name}/oauth_callback",
        "oauth_no_confirm": True,
        # An administrator who opens them is one there, too; a server's own token never is.
        "oauth_client_allowed_scopes": ["admin-ui"],
        "display": False,
    }
    for name, (url, token) in SERVICES.items()
]
if site.ssh is not None:
    # It has no role: the hub answers it at one address (hub_ext.ssh_link).
    c.JupyterHub.services.append(
        {"name": "ssh", "api_token": secret("ssh-token"), "display": False}
    )
c.JupyterHub.load_roles = [
    {
        "name": "user",
        "scopes": ["self", *(f"access:services!service={name}" for name in SERVICES)],
    },
    {
        "name": "labcommons-console",
        "description": "Who has a team or course in common, so that they may send notebooks.",
        "scopes": ["read:users:groups", "read:groups"],
        "services": ["labcommons"],
    },
]
