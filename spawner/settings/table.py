"""Every setting of DockerSpawner and JupyterHub's Spawner: what it does here, or what to use.

One row for each trait of the installed versions (``tests/spawner/settings`` compares). The table of
docs/dockerspawner.md is made of it: ``python -m spawner.settings.table``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Works:
    """The setting does what its help says; ``here`` is what must be known besides."""

    here: str = ""


@dataclass(frozen=True)
class UseInstead:
    """The hub does not start with it.

    Attributes:
        use: the key of the site file, or the way, to use instead.
        values: what may be said all the same, because it is so; what is empty always may.
    """

    use: str
    values: tuple[Any, ...] = ()

    def takes(self, value: object) -> bool:
        """Whether the value changes nothing, so that nobody is misled."""
        return (not callable(value) and not value and self.values == ()) or value in self.values


_JUPYTERHUB = Works()
_NO_TLS = "the agent alone talks to the Engine: DOCKER_HOST of the service `agent`"
_NO_INTERNAL_SSL = "network rules keep servers apart (docs/security.md); there is no internal_ssl"

SPAWNER: Mapping[str, Works | UseInstead] = {
    "apply_user_options": _JUPYTERHUB,
    "args": Works("after the start command, or after `cmd`"),
    "auth_state_hook": _JUPYTERHUB,
    "cmd": Works(
        "in place of `/opt/labcommons/bin/start`; then what that does (umask, the site's conda "
        "channels) is the command's to do"
    ),
    "consecutive_failure_limit": _JUPYTERHUB,
    "cpu_guarantee": UseInstead("`sizes.<name>.cpu`: Docker promises no CPU, it only limits"),
    "cpu_limit": Works(
        "a number or a callable, asked at each start: a server gets the smaller of this and its "
        "size's; more than the largest size has is refused (`sizes.<name>.cpu`)"
    ),
    "debug": _JUPYTERHUB,
    "default_url": _JUPYTERHUB,
    "disable_user_config": _JUPYTERHUB,
    "env_keep": Works("as `environment`"),
    "environment": Works(
        "what our own parts need is added to it; names that only LabCommons sets are refused: "
        "`HOME`, `USER`, `LOGNAME`, `NB_USER`, `JUPYTER_PATH`, `JUPYTER_IMAGE_SPEC`, "
        "`MEM_LIMIT`, `CPU_LIMIT`, `JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED`, "
        "`JUPYTERHUB_ACTIVITY_INTERVAL`, `NVIDIA_*`, `DOCKER_RESOURCE_*`, `LABCOMMONS_*`"
    ),
    "group_overrides": Works("each setting in it as this table says"),
    "http_timeout": _JUPYTERHUB,
    "hub_connect_url": _JUPYTERHUB,
    "ip": _JUPYTERHUB,
    "mem_guarantee": UseInstead("`sizes.<name>.memory`: Docker promises no memory, it only limits"),
    "mem_limit": Works(
        "an amount or a callable, asked at each start: a server gets the smaller of this and its "
        "size's; more than the largest size has is refused (`sizes.<name>.memory`)"
    ),
    "notebook_dir": _JUPYTERHUB,
    "oauth_client_allowed_scopes": _JUPYTERHUB,
    "oauth_roles": _JUPYTERHUB,
    "options_form": UseInstead(
        "the form is made of `sizes`, `gpus` and the catalog of environments"
    ),
    "options_from_form": UseInstead("the options are those of docs/architecture.md, Contracts"),
    "poll_interval": _JUPYTERHUB,
    "poll_jitter": _JUPYTERHUB,
    "port": Works("1024 to 65535: a server's process has no right to a lower one"),
    "post_stop_hook": _JUPYTERHUB,
    "pre_spawn_hook": Works(
        "before the options are checked; settings that it changes are as this table says"
    ),
    "progress_ready_hook": _JUPYTERHUB,
    "server_token_scopes": _JUPYTERHUB,
    "ssl_alt_names": UseInstead(_NO_INTERNAL_SSL),
    "ssl_alt_names_include_local": UseInstead(_NO_INTERNAL_SSL, (True, False)),
    "start_timeout": Works("instead of `servers.start_timeout`; without the wait for GPUs"),
}

DOCKER: Mapping[str, Works | UseInstead] = {
    "allowed_images": Works(
        "names of environments, `name` or `name:version`, that people may choose from; a dict's "
        "keys are their titles, a callable is asked for each person, `*` is every one"
    ),
    "certs_volume_name": UseInstead(_NO_INTERNAL_SSL),
    "client_kwargs": UseInstead("`servers.engine_timeout`, `servers.engine_threads`; " + _NO_TLS),
    "escape": Works("in `{username}` and `{servername}` of templates"),
    "extra_create_kwargs": UseInstead(
        "an environment's image, `servers.mounts`, `environment`, `cmd`, `args`: whoever a server "
        "runs as, and what it may do, is fixed (docs/security.md)"
    ),
    "extra_host_config": Works(
        "`mem_limit`, `cpu_period` with `cpu_quota`, `pids_limit` and `shm_size`, which may lower "
        "what the site file gives, and never raise it; all other keys are refused with what to use"
    ),
    "format_volume_name": Works("in `volumes`, `read_only_volumes` and `mounts`"),
    "host_ip": UseInstead("`site.public_url`: servers have no port on the machine"),
    "image": Works(
        "the environment, `name` or `name:version`, of those who choose none; without "
        "`allowed_images` it is the only one"
    ),
    "links": UseInstead("`servers.network`: put what servers must reach into that network"),
    "mounts": Works("type `bind` alone; each must be one of `servers.mounts`"),
    "move_certs_image": UseInstead(_NO_INTERNAL_SSL),
    "name_template": Works(
        "of `{prefix}`, `{imagename}` (`data-2`) and plain words, of which 30 characters are "
        "used; `-` and a number of the site's own follow. Unset, it is `{prefix}-user`. With "
        "`{username}`, `{servername}` or any other field the hub does not start: all servers can "
        "read each other's names. Whose a container is, is in its labels `labcommons.user` and "
        "`labcommons.server`"
    ),
    "network_name": Works("only the name that `servers.network` has; any other is refused"),
    "post_start_cmd": UseInstead(
        "an environment's activation script (docs/environments.md), or `cmd`: nothing is executed "
        "in a person's server from outside"
    ),
    "prefix": Works("in `{prefix}` of `name_template`; unset, it is LABCOMMONS_SITE_ID"),
    "pull_policy": UseInstead(
        "`labcommons env build`: servers start from what the catalog has",
        ("never", "skip"),
    ),
    "read_only_volumes": Works("each must be one of `servers.mounts`"),
    "remove": UseInstead("the home, which stays: a container is removed when it ends", (True,)),
    "tls_config": UseInstead(_NO_TLS),
    "use_internal_hostname": UseInstead("nothing: servers are reached by their address"),
    "use_internal_ip": UseInstead(
        "`servers.network`: servers are reached by their address in it, at no port of the machine",
        (True,),
    ),
    "volumes": Works("each must be one of `servers.mounts`; folders alone, with mode `ro` or `rw`"),
}

# Former names: what they say goes to the new ones.
ALIASES: Mapping[str, str] = {
    "container_image": "image",
    "container_ip": "host_ip",
    "container_name_template": "name_template",
    "container_port": "port",
    "container_prefix": "prefix",
    "image_whitelist": "allowed_images",
    "remove_containers": "remove",
}

_IGNORED = "nothing: DockerSpawner itself ignores it"
FORMER: Mapping[str, Works | UseInstead] = {
    "hub_ip_connect": UseInstead("`c.Spawner.hub_connect_url`"),
    "tls": UseInstead(_NO_TLS),
    "tls_assert_hostname": UseInstead(_NO_TLS),
    "tls_ca": UseInstead(_NO_TLS),
    "tls_cert": UseInstead(_NO_TLS),
    "tls_key": UseInstead(_NO_TLS),
    "tls_verify": UseInstead(_NO_TLS),
    "use_docker_client_env": UseInstead(_IGNORED, (True, False)),
}

SYSTEM_USER: Mapping[str, Works | UseInstead] = {
    "homedir_bind_propagation": UseInstead("nothing: homes are mounted with rprivate"),
    "host_homedir_format_string": UseInstead("`data/homes`, where all homes are (docs/site.md)"),
    "image_homedir_format_string": UseInstead("nothing: it is `/home/<name>`"),
    "run_as_root": UseInstead("nothing: no server runs as root"),
}

OURS: Mapping[str, Works | UseInstead] = {
    "identity_hook": Works("LabSpawner's own: uid and gids, where the directory's are not meant"),
}

TABLE: Mapping[str, Works | UseInstead] = {
    **SPAWNER,
    **DOCKER,
    **FORMER,
    **OURS,
    **SYSTEM_USER,
}


def rule_of(trait: str) -> Works | UseInstead | None:
    """The row of a trait, also by a former name; None for what is no trait."""
    return TABLE.get(ALIASES.get(trait, trait))


def markdown() -> str:
    """The tables of docs/dockerspawner.md."""
    parts = []
    for title, rows in (
        ("DockerSpawner", DOCKER),
        ("JupyterHub's Spawner", SPAWNER),
        ("SystemUserSpawner", SYSTEM_USER),
        ("Former names", FORMER),
    ):
        lines = [f"### {title}", "", "| setting | here |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(rule)} |" for name, rule in sorted(rows.items())]
        if rows is FORMER:
            lines += [f"| `{old}` | as `{new}` |" for old, new in sorted(ALIASES.items())]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cell(rule: Works | UseInstead) -> str:
    if isinstance(rule, Works):
        return f"works; {rule.here}" if rule.here else "works"
    values = ", ".join(f"`{value}`" for value in rule.values)
    return f"refused{f', but for {values}' if values else ''}; use {rule.use}"


if __name__ == "__main__":
    print(markdown())
