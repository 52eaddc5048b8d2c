"""JupyterHub's and the authenticator's own settings that would have no effect here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from traitlets.config import Config

from commons.site import Site
from hub_ext.directory.from_site import configure_from_site

# Of the hub's public side, which is not the hub's: nginx has it, and the proxy is a service.
_PUBLIC = {
    "bind_url": "`site.public_url`",
    "ip": "`site.public_url`",
    "port": "`site.public_url`",
    "ssl_cert": "`data/tls/server.crt` (docs/site.md)",
    "ssl_key": "`data/tls/server.key` (docs/site.md)",
}
_AUTHENTICATORS = ("Authenticator", "LDAPAuthenticator")


def problems(config: Config, site: Site) -> list[str]:
    """One line for each such setting, with what to use."""
    return [*_of_hub(config), *_of_login(config, site)]


def _said(config: Config, section: str, name: str) -> Any:
    return config[section][name] if section in config and name in config[section] else None


def _of_hub(config: Config) -> Iterator[str]:
    if _said(config, "JupyterHub", "internal_ssl"):
        yield (
            "c.JupyterHub.internal_ssl: servers have no certificates; network rules keep them "
            "apart (docs/security.md); leave it out"
        )
    base_url = _said(config, "JupyterHub", "base_url")
    if base_url and base_url != "/":
        yield "c.JupyterHub.base_url: the hub is at /; use another host in `site.public_url`"
    if _said(config, "ConfigurableHTTPProxy", "should_start") is not False:
        return
    for name, use in _PUBLIC.items():
        if _said(config, "JupyterHub", name):
            yield f"c.JupyterHub.{name}: has no effect, as the proxy is a service; use {use}"


def _of_login(config: Config, site: Site) -> Iterator[str]:
    said = {
        name: next(
            (v for section in reversed(_AUTHENTICATORS)
             if (v := _said(config, section, name)) is not None),
            None,
        )
        for name in ("allow_all", "allowed_users", "allow_existing_users")
    }  # fmt: skip
    for name in ("allowed_users", "allow_existing_users"):
        if said["allow_all"] and said[name]:
            yield (
                f"c.Authenticator.{name}: has no effect beside allow_all = True, which lets "
                "everybody in; take one away"
            )
    # Folders, quotas and options of servers read them in the site file.
    usual = Config()
    configure_from_site(usual, site)
    for name in ("teams", "courses"):
        value = _said(config, "LDAPAuthenticator", name)
        if value is not None and value != usual.LDAPAuthenticator[name]:
            yield f"c.LDAPAuthenticator.{name}: use `directory.{name}` of the site file"
