"""The console: what it shows, to whom, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from commons.i18n import Reader
from commons.readers import Readers
from commons.site import Site
from commons.store import DiskUse, prunes
from commons.store.models import utcnow
from hub_ext.doctor import kept

from .conftest import HOSTILE, Console

PAGES = [
    "",
    "environments",
    "reservations",
    "inbox",
    "ahead",
    "doctor",
    "vulnerable",
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
    "api/v1/warm-starts",
    "api/v1/notices",
    "api/v1/environments",
    "api/v1/builds",
    "api/v1/doctor",
    "api/v1/vulnerable",
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
    assert "我和团队占用的 GPU" in page
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
    assert refusal["code"] == "store_damaged"
    assert answer.headers["Retry-After"]
    assert file not in refusal["message"]


async def test_a_store_that_fails_gives_a_page_and_json_with_503(filled: Console) -> None:
    with filled.store.session() as session:
        session.execute(text("DROP TABLE gpu_lease_devices"))
    assert (await filled.get("", "alice-token")).code == 503
    answer = await filled.get("api/v1/gpus", "alice-token")
    assert answer.code == 503
    assert b"DROP" not in answer.body
    assert b"gpu_lease_devices" not in answer.body


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


async def test_no_page_is_a_dead_end(filled: Console) -> None:
    """Also of an address that does not exist: who is known has the ways on, others the way in."""
    page = (await filled.get("nothing/here", "alice-token")).body.decode()
    assert "The address may be mistyped" in page
    assert 'href="/hub/token"' in page
    assert "alice" in page
    stranger = (await filled.get("nothing/here")).body.decode()
    assert 'href="/hub/home"' in stranger
    assert 'href="/hub/token"' not in stranger


async def test_only_our_own_static_files_are_served(filled: Console) -> None:
    assert (await filled.get("static/page.js")).code == 200
    for path in ("static/../pages.py", "static/..%2fpages.py", "static/none.css"):
        assert (await filled.get(path)).code == 404


async def test_the_switch_of_any_page_is_a_persons_choice_everywhere(
    console: Console, lab_site: Site
) -> None:
    """The kind: kept with the name; a token that asks for no language has it, too."""

    async def said(**headers: str) -> str:
        answer = await console.json("api/v1/leases/none", "bob-token", **headers)
        return str(answer["error"]["message"])

    english = await said()
    assert english.isascii()
    readers = Readers(console.store, lab_site)
    await readers.meet("bob", chosen="zh_CN", timezone="Asia/Shanghai")
    chinese = await said()
    assert not chinese.isascii()
    assert await said(**{"Accept-Language": "en"}) == english
    assert await readers.meet("bob", directory="de", chosen="x") == Reader(
        "zh_CN", "de", "Asia/Shanghai"
    )
    assert await readers.known("alice") == Reader()


async def test_everybody_sees_their_own_home_and_administrators_all(console: Console) -> None:
    assert "one folder a minute" in (await console.get("disk", "alice-token")).body.decode()
    rows = (("homes", "alice", 3 * 2**30), ("homes", "bob", 2**30), ("teams", "vision", 2**20))
    for area, name, size in rows:
        row = DiskUse(area=area, name=name, bytes=size, whole=name != "bob", at=utcnow())
        row.largest = [{"folder": "<b>old</b>", "bytes": size // 2}]
        console.store.transact(lambda s, row=row: s.add(row))
    mine = (await console.get("disk", "alice-token")).body.decode()
    assert ">alice" in mine
    assert "vision" not in mine
    assert "&lt;b&gt;old" in mine
    everything = (await console.get("disk", "carol-token")).body.decode()
    assert "vision" in everything
    assert "at least 1" in everything
    assert "not removed yet" in everything
    assert "not removed yet" not in mine
    gone = {"kind": "versions", "count": 1, "freed": 2**30, "names": ["<b>a</b>:1"]}
    console.store.transact(lambda s: prunes.note(s, [gone]))
    shown = (await console.get("disk", "carol-token")).body.decode()
    assert "Versions of environments" in shown
    assert "&lt;b&gt;a&lt;/b&gt;:1" in shown
    console.store.transact(lambda s: prunes.note(s, [], "<b>no</b>"))
    shown = (await console.get("disk", "carol-token")).body.decode()
    assert "came to no end: &lt;b&gt;no" in shown


async def test_the_page_health_says_what_is_new_since_the_version_before(
    filled: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABCOMMONS_SITE_FILE", str(tmp_path / "site.yaml"))
    assert "What is new since" not in (await filled.get("doctor", "carol-token")).body.decode()
    changes = [{"text": "`make <b>`"}]
    news = {"before": "0.1.0 (0a1b2c3d4e5f)", "changes": changes}
    (tmp_path / "news.json").write_text(json.dumps(news))
    page = (await filled.get("doctor", "carol-token")).body.decode()
    assert "What is new since 0.1.0 (0a1b2c3d4e5f)" in page
    assert "<code>make &lt;b&gt;</code>" in page


async def test_health_is_for_administrators_and_is_looked_at_when_they_ask(
    filled: Console,
) -> None:
    words = {"en": "is <b>full</b>", "zh_CN": "已满"}
    row = {"check": "disk", "about": "data/", "state": "broken", "cause": words, "remedy": words}
    filled.store.transact(lambda session: kept.keep(session, [row]))
    page = (await filled.get("doctor", "carol-token")).body.decode()
    assert "is &lt;b&gt;full&lt;/b&gt;" in page
    assert (await filled.get("doctor", "alice-token")).code == 403
    found = await filled.json("api/v1/doctor", "carol-token")
    assert found["state"] == "broken"
    assert found["checks"][0]["findings"][0]["about"] == "data/"
    assert not filled.store.transact(kept.asked)
    await filled.send("POST", "doctor", "carol-token", "")
    assert filled.store.transact(kept.asked)
