"""`make up`: everything from a bare machine to a login page that answers over HTTPS."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deploy import (
    backup,
    base,
    command,
    datadir,
    engine,
    images,
    mirror,
    networks,
    perimeter,
    release,
    service,
    settings,
    whatsnew,
)
from deploy.builder import IN_CONTAINER, builder, databases
from deploy.copies import DATABASES, STORE, Copies
from deploy.engine import CACHE, Engine
from deploy.settings import ROOT, Settings
from deploy.shell import CommandFailed, Failure, output
from deploy.steps import Progress, Step

OWNER = 990  # uid and gid of `labcommons` in our images
HEALTH_TIMEOUT = 240  # seconds for all services to be healthy
# Services of docker-compose.yml that have a health check.
CHECKED = (
    "proxy",
    "perimeter",
    "gate",
    "chp",
    "hub",
    "agent",
    "console",
    "kernels",
    "audit",
    "backup",
    "ssh",
    "signer",
    "mirror",
    "mirror-fetch",
    "images",
    "db",
)
LOGIN_TIMEOUT = 120  # seconds until the proxy knows the way to the healthy hub
# A first build of environments fetches some hundred megabytes.
ENVIRONMENTS_TIMEOUT = 3600


def up() -> None:
    """Run all steps. Raises Failure at the first that cannot be done; repeat at will."""
    with alone():
        site = settings.prepare()
        wanted = images.needed(site.profiles)
        profiles = ("postgres", "demo", mirror.PROFILE)
        extra = sum((*(name in site.profiles for name in profiles), backup.waits(site)))
        total = 17 + len(wanted) + extra
        progress = Progress(total, _logs(site))

        with progress.step("Docker Engine") as step:
            docker = engine.ensure(step)
            of_this_folder(docker, site)
        with progress.step("docker compose") as step:
            docker = replace(docker, compose=engine.ensure_compose(step))
        settings.write_health(CHECKED, docker.version)
        release.keep_where_another(docker, site)
        with progress.step("Debian 13") as step:
            if os.environ.get("REFRESH") == "yes":
                release.keep(docker, site)
            base.ensure_debian(docker, step)
        base.write_context(CACHE / "base")
        for image in [images.BASE, *wanted]:
            with progress.step(f"building {image.tag}") as step:
                images.ensure(image, docker, step, partial(release.keep, docker, site))
        with progress.step("folders and secrets") as step:
            _data_folder(docker, site, step)
        with progress.step("site file") as step:
            facts = _site_file(docker, site, step)
            places, demo = _places(site, facts), bool(facts["demo"])
            backup.record(facts["backup"])
            mirror.record(facts["mirror"], site)
            _record(docker, site, places)
        with progress.step("certificates") as step:
            _certificates(docker, site, places, step)
        _record(docker, site, places)
        compose = Compose(docker, site)
        _keep_apart(docker, site, compose, facts, progress)
        copies = Copies(docker, site, compose)
        _tables(docker, site, copies, progress)
        _people(compose, site, progress)
        _before_builds(compose, bool(facts["mirror"]), progress)
        with progress.step("environments") as step:
            _environments(docker, site, step)
        with progress.step("starting the services") as step:
            _start(compose, step)
        with progress.step("servers that know other addresses") as step:
            _former_servers(docker, site, places, step)
        _arrive(site, places, progress)
        _tell(docker, site, places, demo, _finish(docker, site, copies))
        for line in (*perimeter.advice(facts["perimeter"]), *_advice(compose, site)):
            print(line)


def start() -> None:
    """Start what the last `make up` has set up and wait until it is healthy; change nothing."""
    with alone():
        site = settings.load()
        docker = engine.find()
        of_this_folder(docker, site)
        with Progress(1, _logs(site)).step("starting the services") as step:
            _start(Compose(docker, site), step, "--no-recreate", "--no-build")


def unit() -> None:
    """Have systemd start the site with the machine."""
    with alone():
        site = settings.load()
        if service.unit(site) is None:
            raise Failure(
                "this machine has no systemd, or LABCOMMONS_SYSTEMD in .env is empty",
                "Docker starts the site with itself; have Docker started with the machine",
            )
        with Progress(1, _logs(site)).step("return after a restart of the machine") as step:
            service.install(site, step)


def of_this_folder(docker: Engine, site: Settings) -> None:
    """Raise Failure where another checkout's site of this name is on the Engine.

    What a copy of a site, as of a backup, does to containers of its name it would do to the
    original's.
    """
    listing = docker.docker(
        "ps", "--all", f"--filter=label=com.docker.compose.project={site.project}",
        '--format={{.Label "com.docker.compose.project.working_dir"}}',
    )  # fmt: skip
    for folder in sorted(set((listing or "").splitlines()) - {"", str(ROOT)}):
        # A folder that is gone was moved here.
        if (Path(folder) / "docker-compose.yml").exists() and Path(folder).resolve() != ROOT:
            raise Failure(
                f"the site {site.project} is on this machine already, from {folder}",
                "give this one another COMPOSE_PROJECT_NAME, LABCOMMONS_DATA and ports in .env, or "
                f"first run `make down` in {folder}",
            )


@dataclass(frozen=True)
class Places:
    """Where the site is.

    Attributes:
        url: of the hub, what people type.
        names: the hosts that are answered; the hub's, then that of the servers where it is another.
    """

    url: str
    names: tuple[str, ...]

    @property
    def apart(self) -> bool:
        """Whether people's servers have other hosts than the hub."""
        return len(self.names) > 1

    @property
    def addresses(self) -> str:
        """What a person's server was told when it started: a change means to start it anew."""
        return " ".join(["gate", self.url, *self.names[1:]])


