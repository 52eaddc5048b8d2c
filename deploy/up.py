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
from pathlib import Path
from urllib.parse import urlsplit

from deploy import base, datadir, engine, images, settings
from deploy.builder import IN_CONTAINER, builder
from deploy.engine import CACHE, Engine
from deploy.settings import ROOT, Settings
from deploy.shell import CommandFailed, Failure, output
from deploy.steps import Progress, Step

OWNER = 990  # uid and gid of `labcommons` in our images
HEALTH_TIMEOUT = 240  # seconds for all services to be healthy
LOGIN_TIMEOUT = 120  # seconds until the proxy knows the way to the healthy hub
# A first build of environments fetches some hundred megabytes.
ENVIRONMENTS_TIMEOUT = 3600


def up() -> None:
    """Run all steps. Raises Failure at the first that cannot be done; repeat at will."""
    with alone():
        site = settings.prepare()
        wanted = images.needed(site.profiles)
        database_first = "postgres" in site.profiles
        total = 13 + len(wanted) + database_first
        progress = Progress(total, _logs(site))

        with progress.step("Docker Engine") as step:
            docker = engine.ensure(step)
        with progress.step("docker compose") as step:
            docker = replace(docker, compose=engine.ensure_compose(step))
        with progress.step("Debian 13") as step:
            base.ensure_debian(docker, step)
        base.write_context(CACHE / "base")
        for image in [images.BASE, *wanted]:
            with progress.step(f"building {image.tag}") as step:
                images.ensure(image, docker, step)
        with progress.step("folders and secrets") as step:
            _data_folder(docker, site, step)
        with progress.step("site file") as step:
            places, demo = _site_file(docker, site, step)
            _record(docker, site, places)
        with progress.step("certificates") as step:
            _certificates(docker, site, places, step)
        _record(docker, site, places)
        compose = Compose(docker, site)
        if database_first:
            with progress.step("starting the database server") as step:
                compose.run(step, "up", "--detach", "--wait", "db", timeout=HEALTH_TIMEOUT)
        with progress.step("database tables") as step:
            compose.run(
                step, "run", "--rm", "--no-deps", "-T", "hub", "labcommons", "store", "migrate",
                timeout=120,
            )  # fmt: skip
        with progress.step("groups of the directory") as step:
            _groups(compose, site, step)
        with progress.step("environments") as step:
            _environments(docker, site, step)
        with progress.step("starting the services") as step:
            _start(compose, step)
        with progress.step("servers that know other addresses") as step:
            _former_servers(docker, site, places, step)
        with progress.step(f"login page at {places.url}") as step:
            _login_page(site, places, step)
        _tell(docker, site, places, demo)


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


def _site_file(docker: Engine, site: Settings, step: Step) -> tuple[Places, bool]:
    """Check the site file; returns where the site is, and whether it is a demo."""
    command = _hub_once(docker, site, "site", "check", "--offline", "--json")
    step.remedy = f"correct config/{site.site_file}"
    facts = json.loads(_answer(command, docker, step))
    settings.write_groups(facts["kernels_groups"])
    url, names = facts["public_url"], tuple(facts["server_names"])
    if facts["demo"] and f".{names[0]}".endswith(".localhost"):
        port = "" if site.https_port == 443 else f":{site.https_port}"
        url = f"https://{names[0]}{port}"
    return Places(url, names), bool(facts["demo"])


def _groups(compose: Compose, site: Settings, step: Step) -> None:
    """A denied group that the directory does not have stops here, before anybody is let in."""
    if "demo" in site.profiles:
        compose.run(step, "up", "--detach", "--wait", "directory", timeout=HEALTH_TIMEOUT)
    step.remedy = f"correct the group's name in config/{site.site_file}"
    compose.run(
        step, "run", "--rm", "--no-deps", "-T", "hub", "labcommons", "site", "check", timeout=120
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
    tls = site.data / "tls"
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
            [ROOT / "config" / site.site_file, ROOT / "config" / "jupyterhub_config.py"]
        ),
        "LABCOMMONS_PROXY_HASH": _hash(
            [*sorted((ROOT / "config" / "nginx").glob("*.conf")), tls / "server.crt"]
        ),
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


def _environments(docker: Engine, site: Settings, step: Step) -> None:
    """Solve and build what is new in config/environments."""
    command = builder(docker, site, ["env", "build", "--all"])
    step.run(command, timeout=ENVIRONMENTS_TIMEOUT, env=docker.env)


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


def _start(compose: Compose, step: Step) -> None:
    """Start all services and wait until they are healthy; else say which is not, and why."""
    try:
        compose.run(
            step, "up", "--detach", "--remove-orphans", "--wait",
            "--wait-timeout", str(HEALTH_TIMEOUT), timeout=HEALTH_TIMEOUT + 120,
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
            step.remedy = "set LABCOMMONS_HTTPS_PORT and LABCOMMONS_HTTP_PORT in .env to free ports"
        else:
            step.remedy = "see what the service says above; the whole: make logs"
        raise


def _login_page(site: Settings, places: Places, step: Step) -> None:
    """Fetch the login page as a browser would, with the certificate verified, also for servers.

    The hub is healthy a little before the proxy knows the way to it: until then the answer is 404.
    """
    context = ssl.create_default_context()
    context.load_verify_locations(site.data / "tls" / "ca.crt")
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
            "(names for people's servers, and how to do without: docs/site.md)",
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


def _tell(docker: Engine, site: Settings, places: Places, demo: bool) -> None:
    print(f"\nLabCommons runs at {places.url}")
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
            "  alice (researcher), dan (instructor), s01 to s40 (students)"
        )
    print("Next: make logs, make down; what to change for a real site is in README.md")
