"""The catalogues hold what the code says: nothing missing, nothing that breaks a sentence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from jinja2 import Environment
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from commons.i18n import LANGUAGE_COOKIE, LANGUAGES, NP_, gettext_for
from commons.web.pages import PageExtension
from hub_ext.jupyterhub_words import translated

ROOT = Path(__file__).parents[3]
PACKAGES = ("commons", "courses", "environments", "hub_ext", "jobs", "jump", "kernels", "spawner")
LOCALE = ROOT / "commons" / "locale"
# English words that the pages say of different things, for which Chinese has different words.
SEVERAL_READINGS = {
    "GPUs",
    "in use",
    "Leave the queue",
    "Leave the queue?",
    "My server",
    "Name",
    "Next",
    "none",
    "Note",
    "Offer again",
}
# Of these the thing itself is said without a context.
ALSO_PLAIN = {"GPUs", "Next", "Note", "broken"}
PLACEHOLDER = re.compile(r"%%|%\(\w+\)s|\{\w+\}|</?\w+>")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Everything the code and the templates say now."""
    template = tmp_path_factory.mktemp("words") / "labcommons.pot"
    extract = [sys.executable, "-m", "babel.messages.frontend", "-q", "extract"]
    keywords = [part for word in ("N_", "NP_:1c,2", "NN_:1,2") for part in ("--keyword", word)]
    options = ["--mapping", str(LOCALE / "babel.cfg"), *keywords, "--output", str(template)]
    subprocess.run(
        [*extract, *options, *PACKAGES],
        cwd=ROOT,
        check=True,
        timeout=120,
    )
    with template.open("rb") as file:
        return read_po(file)


def _catalogue(lang: str) -> Catalog:
    with (LOCALE / lang / "LC_MESSAGES" / "labcommons.po").open("rb") as file:
        return read_po(file, locale=lang)


def _texts(catalogue: Catalog) -> dict[str, str]:
    """Translations by context and text; of one and many both count."""
    found = {}
    for m in catalogue:
        ids = m.id if isinstance(m.id, tuple | list) else (m.id,)
        strings = m.string if isinstance(m.string, tuple | list) else (m.string,)
        if ids[0] and not m.fuzzy:
            context = f"{m.context}\4" if m.context else ""
            found |= {f"{context}{each}": str(strings[-1] or "") for each in ids}
    return found


@pytest.mark.parametrize("lang", [lang for lang in LANGUAGES if lang != "en"])
def test_everything_that_is_said_is_translated(said: Catalog, lang: str) -> None:
    translated = _texts(_catalogue(lang))
    missing = [message for message in _texts(said) if not translated.get(message)]
    assert not missing, "run commons/locale/update.sh and translate"


@pytest.mark.parametrize("lang", [lang for lang in LANGUAGES if lang != "en"])
def test_translations_keep_every_placeholder(lang: str) -> None:
    # A language without plurals says "many" for one, too.
    ones = {m.id[0] for m in _catalogue(lang) if isinstance(m.id, tuple)}
    for message, translation in _texts(_catalogue(lang)).items():
        if message in ones:
            continue
        assert sorted(PLACEHOLDER.findall(translation)) == sorted(PLACEHOLDER.findall(message))


def test_a_word_with_several_readings_says_everywhere_which(said: Catalog) -> None:
    by_context = {m.id for m in said if m.context and isinstance(m.id, str)}
    plain = {m.id for m in said if m.id and not m.context}
    assert by_context >= SEVERAL_READINGS
    assert by_context & plain == ALSO_PLAIN


@pytest.mark.parametrize("lang", [lang for lang in LANGUAGES if lang != "en"])
def test_each_reading_has_its_own_translation(said: Catalog, lang: str) -> None:
    catalogue = _catalogue(lang)
    readings: dict[str, list[object]] = {}
    for m in said:
        if isinstance(m.id, str) and m.id in SEVERAL_READINGS:
            translated = catalogue.get(m.id, m.context)
            readings.setdefault(m.id, []).append(translated.string if translated else "")
    assert {word: found for word, found in readings.items() if len(found) != len(set(found))} == {}


# What the editor's glossary has another word for, and half-width marks beside Chinese ones.
BANNED = (
    "启动器", "GPU 小时", "GPU 时数", "站点文件", "账号编号", "注册表", "登记表", "注册服务",
    "不再推荐", "不建议使用", "构建程序", "填补空隙", "个 GPU", "映像", "实例",
    "告诉管理员", "告知管理员", "咨询管理员", "一分钟后重试", "稍后再试", "……",
)  # fmt: skip
HALF_WIDTH = re.compile(
    r"[\u4e00-\u9fff”）][,;:!?](?!\d)|[,;:!?(][\u4e00-\u9fff“（]|[，。：；、）] "
)


def _chinese() -> dict[str, str]:
    kernels = json.loads((LOCALE.parents[1] / "kernels/locale/zh_CN.json").read_text("utf-8"))
    return {**_texts(_catalogue("zh_CN")), **kernels}


def test_chinese_keeps_the_editors_rules() -> None:
    """The kind: one word for one thing, full-width marks, no halves glued with spaces."""
    wrong = [
        (message, text)
        for message, text in _chinese().items()
        if HALF_WIDTH.search(text) or text != text.strip() or any(one in text for one in BANNED)
    ]
    assert wrong == []


class _Words(RequestHandler):
    """A page of one template, as a service makes it."""

    def get(self) -> None:
        templates = Environment(autoescape=True, extensions=[PageExtension])
        source = """
            {{- pgettext("GPU", "in use") }}|{{ pgettext("version", "in use") }}
            {{- "|" }}{{ known(marked) }}|{{ known(foreign) }}"""
        marked, foreign = NP_("version", "in use"), NP_("no such reading", "<b>%(x)s</b>")
        page = templates.from_string(source)
        self.finish(page.render(handler=self, marked=marked, foreign=foreign))


@pytest.mark.parametrize(
    ("lang", "gpu", "version"), [("en", "in use", "in use"), ("zh_CN", "使用中", "当前版本")]
)
async def test_templates_say_a_word_by_its_reading(lang: str, gpu: str, version: str) -> None:
    [listening] = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(Application([("/", _Words)]))
    server.add_socket(listening)
    try:
        answer = await AsyncHTTPClient().fetch(
            f"http://127.0.0.1:{listening.getsockname()[1]}/",
            headers={"Cookie": f"{LANGUAGE_COOKIE}={lang}"},
        )
    finally:
        server.stop()
    assert answer.body.decode() == f"{gpu}|{version}|{version}|&lt;b&gt;%(x)s&lt;/b&gt;"


def test_the_check_reads_templates_and_every_package(said: Catalog) -> None:
    places = {place.partition("/")[0] for m in said for place, _ in m.locations}
    assert places == set(PACKAGES)
    assert "Sign in to %(site_name)s" in _texts(said)


def test_a_sentence_that_somebody_made_endless_is_not_looked_through() -> None:
    """Kind: what JupyterHub says may repeat what was sent; a megabyte takes minutes."""
    said = "Scope filter " + " '" * 500_000
    assert translated(said, gettext_for("zh_CN")) == said
