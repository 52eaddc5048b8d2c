"""Environments over the console's REST API and page: who is shown what, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tornado.httpclient import AsyncHTTPClient

from commons import holes
from commons.scopes import SHARED, Scope, personal
from commons.signatures import dsse, statement
from commons.signatures.statement import Facts, Identity
from commons.site import Builds
from commons.store.environments import BuildState
from environments import catalog, policy
from environments.builds import messages, queue, repository
from environments.messages import making, rules
from hub_ext.console.app import PREFIX

from .conftest import HOSTILE, Console

SPEC = "name: theirs\nchannels: [conda-forge]\ndependencies: [python 3.13.*, ipykernel]\n"
VISION = Scope("team", "vision")


async def send(
    console: Console, method: str, path: str, token: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    answer = await AsyncHTTPClient().fetch(
        f"{console.origin}{PREFIX}api/v1/{path}",
        method=method,
        headers={"Authorization": f"token {token}", **headers},
        body=json.dumps(body) if body is not None else (None if method != "POST" else "{}"),
        raise_error=False,
    )
    return answer.code, json.loads(answer.body) if answer.body else None


def put(
    console: Console,
    scope: Scope,
    name: str,
    version: str = "20261121-aa",
    kept: Collection[str] = (),
    **more: object,
) -> None:
    facts = {
        "python": "3.13.5", "lock_digest": "ab", "size": 3 * 2**20, "spec": SPEC, "words": "",
        "lock": "the lock", "packages": [{"name": "numpy", "version": "2.3", "channel": "c"}],
        "kernels": {}, "findings": [], "origin": None,
        "exports": {"environment.yml": f"name: {name}\n# {HOSTILE}\n"},
        **more,
    }  # fmt: skip
    console.store.transact(
        lambda s: repository.record(
            s, scope, name, version, built_by="bob", created_at=datetime(2026, 11, 21), facts=facts,
            kept=set(kept),
        )
    )  # fmt: skip


async def test_a_person_asks_for_an_environment_of_their_own(console: Console) -> None:
    status, answer = await send(
        console, "POST", "environments", "alice-token",
        {"source": "personal", "name": "mine", "spec": SPEC},
    )  # fmt: skip
    assert (status, answer["build"]["state"]) == (202, "queued")
    job = console.store.transact(lambda s: queue.get(s, answer["build"]["id"]), read=True)
    assert job is not None
    assert (job.scope, job.owner, job.requested_by) == ("personal", "alice", "alice")
    assert job.spec.startswith("name: mine\n")
    assert job.address == "127.0.0.1"


@pytest.mark.parametrize(
    ("token", "source", "status"),
    [
        ("bob-token", "team-vision", 202),
        ("alice-token", "team-vision", 403),
        ("carol-token", "team-vision", 403),
        ("alice-token", "team-bio", 403),
        ("alice-token", "shared", 403),
        ("carol-token", "shared", 202),
        ("carol-token", "image", 403),
        ("alice-token", "../etc", 400),
        ("alice-token", None, 400),
    ],
)
async def test_nobody_builds_where_they_do_not_lead(
    console: Console, token: str, source: str | None, status: int
) -> None:
    body = {"source": source, "name": "x", "spec": SPEC}
    assert (await send(console, "POST", "environments", token, body))[0] == status


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"source": "personal", "name": "../x", "spec": SPEC},
        {"source": "personal", "name": "x", "spec": ""},
        {"source": "personal", "name": "x", "spec": {"a": 1}},
        {"source": "personal", "name": "x", "spec": "a" * 300_000},
        {"source": "personal", "name": ["x"], "spec": SPEC},
        {"source": "personal", "name": "x", "spec": SPEC + "\0"},
        {"source": "personal", "name": "x", "spec": SPEC, "words": "tag: newest\n"},
        {"source": "personal", "name": "x", "spec": SPEC, "words": "a: &a [x]\nb: *a\n"},
    ],
)
async def test_bad_requests_are_told_what_is_wrong_and_leave_no_job(
    console: Console, body: Any
) -> None:
    status, answer = await send(console, "POST", "environments", "alice-token", body)
    assert status == 400
    assert len(answer["error"]["message"]) > 20
    assert console.store.transact(queue.recent, read=True) == []


async def test_what_rules_say_is_said_in_the_readers_language(console: Console) -> None:
    known = policy.Finding(
        "warn",
        "python-ending",
        rules.PYTHON_ENDING(version="3.11", end="2027-10-31"),
        rules.TAKE_PYTHON(newest="3.14"),
    ).as_json()
    # What a builder reports is a person's word: a text that is not ours, values that are anything.
    odd = {"message": "odd", "remedy": "", "text": "{x.__class__}", "values": {"x": [1]}}
    older = {"level": "warn", "code": "pip", "message": "beside", "remedy": "list them"}
    put(console, VISION, "torch", findings=[known, odd, older])
    translated = "Python 3.11 的安全修复只提供到 2027-10-31；请改用 Python 3.14"
    for language, sentences in (
        ("en", [f"{known['message']}; take Python 3.14", "odd; ", "beside; list them"]),
        ("zh-CN", [translated, "odd；"]),
    ):
        _, answer = await send(
            console, "GET", "environments", "bob-token", **{"Accept-Language": language}
        )
        [found] = [one for one in answer["environments"] if one["name"] == "torch"]
        said = [finding["sentence"] for finding in found["findings"]]
        assert said[: len(sentences)] == sentences
        assert found["findings"][0]["message"] == known["message"]


async def test_people_see_what_is_theirs_their_teams_and_everybodys(console: Console) -> None:
    for scope in (VISION, SHARED, personal("alice"), personal("bob")):
        put(console, scope, "py")
    put(console, Scope("team", "bio"), "secret")

    async def seen(token: str) -> list[tuple[str, str]]:
        found = await console.json("api/v1/environments", token)
        return [(item["source"], item["owner"]) for item in found["environments"]]

    shared, team = ("shared", ""), ("team-vision", "vision")
    assert await seen("alice-token") == [shared, team, ("personal", "alice")]
    assert await seen("bob-token") == [shared, team, ("personal", "bob")]
    assert await seen("carol-token") == [shared, ("team-bio", "bio"), team]
    page = (await console.get("environments", "alice-token")).body.decode()
    assert "secret" not in page


async def test_details_and_exports_are_for_those_who_may_see_it(console: Console) -> None:
    put(console, Scope("team", "bio"), "py")
    put(console, VISION, "py")
    found = await console.json("api/v1/environments/team-vision/py", "alice-token")
    assert found["environment"]["packages"][0]["name"] == "numpy"
    assert found["environment"]["history"][0]["current"] is True
    export = await console.get(
        "api/v1/environments/team-vision/py/export?format=environment.yml", "alice-token"
    )
    assert export.body.decode().startswith("name: py\n")
    assert export.headers["Content-Type"].startswith("text/plain")
    for path in ("py", "py/export"):
        refused = await console.get(f"api/v1/environments/team-bio/{path}", "alice-token")
        assert refused.code == 403
    missing = await console.get("api/v1/environments/team-vision/nothing", "alice-token")
    assert missing.code == 404
    assert (
        await console.get("api/v1/environments/team-vision/py/export?format=x", "alice-token")
    ).code == 400


async def test_who_signed_an_image_and_what_is_known_of_its_holes_is_said(filled: Console) -> None:
    async def seen() -> tuple[str | None, str, int]:
        found = await filled.json("api/v1/environments", "alice-token")
        [one] = [one for one in found["environments"] if one["source"] == "image"]
        return one["now"]["signature"], one["now"]["signature_why"], one["holes"]

    assert await seen() == (
        "unsigned",
        "It was never signed, as versions from before signatures.",
        0,
    )
    version = "20261121-ab12cd34"
    [entry, *_] = filled.store.transact(catalog.newest, read=True)["py313-data"]
    entry = replace(entry, image_id=f"sha256:{'a' * 64}")
    filled.store.transact(lambda s: catalog.record(s, entry))
    facts = Facts(entry.name, version, Identity(entry.image_id), entry.lock_digest, {})
    key = Ed25519PrivateKey.generate()
    envelope = dsse.Envelope(statement.compose(facts, "lab", "", [], "1")).with_signature(key)
    folder = filled.data / "versions" / entry.name / version
    folder.mkdir(parents=True)
    (folder / "provenance.dsse.json").write_bytes(envelope.as_bytes())
    assert (await seen())[0] == "wrong"
    assert "Signature wrong" in (await filled.get("environments", "alice-token")).body.decode()
    (filled.data / "signing").mkdir()
    (filled.data / "signing" / "key.pem").write_bytes(dsse.as_pem(key.public_key()))
    assert await seen() == ("signed", "", 0)

    of = holes.Version("image", "", entry.name, version)
    ones = [
        holes.Found(of, "X-1", "numpy", "1", "high", fixed="2", blocks=True),
        holes.Found(of, "X-2", "numpy", "1", "low"),
    ]
    filled.store.transact(lambda s: holes.record(s, ones, 1, 2))
    assert (await seen())[2] == 1
    listed = await filled.json("api/v1/vulnerable", "carol-token")
    assert listed["looked"]["advisories"] == 2
    [one] = listed["vulnerable"]
    assert (one["version"], one["ask_for"]) == (version, ["numpy >=2"])
    page = (await filled.get("vulnerable", "carol-token")).body.decode()
    assert "numpy &gt;=2" in page


async def test_a_lead_publishes_and_an_administrator_promotes_with_the_same_lock(
    console: Console,
) -> None:
    put(console, personal("bob"), "py")
    status, answer = await send(
        console, "POST", "environments/personal/py/copy", "bob-token", {"to": "team-vision"}
    )
    assert (status, answer["build"]["action"]) == (202, "publish")
    job = console.store.transact(lambda s: queue.get(s, answer["build"]["id"]), read=True)
    assert job is not None
    assert job.lock == "the lock"
    assert job.origin == {
        "source": "personal", "owner": "bob", "name": "py", "version": "20261121-aa"
    }  # fmt: skip
    put(console, VISION, "py")
    path = "environments/team-vision/py/copy"
    assert (await send(console, "POST", path, "alice-token", {"to": "shared"}))[0] == 403
    status, answer = await send(console, "POST", path, "carol-token", {"to": "shared"})
    assert (status, answer["build"]["action"]) == (202, "promote")
    status, answer = await send(
        console, "POST", path, "alice-token", {"to": "personal", "name": "my"}
    )
    assert (status, answer["build"]["action"], answer["build"]["name"]) == (202, "create", "my")


async def test_exports_and_differences_are_of_any_version_also_of_images(
    filled: Console,
) -> None:
    folder = filled.data / "versions" / "py313-data" / "20261121-ab12cd34" / "exports"
    folder.mkdir(parents=True)
    (folder / "explicit.txt").write_text("@EXPLICIT\n")
    path = "api/v1/environments/image/py313-data"
    answer = await filled.get(f"{path}/export?format=explicit", "alice-token")
    assert (answer.code, answer.body) == (200, b"@EXPLICIT\n")
    assert (await filled.get(f"{path}/export?format=sbom", "alice-token")).code == 404
    (folder.parent / "sbom.cdx.json").write_text("{}")
    assert (await filled.get(f"{path}/export?format=sbom", "alice-token")).body == b"{}"
    older = await filled.get(
        f"{path}/export?format=explicit&version=20261101-ab12cd34", "alice-token"
    )
    assert older.code == 404
    assert "labcommons env build py313-data" in older.body.decode()
    unknown = await filled.get(f"{path}/export?version=../../../x", "alice-token")
    assert unknown.code == 404
    found = await filled.json(f"{path}/diff", "alice-token")
    assert found == {"from": "20261101-ab12cd34", "to": "20261121-ab12cd34", "changes": []}
    put(filled, VISION, "py", "20261120-00000001")
    assert (await filled.get("api/v1/environments/team-vision/py/diff", "alice-token")).code == 404
    assert (await filled.get("api/v1/environments/team-vision/py/diff", "dan-token")).code == 403


@pytest.mark.parametrize(
    ("token", "source", "name", "what", "body", "status"),
    [
        ("bob-token", "team-vision", "py", "deprecate", {"reason": "old"}, 200),
        ("bob-token", "team-vision", "py", "withdraw", {"reason": "wrong"}, 200),
        ("bob-token", "team-vision", "py", "tag", {"tag": "1.0.0"}, 200),
        ("bob-token", "team-vision", "py", "pin", {}, 200),
        ("alice-token", "team-vision", "py", "withdraw", {"reason": "wrong"}, 403),
        ("carol-token", "image", "py313-data", "withdraw", {"reason": "a hole"}, 200),
        ("carol-token", "image", "py313-data", "tag", {"tag": "1.0.0"}, 403),
        ("alice-token", "image", "py313-data", "deprecate", {"reason": "old"}, 403),
        ("bob-token", "team-vision", "py", "withdraw", {}, 400),
        ("bob-token", "team-vision", "py", "withdraw", {"reason": "a\nb"}, 400),
        ("bob-token", "team-vision", "py", "tag", {"tag": "newest"}, 400),
        ("bob-token", "team-vision", "py", "burn", {"reason": "x"}, 400),
    ],
)
async def test_versions_are_decided_about_by_those_who_may(
    filled: Console, token: str, source: str, name: str, what: str, body: Any, status: int
) -> None:
    put(filled, VISION, "py", "20261121-aa")
    version = "20261121-ab12cd34" if source == "image" else "20261121-aa"
    path = f"environments/{source}/{name}/versions/{version}/{what}"
    code, answer = await send(filled, "POST", path, token, body)
    assert code == status, answer
    jobs_ = filled.store.transact(queue.recent, read=True)
    tells = status == 200 and source != "image" and what != "pin"
    assert [(job.action, job.version) for job in jobs_] == ([("decide", version)] if tells else [])
    if status == 200:
        shown = answer["version"]
        as_it_was_decided = {
            "deprecate": shown["deprecated_reason"] == "old",
            "withdraw": shown["state"] == "withdrawn",
            "tag": shown["tag"] == "1.0.0",
            "pin": shown["pinned"],
        }
        assert as_it_was_decided[what]


async def test_what_was_withdrawn_is_shown_with_its_reason_and_not_copied(
    console: Console,
) -> None:
    put(console, VISION, "py")
    path = "environments/team-vision/py"
    await send(
        console, "POST", f"{path}/versions/20261121-aa/withdraw", "bob-token",
        {"reason": f"wrong {HOSTILE}"},
    )  # fmt: skip
    page = (await console.get("environments", "alice-token")).body.decode()
    assert "Withdrawn" in page
    assert HOSTILE not in page
    status, answer = await send(
        console, "POST", f"{path}/copy", "alice-token", {"to": "personal", "name": "mine"}
    )
    assert status == 409
    assert "was withdrawn: wrong" in answer["error"]["message"]
    undone = await send(
        console, "POST", f"{path}/versions/20261121-aa/withdraw", "bob-token", {"undo": True}
    )
    assert undone[1]["version"]["state"] == "offered"


async def test_the_page_is_told_when_the_list_changes(console: Console) -> None:
    async def digest() -> str:
        found = await console.json("api/v1/environments/look", "alice-token")
        return str(found["digest"])

    before = await digest()
    page = (await console.get("environments", "alice-token")).body.decode()
    assert f'data-digest="{before}"' in page
    put(console, VISION, "py")
    assert await digest() != before
    status, answer = await send(console, "POST", "environments/look", "alice-token")
    assert (status, answer) == (202, {"looking": True})
    assert (await send(console, "POST", "environments/look", "alice-token"))[1]["looking"] is False
    assert (await console.json("api/v1/builds", "alice-token"))["builds"] == [], "no build of it"


async def test_a_python_near_its_end_is_flagged(console: Console) -> None:
    put(console, VISION, "py")
    console.store.transact(
        lambda s: setattr(repository.versions(s, VISION, "py")[0], "python", "3.9.20")
    )
    [found] = (await console.json("api/v1/environments", "alice-token"))["environments"]
    assert (found["python_state"], found["python_end"]) == ("ended", "2025-10-31")
    assert "security fixes" in (await console.get("environments", "alice-token")).body.decode()


async def test_a_member_may_not_delete_the_teams(console: Console) -> None:
    put(console, VISION, "py")
    path = "environments/team-vision/py"
    assert (await send(console, "DELETE", path, "alice-token"))[0] == 403
    status, answer = await send(console, "DELETE", path, "bob-token")
    assert (status, answer["build"]["action"]) == (202, "delete")


async def test_a_build_and_its_log_are_for_who_asked_and_the_teams_leads(
    console: Console, tmp_path: Path
) -> None:
    _, answer = await send(
        console, "POST", "environments", "alice-token",
        {"source": "personal", "name": "x", "spec": SPEC},
    )  # fmt: skip
    job_id = answer["build"]["id"]
    folder = console.data / "builds" / job_id
    folder.mkdir(parents=True)
    (folder / "lock.log").write_text("  1%  first\n")
    (folder / "install.log").write_text("unfinished")
    found = await console.json(f"api/v1/builds/{job_id}", "alice-token")
    assert (found["log"], found["offset"]) == ("  1%  first\n", 12)
    (folder / "install.log").write_text(f" 50%  {HOSTILE}\n")
    found = await console.json(f"api/v1/builds/{job_id}?offset=12", "alice-token")
    assert found["log"] == f" 50%  {HOSTILE}\n"
    assert (await console.get(f"api/v1/builds/{job_id}", "bob-token")).code == 404
    assert (await console.get(f"api/v1/builds/{job_id}", "carol-token")).code == 200
    assert (await send(console, "POST", f"builds/{job_id}/cancel", "bob-token"))[0] == 404
    status, answer = await send(console, "POST", f"builds/{job_id}/cancel", "alice-token")
    assert (status, answer["build"]["state"]) == (202, BuildState.CANCELLED)
    assert (await send(console, "POST", f"builds/{job_id}/cancel", "alice-token"))[0] == 409
    status, answer = await send(console, "POST", f"builds/{job_id}/retry", "alice-token")
    assert (status, answer["build"]["state"]) == (202, "queued")


async def test_refusals_come_in_the_language_of_the_request(console: Console) -> None:
    _, english = await send(console, "DELETE", "environments/shared/py", "alice-token")
    assert "changed by administrators" in english["error"]["message"]


async def test_the_page_escapes_what_people_wrote(console: Console) -> None:
    put(console, personal("alice"), "py")
    page = (await console.get("environments", "alice-token")).body.decode()
    assert HOSTILE not in page
    assert "Build an environment" in page


async def test_what_a_server_does_for_its_owner_is_written_down_as_its_own(
    filled: Console, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "labcommons.audit")
    body = {"source": "personal", "name": "mine", "spec": SPEC}
    assert (await send(filled, "POST", "environments", "alice-server-token", body))[0] == 202
    leases = (await filled.json("api/v1/leases", "alice-token"))["leases"]
    path = f"leases/{leases[0]['id']}/keep"
    await send(filled, "POST", path, "alice-server-token", {})
    await send(filled, "POST", path, "alice-token", {})
    lines = [json.loads(record.message) for record in caplog.records if record.message[0] == "{"]
    assert [(one["event"]["action"], one["labcommons"].get("by")) for one in lines] == [
        ("environment-request", {"server": ""}),
        ("lease-change", {"server": ""}),
        ("lease-change", None),
    ]
    for source in ("team-vision", "shared"):
        status, answer = await send(
            filled, "POST", "environments", "alice-server-token", body | {"source": source}
        )
        assert (status, answer["error"]["code"]) == (403, "person_wanted")


IMAGE_SPEC = (
    "name: py313-data\nchannels: [conda-forge]\ndependencies:\n  - python 3.13.*\n  - ipykernel\n"
)


def keep_image_files(console: Console, version: str = "20261121-ab12cd34") -> None:
    """As a build keeps them; see conftest for the version."""
    folder = console.data / "versions" / "py313-data" / version
    folder.mkdir(parents=True)
    (folder / "environment.yml").write_text(IMAGE_SPEC)
    words = "title: {en: Data}\naccess: everyone\ntag: 1.0.0\ngpu: none\n"
    (folder / "labcommons.yml").write_text(words)
    (folder / "pixi.lock").write_text("the image's lock")


@pytest.mark.parametrize("token", ["alice-token", "alice-server-token"])
async def test_an_image_becomes_ones_own_with_a_package_added(filled: Console, token: str) -> None:
    """Also by what runs in a server: ``%pip install`` in an environment that is not one's own."""
    console = filled
    keep_image_files(console)
    path = "environments/image/py313-data/derive"
    asked = {"add": ["cowsay"], "channels": ["pytorch"]}
    status, answer = await send(console, "POST", path, token, asked)
    build = answer["build"]
    assert (status, build["source"], build["name"]) == (202, "personal", "py313-data")
    job = console.store.transact(lambda s: queue.get(s, build["id"]), read=True)
    assert job is not None
    assert job.spec == IMAGE_SPEC.replace("[conda", '["pytorch", conda') + "  - cowsay\n"
    assert job.words == 'gpu: "none"\n'
    assert (job.lock, job.origin["source"]) == ("the image's lock", "image")


