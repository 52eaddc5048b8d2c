"""The service over HTTP: who may see what, what is refused and how, and the page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from jupyterhub.services.auth import HubOAuth
from tornado.httpclient import HTTPResponse

from commons.i18n import LANGUAGES
from commons.store import Store
from commons.web import handlers as console
from kernels.service.app import make_app
from tests.kernels.conftest import IPYKERNEL
from tests.kernels.service.conftest import PREFIX, add, body, listed
from tests.rig.described import check_answer, check_schemas, operations, undeclared
from tests.rig.one_language import is_mixed, names_in, of_page, told

API = PREFIX + "api/v1/"
START = {"kernel": "conda-shared-stats-python3", "source": "shared", "environment": "stats"}
REPORT = {"starts": [{**START, "version": "live", "count": 2}]}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """One engine is enough here: the SQL is tested on both, with the passes and the counts."""
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    yield store
    store.close()


@pytest.fixture
async def scopes(registrar, store, make_prefix) -> None:
    """One environment of each kind, and one that has no kernel."""
    add(store, words={"title": {"en": "Data analysis", "zh_CN": "数据分析"}})
    make_prefix("stats", root="shared/envs")
    make_prefix("torch", root="teams/vision/envs")
    make_prefix("bare", root="teams/vision/envs", kernel=None)
    make_prefix("intro", root="courses/ml101/envs")
    await registrar.refresh()


# Who may see what ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "seen"),
    [
        ("alice-token", {"image", "shared", "team-vision"}),
        ("bob-token", {"image", "shared", "team-vision"}),
        ("s01-token", {"image", "shared", "course-ml101"}),
        ("carol-token", {"image", "shared", "team-vision", "course-ml101"}),
    ],
)
async def test_people_see_what_is_for_everybody_and_for_their_groups(
    ask, scopes, token, seen
) -> None:
    found = body(await ask(API + "environments", token))
    assert {item["source"] for item in found["environments"]} == seen
    kernels = body(await ask(API + "kernels", token))["kernels"]
    assert {kernel["source"] for kernel in kernels} == seen
    page = (await ask(PREFIX, token)).body.decode()
    assert ("conda-team-vision-torch-python3" in page) == ("team-vision" in seen)
    assert ("conda-course-ml101-intro-python3" in page) == ("course-ml101" in seen)


async def test_an_image_for_some_teams_is_shown_to_these_alone(ask, registrar, store) -> None:
    add(store, "secret", access={"teams": ["vision"], "courses": []})
    await registrar.refresh()
    for token, total in (("alice-token", 1), ("s01-token", 0), ("carol-token", 1)):
        assert body(await ask(API + "environments", token))["total"] == total


async def test_what_one_may_not_see_is_not_there(ask, scopes) -> None:
    for path in ("environments/team-vision/torch", "kernels/conda-team-vision-torch-python3"):
        assert (await ask(API + path, "alice-token")).code == 200
        refused = await ask(API + path, "s01-token")
        nowhere = await ask(API + path.replace("torch", "nothing"), "s01-token")
        assert refused.code == nowhere.code == 404
        assert body(refused) == body(nowhere)


@pytest.mark.parametrize(("token", "code"), [("", 401), ("wrong", 401), ("stranger-token", 403)])
@pytest.mark.parametrize(
    ("path", "method"),
    [("environments", "GET"), ("kernels", "GET"), ("events", "GET"), ("usage", "GET"),
     ("refresh", "POST")],
)  # fmt: skip
async def test_nobody_else_gets_anything_from_the_api(ask, token, code, path, method) -> None:
    response = await ask(API + path, token, method)
    assert response.code == code
    assert body(response)["error"]["message"]
    assert response.headers["Content-Type"].startswith("application/json")


# Lists -----------------------------------------------------------------------------------------


async def test_one_environment_is_told_with_all_that_is_known(ask, scopes) -> None:
    (version,) = body(await ask(API + "environments/image/data", "alice-token"))["versions"]
    assert version == {
        "source": "image",
        "environment": "data",
        "version": "1",
        "label": "",
        "prefix": "/opt/conda/envs/data",
        "python": "3.13.5",
        "state": "healthy",
        "reason": "",
        "reasons": [],
        "kernels": [
            {
                "name": "conda-image-data-python3",
                "display_name": "data - Python 3.13",
                "language": "python",
            }
        ],
        "last_used": None,
    }
    kernels = body(await ask(API + "kernels/conda-image-data-python3", "alice-token"))["kernels"]
    assert [(kernel["environment"], kernel["state"]) for kernel in kernels] == [("data", "healthy")]


async def test_lists_are_searched_and_cut(ask, scopes) -> None:
    async def names(query: str) -> list[str]:
        found = body(await ask(f"{API}environments?{query}", "carol-token"))
        return [item["environment"] for item in found["environments"]]

    assert await names("q=vision+conda-team") == ["torch"]
    assert await names("state=no_kernel") == ["bare"]
    assert await names("source=shared") == ["stats"]
    assert await names("limit=2&offset=1") == ["data", "stats"]
    assert body(await ask(API + "environments?limit=1", "carol-token"))["total"] == 5


@pytest.mark.parametrize("query", ["limit=x", "offset=-1", "state=nothing", "limit=" + "9" * 50])
async def test_a_parameter_that_is_none_is_named(ask, scopes, query) -> None:
    response = await ask(f"{API}environments?{query}", "alice-token")
    assert response.code == 400
    error = body(response)["error"]
    assert error["code"] in ("parameter_wrong",)
    assert error["reasons"][0]["code"] == error["code"]


@pytest.mark.parametrize("path", ["/", PREFIX + "nothing", API + "nothing", API + "kernels/x/y"])
async def test_what_is_not_there_is_not_there(ask, path) -> None:
    assert (await ask(path, "carol-token")).code == 404


# Who asks, verb, address with its parameters, the body, and the expected status.
DESCRIBED = [
    ("alice-token", "get", "/api/v1/environments", "", None, 200),
    ("alice-token", "get", "/api/v1/environments", "?limit=0", None, 400),
    ("alice-token", "get", "/api/v1/environments/{source}/{name}", "image/data", None, 200),
    ("alice-token", "get", "/api/v1/environments/{source}/{name}", "image/none", None, 404),
    ("alice-token", "get", "/api/v1/kernels", "", None, 200),
    ("alice-token", "get", "/api/v1/kernels/{name}", "conda-shared-stats-python3", None, 200),
    ("alice-token", "post", "/api/v1/refresh", "", {}, 403),
    ("carol-token", "post", "/api/v1/refresh", "", {}, 200),
    ("alice-server-token", "post", "/api/v1/usage", "", REPORT, 200),
    ("alice-server-token", "post", "/api/v1/usage", "", {"starts": [{"kernel": 1}]}, 400),
    ("alice-token", "get", "/api/v1/usage", "?days=7", None, 200),
    ("", "get", "/health", "", None, 200),
]


async def test_every_operation_answers_as_described(ask, scopes) -> None:
    document = body(await ask(PREFIX + "openapi.json"))
    check_schemas(document)
    for token, verb, path, more, sent, status in DESCRIBED:
        address = path.removeprefix("/").partition("{")[0] + more
        answer = await ask(PREFIX + address, token, verb.upper(), sent, Accept_Language="zh-CN")
        assert answer.code == status, (verb, path, answer.body)
        check_answer(document, verb, path, answer)
        assert [said for said in told(body(answer)) if is_mixed(said, "zh_CN")] == []
    seen = {(verb, path) for _, verb, path, *_ in DESCRIBED}
    # A stream has no end to wait for; test_events.py reads it.
    assert seen == operations(document) - {("get", "/api/v1/events")}
    refused = await ask(API + "events")
    check_answer(document, "get", "/api/v1/events", refused)


def test_nothing_of_the_api_is_left_undescribed(site, registrar) -> None:
    auth = HubOAuth(api_token="x", api_url="http://127.0.0.1:1/hub/api", base_url=PREFIX)
    assert undeclared(make_app(site, registrar, auth, "a secret")) == []


# Refresh and health ----------------------------------------------------------------------------


async def test_only_an_administrator_may_refresh(ask, store: Store) -> None:
    add(store)
    refused = await ask(API + "refresh", "alice-token", "POST")
    assert refused.code == 403
    assert "administrator" in body(refused)["error"]["message"]
    assert listed(store) == []
    done = await ask(API + "refresh", "carol-token", "POST")
    assert body(done) == {
        "written": 1, "removed": 0, "environments": 1, "failed": [], "problems": []
    }  # fmt: skip
    assert len(listed(store)) == 1


async def test_a_refresh_that_fails_says_why(ask, registrar) -> None:
    registrar.root.touch()
    response = await ask(API + "refresh", "carol-token", "POST")
    assert response.code == 503
    assert str(registrar.root) in body(response)["error"]["message"]


async def test_health_tells_before_during_and_after_a_fault(
    ask, registrar, store, tmp_path
) -> None:
    async def health() -> tuple[int, dict[str, object]]:
        response = await ask(PREFIX + "health")
        return response.code, body(response)

    assert (await health())[0] == 503
    add(store)
    await registrar.refresh()
    code, told = await health()
    assert code == 200
    assert (told["status"], told["registered"]) == ("ok", 1)
    assert told["last_pass"]
    registrar.store = Store(f"sqlite:///{tmp_path}/nowhere/labcommons.sqlite")
    await registrar.refresh()
    code, told = await health()
    assert (code, told["status"]) == (503, "error")
    assert "unable to open database" in str(told["error"])
    registrar.store = store
    await registrar.refresh()
    assert (await health())[0] == 200


async def test_lists_are_told_while_the_store_is_down(ask, registrar, scopes, tmp_path) -> None:
    registrar.store = Store(f"sqlite:///{tmp_path}/nowhere/labcommons.sqlite")
    await registrar.refresh()
    assert body(await ask(API + "environments", "carol-token"))["total"] == 5


async def test_a_hub_that_does_not_answer_is_told_and_health_goes_on(ask, hub, monkeypatch):
    hub.silent = True
    monkeypatch.setattr(console, "HUB_TIMEOUT", 0.2)
    response = await ask(API + "kernels", "alice-token")
    assert response.code == 502
    assert "hub" in body(response)["error"]["message"]
    assert (await ask(PREFIX + "health")).code == 503  # no pass has run


# The page --------------------------------------------------------------------------------------


async def test_the_page_shows_environments_in_the_persons_language(ask, scopes) -> None:
    page = await ask(PREFIX, "alice-token", Accept_Language="zh-CN,zh;q=0.9")
    text = page.body.decode()
    assert '<html lang="zh-CN">' in text
    assert "数据分析" in text
    assert "data - Python 3.13" in text
    assert "torch (team: vision) - Python 3.13" in text
    assert "其中没有安装内核；" in text
    bare = await ask(API + "environments/team-vision/bare", "alice-token", Accept_Language="zh-CN")
    assert body(bare)["versions"][0]["reason"].startswith("其中没有安装内核；")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["X-Content-Type-Options"] == "nosniff"


async def test_nothing_that_an_environment_says_becomes_markup(ask, registrar, store) -> None:
    evil = "<script>alert(1)</script>"
    add(store, "xss", kernelspecs={"k": {**IPYKERNEL, "display_name": evil}}, words={"title": evil})
    await registrar.refresh()
    text = (await ask(f"{PREFIX}?q={quote(evil)}", "alice-token")).body.decode()
    assert "&lt;script&gt;alert" in text
    assert "<script>alert" not in text


async def test_the_page_is_searched(ask, scopes) -> None:
    text = (await ask(PREFIX + "?q=torch", "alice-token")).body.decode()
    assert "conda-team-vision-torch-python3" in text
    assert "conda-image-data-python3" not in text
    nothing = (await ask(PREFIX + "?q=nothing-like-it", "alice-token")).body.decode()
    assert "Nothing fits this search" in nothing
    attention = (await ask(PREFIX + "?problems=1", "alice-token")).body.decode()
    assert "bare" in attention
    assert "ipykernel" in attention
    assert "conda-team-vision-torch-python3" not in attention


async def test_an_empty_registry_says_what_to_do(ask, registrar) -> None:
    await registrar.refresh()
    text = (await ask(PREFIX, "alice-token")).body.decode()
    assert "labcommons env build --all" in text
    assert "A lead or instructor" in text


async def test_a_long_list_says_that_it_is_cut(ask, registrar, store, monkeypatch) -> None:
    monkeypatch.setattr("kernels.service.page.SHOWN", 3)
    for number in range(5):
        add(store, f"e{number}")
    await registrar.refresh()
    text = (await ask(PREFIX, "alice-token")).body.decode()
    assert "The first 3 of 5 environments" in text
    assert "conda-image-e4" not in text


async def test_only_administrators_see_what_is_wrong_with_the_catalog(ask, registrar, store):
    add(store, "evil", prefix="/opt/../etc/evil")
    await registrar.refresh()
    assert b"etc/evil" not in (await ask(PREFIX, "alice-token")).body
    assert b"etc/evil" in (await ask(PREFIX, "carol-token")).body


async def test_style_sheets_and_scripts_are_served_and_nothing_beside_them(ask) -> None:
    for path in ("static/labcommons.css", "assets/kernels.css", "assets/kernels.js"):
        assert (await ask(PREFIX + path)).code == 200
    for path in ("static/../app.py", "assets/..%2fapp.py", "static/", "assets/x.css"):
        assert (await ask(PREFIX + path)).code in (403, 404)


# Login -----------------------------------------------------------------------------------------


def cookies(*responses: HTTPResponse) -> str:
    jar = SimpleCookie()
    for response in responses:
        for header in response.headers.get_list("Set-Cookie"):
            jar.load(header)
    return "; ".join(f"{name}={morsel.value}" for name, morsel in jar.items() if morsel.value)


async def log_in(ask) -> HTTPResponse:
    first = await ask(PREFIX)
    asked = parse_qs(urlsplit(first.headers["Location"]).query)
    return await ask(
        f"{PREFIX}oauth_callback?code=a-code&state={asked['state'][0]}", Cookie=cookies(first)
    )


async def test_a_browser_is_sent_to_log_in_and_comes_back_with_a_cookie(ask, scopes) -> None:
    first = await ask(PREFIX)
    assert first.code == 302
    login = urlsplit(first.headers["Location"])
    asked = parse_qs(login.query)
    assert login.path == "/hub/api/oauth2/authorize"
    assert asked["client_id"] == ["service-kernels"]
    assert asked["redirect_uri"] == [PREFIX + "oauth_callback"]
    back = await log_in(ask)
    assert (back.code, back.headers["Location"]) == (302, PREFIX)
    login_cookie = next(c for c in back.headers.get_list("Set-Cookie") if "service-kernels=" in c)
    assert "secure" in login_cookie.lower()
    assert "httponly" in login_cookie.lower()
    assert (await ask(PREFIX, Cookie=cookies(back))).code == 200


async def test_a_page_of_somebody_else_can_use_a_cookie_for_nothing(ask, scopes) -> None:
    back = await log_in(ask)
    page = await ask(PREFIX, Cookie=cookies(back))
    found = re.search(rb'data-xsrf="([^"]+)"', page.body)
    assert found
    both = cookies(back, page)
    script = {"Cookie": both, "Sec_Fetch_Mode": "cors", "Sec_Fetch_Site": "same-origin"}
    for path, method, most in (
        ("environments", "GET", 200),
        ("refresh", "POST", 403),
        ("usage", "POST", 400),
    ):
        assert (await ask(API + path, "", method, **script)).code == 401
        answer = await ask(API + path, "", method, X_XSRFToken=found[1].decode(), **script)
        assert answer.code == most


async def test_a_login_that_nobody_began_is_refused(ask) -> None:
    response = await ask(f"{PREFIX}oauth_callback?code=a-code&state=invented")
    assert response.code == 403


async def test_a_person_whom_the_hub_does_not_let_in_sees_that(ask) -> None:
    assert (await ask(PREFIX, "stranger-token")).code == 403


# Usage -----------------------------------------------------------------------------------------

TORCH = {
    "kernel": "conda-team-vision-torch-python3",
    "source": "team-vision",
    "environment": "torch",
    "version": "live",
}


async def test_a_server_reports_what_its_owner_started(ask, scopes) -> None:
    report = {"starts": [TORCH | {"count": 2}, TORCH]}
    answer = await ask(API + "usage", "alice-server-token", "POST", report)
    assert body(answer) == {"counted": 2, "ignored": 0}
    await ask(API + "usage", "bob-token", "POST", {"starts": [TORCH]})
    mine = body(await ask(API + "usage", "alice-token"))
    assert (mine["everyone"], [use["starts"] for use in mine["uses"]]) == (False, [3])
    everybodys = body(await ask(API + "usage", "carol-token"))
    assert [(use["starts"], use["people"]) for use in everybodys["uses"]] == [(4, 2)]
    (version,) = body(await ask(API + "environments/team-vision/torch", "alice-token"))["versions"]
    assert version["last_used"].endswith("Z")
    assert "Your starts in 30 days: 3" in (await ask(PREFIX, "alice-token")).body.decode()
    assert "Starts in 30 days: 4" in (await ask(PREFIX, "carol-token")).body.decode()


async def test_a_server_may_do_nothing_else_with_its_token(ask, scopes) -> None:
    assert (await ask(API + "environments", "alice-server-token")).code == 403
    assert (await ask(API + "usage", "alice-server-token")).code == 403


async def test_what_one_cannot_see_or_has_made_up_is_not_counted(ask, scopes) -> None:
    report = {
        "starts": [
            TORCH | {"kernel": "conda-course-ml101-intro-python3", "source": "course-ml101",
                     "environment": "intro"},
            TORCH | {"kernel": "made-up"},
            TORCH | {"environment": ["x"]},
        ]
    }  # fmt: skip
    answer = await ask(API + "usage", "alice-token", "POST", report)
    assert body(answer) == {"counted": 0, "ignored": 3}
    assert body(await ask(API + "usage", "carol-token"))["uses"] == []


@pytest.mark.parametrize(
    "report",
    [
        b"",
        b"[",
        b"[" * 5000,
        b"[]",
        {"starts": 1},
        {"starts": [1]},
        {"starts": [{}]},
        {"starts": [TORCH | {"count": 0}]},
        {"starts": [TORCH | {"count": 10**9}]},
        {"starts": [TORCH | {"count": True}]},
        {"starts": [TORCH] * 51},
    ],
)
async def test_a_report_that_cannot_be_read_is_refused_with_its_reason(ask, scopes, report) -> None:
    answer = await ask(API + "usage", "alice-token", "POST", report)
    assert answer.code == 400
    assert "report" in body(answer)["error"]["message"]


async def test_nobody_can_fill_the_table_with_reports(ask, scopes) -> None:
    codes = [
        (await ask(API + "usage", "alice-token", "POST", {"starts": []})).code for _ in range(40)
    ]
    assert codes[0] == 200
    assert codes[-1] == 429
    assert (await ask(API + "usage", "bob-token", "POST", {"starts": []})).code == 200


async def test_a_body_that_is_too_large_is_not_read(ask, scopes) -> None:
    # The limit is the server's own (MAX_BODY); a report of the largest size fits into it.
    largest = {"starts": [dict.fromkeys(TORCH, "x" * 128) | {"count": 1}] * 50}
    assert len(json.dumps(largest)) < 32 * 1024
    assert (await ask(API + "usage", "alice-token", "POST", largest)).code == 200


@pytest.mark.parametrize("lang", LANGUAGES)
async def test_the_page_is_in_one_language(ask, scopes, lang) -> None:
    """Kind: people read it in their language, and times in their zone."""
    known = names_in(
        "alice carol s01 data stats torch bare intro vision ml101 ipykernel",
        # Names of kernels, as they are registered.
        "shared team course",
    )
    cookie = f"labcommons-lang={lang}; labcommons-tz=Asia/Shanghai"
    for path, token in (("", "alice"), ("", "carol"), ("?q=none", "s01"), ("x", "alice")):
        page = (await ask(PREFIX + path, f"{token}-token", Cookie=cookie)).body.decode()
        page = re.sub(r"conda install --prefix \S+ ipykernel", "", page)  # what may be typed
        assert of_page(page, lang, known) == []
        assert "UTC" not in page
