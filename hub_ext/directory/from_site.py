"""From the site file's ``directory`` to the authenticator's traits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from traitlets.config import Config

from commons.store.database import DEFAULT_URL

if TYPE_CHECKING:
    from commons.site import Site


def configure_from_site(c: Config, site: Site) -> None:
    """Set up the authenticator in a jupyterhub_config.py."""
    directory = site.directory
    c.JupyterHub.authenticator_class = "labcommons-ldap"
    traits = c.LDAPAuthenticator
    traits.server_type = directory.server_type
    traits.servers = list(directory.servers)
    traits.dns_domain = directory.dns_domain
    traits.ca_file = str(directory.ca_file) if directory.ca_file else None
    traits.bind_dn = directory.bind_dn
    traits.bind_password_file = (
        str(directory.bind_password_file) if directory.bind_password_file else None
    )
    traits.timeout = directory.timeout
    # Room for a second server after one that is silent, and for the answer.
    traits.login_deadline = 2.0 * directory.timeout + 2.0
    users, groups = directory.users, directory.groups
    traits.user_base_dn = users.base_dn
    traits.user_dn_templates = list(users.dn_templates)
    traits.user_filter = users.filter
    traits.netbios_domain = users.netbios_domain
    traits.name_domain = users.name_domain
    kinds = ("name", "id", "uid", "gid", "display_name", "mail", "number", "language")
    for kind in kinds:
        traits[f"{kind}_attribute"] = getattr(users, f"{kind}_attribute")
    if site.ssh is not None and site.ssh.directory_keys:
        traits.ssh_key_attributes = list(users.ssh_key_attributes)
    if groups:
        traits.group_base_dn = groups.base_dn
        traits.group_filter = groups.filter
        traits.group_name_attribute = groups.name_attribute
        traits.group_membership = groups.membership
        traits.group_depth = groups.depth
    traits.admin_groups = list(directory.platform_admins)
    traits.allowed_groups = list(directory.allowed_groups)
    traits.denied_groups = list(directory.denied_groups)
    # The numbers beside them own folders; they give no position.
    numbers = {"gid", "leads_gid"}
    traits.teams = {
        name: team.model_dump(exclude=numbers) for name, team in directory.teams.items()
    }
    traits.courses = {
        name: course.model_dump(exclude=numbers) for name, course in directory.courses.items()
    }
    traits.hub_groups = directory.hub_groups
    traits.min_uid, traits.min_gid = directory.min_uid, directory.min_gid
    traits.outage_grace = directory.outage_grace
    traits.disabled_grace = directory.disabled_grace
    throttle = directory.throttle
    traits.failures_per_name = throttle.per_name
    traits.failures_per_address = throttle.per_address
    traits.failure_window = float(throttle.window)
    traits.lockout_seconds = throttle.directory_lockout
    traits.state_database = os.environ.get("LABCOMMONS_DATABASE_URL") or DEFAULT_URL
    data = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
    traits.audit_folder = str(data / "audit" / "hub")
    # A right that was taken away must end for tokens too, and before a server starts.
    traits.auth_refresh_strict = True
    # ... and within a minute: services and servers remember an answer for half of one.
    traits.auth_refresh_age = 30
    traits.sweep_interval = 60
    traits.refresh_pre_spawn = True