async def test_a_second_package_goes_into_the_copy_that_one_has(console: Console) -> None:
    mine = personal("alice")
    origin = {"source": "team-vision", "owner": "vision", "name": "torch", "version": "1"}
    put(console, VISION, "torch")
    put(console, mine, "torch", spec=SPEC.replace("theirs", "torch"), origin=origin)
    path = "environments/team-vision/torch/derive"
    status, answer = await send(console, "POST", path, "alice-token", {"pip": ["numpy==2"]})
    assert (status, answer["build"]["name"]) == (202, "torch")
    job = console.store.transact(lambda s: queue.get(s, answer["build"]["id"]), read=True)
    assert job is not None
    # numpy is there from conda.
    assert job.spec.endswith('[python 3.13.*, ipykernel, "numpy==2"]\n')
    assert job.origin == {**origin, "base": "20261121-aa"}
    # What goes on is not written over.
    status, answer = await send(console, "POST", path, "alice-token", {"add": ["cowsay"]})
    assert (status, answer["error"]["code"]) == (409, "edit_being_built")


async def test_a_name_that_something_else_has_is_left_alone(console: Console) -> None:
    put(console, VISION, "torch")
    put(console, personal("alice"), "torch")
    path = "environments/team-vision/torch/derive"
    status, answer = await send(console, "POST", path, "alice-token", {"add": ["cowsay"]})
    assert (status, answer["build"]["name"]) == (202, "torch-2")


