"""Notebooks that people send each other, by REST and from one server to another."""

from __future__ import annotations

import importlib
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.sign import NotebookNotary
from sqlalchemy import select

from commons import notices
from commons.i18n import gettext_for
from commons.store.models import SentNotebook
from hub_ext.console import inbox
from hub_ext.console.app import PREFIX
from hub_ext.console.notice_api import WORDS

from .conftest import GROUPS, Console, fill
from .test_notices import EXTENSION, notebook

# Of the server image.
sys.path.insert(0, str(EXTENSION))
labcommons_sending: Any = importlib.import_module("labcommons_sending")

HOSTILE = {
    "cell_type": "code", "id": "a", "source": "1", "execution_count": 1,
    "metadata": {"trusted": True},
    "outputs": [{"output_type": "display_data", "metadata": {},
                 "data": {"text/html": "<script>alert(1)</script>"}}],
}  # fmt: skip
TEXT: dict[str, Any] = {
    "nbformat": 4, "nbformat_minor": 5, "cells": [HOSTILE],
    "metadata": {"kernelspec": {"name": "conda-image-r45-ir", "display_name": "R"}},
}  # fmt: skip


def parcel(**changed: Any) -> dict[str, Any]:
    found = {"to": "bob", "name": "études.ipynb", "environment": "r45:1", "notebook": TEXT}
    found |= changed
    if isinstance(found["notebook"], dict):
        found["notebook"] = inbox.pack(found["notebook"])
    return found


async def send(console: Console, token: str = "alice-server-token", **changed: Any) -> int:
    answer = await console.send("POST", "api/v1/inbox", token, parcel(**changed))
    return answer.code


async def test_a_colleague_is_told_and_nobody_else_can_read_it(console: Console) -> None:
    """Kind: who gets what was sent."""
    assert await send(console) == 200
    [notice] = (await console.json("api/v1/notices", "bob-token"))["notices"]
    assert "alice sends you the notebook “études.ipynb”, made in r45:1" in notice["sentence"]
    address = f"api/v1/inbox/{notice['notebook']}"
    assert json.loads((await console.json(address, "bob-token"))["notebook"])["nbformat"] == 4
    for token in ("alice-token", "carol-token", "dan-token"):
        assert (await console.get(address, token)).code == 404


@pytest.mark.parametrize("to", ["zoe", "dan2", "team-speech", "course-x", "x/../y"])
async def test_strangers_are_refused_as_those_who_do_not_exist(console: Console, to: str) -> None:
    """Kind: people and groups that the sender has nothing in common with, or may not address."""
    answer = await console.send("POST", "api/v1/inbox", "alice-token", parcel(to=to))
    assert answer.code == 403
    assert f"no team or course in common with “{to}”" in json.loads(answer.body)["error"]["message"]


async def test_a_team_gets_it_and_a_course_from_who_teaches_it(console: Console) -> None:
    """Kind: groups as receivers."""
    for sender, to, names in (
        ("alice", "team-vision", ["bob", "erin"]),
        ("dan", "course-ml101", ["alice", "s01"]),
    ):
        answer = await console.send("POST", "api/v1/inbox", f"{sender}-token", parcel(to=to))
        assert json.loads(answer.body) == {"sent": len(names), "group": True}
        query = select(SentNotebook.username).where(SentNotebook.sender == sender)
        sent = console.store.transact(lambda s, query=query: list(s.scalars(query)))
        assert sorted(sent) == names


@pytest.mark.parametrize("to", [" bob ", "Bob", "BOB\t"])
async def test_a_person_is_found_however_their_name_is_typed(console: Console, to: str) -> None:
    """Kind: the name as at login, where capitals and spaces around it are no others."""
    assert await send(console, to=to) == 200
    refuse = {"sender": " ALICE"}
    assert (await console.send("POST", "api/v1/inbox/refused", "bob-token", refuse)).code == 200
    assert await send(console, to=to) == 403


