"""Shared servers in a real hub: who may make, enter and start them; who has left is shut out."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from jupyterhub import orm
from jupyterhub.scopes import get_scopes_for
from sqlalchemy import select
from sqlalchemy.orm import Session
from tornado.httpclient import AsyncHTTPClient
from traitlets.config import Config

from commons import shared_accounts
from commons.audit import AuditTrail
from commons.errors import LabError, NotAvailable
from commons.principal import Principal
from commons.rights import Action, can
from commons.scopes import Scope
from commons.site import Site
from commons.site.directory import CoursePeople, Team
from commons.store import Lease, Store
from commons.store.models import SharedServer
from hub_ext.directory import accounts
from hub_ext.pages import jinja_environment_options, template_paths, template_vars
from hub_ext.shared_keeper import SharedKeeper
from rig.hub_in_memory import Lab, hub_lab
from spawner import shared_servers
from spawner.gpu import views
from spawner.shared_servers import State

T = TypeVar("T")

ML, VISION = Scope("course", "ml101"), Scope("team", "vision")
ACCOUNT = "_course-ml101"


@pytest.fixture
def site(site: Site) -> Site:
    groups = {"teams": {"vision": Team()}, "courses": {"ml101": CoursePeople()}}
    place = {"subdomains": True, "public_url": "https://lab.example.org"}
    return site.model_copy(
        update={
            "site": site.site.model_copy(update=place),
            "directory": site.directory.model_copy(update=groups),
        }
    )


@pytest.fixture
async def lab(tmp_path: Path, site: Site) -> AsyncIterator[Lab]:
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    config = Config()
    config.JupyterHub.template_paths = template_paths
    config.JupyterHub.template_vars = template_vars(site)
    config.JupyterHub.jinja_environment_options = jinja_environment_options
    async with hub_lab(store, site, tmp_path, config) as lab:
        be(lab, "alice", "course:ml101:students")
        be(lab, "bob", "course:ml101:students")
        be(lab, "dan", "course:ml101:instructors")
        yield lab
    store.close()


def be(lab: Lab, name: str, *groups: str) -> None:
    """Somebody is in these groups of the hub, and in no others."""
    user = lab.servers.new_account(name)
    user.sync_groups(list(groups))


class Trail(AuditTrail):
    """What was recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def record(self, event: Mapping[str, Any]) -> None:
        self.events.append(dict(event))

    def of(self, action: str) -> list[tuple[str, Any]]:
        return [
            (one["user"]["name"], one["labcommons"])
            for one in self.events
            if one["event"]["action"] == action
        ]