@pytest.mark.parametrize(
    ("token", "path", "body", "status"),
    [
        ("alice-token", "team-bio/torch", {"add": ["x"]}, 403),
        ("dan-token", "team-vision/torch", {"add": ["x"]}, 403),
        ("alice-token", "team-vision/none", {"add": ["x"]}, 404),
        ("alice-token", "image/none", {"add": ["x"]}, 404),
        ("alice-token", "team-vision/torch", {"remove": ["pandas"]}, 400),
        ("alice-token", "team-vision/torch", {"add": ["-e ."]}, 400),
        ("alice-token", "team-vision/torch", {"add": "x"}, 400),
        ("alice-token", "team-vision/torch", {"add": ["x"], "name": "../x"}, 400),
    ],
)
async def test_a_copy_is_refused_clearly(
    console: Console, token: str, path: str, body: Any, status: int
) -> None:
    put(console, VISION, "torch")
    answer = await send(console, "POST", f"environments/{path}/derive", token, body)
    assert answer[0] == status
    assert len(answer[1]["error"]["message"]) > 20
    assert console.store.transact(queue.recent, read=True) == []


MINE = personal("alice")


async def test_an_environment_is_changed_in_place_and_the_difference_is_shown_first(
    console: Console,
) -> None:
    put(console, MINE, "py", spec=IMAGE_SPEC.replace("py313-data", "py"), words="tag: 1.0.0\n")
    change = {"add": ["cowsay"], "remove": ["ipykernel"], "base": "20261121-aa"}
    path = "environments/personal/py"
    status, shown = await send(console, "POST", f"{path}/preview", "alice-token", change)
    assert status == 200
    assert shown["diff"].splitlines()[-3:] == [
        "   - python 3.13.*",
        "-  - ipykernel",
        "+  - cowsay",
    ]
    # A tag is one set of packages for ever.
    assert (shown["base"], shown["words"]) == ("20261121-aa", "")
    assert console.store.transact(queue.recent, read=True) == []
    body = {"spec": shown["spec"], "words": "", "base": "20261121-aa"}
    status, answer = await send(console, "POST", f"{path}/edit", "alice-token", body)
    assert (status, answer["build"]["action"]) == (202, "create")
    job = console.store.transact(lambda s: queue.get(s, answer["build"]["id"]), read=True)
    assert job is not None
    assert (job.spec, job.lock) == (shown["spec"], "the lock")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"add": ["x"], "base": "20261101-bb"}, 409, "edit_changed_meanwhile"),
        ({}, 400, "edit_nothing_to_change"),
        ({"spec": SPEC.replace("theirs", "py")}, 400, "edit_nothing_to_change"),
        ({"spec": " "}, 400, "no_spec"),
        ({"remove": ["pandas"]}, 400, "edit_not_there"),
        ({"words": "tag: newest\n"}, 400, "words_wrong"),
    ],
)
async def test_a_change_that_cannot_be_made_is_told_at_once(
    console: Console, body: Any, status: int, code: str
) -> None:
    """Also that somebody else was quicker: what one edited from is sent along."""
    put(console, MINE, "py", spec=SPEC.replace("theirs", "py"))
    for verb in ("edit", "preview"):
        answer = await send(
            console, "POST", f"environments/personal/py/{verb}", "alice-token", body
        )
        assert (answer[0], answer[1]["error"]["code"]) == (status, code)
    assert console.store.transact(queue.recent, read=True) == []


