"""The console: what it shows, to whom, and how it refuses."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from .conftest import HOSTILE, Console

PAGES = [
    "",
    "environments",
    "reservations",
    "quotas",
    "quotas/edit?subject=default",
    "none",
    "oauth_callback",
]
API = [
    "api/v1/gpus",
    "api/v1/gpus/devices",
    "api/v1/leases",
    "api/v1/queue",
    "api/v1/me",
    "api/v1/usage",
    "api/v1/explain/alice",
    "api/v1/quotas",
    "api/v1/quotas/default",
    "api/v1/reservations",
    "api/v1/notices",
    "api/v1/environments",
    "api/v1/builds",
]


async def test_gpus_are_counted_by_model(filled: Console) -> None:
    gpus = await filled.json("api/v1/gpus", "bob-token")
    assert (gpus["total"], gpus["free"], gpus["simulated"]) == (3, 1, True)
    assert gpus["types"][0] == {
        "model": "A100",
        "memory": "80 GiB",
        "memory_bytes": 80 * 2**30,
        "total": 2,
        "free": 0,
    }


async def test_people_see_their_own_leases_and_how_many_others_there_are(filled: Console) -> None:
    seen = await filled.json("api/v1/leases", "alice-token")
    assert [(lease["user"], lease["state"]) for lease in seen["leases"]] == [("alice", "active")]
    assert seen["leases"][0]["gpus"][0]["model"] == "A100"
    assert (seen["total"], seen["everyone"]) == (2, False)


async def test_administrators_see_everybodys_leases(filled: Console) -> None:
    seen = await filled.json("api/v1/leases", "carol-token")
    assert [lease["user"] for lease in seen["leases"]] == ["alice", "bob"]
    assert seen["everyone"] is True


async def test_the_page_names_nobody_else_to_people(filled: Console) -> None:
    page = (await filled.get("", "bob-token")).body.decode()
    assert "GPUs you hold" in page
    assert "train" in page
    assert "alice" not in page
    assert "Servers of others that hold GPUs: 1." in page


async def test_environments_come_once_with_their_versions_newest_first(filled: Console) -> None:
    (entry,) = (await filled.json("api/v1/environments", "bob-token"))["environments"]
    assert entry["versions"] == ["20261121-ab12cd34", "20261101-ab12cd34"]
    assert entry["version"] == "20261121-ab12cd34"
    assert entry["package_count"] == 1


async def test_words_come_in_the_language_of_the_request(filled: Console) -> None:
    chinese = {"Accept-Language": "zh-CN"}
    (entry,) = (await filled.json("api/v1/environments", "bob-token", **chinese))["environments"]
    assert entry["title"] == "数据分析"
    page = (await filled.get("", "bob-token", **chinese)).body.decode()
    assert '<html lang="zh-CN">' in page
    assert "我占用的 GPU" in page
    refusal = await filled.json("api/v1/nothing", **chinese)
    assert refusal["error"]["message"].startswith("该地址没有内容")


async def test_hostile_names_are_text_on_the_page(filled: Console) -> None:
    page = (await filled.get("", "carol-token")).body.decode()
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;") >= 3


async def test_an_empty_site_says_what_an_administrator_does(console: Console) -> None:
    page = (await console.get("", "alice-token")).body.decode()
    assert "This site has no GPUs." in page
    page = (await console.get("environments", "alice-token")).body.decode()
    assert "labcommons env build" in page
    assert await console.json("api/v1/environments", "alice-token") == {"environments": []}


@pytest.mark.parametrize("path", API)
async def test_the_api_refuses_the_unknown_with_401_and_no_redirect(
    filled: Console, path: str
) -> None:
    for token in (None, "guessed"):
        answer = await filled.get(path, token)
        assert answer.code == 401
        assert json.loads(answer.body)["error"]["code"] == "not_authenticated"


async def test_a_token_in_the_address_is_not_taken(filled: Console) -> None:
    assert (await filled.get("api/v1/leases?token=carol-token")).code == 401


@pytest.mark.parametrize("path", API)
async def test_an_account_without_access_is_refused_with_403(filled: Console, path: str) -> None:
    answer = await filled.get(path, "stranger-token")
    assert answer.code == 403
    assert json.loads(answer.body)["error"]["code"] == "not_allowed"


async def test_the_page_sends_who_is_not_logged_in_to_the_hub(filled: Console) -> None:
    answer = await filled.get()
    assert answer.code == 302
    assert answer.headers["Location"].startswith("/hub/api/oauth2/authorize?")
    assert "client_id=service-labcommons" in answer.headers["Location"]


async def test_a_login_that_nobody_began_ends_in_a_page_with_a_remedy(filled: Console) -> None:
    answer = await filled.get("oauth_callback?code=x&state=y")
    assert answer.code == 403
    assert "The login did not finish." in answer.body.decode()


async def test_a_hub_that_fails_is_told_apart_from_a_wrong_token(filled: Console) -> None:
    filled.broken["hub"] = True
    answer = await filled.get("api/v1/gpus", "alice-token")
    assert answer.code == 502
    assert json.loads(answer.body)["error"]["code"] == "hub_unavailable"
    assert (await filled.get("", "alice-token")).code == 502


async def test_health_needs_no_login_and_fails_with_the_store(console: Console) -> None:
    assert await console.json("health") == {"status": "ok"}
    file = console.store.engine.url.database
    assert file
    console.store.engine.dispose()
    with open(file, "wb") as database:
        database.write(b"this is no database" * 100)
    answer = await console.get("health")
    assert answer.code == 503
    refusal = json.loads(answer.body)["error"]
    assert refusal["code"] == "store_unavailable"
    assert file not in refusal["message"]


async def test_a_store_that_fails_gives_a_page_and_json_with_503(filled: Console) -> None:
    with filled.store.session() as session:
        session.execute(text("DROP TABLE gpu_lease_devices"))
    assert (await filled.get("", "alice-token")).code == 503
    answer = await filled.get("api/v1/gpus", "alice-token")
    assert answer.code == 503
    assert b"DROP" not in answer.body
    assert b"gpu_lease_devices" not in answer.body


async def test_every_address_of_the_description_exists(filled: Console) -> None:
    document = await filled.json("openapi.json")
    assert document["servers"] == [{"url": "/services/labcommons"}]
    lease = (await filled.json("api/v1/leases", "alice-token"))["leases"][0]["id"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method == "parameters":
                continue
            here = path.removeprefix("/").replace("{id}", lease)
            here = here.replace("{subject}", "default").replace("{user}", "alice")
            here = here.replace("{source}", "image").replace("{name}", "none")
            here = here.replace("{version}", "none").replace("{what}", "pin")
            answer = await filled.send(method.upper(), here, "carol-token")
            named = ("reservations/", "builds/", "{name}")  # of these there is none here
            if method == "get" and not any(part in path for part in named):
                assert answer.code == 200, path
                content = operation["responses"]["200"]["content"]["application/json"]
                assert set(json.loads(answer.body)) == set(content["schema"]["required"]), path
            else:
                # Whatever was wrong with an empty request: not address and method.
                error = json.loads(answer.body).get("error", {"code": "none"})
                assert error["code"] not in ("not_found", "method_not_allowed", "internal"), path


@pytest.mark.parametrize("path", [*PAGES, *API, "health", "api/v1/none", "static/labcommons.css"])
@pytest.mark.parametrize("token", [None, "alice-token", "stranger-token"])
async def test_every_answer_forbids_framing_and_guessing(
    filled: Console, path: str, token: str | None
) -> None:
    answer = await filled.get(path, token)
    policy = answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert b"the-console's-own" not in answer.body


async def test_pages_hold_no_script_or_style_of_their_own(filled: Console) -> None:
    page = (await filled.get("", "carol-token")).body.decode()
    assert "<style" not in page
    assert " style=" not in page
    assert "<script>" not in page


async def test_only_our_own_static_files_are_served(filled: Console) -> None:
    assert (await filled.get("static/page.js")).code == 200
    for path in ("static/../pages.py", "static/..%2fpages.py", "static/none.css"):
        assert (await filled.get(path)).code == 404