@pytest.mark.parametrize(
    ("to", "words"),
    [("alice", "“alice” is you"), ("Alice ", "is you"), ("course-ml101", "only its instructors")],
)
async def test_who_cannot_be_sent_to_is_said_with_the_true_reason(
    console: Console, to: str, words: str
) -> None:
    """Kind: refusals whose reason is another than that there is nothing in common."""
    answer = await console.send("POST", "api/v1/inbox", "alice-token", parcel(to=to))
    assert answer.code == 403
    assert words in json.loads(answer.body)["error"]["message"]


async def test_a_team_of_which_nobody_takes_any_is_not_said_to_have_got_it(
    console: Console,
) -> None:
    """Kind: successes that are none."""
    for name in ("bob", "erin"):
        console.store.transact(lambda s, name=name: inbox.refuse(s, name, "alice", True))
    assert await send(console, to="team-vision") == 403


async def test_a_group_of_which_nobody_else_has_signed_in_is_told_apart(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind: a course before its first hour."""
    monkeypatch.setitem(GROUPS, "course:ml101:students", [])
    answer = await console.send("POST", "api/v1/inbox", "dan-token", parcel(to="course-ml101"))
    assert answer.code == 403
    assert "nobody of “course-ml101” has signed in" in json.loads(answer.body)["error"]["message"]


def test_a_long_name_has_room_for_one_more_copy(tmp_path: Path) -> None:
    """Kind: names that are as long as a file's may be, in letters of several bytes."""
    for name in ("图" * 83 + ".ipynb", "图" * 150 + ".ipynb"):
        made = [labcommons_sending.write(tmp_path, name, "{}") for _ in range(2)]
        assert len(set(made)) == 2
        assert all((tmp_path / one).read_text() == "{}" for one in made)


async def test_who_wants_no_more_of_somebody_gets_no_more(console: Console) -> None:
    """Kind: the receiver's consent."""
    assert await send(console) == 200
    refuse = {"sender": "alice"}
    assert (await console.send("POST", "api/v1/inbox/refused", "bob-token", refuse)).code == 200
    assert await console.json("api/v1/inbox", "bob-token") == {
        "notebooks": [],
        "refused": ["alice"],
    }
    assert await send(console) == 403
    again = {"sender": "alice", "refused": False}
    assert (await console.send("POST", "api/v1/inbox/refused", "bob-token", again)).code == 200
    assert await send(console) == 200


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "../x.ipynb"}, {"name": ".x.ipynb"}, {"name": "x.py"}, {"name": "a\n.ipynb"},
        {"name": "\u202ebypni.ipynb"}, {"notebook": "no base64!"}, {"notebook": {"cells": []}},
        {"notebook": {"nbformat": 4, "cells": [1]}},
        {"notebook": {"nbformat": 4, "cells": [], "x": "a" * inbox.MOST_TEXT}},
    ],
    ids=range(9),
)  # fmt: skip
async def test_what_is_no_notebook_is_refused(console: Console, changed: dict[str, Any]) -> None:
    """Kind: names and contents that no file of ours may have, bombs among them."""
    assert await send(console, **changed) == 400