async def test_members_do_not_change_what_their_team_has(console: Console) -> None:
    put(console, VISION, "torch")
    for token, status in (("alice-token", 403), ("dan-token", 403), ("bob-token", 202)):
        body = {"add": ["cowsay"]}
        path = "environments/team-vision/torch/edit"
        assert (await send(console, "POST", path, token, body))[0] == status


async def test_two_leads_who_edit_at_once_do_not_overwrite_each_other(console: Console) -> None:
    """The second is told while the first one's is being built, and afterwards."""
    put(console, VISION, "torch")
    body = {"add": ["cowsay"], "base": "20261121-aa"}
    path = "environments/team-vision/torch/edit"
    _, first = await send(console, "POST", path, "bob-token", body)
    status, answer = await send(console, "POST", path, "bob-token", {**body, "add": ["six"]})
    assert (status, answer["error"]["code"]) == (409, "edit_being_built")
    assert "bob" in answer["error"]["message"]

    def built(session: Any) -> None:
        queue.claim(session, Builds())
        queue.end(session, first["build"]["id"], BuildState.DONE, "", "20261126-new")

    console.store.transact(built)
    put(console, VISION, "torch", "20261126-new", {"20261121-aa"})
    status, answer = await send(console, "POST", path, "bob-token", {**body, "add": ["six"]})
    assert (status, answer["error"]["code"]) == (409, "edit_changed_meanwhile")


