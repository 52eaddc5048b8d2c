"""Who may do what: every URL and verb of our services, and of the hub for what servers hold.

``rights.txt`` is the table of expected answers. After a change that is meant, write it anew with
``LABCOMMONS_WRITE_RIGHTS=1 pytest tests/hostile/test_rights.py``, and read the difference.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jupyterhub.apihandlers import default_handlers
from jupyterhub.httpclient import JupyterHubHTTPClient
from jupyterhub.services.auth import HubOAuth
from sqlalchemy.orm import Session
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from commons.scopes import Scope, personal
from commons.site import load_site
from commons.store import DirectoryPerson, Store, ssh_keys
from commons.store.models import SharedServer, utcnow
from commons.web.openapi import operations
from environments.builds import queue, repository
from hub_ext.console import app as console
from hub_ext.console.inbox import pack
from kernels.service import app as kernels
from kernels.service.registrar import Registrar
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.ledger import transitions
from spawner.gpu.ledger.batches import run_pass
from spawner.gpu.policy.placement import Device

from .conftest import StandInHub
from .test_links import make

TABLE = Path(__file__).with_name("rights.txt")
VERBS = ("GET", "POST", "PUT", "DELETE", "PATCH")
SPEC = "name: theirs\nchannels: [conda-forge]\ndependencies: [python 3.13.*, ipykernel]\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJf92H6zqwdnjLjvozHc9LF69n09jYsQv0WU82phJ/6z"
ALICE, VISION = personal("alice"), Scope("team", "vision")
# alice is a member of team vision, bob its lead, erin another team's, dan an instructor.
IDENTITIES = {
    "nobody": "no token",
    "server": "what alice's server holds",
    "other-server": "what bob's server holds",
    "alice": "a member of team vision, by a token of her own",
    "lead": "of team vision",
    "other-lead": "of team speech",
    "instructor": "of a course",
    "admin": "an administrator, by a token with all that is theirs",
    "narrow-admin": "an administrator's token that lacks admin-ui",
    "admin-server": "what an administrator's server holds",
    "stray": "alice's token for her servers alone",
    "console": "the console's own token",
    "kernels": "the kernels service's own token",
}
ACCESS = tuple(f"access:services!service={name}" for name in ("labcommons", "kernels"))
BODIES: dict[str, Any] = {
    "servers/stop": {"who": ["alice"]},
    "servers/message": {"who": ["alice"], "message": "Save"},
    "servers/extend": {"who": ["alice"]},
    "alice/block": {"reason": "coins"},
    "gpus/drain": {"target": "GPU-1"},
    "gpus/undrain": {"target": "GPU-1"},
    "extend": {"by": "1h"},
    "v1/notices": {"code": "kernel_ended", "event": "0" * 32},
    "notices/seen": {"ids": []},
    "v1/inbox": {"to": "bob", "name": "a.ipynb", "notebook": pack({"nbformat": 4, "cells": []})},
    "inbox/refused": {"sender": "bob"},
    "quotas/apply": {"document": "version: 1\n", "dry_run": True},
    "quotas/user:alice": {"max_gpus": 1},
    "copy": {"to": "personal", "name": "copied"},
    "copy?to=team": {"to": "team-vision", "name": "copied"},
    **{key: {"add": ["cowsay"]} for key in ("derive", "edit", "preview", "correct")},
    "environments": {"source": "personal", "name": "fresh", "spec": SPEC},
    "environments?to=team": {"source": "team-vision", "name": "fresh", "spec": SPEC},
    "environments?to=shared": {"source": "shared", "name": "fresh", "spec": SPEC},
    "warm-starts": {"name": "another", "subject": "course:ml101"},
    "ahead": {},
    "project?to=start": {"up": True},
    "ssh": {},
    "ssh/keys": {"line": KEY.replace("J/6z", "J/6a")},
    "vision/yank": {"package": "noarch/none", "reason": "wrong"},
    "vision/restore": {"package": "noarch/none"},
    "v1/maintenance": {"en": "Disks"},
    "v1/broadcasts": {"en": "Slow", "until": "2h"},
    "usage": {"starts": []},
    "activity": {"servers": {"": {"last_activity": "2026-11-26T00:00:00Z"}}},
}


@dataclass
class Services:
    """Console and kernels, for real, before a hub; the ids of what there is."""

    origins: dict[str, str]
    apps: dict[str, Application]
    ids: dict[str, str]
    store: Path

    def restore(self) -> None:
        """Everything in the store as it was at first."""
        with sqlite3.connect(f"{self.store}.first") as first, sqlite3.connect(self.store) as now:
            first.backup(now)


def fill(session: Session, ids: dict[str, str]) -> None:
    sync_inventory(session, [Device(f"GPU-{n}", "A100", 80 * 2**30, True) for n in range(3)])
    lease = transitions.request(
        session, username="alice", server_name="", account="group:vision", gpus=1, gpu_type="A100",
        time_limit=3600,
    )  # fmt: skip
    run_pass(session)
    transitions.activate(session, lease.id, "container")
    ids["lease"] = lease.id
    roles = {"teams": {"vision": "member"}}
    session.add(DirectoryPerson(name="alice", confirmed=1.0, roles=roles))
    ids["key"] = ssh_keys.id_of(ssh_keys.add(session, "alice", KEY))
    about = {"user_options": {}, "leads_only": False, "members_run": True, "people": []}
    for scope in ("course-ml101", "team-vision"):
        session.add(
            SharedServer(
                scope=scope, name="project", created_by="dan", state="stopped", at=utcnow(), by="",
                **about,
            )
        )  # fmt: skip
    for scope in (ALICE, VISION):
        facts = {
            "python": "3.13.5", "lock_digest": "ab", "size": 1, "spec": SPEC, "words": "",
            "lock": "the lock", "packages": [], "kernels": {}, "findings": [], "origin": None,
            "exports": {"environment.yml": "name: x\n"},
        }  # fmt: skip
        for version in ("1", "2"):
            repository.record(
                session, scope, "torch", version, built_by="bob",
                created_at=utcnow(), facts=facts, kept={"1", "2"},
            )  # fmt: skip


def listen(app: Application) -> tuple[HTTPServer, str]:
    socket, port = bind_unused_port()
    server = HTTPServer(app)
    server.add_socket(socket)
    return server, f"http://127.0.0.1:{port}"


@pytest.fixture
async def services(hub: StandInHub, tmp_path: Path) -> AsyncIterator[Services]:
    site = load_site(hub.home / "site.yaml")
    file = tmp_path / "labcommons.sqlite"
    store = Store(f"sqlite:///{file}")
    store.migrate()
    ids: dict[str, str] = {}
    store.transact(lambda session: fill(session, ids))
    for key, scope, who in (("build", ALICE, "alice"), ("team-build", VISION, "bob")):
        request = queue.BuildRequest("create", scope, "made", who, spec=SPEC)
        ids[key] = store.transact(
            lambda session, request=request: queue.enqueue(session, request, site.builds).id
        )
    make(tmp_path / "scopes/teams/vision/envs/torch")
    registrar = Registrar(
        store,
        tmp_path / "kernels",
        tmp_path / "scopes",
        [Scope("team", "vision"), Scope("course", "ml101")],
    )
    await registrar.refresh()

    def auth(name: str, prefix: str) -> HubOAuth:
        return HubOAuth(
            api_token=hub.secrets[f"{'console' if name == 'labcommons' else name}-token"],
            api_url=f"{hub.origin}/hub/api",
            base_url=prefix,
            oauth_client_id=f"service-{name}",
            access_scopes={f"access:services!service={name}"},
        )

    apps = {
        "console": console.make_app(site, store, auth("labcommons", console.PREFIX), tmp_path),
        "kernels": kernels.make_app(
            site, registrar, auth("kernels", "/services/kernels/"), "a secret"
        ),
    }
    servers = {name: listen(app) for name, app in apps.items()}
    prefixes = {"console": console.PREFIX, "kernels": "/services/kernels/"}
    origins = {name: f"{servers[name][1]}{prefixes[name]}" for name in servers}
    origins["hub"] = f"{hub.origin}/hub/api/"
    reserve = {
        "name": "lab", "subject": "course:ml101", "gpus": 1, "starts": "2031-01-07 14:00",
        "duration": "2h", "timezone": "UTC", "repeat": "weekly", "until": "2031-02-01",
    }  # fmt: skip
    BODIES["reservations"] = {**reserve, "name": "another"}
    async with aiohttp.ClientSession() as client:
        headers = {"Authorization": f"token {hub.token('carol')}"}
        made = await client.post(
            f"{origins['console']}api/v1/reservations", json=reserve, headers=headers
        )
        assert made.status == 201, await made.text()
        ids["reservation"] = (await made.json())["id"]
        people = {"name": "lesson", "people": ["alice"]}
        made = await client.post(
            f"{origins['console']}api/v1/warm-starts", json=people, headers=headers
        )
        assert made.status == 201, await made.text()
        ids["warm"] = (await made.json())["id"]
        made = await client.post(
            f"{origins['console']}api/v1/broadcasts",
            json=BODIES["v1/broadcasts"],
            headers=headers,
        )
        assert made.status == 201, await made.text()
        ids["broadcast"] = (await made.json())["id"]
    BODIES["skip"] = {"day": "2031-01-14"}
    with sqlite3.connect(file) as now, sqlite3.connect(f"{file}.first") as first:
        now.backup(first)
    yield Services(origins, apps, ids, file)
    for server, _ in servers.values():
        server.stop()
        await server.close_all_connections()
    registrar.close()
    store.close()
    await JupyterHubHTTPClient.loop_instance().close()


def tokens(hub: StandInHub) -> dict[str, str]:
    return {
        "nobody": "",
        "server": hub.server_token("alice"),
        "other-server": hub.server_token("bob"),
        "alice": hub.token("alice"),
        "lead": hub.token("bob"),
        "other-lead": hub.token("erin"),
        "instructor": hub.token("dan"),
        "admin": hub.token("carol"),
        "narrow-admin": hub.token("carol", *ACCESS),
        "admin-server": hub.server_token("carol"),
        "stray": hub.token("alice", "access:servers!user=alice"),
        "console": hub.secrets["console-token"],
        "kernels": hub.secrets["kernels-token"],
    }


def rows() -> list[tuple[str, str, str, str]]:
    """Service, verb, address and expected answers, one for each identity."""
    lines = TABLE.read_text().splitlines()
    found = [line.split(None, 3) for line in lines if line and line[0] not in "# "]
    return [(service, verb, url, answers) for service, verb, url, answers in found]


def body_for(url: str) -> Any:
    """What is sent: of the longest key that the address ends in."""
    fitting = [key for key in BODIES if url.endswith(key)]
    return BODIES[max(fitting, key=len)] if fitting else {}


async def ask(services: Services, service: str, verb: str, url: str, token: str) -> int:
    address = url.split("?to=", maxsplit=1)[0].format(**services.ids)
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as client,
        client.request(
            verb,
            services.origins[service] + address.removeprefix("/"),
            headers={"Authorization": f"token {token}"} if token else {},
            json=None if verb == "GET" else body_for(url),
            allow_redirects=False,
        ) as answer,
    ):
        return answer.status


async def test_everybody_may_do_what_the_table_says_and_nothing_else(
    hub: StandInHub, services: Services
) -> None:
    known, seen = tokens(hub), []
    for service, verb, url, _ in rows():
        answers = []
        # Of the hub's own API only what servers' tokens may do is ours to say.
        columns = ("nobody", "server", "other-server") if service == "hub" else IDENTITIES
        for identity in columns:
            answers.append(str(await ask(services, service, verb, url, known[identity])))
            if verb != "GET" and service != "hub":
                services.restore()
        seen.append((service, verb, url, " ".join(answers)))
    if os.environ.get("LABCOMMONS_WRITE_RIGHTS"):
        write(seen)
    assert [" ".join(row) for row in seen] == [
        " ".join((*row[:3], " ".join(row[3].split()))) for row in rows()
    ]


def write(seen: list[tuple[str, str, str, str]]) -> None:
    told = [f"# {name}: {what}" for name, what in IDENTITIES.items()]
    heads = list(IDENTITIES)
    lines = [
        "# The answer (HTTP status) to each request by each identity; see test_rights.py.",
        "# 401, 403, 404: refused, the last as if it were not there. 302: sent to the login.",
        "#", *told, "#",
        f"{'# service verb   url':<86} " + " ".join(heads),
    ]  # fmt: skip
    before = ""
    for service, verb, url, answers in seen:
        if service != before:
            lines.append("")
        before = service
        cells = (f"{a:>{len(h)}}" for a, h in zip(answers.split(), heads, strict=False))
        lines.append(f"{service:<9} {verb:<6} {url:<69} " + " ".join(cells))
    TABLE.write_text("\n".join(lines) + "\n")


def verbs(handler: type[RequestHandler]) -> list[str]:
    missing = RequestHandler._unimplemented_method
    return [verb for verb in VERBS if getattr(handler, verb.lower()) is not missing]


async def test_every_address_and_verb_is_in_the_table(services: Services) -> None:
    table = [(service, verb, url.split("?")[0]) for service, verb, url, _ in rows()]
    wanting = []
    for service, app in services.apps.items():
        prefix = {"console": console.PREFIX, "kernels": "/services/kernels/"}[service]
        for rule in app.wildcard_router.rules:
            for verb in verbs(rule.target):
                fits = [
                    url
                    for one, other, url in table
                    if (one, other) == (service, verb)
                    and rule.matcher.regex.match(f"{prefix}{url.format(**services.ids).strip('/')}")
                ]
                if not fits:
                    wanting.append(f"{service} {verb} {rule.matcher.regex.pattern}")
    for pattern, handler in default_handlers:
        for verb in verbs(handler):
            if not any(
                (service, other) == ("hub", verb)
                and re.fullmatch(pattern, f"/api/{url.removeprefix('/')}")
                for service, other, url in table
            ):
                wanting.append(f"hub {verb} {pattern}")
    assert not wanting, "\n".join(wanting)


@pytest.mark.parametrize("service", ["console", "kernels"])
def test_everything_that_the_api_describes_is_in_the_table(service: str) -> None:
    routes = {"console": console, "kernels": kernels}[service].ROUTES
    table = {(verb, url.split("?")[0]) for one, verb, url, _ in rows() if one == service}
    wanting = []
    for route, verb, _ in operations(routes):
        pattern = re.sub(r"\{[a-z]+\}", "[^/]+", route.path.removeprefix("/"))
        if not any(verb.upper() == other and re.fullmatch(pattern, url) for other, url in table):
            wanting.append(f"{verb.upper()} {route.path}")
    assert not wanting, "\n".join(wanting)


@pytest.mark.parametrize("verb", ["GET", "POST"])
@pytest.mark.parametrize(
    "page",
    [
        "course/ml101",
        "course-roster/ml101",
        "course-join/x",
        "course-room/ml101",
        "course-looks",
        "course-files/ml101",
    ],
)
async def test_no_token_opens_the_hubs_pages_of_courses(
    hub: StandInHub, page: str, verb: str
) -> None:
    """Kind: what runs in an instructor's or administrator's server is neither."""
    async with aiohttp.ClientSession() as client:
        for token in (hub.token("dan"), hub.server_token("carol"), hub.token("carol")):
            headers = {"Authorization": f"token {token}"}
            address = f"{hub.origin}/hub/{page}"
            async with client.request(
                verb, address, headers=headers, allow_redirects=False
            ) as answer:
                # To the login, as whoever is not signed in.
                assert answer.status == (302 if verb == "GET" else 403), await answer.text()