class Compose:
    """docker compose for this site."""

    def __init__(self, docker: Engine, site: Settings) -> None:
        self.words = [*docker.compose, "--project-directory", str(ROOT), "--project-name"]
        self.words.append(site.project)
        for name in settings.compose_files():
            self.words += ["--file", str(ROOT / name)]
        self.env = docker.env

    def run(self, step: Step, *words: str, timeout: float) -> None:
        """Run a compose command with its output in the step's log; raises CommandFailed."""
        step.run([*self.words, "--ansi", "never", *words], timeout=timeout, env=self.env)

    def output(self, *words: str, timeout: float = 60) -> str | None:
        """What a compose command prints; None when it fails."""
        return output([*self.words, *words], timeout=timeout, env=self.env)


@contextmanager
def alone() -> Iterator[None]:
    """Only one `make up` or `make down` at a time in a checkout."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Failure(
                "another make is at work in this checkout", "wait until it is done"
            ) from error
        yield


def _logs(site: Settings) -> Path:
    logs = site.data / "log"
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(
            f"{logs} cannot be made: {error.strerror}",
            "set LABCOMMONS_DATA in .env to a folder that you may write to",
        ) from error
    return logs


def _data_folder(docker: Engine, site: Settings, step: Step) -> None:
    # In a container, as root there: whoever may use Docker need not be root here.
    passed_on = [name for name in images.PASSED_ON + images.PROXIES if name in os.environ]
    step.run(
        [
            *("docker", "run", "--rm", "--network=none", "--user=0:0", "--entrypoint=python3"),
            f"--env={datadir.BUILD_SETTINGS}={' '.join(passed_on)}",
            *(f"--env={name}" for name in passed_on),
            f"--volume={site.data}:/data",
            f"--volume={ROOT / 'deploy' / 'datadir.py'}:/datadir.py:ro",
            *("labcommons/hub", "/datadir.py", "/data", str(OWNER)),
        ],
        timeout=120,
        env=docker.env,
    )


def _hub_once(docker: Engine, site: Settings, *words: str, url: str = "") -> list[str]:
    """The words that run one command of the hub's image beside config and certificates."""
    return [
        *("docker", "run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL"),
        f"--volume={ROOT / 'config'}:/etc/labcommons:ro",
        f"--volume={site.data / 'tls'}:{IN_CONTAINER}/tls",
        f"--volume={site.data / 'agent-tls'}:{IN_CONTAINER}/agent-tls",
        f"--volume={site.data / 'acme' / 'issued'}:{IN_CONTAINER}/acme/issued:ro",
        f"--env=LABCOMMONS_SITE_FILE=/etc/labcommons/{site.site_file}",
        *([f"--env=LABCOMMONS_PUBLIC_URL={url}"] if url else []),
        *("labcommons/hub", "labcommons", *words),
    ]


