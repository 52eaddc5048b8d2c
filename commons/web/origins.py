"""Where things are for browsers: the hub and its services at one host, people's servers at others.

A page may do to its own origin what it likes. So the hub and each person's servers have hosts of
their own (``site.subdomains``); or all servers together have one (``site.servers_host``); or, for
sites without such names, everything has the hub's.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from urllib.parse import urlsplit

from jupyterhub.utils import subdomain_hook_idna

from commons.site import Site

# The hub's API, console and kernels service, as users' servers reach them: config/nginx/gate.conf.
GATE = os.environ.get("LABCOMMONS_GATE_URL", "http://gate:8000")

SubdomainHook = Callable[[str, str, str], str]


def public_url(site: Site) -> str:
    """The hub's address, without a slash at its end.

    The demo may be published on another port than the site file says.
    """
    return (os.environ.get("LABCOMMONS_PUBLIC_URL") or site.site.public_url).rstrip("/")


def apart(site: Site) -> bool:
    """Whether servers have other hosts than the hub."""
    return site.site.subdomains or bool(site.site.servers_host)


def own_hosts(site: Site) -> bool:
    """Whether each person's servers have a host of their own."""
    return site.site.subdomains and not site.site.servers_host


def server_names(site: Site) -> list[str]:
    """The hosts that the site answers to; the hub's first. ``*.`` stands for one label."""
    host = urlsplit(public_url(site)).hostname or ""
    if site.site.servers_host:
        return [host, site.site.servers_host]
    return [host, f"*.{host}"] if site.site.subdomains else [host]


def subdomain_hook(site: Site) -> SubdomainHook:
    """JupyterHub's question which host a user or a service has, answered for this site."""

    def hook(name: str, domain: str, kind: str) -> str:
        if kind != "user":
            return domain
        return site.site.servers_host or f"{label(name)}.{domain}"

    return hook


def label(name: str) -> str:
    """A person's name as one label of a host name, different for each name.

    JupyterHub's own way, except that names which differ only in capitals stay apart: for a host
    they are the same.
    """
    if name != name.lower():
        return f"u-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    found: str = subdomain_hook_idna(name, "", "user")
    return found.removesuffix(".")
