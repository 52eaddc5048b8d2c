"""The room of a course: who sees it, what it shows, and what it may do with whose servers."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, HTTPError, RequestHandler
from traitlets.config import Config

from commons.errors import BadRequest
from commons.site import CoursePeople, Site
from commons.store import GpuNotice, Lease, Store, ends
from commons.store.models import CourseLook
from courses import looks, people, records
from courses.document import check_course
from hub_ext import pages
from hub_ext.course_room import Place, as_csv
from rig.hub_in_memory import TOKEN, Lab, hub_lab

ROOM = "courses/ml101/room"


@pytest.fixture
async def lab(site: Site, tmp_path: Path) -> AsyncIterator[Lab]:
    """alice and bob are students, carol assists, dan teaches, eve is on the roster alone."""
    courses = {"ml101": CoursePeople(students=["ml101"]), "art7": CoursePeople()}
    directory = site.directory.model_copy(update={"courses": courses})
    site = site.model_copy(update={"directory": directory})
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    store.transact(lambda s: people.apply(s, "ml101", {"eve": "student"}, "dan", False))
    config = Config()
    config.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0, "slow_stop_timeout": 10}
    config.JupyterHub.template_paths = pages.template_paths
    config.JupyterHub.template_vars = pages.template_vars(site)
    config.JupyterHub.jinja_environment_options = pages.jinja_environment_options
    config.JupyterHub.load_groups = {
        "course:ml101:students": {"users": ["alice", "bob"]},
        "course:ml101:assistants": {"users": ["carol"]},
        "course:ml101:instructors": {"users": ["dan"]},
    }
    console = {"name": "labcommons", "api_token": "of-the-console"}
    config.JupyterHub.services = [{"name": "test", "api_token": TOKEN}, console]
    config.JupyterHub.load_roles = [
        {"name": "test", "scopes": ["admin:users", "admin:servers"], "services": ["test"]},
        {"name": "user", "scopes": ["self", "access:services!service=labcommons"]},
    ]
    async with hub_lab(store, site, tmp_path, config) as lab:
        for name in ("alice", "bob", "carol", "dan"):

            async def at_login() -> dict[str, Any]:
                return {"courses": {"ml101": "student"}}

            lab.app.users[name].get_auth_state = at_login
        yield lab
        await lab.app.tornado_settings["room"].acts.close()
    store.close()


def token(lab: Lab, name: str, *scopes: str) -> str:
    found = lab.app.users[name].new_api_token(scopes=list(scopes) or None)
    assert isinstance(found, str)
    return found


async def seen(lab: Lab, name: str = "dan") -> dict[str, Any]:
    status, answer = await lab.rest("GET", ROOM, token=token(lab, name))
    assert status == 200, answer
    return {one["who"]: one for one in answer["people"]}


async def act(lab: Lab, name: str, do: str, *who: str, **more: Any) -> dict[str, Any]:
    body = {"do": do, "who": list(who), **more}
    status, answer = await lab.rest("POST", ROOM, body, token=token(lab, name))
    assert status == 200, answer
    return {
        "done": answer["done"],
        "left": {one["who"]: one["reason"]["code"] for one in answer["left"]},
    }


async def start(lab: Lab, user: str, server: str = "", **options: Any) -> None:
    await lab.servers.start(user, server, options)
    await lab.until(lambda: lab.spawner(user, server).ready)


async def test_a_room_has_everybody_and_their_servers_of_the_course_alone(lab: Lab) -> None:
    await start(lab, "alice", course="ml101", size="small", gpus=1)
    await start(lab, "bob", size="large")
    await start(lab, "carol", size="small")
    await start(lab, "carol", "ml101", course="ml101")
    found = await seen(lab)
    assert {who: (one["position"], one["state"]) for who, one in found.items()} == {
        "alice": ("student", "running"),
        "bob": ("student", "other"),
        "carol/ml101": ("assistant", "running"),
        "dan": ("instructor", "none"),
        "eve": ("student", "none"),
    }
    assert found["bob"]["size"] == "", "of another server nothing is told"
    assert found["alice"]["started"]
    assert (found["alice"]["size"], found["alice"]["gpus"]) == ("small", 1)
    asking = lab.app.tornado_settings["room"]._meter.asking
    await lab.until(lambda: not len(asking))
    assert (await seen(lab))["alice"]["memory"] == 2**20


async def test_who_sees_it(lab: Lab) -> None:
    for name, status in (("alice", 403), ("carol", 200), ("dan", 200)):
        assert (await lab.rest("GET", ROOM, token=token(lab, name)))[0] == status, name
    assert (await lab.rest("GET", "courses/art7/room", token=token(lab, "dan")))[0] == 403
    assert (await lab.rest("GET", "courses/no/room", token=token(lab, "dan")))[0] in (403, 404)
    # A token for something else, a service's, a server's own: none of these.
    await start(lab, "dan", course="ml101")
    for other in (
        token(lab, "dan", "servers!user"),
        "of-the-console",
        TOKEN,
        lab.spawner("dan").api_token,
    ):
        assert (await lab.rest("GET", ROOM, token=other))[0] == 403
        body = {"do": "stop", "who": ["dan"]}
        assert (await lab.rest("POST", ROOM, body, token=other))[0] == 403


async def test_only_servers_of_the_course_are_stopped_and_an_assistant_stops_students_alone(
    lab: Lab,
) -> None:
    for name in ("alice", "dan", "carol"):
        await start(lab, name, course="ml101")
    await start(lab, "bob", size="small")
    who = ("alice", "bob", "dan", "eve", "mallory")
    told = await act(lab, "carol", "stop", *who, message="The room closes.")
    assert told == {
        "done": ["alice"],
        "left": {
            "bob": "room_not_here", "dan": "room_not_a_student", "eve": "room_not_here",
            "mallory": "room_not_in_course",
        },
    }  # fmt: skip
    await lab.until(lambda: ("alice", "") not in lab.servers.known())
    assert {("bob", ""), ("dan", ""), ("carol", "")} <= lab.servers.known()
    end = await lab.resources.store.read(lambda s: ends.last(s, "alice", ""))
    assert end is not None
    assert (end.cause, end.by, end.message) == ("stopped_by", "carol", "The room closes.")
    assert (await act(lab, "carol", "stop", "carol"))["done"] == ["carol"], "her own she may"
    assert (await act(lab, "dan", "stop", "dan", "bob"))["done"] == ["dan"]


async def test_a_restart_has_the_server_again_with_what_it_had(lab: Lab) -> None:
    await start(lab, "alice", course="ml101", size="large")
    before = lab.spawner("alice").container_ref
    assert (await act(lab, "dan", "restart", "alice", "bob"))["left"] == {"bob": "room_not_here"}
    await lab.until(
        lambda: lab.spawner("alice").ready and lab.spawner("alice").container_ref != before
    )
    options = lab.spawner("alice").user_options
    assert (options["course"], options["size"]) == ("ml101", "large")


async def test_a_message_reaches_whom_it_is_for_also_without_a_server(lab: Lab) -> None:
    told = await act(lab, "carol", "message", "alice", "eve", "dan", message="Open part\n2 <b>.")
    assert told == {"done": ["alice", "eve", "dan"], "left": {}}
    rows = await lab.resources.store.read(lambda s: s.query(GpuNotice).all())
    assert {one.username for one in rows} == {"alice", "eve", "dan"}
    assert rows[0].data == {"by": "carol", "course": "ml101", "message": "Open part 2 <b>."}


async def test_more_time_is_for_servers_that_end(lab: Lab) -> None:
    await start(lab, "alice", course="ml101", gpus=1, time_limit=60)
    await start(lab, "bob", course="ml101")

    def ends_at() -> Any:
        [lease] = lab.resources.store.transact(lambda s: s.query(Lease).all(), read=True)
        return lease.ends_at

    before = ends_at()
    told = await act(lab, "dan", "extend", "alice", "bob", by="30m")
    assert told == {"done": ["alice"], "left": {"bob": "room_no_end"}}
    assert ends_at() - before == timedelta(minutes=30)


async def test_what_cannot_be_is_told(lab: Lab) -> None:
    for body, said in (
        ({}, "is nothing that can be done"),
        ({"do": "remove", "who": ["alice"]}, "“remove” is nothing that can be done here"),
        ({"do": "stop", "who": []}, "Choose somebody"),
        ({"do": "stop", "who": "alice"}, "Choose somebody"),
        ({"do": "message", "who": ["alice"]}, "at most 500 characters"),
        ({"do": "message", "who": ["alice"], "message": "x" * 501}, "at most 500 characters"),
        ({"do": "extend", "who": ["alice"], "by": "5h"}, "4 hours"),
        ({"do": "extend", "who": ["alice"], "by": "soon"}, "4 hours"),
    ):
        status, answer = await lab.rest("POST", ROOM, body, token=token(lab, "dan"))
        assert (status, said in answer["message"]) == (400, True), answer


async def test_the_page_asks_before_it_does_and_says_what_it_did(lab: Lab) -> None:
    await start(lab, "alice", course="ml101")
    async with lab.browser("alice") as alice:
        assert (await alice.get("course-room/ml101")).status == 403
    async with lab.browser("carol") as carol:
        page = await (await carol.get("course-room/ml101")).text()
        assert 'value="alice"' in page
        asks = await carol.send("course-room/ml101", {"do": "stop", "who": "alice"})
        assert "Kernels and terminals in these servers end" in await asks.text()
        assert lab.spawner("alice").ready
        none = await carol.send("course-room/ml101", {"do": "stop"})
        assert (none.status, "Choose somebody first" in await none.text()) == (400, True)
        did = await carol.send("course-room/ml101", {"do": "stop", "who": "alice", "sure": "yes"})
        assert "Being stopped: alice" in " ".join((await did.text()).split())
        await lab.until(lambda: ("alice", "") not in lab.servers.known())
        status, found = await lab.rest("GET", f"{ROOM}?part=rows", token=token(lab, "carol"))
        assert (status, found["rows"].lstrip()[:3]) == (200, "<tr")
        table = await carol.get("course-room/ml101?part=csv")
        assert table.headers["Content-Type"].startswith("text/csv")
        assert "eve,student,none" in await table.text()


class Notebooks(RequestHandler):
    """A student's server, as it answers who has its token."""

    asked: ClassVar[list[str]] = []

    def get(self, what: str) -> None:
        if self.request.headers.get("Authorization") != "token its-own":
            raise HTTPError(403)
        self.asked.append(self.request.uri or "")
        cell = {"cell_type": "code", "source": "<b>answer</b> = 42", "outputs": []}
        content = {"content": {"cells": [cell]}}
        self.finish(json.dumps([{"path": "a b.ipynb"}, {"path": "../x.ipynb"}, {}])
                    if what.startswith("sessions") else json.dumps(content))  # fmt: skip