def test_there_is_a_bound_to_what_is_sent_and_waits(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind: limits of count."""
    one = inbox.read("a.ipynb", "x:1", inbox.pack(TEXT))
    monkeypatch.setattr(inbox, "WAITING", 2)
    monkeypatch.setattr(inbox, "AT_ONCE", 3)

    def go(sender: str, *to: str) -> int:
        alone = len(to) == 1
        return console.store.transact(lambda s: inbox.send(s, sender, to, one, alone))

    assert [go("alice", "bob"), go("alice", "bob")] == [1, 1]
    with pytest.raises(inbox.NotAllowed, match="takes no more"):
        go("alice", "bob")
    assert go("dan", "bob", "erin") == 1
    with pytest.raises(inbox.NotAllowed, match="in this hour"):
        go("alice", "erin", "dan")


async def test_what_was_sent_is_opened_as_the_persons_own_file_and_not_trusted(
    console: Console, tmp_path: Path
) -> None:
    """Kind: hostile notebooks, and links where they are written."""
    await send(console, "bob-token", to="alice")
    await send(console, "bob-token", to="alice")
    first, second = [
        one.notebook
        for one in console.store.transact(lambda s: notices.show(s, "alice", str))[::-1]
    ]
    home = tmp_path / "home"
    (home / "inbox").mkdir(parents=True)
    (home / "inbox" / "études.ipynb").symlink_to(tmp_path / "elsewhere")
    async with notebook(home, f"{console.origin}{PREFIX}") as server:
        status, opened = await server.get(
            f"labcommons/inbox/{first}/open", method="POST", body="{}"
        )
        assert (status, opened["path"]) == (200, "inbox/études-1.ipynb")
        assert (opened["missing"], opened["environment"]) == ("environment", "r45:1")
        # It waits no more, and its notice is done with.
        left = console.store.transact(
            lambda s: [one.notebook for one in notices.show(s, "alice", str) if not one.seen]
        )
        assert left == [second]
        again, said = await server.get(f"labcommons/inbox/{first}/open", method="POST", body="{}")
        assert (again, said["error"]["code"]) == (404, "no_such_notebook")
        assert not (tmp_path / "elsewhere").exists()
        file = home / opened["path"]
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
        found = nbformat.read(file, 4)
        assert not NotebookNotary(data_dir=str(tmp_path)).check_cells(found)
        _, seen = await server.get("api/contents/inbox/%C3%A9tudes-1.ipynb")
        assert seen["content"]["cells"][0]["metadata"]["trusted"] is False
        (home / "inbox").rename(home / "old")
        (home / "inbox").symlink_to(tmp_path)
        status, said = await server.get(f"labcommons/inbox/{second}/open", method="POST", body="{}")
        assert (status, said["code"]) == (409, "inbox_unusable")
        assert not list(tmp_path.glob("*.ipynb"))
        # And the other way: from this server to a colleague.
        (home / "mine.ipynb").write_text(json.dumps(TEXT))
        body = json.dumps({"path": "mine.ipynb", "to": "bob"})
        status, said = await server.get("labcommons/send", method="POST", body=body)
        assert (status, said) == (200, {"sent": 1, "group": False})


def _lay(home: Path, kind: str) -> None:
    """A file ``x.ipynb`` of some kind."""
    file = home / "x.ipynb"
    match kind:
        case "fifo":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case "link to a device":
            file.symlink_to("/dev/zero")
        case "a hole of 3 TB":
            with file.open("wb") as out:
                out.truncate(3 * 10**12)
        case "deep":
            file.write_text('{"a":' * 100_000)
        case "no text":
            file.write_bytes(b"\xff\xfe\x00")
        case "much output":
            cell = {**HOSTILE, "outputs": [{"output_type": "stream", "name": "stdout",
                    "text": os.urandom(2**21).hex()}]}  # fmt: skip
            file.write_text(json.dumps({**TEXT, "cells": [cell]}))


@pytest.mark.parametrize(
    ("kind", "outputs", "code"),
    [
        ("nothing", True, "not_a_notebook_file"),
        ("fifo", True, "not_a_notebook_file"),
        ("folder", True, "not_a_notebook_file"),
        ("link to a device", True, "not_a_notebook_file"),
        ("link to a device", False, "not_a_notebook_file"),
        ("a hole of 3 TB", True, "too_large"),
        ("a hole of 3 TB", False, "too_large_to_read"),
        ("deep", True, "not_a_notebook_file"),
        ("no text", True, "not_a_notebook_file"),
        ("much output", True, "too_large"),
        ("much output", False, ""),
    ],
)
def test_what_is_no_notebook_is_not_waited_for_nor_read(
    tmp_path: Path, kind: str, outputs: bool, code: str
) -> None:
    """Kind: files that block, never end, or are too much, in the place of a notebook."""
    _lay(tmp_path, kind)
    place = tmp_path / "x.ipynb"
    if not code:
        sent = inbox.read("x.ipynb", "r45:1", labcommons_sending.pack(place, bare=not outputs))
        assert sent.size < 2000
        return
    with pytest.raises(labcommons_sending.Fault, match=f"^{code}$"):
        labcommons_sending.pack(place, bare=not outputs)
    # Which the browser says in its person's language.
    assert code in labcommons_sending.FAULTS.keys() & WORDS.keys()


def test_every_fault_has_words_in_both_languages() -> None:
    for code in labcommons_sending.FAULTS:
        assert gettext_for("zh_CN")(WORDS[code]) != WORDS[code]


def test_a_disk_that_is_full_leaves_no_half_of_a_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    (tmp_path / "inbox").mkdir()
    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(labcommons_sending.Fault, match="inbox_unusable"):
        labcommons_sending.write(tmp_path, "x.ipynb", "{}")
    assert list((tmp_path / "inbox").iterdir()) == []


async def test_a_thousand_sends_are_a_few_that_arrive(console: Console) -> None:
    """Kind: a script that sends and sends; the others' inboxes stay usable."""
    one = inbox.read("a.ipynb", "x:1", inbox.pack(TEXT))

    def go(session: Any, to: str) -> int:
        try:
            return inbox.send(session, "alice", [to], one, True)
        except inbox.NotAllowed:
            return 0

    def work(session: Any) -> int:
        return sum(go(session, f"s{n:03}") for n in range(1000))

    assert console.store.transact(work) == inbox.AT_ONCE
    shown = await console.json("api/v1/inbox", "bob-token")
    assert shown["notebooks"] == []


async def test_of_an_account_that_is_gone_nothing_is_said_and_its_notebooks_stay(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind: senders and receivers who are removed meanwhile."""
    assert await send(console) == 200
    monkeypatch.setitem(GROUPS, "team:vision", ["bob", "erin"])
    monkeypatch.setitem(GROUPS, "course:ml101:students", [])
    # The sender is gone: what was sent is the receiver's.
    [sent] = (await console.json("api/v1/inbox", "bob-token"))["notebooks"]
    assert (await console.get(f"api/v1/inbox/{sent['id']}", "bob-token")).code == 200
    # And as one who never was, for who would send to them.
    assert await send(console, "bob-token", to="alice") == 403


async def test_the_page_lists_what_waits_and_what_can_be_done(console: Console) -> None:
    """Kind: receivers, with the environment, without it, with another version; hostile names."""
    console.store.transact(fill)
    empty = (await console.get("inbox", "bob-token")).body.decode()
    assert "Nothing waits for you" in empty
    for environment in ("py313-data:20261121-ab12cd34", "py313-data:1", "r45:1"):
        assert await send(console, environment=environment) == 200
    assert await send(console, name="<b>x.ipynb") == 200
    page = (await console.get("inbox", "bob-token")).body.decode()
    for link in (
        "/hub/spawn/bob?environment=py313-data%3A20261121-ab12cd34&amp;next=%2Fhub%2Fuser%2Fbob",
        "/hub/spawn/bob?environment=py313-data&amp;next=",
        "/hub/spawn/bob?next=",
        "This version of the environment is not offered any more",
        "This environment is not available to you",
        "&lt;b&gt;x.ipynb",
    ):
        assert link in page
    assert "<b>x" not in page


async def test_who_refuses_everybody_is_bounded(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MOST_REFUSED", 1)
    for sender, code in (("alice", 200), ("alice", 200), ("eve", 403)):
        answer = await console.send("POST", "api/v1/inbox/refused", "bob-token", {"sender": sender})
        assert answer.code == code
