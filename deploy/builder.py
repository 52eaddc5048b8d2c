"""The words that run a command in the builder's image, or in the running hub."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy import datadir, engine, images, settings
from deploy.settings import ROOT, Settings
from deploy.shell import Failure, output

IN_CONTAINER = "/srv/labcommons/data"
SQLITE = f"sqlite:///{IN_CONTAINER}/store/labcommons.sqlite"
_REMEDIES = {
    "mirror-fetch": "add `mirror: {}` to the site file and mirror to COMPOSE_PROFILES in .env "
    "(docs/mirror.md), then run make up",
    "backup": "set backup.target in the site file (docs/backup.md), then run make up",
}
# Folders that a builder writes to, and those that it only reads.
_WRITTEN = ("store", "channel", "channels", "locks", "cache", "versions", "logs")
_READ = ("advisories", "signing")
# Its own way to the agent: more than images it is not given there.
_CERTIFICATES = {
    "ca.crt": "ca.crt",
    "builder.crt": "client.crt",
    "builder.key": "client.key",
}


def builder(site: Settings, words: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """``labcommons WORDS`` where py-rattler, the site's folders and the way to the agent are.

    Nothing of a package runs there (docs/environments.md): it asks the agent for that. To be run
    with ``databases`` in its environment.
    """
    return [
        *("docker", "run", "--rm", "--init", "--cap-drop=ALL"),
        "--security-opt=no-new-privileges:true",
        # Where the agent is, and the database server.
        f"--network={site.project}_control",
        f"--volume={ROOT / 'config'}:/etc/labcommons:ro",
        *(f"--volume={site.data / name}:{IN_CONTAINER}/{name}" for name in _WRITTEN),
        f"--volume={site.data / 'audit' / 'command'}:{IN_CONTAINER}/audit/command",
        *(f"--volume={site.data / name}:{IN_CONTAINER}/{name}:ro" for name in _READ),
        f"--volume={site.data / 'secrets' / 'pgpass'}:/run/labcommons/pgpass:ro",
        f"--volume={site.data / 'logins'}:/run/labcommons/logins:ro",
        *(
            f"--volume={site.data / 'agent-tls' / ours}:/run/labcommons/agent/{theirs}:ro"
            for ours, theirs in _CERTIFICATES.items()
        ),
        "--env=LABCOMMONS_AGENT_URL=https://agent-control:8444",
        "--env=PGPASSFILE=/run/labcommons/pgpass",
        f"--env=LABCOMMONS_SITE_FILE=/etc/labcommons/{site.site_file}",
        f"--env=LABCOMMONS_DATA={IN_CONTAINER}",
        f"--env=LABCOMMONS_SITE_ID={site.project}",
        # By name alone: the list of processes shows no password of theirs.
        *(f"--env={name}" for name in databases("LABCOMMONS_DATABASE_URL")),
        *(f"--env={name}" for name in images.PASSED_ON + images.PROXIES if name in os.environ),
        f"--env=LOGNAME={_who()}",
        *_not_proxied(os.environ),
        *options,
        *("labcommons/builder", "labcommons", *words),
    ]


def _who() -> str:
    """Who gives the command, for the records: the person's own name where sudo knows it."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return "administrator"


def _not_proxied(environ: Mapping[str, str]) -> list[str]:
    """The site's own services are not behind the machine's proxy, where it has one."""
    if not any(environ.get(name) for name in images.PROXIES):
        return []
    known = environ.get("no_proxy") or environ.get("NO_PROXY", "")
    value = ",".join(filter(None, (known, datadir.NOT_PROXIED)))
    return [f"--env={name}={value}" for name in ("no_proxy", "NO_PROXY")]


def packager(words: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """``labcommons package …``, which runs a project's own code: with the caller's numbers and the
    folder that it is called in, and nothing of the site's.
    """
    return [
        *("docker", "run", "--rm", "--init", "--cap-drop=ALL", "--read-only"),
        *("--security-opt=no-new-privileges:true", "--tmpfs=/tmp:mode=1777,size=2g,exec"),
        *(f"--user={os.getuid()}:{os.getgid()}", "--env=HOME=/tmp", "--memory=4g"),
        *("--pids-limit=512", f"--volume={Path.cwd()}:/work", "--workdir=/work"),
        *(f"--env={name}" for name in images.PASSED_ON + images.PROXIES if name in os.environ),
        *options,
        *("labcommons/builder", "labcommons", *words),
    ]


def databases(*names: str) -> dict[str, str]:
    """The addresses of databases, by the variables that they are in."""
    recorded = settings.parse_env(settings.read(ROOT / ".env"))
    return {name: os.environ.get(name) or recorded.get(name) or SQLITE for name in names}


def _language(environ: Mapping[str, str]) -> list[str]:
    """The terminal's language for a command in a container, which need not have its locale."""
    locales = (environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    chosen = next((locale for locale in locales if locale), "")
    return [f"--env=LC_MESSAGES={chosen}"] if chosen else []


def labcommons(words: Sequence[str]) -> None:
    """Become ``labcommons WORDS``: ``env``, ``channel`` and ``disk prune`` in a builder,
    ``package`` in a container of its own, ``perimeter`` and ``audit`` where these are, all else in
    the hub.

    The folder that it is called in is there too, to read files from. Raises Failure.
    """
    docker = engine.find()
    site = settings.load()
    if output(["docker", "image", "inspect", "labcommons/builder"], env=docker.env) is None:
        raise Failure("the images of LabCommons are not there yet", "run make up first")
    terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    if words[:1] == ["package"]:
        command = packager(words, ["--interactive", *terminal, *_language(os.environ)])
    elif words[:1] in (["env"], ["channel"]) or words[:2] in (
        ["disk", "prune"],
        ["mirror", "fill"],
    ):
        options = ["--interactive", *terminal, *_language(os.environ)]
        options += [f"--volume={Path.cwd()}:/work:ro", "--workdir=/work"]
        command = builder(site, words, options)
    else:
        # The perimeter's rules are seen from its own container alone.
        # and the trail is seen, with its key, from that of who keeps it.
        service = words[0] if words[0] in ("perimeter", "audit", "backup") else "hub"
        # What is tried is tried from where the mirror asks.
        service = "mirror-fetch" if words[:2] == ["mirror", "check"] else service
        found = output(
            [
                *("docker", "ps", "--quiet"),
                f"--filter=label=com.docker.compose.project={site.project}",
                f"--filter=label=com.docker.compose.service={service}",
                "--filter=label=com.docker.compose.oneoff=False",
            ],
            env=docker.env,
        )
        if not found:
            raise Failure(
                f"the {service} does not run", _REMEDIES.get(service, "start it with make up")
            )
        command = ["docker", "exec", "--interactive", *terminal, *_language(os.environ)]
        command += [found.split()[0]]
        command += (
            ["python3", "-I", "-m", *words] if service == "perimeter" else ["labcommons", *words]
        )
    where = {**os.environ, **docker.env, **databases("LABCOMMONS_DATABASE_URL")}
    os.execvpe(command[0], command, where)  # noqa: S606