class Together:
    """A keeper, and one shared server of the course."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.trail, self.rosters = lab, Trail(), dict[str, Mapping[str, str]]()
        self.keeper = SharedKeeper(
            lab.app, lab.servers, lab.resources.store, lab.resources.site, self.trail, self._roster
        )

    async def _roster(self, name: str) -> Mapping[str, str]:
        return self.rosters.get(name, {})

    async def made(self, name: str = "project", **more: Any) -> None:
        await self.write(
            lambda s: shared_servers.save(
                s, ML, name, {"size": "small"}, self.lab.resources.site, "dan", **more
            )
        )

    async def write(self, work: Callable[[Session], T]) -> T:
        return await self.lab.resources.store.run(work)

    async def row(self, name: str = "project") -> SharedServer:
        return await self.lab.resources.store.read(lambda s: shared_servers.get(s, ML, name))

    async def asked(self, up: bool, by: str = "alice", name: str = "project") -> None:
        site = self.lab.resources.site
        await self.write(
            lambda s: shared_servers.ask(s, shared_servers.get(s, ML, name), up, by, site)
        )

    async def until(self, state: State, name: str = "project") -> SharedServer:
        async with asyncio.timeout(20):
            while (row := await self.row(name)).state != state:
                await self.keeper.look()
                await asyncio.sleep(0.01)
        return row

    async def running(self) -> None:
        await self.made()
        await self.asked(up=True)
        await self.until(State.RUNNING)


@pytest.fixture
async def together(lab: Lab) -> AsyncIterator[Together]:
    one = Together(lab)
    yield one
    await one.keeper.close()


async def test_a_member_has_it_started_as_nobody_of_them(together: Together, lab: Lab) -> None:
    await together.made()
    assert (await together.row()).state == State.STOPPED
    await together.asked(up=True)
    row = await together.until(State.RUNNING)
    assert (row.by, row.user_options["account"]) == ("alice", "course:ml101")
    [spec] = [one for one in lab.memory.specs.values() if one.user == ACCOUNT]
    number = shared_accounts.auth_state(ML)["uid"]
    assert (spec.account.uid, spec.account.gid, spec.server) == (number, number, "project")
    assert spec.scopes == ("shared", "course-ml101")
    assert spec.env["LABCOMMONS_TOGETHER"] == "1"
    assert spec.env["LABCOMMONS_MAIL"] == ""
    # Rules for the course's idle servers hold for it.
    [culled] = lab.servers.culled()
    assert culled.facts.groups == {"course-ml101"}
    # It ends by whoever may, and as whose doing is written.
    await together.asked(up=False, by="bob")
    assert (await together.until(State.STOPPED)).by == "bob"
    assert not lab.servers.known()


async def test_nobodys_own_server_is_one_for_several(lab: Lab) -> None:
    await lab.started(size="small")
    [spec] = lab.memory.specs.values()
    assert "LABCOMMONS_TOGETHER" not in spec.env


async def test_its_gpus_are_charged_to_the_course(together: Together, lab: Lab) -> None:
    store, site = lab.resources.store, lab.resources.site
    wanted = {"size": "small", "gpus": 1, "account": "user:alice"}
    await together.write(lambda s: shared_servers.save(s, ML, "project", wanted, site, "dan"))
    await together.asked(up=True)
    await together.until(State.RUNNING)
    [lease] = await store.read(lambda s: list(s.scalars(select(Lease))))
    assert (lease.username, lease.account) == (ACCOUNT, "course:ml101")
    [shown] = await store.read(
        lambda s: [views.lease(one, views.known(s), str) for one in s.scalars(select(Lease))]
    )
    assert shown["asked_by"] == "alice"


async def test_what_does_not_start_says_why(together: Together, lab: Lab) -> None:
    await together.made()

    def spoil(session: Session) -> None:
        row = shared_servers.get(session, ML, "project")
        row.user_options = {"size": "gigantic"}

    await together.write(spoil)
    await together.asked(up=True)
    row = await together.until(State.FAILED)
    assert row.reason is not None
    assert row.reason["code"] == "size_unknown"
    await together.asked(up=True)  # another try is possible
    assert (await together.row()).state == State.ASKED


async def test_one_that_ends_by_itself_is_not_started_again(together: Together, lab: Lab) -> None:
    await together.running()
    await lab.servers.stop(ACCOUNT, "project")  # as the culler does
    await together.until(State.STOPPED)
    await together.keeper.look()
    assert not lab.servers.known()


async def test_who_may_is_asked_of_the_hubs_groups_and_of_what_the_course_decides(
    together: Together, lab: Lab
) -> None:
    await together.running()
    await together.made("staff", leads_only=True)
    await together.keeper.look()

    def may(name: str) -> set[str]:
        """All that somebody may with the account and its servers."""
        lab.app.db.expire_all()
        found = get_scopes_for(lab.app.users[name].orm_user)
        return {scope for scope in found if ACCOUNT in scope}

    be(lab, "carol", "team:vision")
    project, staff = (f"access:servers!server={ACCOUNT}/{one}" for one in ("project", "staff"))
    # To go in, and nothing else: not to start, to stop, to have tokens.
    assert may("alice") == may("bob") == {project}
    assert may("dan") == {project, staff}
    assert may("carol") == set()
    # Nobody shares a server of their own: of shares people may see and leave what they have.
    shares = {s for s in get_scopes_for(lab.app.users["dan"].orm_user) if "shares" in s}
    assert {scope.split("!")[0] for scope in shares} == {
        "read:shares", "read:users:shares", "users:shares",
    }  # fmt: skip
    # A joiner is in, and a leaver out, without a restart or another word.
    be(lab, "carol", "course:ml101:students")
    be(lab, "bob")
    assert (may("carol"), may("bob")) == ({project}, set())
    # Who may go in can be changed while it runs.
    await together.made(leads_only=True)
    await together.keeper.look()
    assert (may("carol"), may("dan")) == (set(), {project, staff})


async def test_whoever_is_taken_off_the_roster_is_shut_out_and_the_others_go_on(
    together: Together, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    together.rosters |= {"alice": {"ml101": "student"}, "bob": {"ml101": "student"}}

    async def refresh(user: Any, _handler: object = None) -> dict[str, Any]:
        word = together.rosters[user.name].get("ml101")
        return {
            "name": user.name,
            "groups": [f"course:ml101:{word}s"] if word else [],
            "auth_state": None,
        }

    monkeypatch.setattr(lab.app.authenticator, "refresh_user", refresh)
    monkeypatch.setattr(lab.app.authenticator, "manage_groups", True)
    await together.running()
    lab.memory.inside |= {"alice", "bob"}
    await together.keeper.look()
    assert (await together.row()).people == ["alice", "bob"]
    entered = [(n, d["of"]) for n, d in together.trail.of("look")]
    assert entered == [("alice", ACCOUNT), ("bob", ACCOUNT)]
    await together.keeper.look()
    assert lab.memory.inside == {"alice", "bob"}

    together.rosters["bob"] = {}
    await together.keeper.look()
    assert lab.memory.inside == {"alice"}
    assert (await together.row()).people == ["alice"]
    shut_out = {"done": "shut-out", "scope": "course-ml101", "server": "project"}
    assert together.trail.of("shared-server-change") == [("bob", shut_out)]


async def test_whom_the_directory_bars_is_shut_out(
    together: Together, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await together.running()
    lab.memory.inside |= {"alice", "bob"}
    await together.keeper.look()

    async def refresh(user: Any, _handler: object = None) -> bool:
        return bool(user.name != "alice")

    monkeypatch.setattr(lab.app.authenticator, "refresh_user", refresh)
    together.rosters["alice"] = {"other": "student"}  # else it is asked half a minute later
    await together.keeper.look()
    assert lab.memory.inside == {"bob"}


async def test_a_server_that_lies_lets_nobody_in_and_accuses_nobody(
    together: Together, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await together.running()
    for answer in (
        b"[]",
        b'{"in": 1}',
        b"{" * 9999,
        b'{"in": {"eve": 1, "alice": 1}, "closed": [7, "zoe"]}',
    ):

        async def lie(*_: object, answer: bytes = answer, **__: object) -> Any:
            return SimpleNamespace(body=answer)

        monkeypatch.setattr(together.keeper._client, "fetch", lie)
        await together.keeper.look()
    assert (await together.row()).people == ["alice"]
    assert together.trail.of("shared-server-change") == []


def shared_roles(lab: Lab) -> list[orm.Role]:
    return [role for role in lab.app.db.query(orm.Role) if role.name.startswith("shared_")]


async def test_what_is_removed_leaves_nothing_in_the_hub(together: Together, lab: Lab) -> None:
    await together.running()

    def remove(session: Session) -> None:
        shared_servers.remove(session, shared_servers.get(session, ML, "project"))

    with pytest.raises(NotAvailable, match="Stop “project” first"):
        await together.write(remove)
    await together.asked(up=False)
    await together.until(State.STOPPED)
    await together.write(remove)
    async with asyncio.timeout(20):
        while list(lab.app.users[ACCOUNT].orm_spawners) != [""]:
            await together.keeper.look()
            await asyncio.sleep(0.01)
    assert shared_roles(lab) == []


async def test_without_a_host_for_each_server_there_is_none(together: Together, lab: Lab) -> None:
    site = lab.resources.site
    one_host = site.model_copy(update={"site": site.site.model_copy(update={"subdomains": False})})
    with pytest.raises(NotAvailable, match=r"site\.subdomains"):
        await together.write(lambda s: shared_servers.save(s, ML, "project", {}, one_host, "dan"))
    # One that was made before ends, and opens to nobody.
    await together.running()
    later = SharedKeeper(lab.app, lab.servers, lab.resources.store, one_host, together.trail, None)
    together.keeper = later
    await together.until(State.STOPPED)
    [role] = shared_roles(lab)
    assert role.groups == []


@pytest.mark.parametrize("name", ["", "Project", "a--b", "-a", "a b", "x" * 31, "../etc", "a/b"])
async def test_names_are_those_that_the_hub_takes(together: Together, name: str) -> None:
    with pytest.raises(LabError) as caught:
        await together.made(name)
    assert caught.value.code == "shared_name"


async def test_a_course_has_five_at_the_most(together: Together) -> None:
    for number in range(5):
        await together.made(f"p{number}")
    with pytest.raises(NotAvailable, match="has 5 shared servers already"):
        await together.made("p5")
    await together.made("p4", leads_only=True)  # a change is none more


ROLES = {
    "student": Principal.from_groups("s", False, ["course:ml101:students"]),
    "assistant": Principal.from_groups("t", False, ["course:ml101:assistants"]),
    "instructor": Principal.from_groups("i", False, ["course:ml101:instructors"]),
    "of another course": Principal.from_groups("o", False, ["course:art7:instructors"]),
    "removed": Principal("r"),
    "admin": Principal("a", admin=True),
    "a student's server": Principal("s", server=""),
    "the shared server": Principal(ACCOUNT, server="project"),
}
STAFF, ALL = {"assistant", "instructor", "admin"}, {"student", "assistant", "instructor", "admin"}


@pytest.mark.parametrize(
    ("leads_only", "members_run", "enter", "run"),
    [
        (False, True, ALL, ALL),
        (False, False, ALL, STAFF),
        (True, True, STAFF, STAFF),
        (True, False, STAFF, STAFF),
    ],
)
def test_the_matrix_of_rights(
    leads_only: bool, members_run: bool, enter: set[str], run: set[str]
) -> None:
    row = SharedServer(
        scope="course-ml101", name="project", leads_only=leads_only, members_run=members_run
    )
    assert {n for n, who in ROLES.items() if shared_servers.may_enter(who, row)} == enter
    assert {n for n, who in ROLES.items() if shared_servers.may_run(who, row)} == run
    assert {n for n, who in ROLES.items() if can(who, Action.MAKE_SHARED, ML)} == {
        "instructor",
        "admin",
    }
    groups = {"course:ml101:instructors", "course:ml101:assistants"}
    assert shared_servers.groups_in(row) == groups | (
        set() if leads_only else {"course:ml101:students"}
    )


async def test_one_link_leads_in_and_to_others_it_is_not_there(
    together: Together, lab: Lab
) -> None:
    await together.made()
    await together.keeper.look()
    async with lab.browser("alice") as alice:
        # Not running: to the page where it is started, from whichever of the hub's addresses.
        for path in ("shared/course-ml101/project", f"spawn/{ACCOUNT}/project"):
            answer = await alice.get(path)
            assert (answer.status, answer.headers["Location"]) == (
                302,
                "/services/labcommons/shared#course-ml101",
            )
        await together.asked(up=True)
        await together.until(State.RUNNING)
        answer = await alice.get("shared/course-ml101/project")
        assert answer.headers["Location"].endswith(f"/user/{ACCOUNT}/project/lab/workspaces/alice")
        home = await (await alice.get("home")).text()
        assert "/shared/course-ml101/project" in home
        assert "started by alice" in home
    be(lab, "carol", "team:vision")
    async with lab.browser("carol") as carol:
        for path in ("shared/course-ml101/project", "shared/course-ml101/none", "shared/team-x/a"):
            assert (await carol.get(path)).status == 404
        assert "ml101" not in await (await carol.get("home")).text()


async def test_before_somebody_goes_in_they_are_told_once_what_it_is(
    together: Together, lab: Lab
) -> None:
    await together.running()
    back = f"/user/{ACCOUNT}/project/oauth_callback"
    query = urlencode(
        {
            "client_id": f"jupyterhub-user-{ACCOUNT}-project",
            "redirect_uri": back,
            "response_type": "code",
            "state": "x",
        }
    )
    path = f"api/oauth2/authorize?{query}"
    async with lab.browser("alice") as alice:
        page = await (await alice.get(path)).text()
        assert "This is a shared server: Course ml101." in page
        assert "nothing of your home, your environments or your tokens" in page
        scopes = re.findall(r'name="scopes" value="([^"]+)"', page)
        allowed = await alice.send(path, {"scopes": scopes[0]})
        assert allowed.headers["Location"].startswith(back)
    # The server gets a token for that, which opens it, and nothing else of alice's.
    [code] = parse_qs(urlsplit(allowed.headers["Location"]).query)["code"]
    asked = {
        "client_id": f"jupyterhub-user-{ACCOUNT}-project",
        "client_secret": lab.spawner(ACCOUNT, "project").api_token,
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": back,
    }
    answer = await AsyncHTTPClient().fetch(
        f"{lab._hub}api/oauth2/token", method="POST", body=urlencode(asked)
    )
    _, model = await lab.rest("GET", "user", token=json.loads(answer.body)["access_token"])
    opens = f"access:servers!server={ACCOUNT}/project"
    assert set(model["scopes"]) == {
        opens,
        "read:users:name!user=alice",
        "read:users:groups!user=alice",
    }
    be(lab, "alice")
    _, model = await lab.rest("GET", "user", token=json.loads(answer.body)["access_token"])
    assert opens not in model["scopes"]
    be(lab, "carol", "team:vision")
    async with lab.browser("carol") as carol:
        assert (await carol.get(path)).status == 403


def test_an_account_has_a_name_that_no_directory_has_and_numbers_of_its_own() -> None:
    names = {shared_accounts.name_of(scope) for scope in (ML, VISION, Scope("course", "vision"))}
    assert len(names) == 3
    for name in names:
        assert not accounts._NAME.fullmatch(name)
        scope = shared_accounts.scope_of(name)
        assert scope is not None
        assert shared_accounts.name_of(scope) == name
    for name in (
        "alice",
        "course-ml101",
        "_personal",
        "_shared",
        "_image",
        "_",
        "_course-",
        "_x-y",
    ):
        assert shared_accounts.scope_of(name) is None
    numbers = {shared_accounts.auth_state(scope)["uid"] for scope in (ML, VISION)}
    assert len(numbers) == 2
    who = shared_accounts.principal(ML)
    assert (who.admin, dict(who.positions)) == (False, {ML: "student"})