def failed(console: Console, message: Any, name: str = "mine") -> str:
    """A build of alice's that failed; its id."""

    def work(session: Any) -> str:
        limits = Builds()
        request = queue.BuildRequest("create", MINE, name, "alice", spec=IMAGE_SPEC)
        job = queue.enqueue(session, request, limits)
        queue.claim(session, limits)
        queue.end(session, job.id, BuildState.FAILED, str(message), said=message.as_json())
        return job.id

    return console.store.transact(work)


async def test_a_failed_builds_text_is_kept_to_be_corrected(console: Console) -> None:
    """On any device, until something was built from it; and tried again only where it helps."""
    wrong = messages.failed("spec", making.NO_CANDIDATES(channels=["x"]))
    build = failed(console, wrong)
    _, answer = await send(console, "GET", f"builds/{build}", "alice-token")
    found = answer["build"]
    assert (found["spec"], found["retry"], found["correct"]) == (IMAGE_SPEC, False, True)
    status, shown = await send(
        console, "POST", f"builds/{build}/preview", "alice-token", {"remove": ["ipykernel"]}
    )
    assert (status, "-  - ipykernel" in shown["diff"]) == (200, True)
    assert (await send(console, "POST", f"builds/{build}/correct", "bob-token", {}))[0] == 404
    body = {"spec": IMAGE_SPEC.replace("3.13", "3.12")}
    status, answer = await send(console, "POST", f"builds/{build}/correct", "alice-token", body)
    job = console.store.transact(lambda s: queue.get(s, answer["build"]["id"]), read=True)
    assert job is not None
    assert (status, job.name) == (202, "mine")
    assert "name: mine" in job.spec
    assert "3.12" in job.spec
    down = failed(console, messages.failed("channel", making.INDEX_SILENT()), "other")
    _, answer = await send(console, "GET", f"builds/{down}", "alice-token")
    assert (answer["build"]["retry"], answer["build"]["correct"]) == (True, True)


async def test_a_missing_kernel_is_added_with_one_request(console: Console) -> None:
    wanted = making.KERNEL_WANTED(name="mine", package="r-irkernel")
    build = failed(console, messages.failed("kernel", wanted))
    _, answer = await send(console, "GET", f"builds/{build}", "alice-token")
    assert (answer["build"]["add"], answer["build"]["retry"]) == ("r-irkernel", False)
    body = {"add": [answer["build"]["add"]]}
    status, answer = await send(console, "POST", f"builds/{build}/correct", "alice-token", body)
    job = console.store.transact(lambda s: queue.get(s, answer["build"]["id"]), read=True)
    assert job is not None
    assert (status, "- r-irkernel" in job.spec) == (202, True)
