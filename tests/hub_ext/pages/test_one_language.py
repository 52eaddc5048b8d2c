"""Kind: a page is in one language, whoever wrote its words, and so is every message."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import jupyterhub
import pytest
import requests
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.handlers import default_handlers
from jupyterhub.scopes import scope_definitions

from commons import messages
from commons.i18n import JUST_CHOSEN, LANGUAGE_COOKIE, LANGUAGES, TIMEZONE_COOKIE, gettext_for
from commons.messages import Locale
from commons.web.pages import DEMO_ACCOUNTS
from hub_ext.jupyterhub_words import is_known, translated
from rig.one_language import (
    is_mixed,
    literals,
    names_in,
    not_in_zone,
    of_page,
    times,
    words,
)

from .conftest import MODEL, REFUSAL, SITE, Hub, Visitor
from .test_words import PACKAGES, ROOT, _catalogue, _texts

TEMPLATES = sorted(
    file
    for package in ("commons", "hub_ext", "kernels")
    for file in (ROOT / package).rglob("templates/*.html")
)
# By their classes: the addresses at which JupyterHub's pages are met, and as whom.
VISITS: dict[str, tuple[str, ...]] = {
    "RootHandler": ("",),
    "HomeHandler": ("home", "carol:home"),
    "AdminHandler": ("carol:admin", "carol:admin?ask=1", "admin"),
    "SpawnHandler": ("spawn", "spawn/NAME/second", "spawn?opt-size=small", "spawn/nobody-here"),
    "SpawnPendingHandler": ("spawn-pending/NAME", "spawn-pending/nobody-here"),
    "TokenPageHandler": ("token",),
    "AcceptShareHandler": ("accept-share", "accept-share?code=none"),
    "ProxyErrorHandler": tuple(f"error/{status}" for status in (403, 404, 429, 500, 503, 599)),
    "LoginHandler": (":login",),
    "LogoutHandler": ("logout",),
    "UserUrlHandler": ("/user/NAME/", "/user/nobody-here/"),
    "UserRedirectHandler": ("/hub/user-redirect/%00",),
}
# What is no page: for programs, or answered with nothing to read.
NO_PAGES = {"AddSlashHandler", "CSPReportHandler", "HealthCheckHandler", "MetricsHandler"}
NAMES = names_in(
    json.dumps(MODEL),
    SITE,
    REFUSAL,
    DEMO_ACCOUNTS,
    "alice carol ml101 s02 s40 second script alert admin-ui",
)


# Of the browsers here: a time in UTC is another day's in it.
ZONE = ZoneInfo("Pacific/Kiritimati")


def test_every_page_of_the_hub_is_visited() -> None:
    pages = {handler.__name__ for _, handler, *_ in default_handlers
             if not issubclass(handler, APIHandler)}  # fmt: skip
    assert pages == VISITS.keys() | NO_PAGES


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_page_of_the_hub_is_in_one_language_and_zone(hub: Hub, lang: str) -> None:
    who = {
        name: hub.person(name, lang.replace("_", "-")) for name in ("carol", f"reader-{lang[:2]}")
    }
    who[""] = hub.visitor(lang.replace("_", "-"))
    for visitor in who.values():
        visitor.session.cookies.set(TIMEZONE_COOKIE, ZONE.key)
    reader = f"reader-{lang[:2]}"
    _token(who[reader], reader)  # one with its times, on the page of tokens
    wrong: dict[str, object] = {}
    told = 0
    for path in (path for paths in VISITS.values() for path in paths):
        name, colon, rest = path.rpartition(":")
        address = (rest if colon else path).replace("NAME", reader)
        visitor = who[name if colon else reader]
        address = f"{urlsplit(hub.url).scheme}://{urlsplit(hub.url).netloc}{address}" if (
            address.startswith("/")) else hub.url + address  # fmt: skip
        answer = visitor.session.get(address, timeout=30)
        told += len(times(answer.text))
        if found := of_page(answer.text, lang, NAMES | {reader}) + not_in_zone(answer.text, ZONE):
            wrong[f"{path} ({answer.status_code})"] = found
    refused = who[reader].post("spawn", environment="py313-data", size="refused", gpus="0")
    failed = who[reader].post("spawn", environment="py313-data", size="fails", gpus="0")
    pending = who[reader].get(f"spawn-pending/{reader}")
    waiting = who["carol"].post("spawn", environment="py313-data", size="waits", gpus="1")
    pages = {"refused": refused, "failed": failed, "pending": pending, "waiting": waiting}
    token = re.search(r'data-xsrf="([^"]+)"', waiting.text)
    assert token
    who["carol"].session.delete(
        hub.url + "api/users/carol/server", headers={"X-XSRFToken": token[1]}, timeout=30
    )
    login = who[""].post("login", username="x", password="wrong")
    for place, answer in (*pages.items(), ("login", login)):
        if found := of_page(answer.text, lang, NAMES | {reader}):
            wrong[place] = found
    assert wrong == {}
    assert told


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.name)
def test_a_template_says_nothing_beside_the_catalogue(template: Path) -> None:
    # How somebody in the quotas' document is named; a file; names of techniques.
    named = {"group:NAME", "course.yaml", "SHA-256", "SSH", "SSH ·"}
    assert set(literals(template.read_text("utf-8"))) <= named


# -- messages --------------------------------------------------------------------------------------

# What may be typed into a field.
EXAMPLES = ("例如：torch team-vision", "例如：cowsay numpy>=2")


def _chinese() -> Iterator[tuple[str, str]]:
    yield from _texts(_catalogue("zh_CN")).items()
    kernels = ROOT / "kernels/locale"
    english = json.loads((kernels / "en.json").read_text("utf-8"))
    chinese = json.loads((kernels / "zh_CN.json").read_text("utf-8"))
    assert english.keys() == chinese.keys()
    yield from ((english[code], text) for code, text in chinese.items())


def test_every_sentence_is_in_one_language() -> None:
    wrong = [
        (message, text)
        for message, text in _chinese()
        if words(message, "en") or (is_mixed(text, "zh_CN") and text not in EXAMPLES)
    ]
    assert wrong == []


def test_what_is_the_same_in_both_languages_is_no_sentence() -> None:
    """Names, numbers and code alone need no translation."""
    same = [text for message, text in _chinese() if text == message.rpartition("\4")[2]]
    assert [text for text in same if is_mixed(text, "zh_CN")] == []


def _modules(name: str) -> Iterator[ModuleType]:
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, f"{name}."):
        if "__main__" not in found.name and "migrations" not in found.name:
            yield importlib.import_module(found.name)


def test_every_message_is_said_in_the_readers_language() -> None:
    """Also by what shows its parameters: times, durations, whose something is."""
    for package in ("commons", "courses", "spawner", "environments", "hub_ext", "jobs"):
        list(_modules(package))
    wrong = {}
    for code, text in messages.TEXTS.items():
        for english in {text.english if isinstance(text.english, str) else text.english[1],
                        *text.when.values(), text.none} - {""}:  # fmt: skip
            params = dict.fromkeys(re.findall(r"\{(\w+)\}", english), 7)
            params |= {name: 1 for name, words_of in text.when.items() if words_of == english}
            for lang in LANGUAGES:
                said = text(**params).in_words(Locale(gettext_for(lang)))
                if is_mixed(said, lang):
                    wrong[code, lang] = said
    assert wrong == {}
    assert len(messages.TEXTS) > 300


# -- refusals --------------------------------------------------------------------------------------


def _text_of(node: ast.expr) -> str | None:
    """A text in the code; ``x`` where something is put in. None where it is made elsewhere."""
    match node:
        case ast.Constant(value=str(text)):
            return re.sub(r"%\w", "x", text)
        case ast.JoinedStr(values=parts):
            return "".join(str(p.value) if isinstance(p, ast.Constant) else "x" for p in parts)
        case ast.Tuple(elts=[first, *_]) | ast.Call(func=ast.Attribute(value=first, attr="format")):
            text = _text_of(first)
            return text and re.sub(r"\{.*?\}", "x", text)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return (_text_of(left) or "") + (_text_of(right) or "")
    return None


def _texts_of_errors(
    file: Path, errors: tuple[str, ...] = ("HTTPError",), within: tuple[str, ...] = ()
) -> Iterator[tuple[int, str]]:
    """Texts that such errors are made with, also by way of a variable; of some functions alone.

    What is made elsewhere comes as the code that says it, in angle brackets.
    """
    for function in ast.walk(ast.parse(file.read_text("utf-8"))):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if within and function.name not in within:
            continue
        kept: dict[str, list[str]] = {}
        for node in ast.walk(function):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)]) if text := _text_of(node.value):
                    kept.setdefault(name, []).append(text)
        for node in ast.walk(function):
            if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith(errors):
                continue
            text_at = slice(1, 2) if ast.unparse(node.func).endswith("HTTPError") else slice(0, 1)
            for argument in node.args[text_at]:
                code = ast.unparse(argument)
                texts = [_text_of(argument)] if code not in kept else kept[code]
                yield from ((node.lineno, text or f"<{code}>") for text in texts)


def test_no_refusal_of_ours_is_a_finished_sentence() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line}: {text}"
        for package in (*PACKAGES, "config/images/server")
        for file in (ROOT / package).rglob("*.py")
        for line, text in _texts_of_errors(file)
        if not text.startswith("<")
    ]
    assert found == []


# JupyterHub's words that come out of what it calls: errors that it repeats, by file and function.
REPEATED = {
    "orm.py": ("new", "_apply_filter", "grant"),
    "scopes.py": ("_check_scopes_exist", "_check_token_scopes"),
    "user.py": ("new_orm_spawner", "get_spawner", "new_spawner"),
}
# Words of pydantic and oauthlib, and of ours where they are known: they are shown as theirs.
OTHERS = {"<str(e)>", "<e.description>"}
LOGGED = {"Allowing service x to complete OAuth without confirmation on an authorization web page"}


def _said_by_jupyterhub() -> set[str]:
    """All sentences with which the installed JupyterHub refuses something."""
    folder = Path(jupyterhub.__file__).parent
    files = [
        *(folder / "handlers").glob("*.py"),
        *(folder / "apihandlers").glob("*.py"),
        *(folder / name for name in ("_xsrf_utils.py", "scopes.py", "spawner.py", "user.py")),
        folder / "utils.py",
    ]
    said = {text for file in files for _, text in _texts_of_errors(file)}
    for name, functions in REPEATED.items():
        errors = ("ValueError", "ScopeNotFound")
        said |= {text for _, text in _texts_of_errors(folder / name, errors, functions)}
    return said - OTHERS - LOGGED


def test_what_jupyterhub_refuses_with_is_translated() -> None:
    """An update of JupyterHub that says something new fails here, with what that is."""
    said = _said_by_jupyterhub()
    assert len(said) > 90
    assert sorted(text for text in said if not is_known(text)) == []
    chinese = gettext_for("zh_CN")
    wrong = {text: translated(text, chinese) for text in said}
    assert {text: ours for text, ours in wrong.items() if is_mixed(ours, "zh_CN")} == {}


# -- REST ------------------------------------------------------------------------------------------

# By method and address, what JupyterHub's REST API refuses: the body, and the status.
REFUSED: tuple[tuple[str, str, object, int], ...] = (
    ("GET", "users/nobody", None, 404),
    ("GET", "no/such/address", None, 404),
    ("PUT", "users", None, 405),
    ("GET", "users?sort=colour", None, 400),
    ("GET", "users?state=colour", None, 400),
    ("GET", "users?limit=many", None, 400),
    ("POST", "users", "{", 400),
    ("POST", "users", {}, 400),
    ("POST", "users", {"usernames": ["carol"]}, 409),
    ("POST", "users/carol", None, 409),
    ("PATCH", "users/carol", {"colour": "red"}, 400),
    ("PATCH", "users/carol", {"admin": "yes"}, 400),
    ("DELETE", "users/carol", None, 400),
    ("GET", "groups/none", None, 404),
    ("POST", "users/carol/servers/x", {"user_options": 7}, 400),
    ("PATCH", "users/carol/servers/none", {"display_name": "x"}, 404),
    ("DELETE", "users/carol/servers/none", {"remove": True}, 404),
    ("DELETE", "users/carol/server", {"remove": True}, 400),
    ("POST", "users/carol/tokens", {"expires_in": "long"}, 400),
    ("POST", "users/carol/tokens", {"scopes": ["no:such"]}, 400),
    ("POST", "users/carol/tokens", {"roles": ["nobody"]}, 400),
    ("GET", "users/carol/tokens/a999", None, 404),
    ("GET", "services/none", None, 404),
    ("POST", "shares/carol/none", {"user": "carol", "group": "x"}, 400),
    ("POST", "shutdown", {"proxy": "perhaps"}, 400),
    ("POST", "authorizations/token", {}, 404),
)


def _token(person: Visitor, name: str) -> str:
    """One of a person's own, made as a page's script makes it."""
    xsrf = re.search(r'data-xsrf="([^"]+)"', person.get("home").text)
    assert xsrf
    made = person.session.post(
        f"{person.hub.url}api/users/{name}/tokens", headers={"X-XSRFToken": xsrf[1]}, timeout=30
    )
    return str(made.json()["token"])


def _refusals(hub: Hub, token: str, **headers: str) -> dict[tuple[str, str, str], tuple[int, str]]:
    """What a program is told that does all of REFUSED."""
    found = {}
    for method, path, body, _ in REFUSED:
        sent = body if isinstance(body, str) else json.dumps(body) if body is not None else None
        answer = requests.request(
            method, f"{hub.url}api/{path}", data=sent, timeout=30,
            headers={"Authorization": f"token {token}", **headers},
        )  # fmt: skip
        assert answer.json()["status"] == answer.status_code, answer.text
        found[method, path, sent or ""] = (answer.status_code, answer.json()["message"])
    return found


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_rest_refuses_is_in_the_language_that_is_asked_for(hub: Hub, lang: str) -> None:
    told = _refusals(hub, _token(hub.person("carol"), "carol"),
                     **{"Accept-Language": lang.replace("_", "-")})  # fmt: skip
    assert [status for status, _ in told.values()] == [status for *_, status in REFUSED]
    assert {key: said for key, (_, said) in told.items() if not said or is_mixed(said, lang)} == {}


def test_in_english_rest_refuses_in_jupyterhubs_own_words(hub: Hub) -> None:
    """Programs of others may go by them."""
    told = _refusals(hub, _token(hub.person("carol"), "carol"))
    assert told["GET", "groups/none", ""] == (404, "No such group: none")


def test_a_program_that_asks_for_no_language_gets_its_owners(hub: Hub) -> None:
    person = hub.person("admin-in-chinese", "en")
    token = _token(person, "admin-in-chinese")
    address = f"{hub.url}api/users/nobody"
    in_english = requests.get(address, headers={"Authorization": f"token {token}"}, timeout=30)
    person.session.cookies.set(LANGUAGE_COOKIE, f"zh_CN{JUST_CHOSEN}", path="/hub/")
    person.get("home")
    in_chinese = requests.get(address, headers={"Authorization": f"token {token}"}, timeout=30)
    assert in_english.json()["status"] == in_chinese.json()["status"] == 404
    assert (words(in_english.json()["message"], "zh") != [], in_chinese.json()["message"]) == (
        True,
        "没有访问权限，或内容不存在。",
    )


def test_every_scope_that_a_page_asks_consent_for_is_translated() -> None:
    chinese = gettext_for("zh_CN")
    said = [str(scope["description"]) for scope in scope_definitions.values()]
    assert [text for text in said if translated(text, chinese) == text] == []


# -- scripts ---------------------------------------------------------------------------------------

SCRIPTS = sorted(
    file
    for folder in ("commons/web/static", "hub_ext", "kernels/service/static")
    for file in (ROOT / folder).rglob("*.js")
)
SPOKEN = re.compile(r"""(["'`])(?=[^"'`]*[A-Za-z]{2,} [a-z]{2,})[A-Z][^"'`<>{}=]*\1""")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_a_script_has_its_words_from_the_page(script: Path) -> None:
    source = re.sub(r"^\s*//.*$", "", script.read_text("utf-8"), flags=re.MULTILINE)
    assert {match[0].strip(match[1]) for match in SPOKEN.finditer(source)} == set()


LAB = sorted(
    file
    for folder in ("kernels/labextensions", "config/images/server/notices/labextension")
    for file in (ROOT / folder).rglob("*.js")
)


@pytest.mark.parametrize("script", LAB, ids=lambda file: f"{file.parents[1].name}-{file.name}")
def test_what_a_part_of_jupyterlab_says_is_there_in_chinese(script: Path) -> None:
    """By a table in the script itself, or with words from the console or the server."""
    unseen = r"^\s*(//|description:|console\.).*$"
    source = re.sub(unseen, "", script.read_text("utf-8"), flags=re.MULTILINE)
    english = re.search(r"en: \{(.*?)^ {2,4}\}", source, re.DOTALL | re.MULTILINE)
    table = re.search(r"zh: \{(.*?)^ {2,4}\}", source, re.DOTALL | re.MULTILINE)
    chinese = dict(re.findall(r"'([^'\n]+)':\s*\n?\s*'([^'\n]*)'", table[1])) if table else {}
    assert [text for text in chinese.values() if not words(text, "en")] == []
    if english and table:  # one table for each language
        names = [re.findall(r"(\w+): \"", found[1]) for found in (english, table)]
        assert names[0] == names[1]
        source = source.replace(english[0], "")
    said = {match[0].strip(match[1]) for match in SPOKEN.finditer(source)}
    assert said - chinese.keys() == set()
