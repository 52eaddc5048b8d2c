"""The hub's pages, as a real hub serves them."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from .conftest import HOSTILE, REFUSAL, Hub, Visitor


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.texts: dict[str, str] = {}
        self._open: list[str | None] = []
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.found.append((tag, named))
        self._script = tag == "script"
        if tag not in ("input", "meta", "link", "br", "img"):
            self._open.append(named.get("id"))

    def handle_endtag(self, tag: str) -> None:
        self._script = False
        if self._open:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts.append(data)
        for name in filter(None, self._open):
            self.texts[name] = self.texts.get(name, "") + data


def parse(page: str) -> _Elements:
    elements = _Elements()
    elements.feed(page)
    return elements


def inputs(page: str, name: str) -> list[dict[str, str | None]]:
    return [a for tag, a in parse(page).found if tag == "input" and a.get("name") == name]


@pytest.fixture(scope="module")
def alice(hub: Hub) -> Visitor:
    return hub.person("alice")


@pytest.fixture(scope="module")
def mei(hub: Hub) -> Visitor:
    return hub.person("mei", "zh-CN,zh;q=0.9,en;q=0.5")


def test_the_login_page_names_the_site_and_says_that_it_is_a_demo(hub: Hub) -> None:
    page = hub.visitor().get("login").text
    assert "Sign in to Lab &lt;b&gt;of&lt;/b&gt; tests" in page
    assert "This is a demo" in page
    assert "simulated" in page
    for name in ("carol", "bob", "alice", "dan", "s01"):
        assert f'data-account="{name}"' in page


def test_a_wrong_password_is_said_in_an_alert_and_the_name_is_kept(hub: Hub) -> None:
    answer = hub.visitor().post("login", username='al"><b>', password="wrong")
    page = parse(answer.text)
    assert answer.status_code == 403
    assert page.texts["login-error"] == "Invalid username or password"
    assert any(a.get("role") == "alert" for _, a in page.found)
    assert inputs(answer.text, "username")[0]["value"] == 'al"><b>'


def test_a_wrong_password_is_said_in_chinese_to_who_reads_chinese(hub: Hub) -> None:
    answer = hub.visitor("zh-CN").post("login", username="alice", password="wrong")
    assert parse(answer.text).texts["login-error"] == "用户名或密码错误"


@pytest.mark.parametrize(
    ("accept", "cookie", "words"),
    [
        ("en", None, "Sign in"),
        ("zh-TW,zh;q=0.9", None, "登录"),
        ("zh-CN", "en", "Sign in"),
        ("en", "zh_CN", "登录"),
        ("en", "../../etc/passwd", "Sign in"),
        ("x" * 5000, None, "Sign in"),
    ],
)
def test_the_cookie_wins_over_the_browser_for_the_language(
    hub: Hub, accept: str, cookie: str | None, words: str
) -> None:
    visitor = hub.visitor(accept)
    if cookie:
        visitor.session.cookies.set("labcommons-lang", cookie)
    page = visitor.get("login").text
    assert re.search(rf"<title>\s*{words}", page)


def test_the_switch_of_one_browser_is_the_choice_in_the_next(hub: Hub) -> None:
    first, second = hub.person("two-browsers", "en"), hub.person("two-browsers", "en")
    first.session.cookies.set("labcommons-lang", "zh_CN.new", domain="127.0.0.1", path="/")
    assert "没有正在运行的服务器" in first.get("home").text
    # It is kept with the name by now, and said once.
    assert first.session.cookies.get_dict()["labcommons-lang"] == "zh_CN"
    assert "没有正在运行的服务器" in second.get("home").text
    # A program with one's token that asks for no language gets it, too.
    xsrf = re.search(r'xsrf_token: "([^"]+)"', second.get("token").text)
    assert xsrf
    made = second.session.post(
        hub.url + "api/users/two-browsers/tokens",
        headers={"X-XSRFToken": xsrf[1]},
        json={},
        timeout=30,
    )
    token, address = made.json()["token"], hub.url + "api/users/two-browsers/server"
    for wanted, chinese in (({}, True), ({"Accept-Language": "en"}, False)):
        headers = {"Authorization": f"token {token}", **wanted}
        answer = requests.delete(address, headers=headers, json={"grace": "x"}, timeout=30)
        assert "“grace”" in answer.json()["message"]
        assert ("秒" in answer.json()["message"]) is chinese


def test_the_language_switch_says_which_language_is_shown(mei: Visitor) -> None:
    buttons = [a for tag, a in parse(mei.get("home").text).found if "data-language" in a]
    assert [(b["data-language"], b["aria-pressed"]) for b in buttons] == [
        ("en", "false"),
        ("zh_CN", "true"),
    ]


@pytest.mark.parametrize(
    ("path", "english", "chinese"),
    [
        ("home", "No server is running", "没有正在运行的服务器"),
        ("spawn", "Choose what you want to work with", "选择要使用的环境和资源"),
        ("nothing-here", "There is nothing here", "页面不存在"),
        ("token", "My servers", "我的服务器"),
    ],
)
def test_pages_come_in_both_languages(
    alice: Visitor, mei: Visitor, path: str, english: str, chinese: str
) -> None:
    assert english in alice.get(path).text
    translated = mei.get(path).text
    assert chinese in translated
    assert english not in translated


def test_an_address_that_is_no_utf8_gets_a_page(hub: Hub, alice: Visitor) -> None:
    """Kind: what cannot be read fails before anybody is known."""
    log = hub.home / "hub.log"
    before = len(log.read_text())
    for path in (
        "%ff%fe",
        "login%ff",
        "user/%ff",
        "user/alice/%ff",
        "spawn/%ff",
        "spawn-pending/%ff",
    ):
        for visitor in (hub.visitor(), alice):
            answer = visitor.get(path)
            assert answer.status_code == 400
            assert "<h1" in answer.text
    assert "Traceback" not in log.read_text()[before:]


def test_hostile_titles_and_descriptions_are_text(alice: Visitor) -> None:
    page = alice.get("spawn").text
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;alert(&#39;x&#39;)") == 3
    assert not any("alert(" in script for script in parse(page).scripts)


def test_what_cannot_be_had_is_disabled_and_its_reason_belongs_to_it(alice: Visitor) -> None:
    page = alice.get("spawn").text
    texts = parse(page).texts
    disabled = [
        field
        for name in ("environment", "gpus", "size")
        for field in inputs(page, name)
        if "disabled" in field
    ]
    assert [field["value"] for field in disabled] == ["py311-torch", "2"]
    for field in disabled:
        described = " ".join(texts.get(i, "") for i in (field["aria-describedby"] or "").split())
        assert re.search(r"Only (team vision|1 of one type)", described)


def test_every_radio_button_has_a_label_and_every_group_a_legend(alice: Visitor) -> None:
    elements = parse(alice.get("spawn").text).found
    labels = {a.get("for") for tag, a in elements if tag == "label"}
    radios = [a["id"] for tag, a in elements if tag == "input" and a.get("type") == "radio"]
    assert radios
    assert labels.issuperset(radios)
    tags = [tag for tag, _ in elements]
    assert tags.count("fieldset") == tags.count("legend") == 3


def test_simulated_gpus_say_so_beside_the_choice(alice: Visitor) -> None:
    page = alice.get("spawn").text
    assert "2 of 3 free now" in page
    assert re.search(r"GPUs\s*<span[^>]*>simulated</span>", page)


def test_without_gpus_there_is_no_choice_of_them(
    hub: Hub, alice: Visitor, model: dict[str, Any]
) -> None:
    model["gpus"] |= {"total": 0, "free": 0, "max": 0, "types": []}
    model["gpus"]["choices"] = [{"count": 0, "disabled": None, "selected": True}]
    hub.set_model(model)
    page = alice.get("spawn").text
    assert "There are no GPUs to choose on this site." in page
    assert not inputs(page, "gpus")


def test_where_nothing_can_be_started_the_page_says_what_to_do(
    hub: Hub, alice: Visitor, model: dict[str, Any]
) -> None:
    hub.set_model(model | {"problem": "No environment has been built yet. Ask an administrator."})
    page = alice.get("spawn").text
    assert "Ask an administrator." in page
    assert 'id="spawn_form"' not in page


@pytest.mark.parametrize("form", [[], {"environments": []}, "<form>", None])
def test_another_spawners_form_is_not_shown_as_it_is(
    hub: Hub, alice: Visitor, model: dict[str, Any], form: object
) -> None:
    hub.set_model(form)
    answer = alice.get("spawn")
    assert answer.status_code == 200
    assert "labcommons-docker" in answer.text


def test_a_refusal_is_shown_as_text_and_the_choices_stay(hub: Hub, alice: Visitor) -> None:
    answer = alice.post(
        "spawn",
        environment="py313-data:20261101-00112233",
        size="refused",
        gpus="1",
        gpu_type="RTX 4090",
    )
    assert answer.status_code == 409
    elements = parse(answer.text)
    alert = next(a for _, a in elements.found if "spawn-error-msg" in (a.get("class") or ""))
    assert alert["role"] == "alert"
    assert HOSTILE not in answer.text
    assert "has no version “&lt;script&gt;" in answer.text
    checked = [
        field["value"]
        for name in ("environment", "size", "gpus")
        for field in inputs(answer.text, name)
        if "checked" in field
    ]
    assert checked == ["py313-data", "refused", "1"]
    selected = [a["value"] for tag, a in elements.found if tag == "option" and "selected" in a]
    assert selected == ["20261101-00112233", "RTX 4090"]


def test_the_form_posts_to_its_own_address_so_that_a_reload_starts_nothing(alice: Visitor) -> None:
    page = alice.get("spawn").text
    form = next(a for tag, a in parse(page).found if a.get("id") == "spawn_form")
    assert "action" not in form


def test_a_start_that_is_under_way_shows_progress_and_can_be_cancelled(hub: Hub) -> None:
    paul = hub.person("paul")
    answer = paul.post("spawn", environment="py313-data", size="small", gpus="1")
    assert "/hub/spawn-pending/paul" in answer.url
    elements = parse(answer.text)
    steps = next(a for _, a in elements.found if a.get("id") == "steps")
    assert steps["aria-live"] == "polite"
    assert any(a.get("role") == "progressbar" for _, a in elements.found)
    cancel = next(a["data-delete"] for _, a in elements.found if "data-delete" in a)
    assert cancel == "/hub/api/users/paul/server"
    assert "py313-data" in answer.text
    assert "Starting" in paul.get("home").text
    page = paul.get("home").text
    token = re.search(r'data-xsrf="([^"]+)"', page)
    assert token
    ended = paul.session.delete(
        f"{hub.url}api/users/paul/server", headers={"X-XSRFToken": token[1]}, timeout=30
    )
    assert ended.status_code in (202, 204)


def test_a_start_that_failed_shows_its_reason_as_text(hub: Hub) -> None:
    nora = hub.person("nora")
    answer = nora.post("spawn", environment="py313-data", size="fails", gpus="0")
    progress = next(a["data-progress"] for _, a in parse(answer.text).found if "data-progress" in a)
    assert progress
    stream = nora.session.get(
        f"{hub.url.removesuffix('/hub/')}{progress}",
        headers={"Accept": "text/event-stream"},
        timeout=30,
    )
    assert '"failed": true' in stream.text
    page = nora.get("spawn-pending/nora").text
    assert "The server was not started" in page
    assert HOSTILE not in page
    assert REFUSAL.partition("<")[0] in page


def test_administrators_see_the_hubs_own_pages_in_our_frame(hub: Hub) -> None:
    carol = hub.person("carol")
    for path, own in (("admin", "admin?ask=1"), ("token", "request-token-form")):
        page = carol.get(path).text
        assert own in page
        assert 'class="navbar navbar-expand-lg lc-nav"' in page
        assert 'href="/services/labcommons/people"' in page


def test_people_have_no_link_to_administration(alice: Visitor) -> None:
    home = alice.get("home").text
    assert 'href="/services/labcommons/people"' not in home
    assert alice.get("admin").status_code == 403


def test_the_hub_is_shut_down_only_by_who_was_asked(hub: Hub) -> None:
    carol = hub.person("carol")
    assert "Shut down the hub…" in carol.get("admin").text
    asked = carol.get("admin?ask=1").text
    assert "Servers that run go on" in asked
    # A form without the answer asks; nobody else is asked at all.
    assert "Servers that run go on" in carol.post("admin", do="").text
    assert hub.person("nora").post("admin", do="shutdown").status_code == 403
    assert carol.get("home").status_code == 200, "the hub is still there"


def test_no_page_takes_anything_from_elsewhere(alice: Visitor) -> None:
    for path in ("home", "spawn", "login"):
        for _, attributes in parse(alice.get(path).text).found:
            for key in ("src", "href", "action"):
                assert not re.match(r"(https?:)?//", attributes.get(key) or ""), attributes


def test_signing_out_is_asked_about_and_ends_copied_cookies(hub: Hub) -> None:
    person, thief = hub.person("leaver"), hub.visitor()
    thief.session.cookies.update(person.session.cookies)
    assert thief.get("home").url.endswith("/hub/home")
    # A link alone signs nobody out.
    asked = person.get("logout")
    assert "Sign out?" in asked.text
    assert asked.headers["Cache-Control"] == "no-store"
    assert thief.get("home").url.endswith("/hub/home")
    assert urlsplit(person.post("logout", confirmed="yes").url).path == "/hub/login"
    assert urlsplit(thief.get("home").url).path == "/hub/login"


def test_of_two_tabs_one_starts_the_server_and_the_other_is_told(hub: Hub) -> None:
    """Kind: two clicks at once, during the start, and when it runs: one start, no error page."""
    first, second = hub.person("tabs"), hub.person("tabs")
    forms = [one.get("spawn/tabs").text for one in (first, second)]
    tokens = [parsed[1] for form in forms if (parsed := re.search('_xsrf" value="([^"]+)"', form))]

    def start(one: Visitor, token: str, size: str) -> requests.Response:
        form = {"_xsrf": token, "environment": "py313-data", "size": size}
        return one.session.post(f"{hub.url}spawn/tabs", data=form, timeout=30)

    with ThreadPoolExecutor() as pool:
        pages = list(pool.map(start, (first, second), tokens, ("small", "small")))
    pages.append(start(second, tokens[1], "small"))
    assert [page.status_code for page in pages] == [200, 200, 200]
    told = [page for page in pages if "It was started from another page already" in page.text]
    assert len(told) == 2
    until = time.monotonic() + 60
    while "Running" not in first.get("home").text:
        assert time.monotonic() < until
        time.sleep(0.2)
    page = start(first, tokens[0], "small")
    assert "The server runs already: it was started from another page" in page.text
    # Asked for while it stops, it starts after that.
    (hub.home / "slow-stop").touch()
    headers = {"X-XSRFToken": tokens[0], "Sec-Fetch-Mode": "cors"}
    with ThreadPoolExecutor() as pool:
        try:
            address = f"{hub.url}api/users/tabs/server"
            stop = pool.submit(first.session.delete, address, headers=headers, timeout=30)
            third = hub.person("tabs")
            while "Stopping" not in third.get("home").text:
                assert not stop.done()
            again = pool.submit(start, second, tokens[1], "small")
        finally:
            (hub.home / "slow-stop").unlink()
        assert stop.result().status_code in (202, 204)
        page = again.result()
    assert (page.status_code, "/spawn-pending/" in page.url) == (200, True)
    assert "started from another page" not in page.text


def test_a_form_that_a_link_filled_says_so_and_what_it_could_not(
    hub: Hub, model: dict[str, Any], alice: Visitor
) -> None:
    hub.set_model(model | {"linked": True, "link_problems": []})
    assert "A link has filled in this form" in alice.get("spawn/alice").text
    hub.set_model(model | {"linked": True, "link_problems": [], "course": "ml101"})
    assert 'type="hidden" name="course" value="ml101"' in alice.get("spawn/alice").text
    hub.set_model(model | {"linked": True, "link_problems": [f"No size {HOSTILE}."]})
    page = alice.get("spawn/alice").text
    assert "Some of what the link asks for is not available" in page
    assert HOSTILE not in page


def test_a_link_with_options_or_a_new_name_is_asked_about(hub: Hub) -> None:
    person = hub.person("linked")
    assert "Start a server?" in person.get("spawn/linked?opt-size=small").text
    # Without "opt-" a link fills the form, and starts nothing.
    assert 'id="spawn_form"' in person.get("spawn/linked?size=small&gpus=1").text
    assert "Set up the server fresh?" in person.get("spawn/linked/fresh?size=small").text
    assert "Set up the server fresh?" in person.get("spawn/linked/fresh").text
    assert 'id="spawn_form"' in person.get("spawn/linked").text
    assert 'id="spawn_form"' in person.post("spawn/linked/fresh", confirmed="yes").text


@pytest.mark.parametrize(
    "path", ["home", "nothing", "static/js/darkmode.js", "logo", "api/nothing"]
)
def test_every_answer_keeps_other_pages_out(hub: Hub, path: str) -> None:
    answer = hub.person("guarded").get(path)
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