def _answer(command: list[str], docker: Engine, step: Step) -> str:
    """What a command prints. One that fails is run again, so that the log shows why."""
    answer = output(command, timeout=60, env=docker.env)
    if answer is None:
        step.run(command, timeout=60, env=docker.env)
        raise Failure("a command failed at first, and then did not", "run make up again")
    step.note(answer)
    return answer


def _site_file(docker: Engine, site: Settings, step: Step) -> dict[str, Any]:
    """Check the site file; returns what it decides about the machine."""
    command = _hub_once(docker, site, "site", "check", "--offline", "--json")
    step.remedy = f"correct config/{site.site_file}"
    facts: dict[str, Any] = json.loads(_answer(command, docker, step))
    settings.write_groups(facts["kernels_groups"])
    wanted = {
        "LABCOMMONS_ACME": str(int(facts["acme"])),
        "LABCOMMONS_SSH": str(int(bool(facts["ssh"]))),
        "LABCOMMONS_SSH_PORT": str(facts["ssh"] or 2222),
    }
    settings.record(wanted)
    os.environ.update(wanted)
    return facts


def _advice(compose: Compose, site: Settings) -> list[str]:
    """What ``labcommons site check`` advises for this machine, which the agent knows by now."""
    said = compose.output("exec", "-T", "hub", "labcommons", "site", "check", "--json")
    lines = json.loads(said)["advice"] if said else []
    return [f"config/{site.site_file}: {line}" for line in lines]


def _places(site: Settings, facts: dict[str, Any]) -> Places:
    url, names = facts["public_url"], tuple(facts["server_names"])
    if facts["demo"] and f".{names[0]}".endswith(".localhost"):
        port = "" if site.https_port == 443 else f":{site.https_port}"
        url = f"https://{names[0]}{port}"
    return Places(url, names)


def _keep_apart(
    docker: Engine, site: Settings, compose: Compose, facts: dict[str, Any], progress: Progress
) -> None:
    """The networks of servers and builders, and the perimeter around them."""
    decided, has_mirror = facts["perimeter"], bool(facts["mirror"])
    with progress.step("networks") as step:
        users, builders = networks.ensure(docker, site, step)
    found = perimeter.resolvers(docker)
    perimeter.write(
        perimeter.plan(decided, site.project, users, builders, found, os.environ, has_mirror)
    )
    recorded = {
        f"LABCOMMONS_{name.upper()}_ADDRESS": str(address)
        for name, address in users.services.items()
    }
    recorded["LABCOMMONS_MIRROR_BUILDERS_ADDRESS"] = str(builders.services["mirror"])
    # Without the perimeter nothing is closed, and no exam can be.
    recorded["LABCOMMONS_CLOSED_ADDRESSES"] = str(users.closed) if decided["enabled"] else ""
    recorded["LABCOMMONS_PERIMETER_HASH"] = _hash([ROOT / perimeter.PLAN_FILE])
    settings.record(recorded)
    os.environ.update(recorded)
    with progress.step("perimeter") as step:
        perimeter.start(compose, step)
        step.result = "in place" if decided["enabled"] else "off"