async def test_a_look_at_a_notebook_is_asked_for_allowed_and_ended_by_the_student(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(lab, "alice", course="ml101")
    socket, port = bind_unused_port()
    server = HTTPServer(Application([("/api/(.*)", Notebooks)]))
    server.add_socket(socket)

    async def whereabouts() -> tuple[str, str]:
        return f"http://127.0.0.1:{port}/", "its-own"

    monkeypatch.setattr(lab.spawner("alice"), "whereabouts", whereabouts)
    told = await act(lab, "carol", "look", "alice", "bob")
    assert told == {"done": ["alice"], "left": {"bob": "room_not_here"}}
    await act(lab, "carol", "look", "alice")  # once more: the same question
    [asked] = lab.resources.store.transact(lambda s: [x.id for x in s.query(CourseLook)], read=True)
    address = f"course-look/{asked}"

    async with lab.browser("alice") as alice, lab.browser("carol") as carol:

        async def seen(who: Any = carol) -> str:
            return await (await who.get(address)).text()

        assert "have not answered yet" in await seen()
        assert "Looks at notebooks" in await (await carol.get("course-room/ml101")).text()
        page = await (await alice.get("course-looks")).text()
        assert ('value="a b.ipynb"' in page, "../x" in page) == (True, False)
        for path in ("../../etc/x.ipynb", "x.py", "/etc/x.ipynb", ""):
            fields = {"do": "allow", "look": asked, "other": path}
            assert (await alice.send("course-looks", fields)).status == 400, path
        # Nobody else allows it, and nobody else sees it.
        async with lab.browser("dan") as dan:
            fields = {"do": "allow", "look": asked, "path": "a b.ipynb"}
            assert (await dan.send("course-looks", fields)).status == 404
            assert (await dan.get(address)).status == 404
        assert (await alice.get(address)).status == 404
        done = await alice.send("course-looks", {"do": "allow", "look": asked, "path": "a b.ipynb"})
        assert done.status == 302
        assert (
            "may read a notebook of yours until" in await (await alice.get("course-looks")).text()
        )
        text = await seen()
        assert "sandbox srcdoc=" in text
        assert "&amp;lt;b&amp;gt;answer" in text
        assert Notebooks.asked[-1] == "/api/contents/a%20b.ipynb?type=notebook&content=1"
        notices = lab.resources.store.transact(
            lambda s: {one.code: one.seen_at for one in s.query(GpuNotice)}, read=True
        )
        assert (notices["look_asked"] is not None, notices["look_on"]) == (True, None)
        await alice.send("course-looks", {"do": "end", "look": asked})
        before = len(Notebooks.asked)
        assert "The look is over" in await seen()
        assert len(Notebooks.asked) == before
        # A refusal, and one that nobody has answered in time.
        await act(lab, "carol", "look", "alice")
        second = lab.resources.store.transact(
            lambda s: next(x.id for x in s.query(CourseLook) if x.id != asked), read=True
        )
        await alice.send("course-looks", {"do": "refuse", "look": second})
        assert "They have refused" in await (await carol.get(f"course-look/{second}")).text()
    server.stop()


async def test_who_runs_something_else_starts_the_courses_server_beside_it(lab: Lab) -> None:
    spec = check_course(
        {
            "version": 1, "course": "ml101", "title": {"en": "ML"}, "timezone": "UTC",
            "term": {"first": "2031-01-06", "last": "2031-02-28"}, "size": "large",
        }
    )  # fmt: skip
    site = lab.resources.site
    await lab.resources.store.run(lambda s: records.apply(s, spec, "dan", site))
    await start(lab, "alice", size="small")
    async with lab.browser("alice") as alice:
        page = await (await alice.get("course/ml101")).text()
        assert "Your server runs with something else" in page
        [action] = re.findall('action="(/hub/spawn/[^"]+)"', page)
        asks = await alice.send(unescape(action).removeprefix("/hub/"), {"confirmed": "yes"})
        assert asks.status in (200, 302), await asks.text()
        assert "ml101" in lab.app.users["alice"].orm_spawners, "its form is shown"
        assert lab.spawner("alice").ready


def test_a_look_is_over_by_itself(site: Site, tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    now = datetime(2026, 11, 3, 10)
    look = store.transact(lambda s: looks.ask(s, "ml101", "alice", "", "dan", now).id)
    later = now + looks.ASKED_FOR
    with pytest.raises(BadRequest, match="over"):
        store.transact(lambda s: looks.answer(s, look, "alice", "a.ipynb", later))
    store.transact(lambda s: looks.answer(s, look, "alice", "a.ipynb", now))

    def state(at: datetime) -> str:
        return store.transact(
            lambda s: looks.state_of(looks.seen_by(s, look, "dan"), at), read=True
        )

    assert state(now + looks.ALLOWED_FOR - timedelta(seconds=1)) == "allowed"
    assert state(now + looks.ALLOWED_FOR) == "ended"
    with pytest.raises(BadRequest):
        store.transact(lambda s: looks.answer(s, look, "alice", "b.ipynb", now))
    store.close()


def test_no_cell_is_a_formula() -> None:
    place = Place("=cmd()", "student", environment="@x", server="-1", gpu_percent=3.5)
    text = as_csv([place], {"=cmd()": 1.5})
    assert text.startswith("\ufefflogin,position")
    assert text.splitlines()[1] == "'=cmd(),student,none,'-1,'@x,,,,,,0,3.5,,1.5"
    assert json.loads(json.dumps(place.as_json()))["who"] == "=cmd()/-1"