def _tables(docker: Engine, site: Settings, copies: Copies, progress: Progress) -> None:
    """Our database's, of this version. JupyterHub's are changed by the hub when it starts."""
    if "postgres" in site.profiles:
        with progress.step("starting the database server") as step:
            copies.compose.run(step, "up", "--detach", "--wait", "db", timeout=HEALTH_TIMEOUT)
    if backup.waits(site):
        with progress.step("databases of the backup") as step:
            backup.load(docker, site, step)
    with progress.step("database tables") as step:
        _copy_what_changes(docker, site, copies, step)
        copies.compose.run(
            step, "run", "--rm", "--no-deps", "-T", "once", "labcommons", "store", "migrate",
            timeout=120,
        )  # fmt: skip


def _copy_what_changes(docker: Engine, site: Settings, copies: Copies, step: Step) -> None:
    """Of each database whose tables are of an earlier version, a copy, for `make rollback`."""
    found = copies.revisions()
    release.know_schemas(site, found)
    heads = json.loads(_answer(_hub_once(docker, site, "store", "heads", "--json"), docker, step))
    for which in DATABASES:
        if found[which.name] in ("", heads[which.name]):
            continue
        # `labcommons store migrate` copies it itself.
        if which is not STORE or "postgres" in site.profiles:
            step.note(copies.make(which, found[which.name]))
        step.result += f"\n  {which.title}: copied before its tables change"


def _people(compose: Compose, site: Settings, progress: Progress) -> None:
    """Who there is; in a demo also what they may, and what they have done."""
    with progress.step("groups of the directory") as step:
        _groups(compose, site, step)
    if "demo" in site.profiles:
        with progress.step("the demo's limits and past") as step:
            compose.run(
                step, "run", "--rm", "--no-deps", "-T", "once", "labcommons", "demo", "fill",
                timeout=120,
            )  # fmt: skip


def _groups(compose: Compose, site: Settings, step: Step) -> None:
    """A denied group that the directory does not have stops here, before anybody is let in."""
    if "demo" in site.profiles:
        compose.run(step, "up", "--detach", "--wait", "directory", timeout=HEALTH_TIMEOUT)
    step.remedy = f"correct the group's name in config/{site.site_file}"
    compose.run(
        step, "run", "--rm", "--no-deps", "-T", "once", "labcommons", "site", "check", timeout=120
    )  # fmt: skip


def _certificates(docker: Engine, site: Settings, places: Places, step: Step) -> None:
    new_ca = ["--new-ca"] if os.environ.get("NEW_CA") == "yes" else []
    command = _hub_once(docker, site, "tls", "init", "--json", *new_ca, url=places.url)
    rows = json.loads(_answer(command, docker, step))
    states = {Path(row["file"]).name: row for row in rows}
    server = states["server.crt"]
    words = {"made": "made", "kept": "up to date", "foreign": "the site's own"}
    step.result = f"{words[server['state']]}, valid until {server['not_after'][:10]}"
    for row in rows:
        if row["advice"]:
            step.result += f"\n  {row['file']}: {row['advice']}"


def _record(docker: Engine, site: Settings, places: Places) -> None:
    """What docker-compose.yml wants to know of this machine, into .env and our environment."""
    settings.write_revision()
    tls, agent_tls = site.data / "tls", site.data / "agent-tls"
    found = {
        "COMPOSE_FILE": ":".join(settings.compose_files()),
        "LABCOMMONS_HOST_DATA": str(site.data),
        "LABCOMMONS_DOCKER_SOCKET": str(docker.socket),
        "LABCOMMONS_DOCKER_GID": str(docker.group),
        "LABCOMMONS_PUBLIC_URL": places.url,
        "LABCOMMONS_SERVER_NAMES": " ".join(places.names),
        "LABCOMMONS_HOST_ROUTING": "yes" if places.apart else "",
        "LABCOMMONS_ADDRESSES": places.addresses,
        # Services whose configuration has changed are started anew.
        "LABCOMMONS_CONFIG_HASH": _hash(
            [
                *(ROOT / "config" / name for name in (site.site_file, "jupyterhub_config.py")),
                *(agent_tls / name for name in ("ca.crt", "hub.crt")),
            ]
        ),
        "LABCOMMONS_AGENT_HASH": _hash(
            [ROOT / "config" / site.site_file, agent_tls / "ca.crt", agent_tls / "agent.crt"]
        ),
        # Of its certificate nginx sees itself that it is another.
        "LABCOMMONS_PROXY_HASH": _hash(sorted((ROOT / "config" / "nginx").glob("*.conf"))),
        "LABCOMMONS_DIRECTORY_HASH": _hash([tls / "directory.crt", tls / "ca.crt"]),
    }
    if "postgres" in site.profiles:
        address = "postgresql+psycopg://labcommons@db/"
        found["LABCOMMONS_DATABASE_URL"] = address + "labcommons"
        found["LABCOMMONS_HUB_DATABASE_URL"] = address + "jupyterhub"
    settings.record(found)
    os.environ.update(found)


def _hash(paths: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        if path.exists():
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def _before_builds(compose: Compose, has_mirror: bool, progress: Progress) -> None:
    """What builds of environments ask: agent and signer, and for their packages the mirror."""
    wanted = {"agent and the signer": ("agent", "signer")}
    if has_mirror:
        wanted["mirror"] = ("mirror-fetch", "mirror")
    for name, services in wanted.items():
        with progress.step(f"starting the {name}") as step:
            compose.run(step, "up", "--detach", "--wait", *services, timeout=HEALTH_TIMEOUT)


def _environments(docker: Engine, site: Settings, step: Step) -> None:
    """Solve and build what is new in config/environments."""
    command = builder(site, ["env", "build", "--all"])
    where = {**docker.env, **databases("LABCOMMONS_DATABASE_URL")}
    step.run(command, timeout=ENVIRONMENTS_TIMEOUT, env=where)


def _former_servers(docker: Engine, site: Settings, places: Places, step: Step) -> None:
    """Stop people's servers that were told other addresses: nothing would find the other.

    The hub, which knows the new ones by now, sees that they have ended.
    """
    listing = docker.docker(
        "ps", f"--filter=label=labcommons.site={site.project}", "--filter=label=labcommons.user",
        '--format={{.ID}} {{.Label "labcommons.addresses"}}',
    )  # fmt: skip
    told = dict(line.split(" ", 1) for line in (listing or "").splitlines())
    former = [server for server, addresses in told.items() if addresses != places.addresses]
    step.result = "none"
    if former:
        step.run(["docker", "stop", "--time=10", *former], timeout=300, env=docker.env)
        step.result = f"{len(former)} stopped, for their owners to start anew"


def _start(compose: Compose, step: Step, *options: str) -> None:
    """Start all services and wait until they are healthy; else say which is not, and why."""
    try:
        compose.run(
            step, "up", "--detach", "--remove-orphans", "--wait",
            "--wait-timeout", str(HEALTH_TIMEOUT), *options, timeout=HEALTH_TIMEOUT + 120,
        )  # fmt: skip
    except CommandFailed:
        listing = compose.output("ps", "--all", "--format", "{{.Service}} {{.State}} {{.Health}}")
        for line in (listing or "").splitlines():
            service, _, state = line.partition(" ")
            if state.strip() not in ("running healthy", "running"):
                step.note(f"\n{service}: {state}")
                step.note(compose.output("logs", "--no-color", "--tail", "12", service) or "")
        said = Path(step.log.name).read_text("utf-8", errors="replace")
        if "already in use" in said or "already allocated" in said:
            step.remedy = (
                "set LABCOMMONS_HTTPS_PORT and LABCOMMONS_HTTP_PORT in .env, and ssh.port in the "
                "site file, to free ports"
            )
        else:
            step.remedy = "see what the service says above; the whole: make logs"
        raise


def _arrive(site: Settings, places: Places, progress: Progress) -> None:
    with progress.step(f"login page at {places.url}") as step:
        _login_page(site, places, step)
    with progress.step("return after a restart of the machine") as step:
        service.install(site, step)


def _login_page(site: Settings, places: Places, step: Step) -> None:
    """Fetch the login page as a browser would, with the certificate verified, also for servers.

    The hub is healthy a little before the proxy knows the way to it: until then the answer is 404.
    """
    context = ssl.create_default_context()
    context.load_verify_locations(site.data / "tls" / "ca.crt")
    if bundle := os.environ.get("LABCOMMONS_CA_BUNDLE"):  # as of an authority of the site's own
        context.load_verify_locations(bundle)
    step.remedy = "see data/log and make logs"
    deadline = time.monotonic() + LOGIN_TIMEOUT
    while problem := _login_problem(site, places.url, context):
        if time.monotonic() > deadline:
            raise Failure(f"{places.url}/hub/login {problem}")
        time.sleep(1)
    for name in places.names[1:]:
        host = name.replace("*", "somebody")
        # At this host the login page is not: it leads on.
        problem = _login_problem(site, places.url.replace(places.names[0], host, 1), context, 302)
        if problem:
            raise Failure(f"{host}, where people's servers are, {problem}")
    step.result = "answers"


def _login_problem(
    site: Settings, public_url: str, context: ssl.SSLContext, right: int = 200
) -> str:
    """What is wrong with the login page now; "" when nothing is."""
    url = urlsplit(public_url)
    connection = _Connection(
        url.hostname or "localhost",
        timeout=15,
        context=context,
        address=(site.connect_to, site.https_port),
    )
    try:
        connection.request("GET", "/hub/login", headers={"Host": url.netloc})
        status = connection.getresponse().status
    except ssl.SSLCertVerificationError as error:
        raise Failure(
            f"the certificate does not verify for {url.hostname}: {error.verify_message}",
            "put a certificate for all names of the site, with its chain, into data/tls/server.crt "
            "(names for people's servers, and how to do without: docs/site.md); of an authority "
            "that this machine does not know, name its CA in LABCOMMONS_CA_BUNDLE",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        return f"does not answer: {error}"
    finally:
        connection.close()
    return "" if status == right else f"answers with status {status} instead of {right}"


class _Connection(http.client.HTTPSConnection):
    """HTTPS for a name that need not resolve to this machine from this machine."""

    def __init__(
        self, host: str, *, timeout: float, context: ssl.SSLContext, address: tuple[str, int]
    ) -> None:
        super().__init__(host, timeout=timeout, context=context)
        self._address = address
        self._tls = context

    def connect(self) -> None:
        plain = socket.create_connection(self._address, self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


def _finish(docker: Engine, site: Settings, copies: Copies) -> release.Release | None:
    """Write down what runs, and what is new; the version in whose place it came, if any."""
    former = release.complete(docker, site, copies.revisions())
    whatsnew.write(release.load(site))
    return former


def _tell(
    docker: Engine, site: Settings, places: Places, demo: bool, former: release.Release | None
) -> None:
    print(f"\nLabCommons runs at {places.url}")
    if former:
        print(f"New since {former}: {command.offer()} whatsnew; back to it: make rollback")
    for line in images.updates(docker, date.today()):
        print(line)
    if not places.apart:
        print(
            "People's servers have the hub's own origin: a page in one can act for who opens it.\n"
            "  Give them hosts of their own: site.subdomains in the site file (docs/site.md)"
        )
    for host in () if demo else (name.replace("*", "somebody") for name in places.names):
        if output(["getent", "ahosts", host], timeout=10) is None:
            print(f"{host} has no address, as this machine sees it: docs/site.md, Hosts")
    print(f"CA to import into your browser: {site.data / 'tls' / 'ca.crt'}")
    if demo and "demo" in site.profiles:
        print(
            "Demo accounts (the password is NAME-demo): carol (platform admin), bob (team lead),\n"
            "  alice (researcher), dan (instructor), s01 to s40 (students); a tour: docs/tour.md"
        )
    print(f"Next: {command.offer()} --help, make logs, make down; for a real site see README.md")
