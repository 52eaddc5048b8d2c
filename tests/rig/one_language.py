"""Whether a page is in one language: what of its text is not.

Looked at is what a person sees or hears read out: text, and the attributes that are shown. Not
looked at: code, and what says itself that it is in another language (``lang``), as the language
switch and marked words of other programs do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, tzinfo
from html.parser import HTMLParser

from jinja2 import Environment

SHOWN = ("title", "aria-label", "placeholder", "alt", "data-title", "data-text", "data-yes",
         "data-busy", "data-label", "content")  # fmt: skip
# Names of things and units, which are the same in Chinese.
NAMES = frozenset(
    (
        *(
            "API",
            "CPU",
            "CSV",
            "PDF",
            "CUDA",
            "GPU",
            "GiB",
            "MiB",
            "KiB",
            "HTTP",
            "HTTPS",
            "ID",
            "JSON",
            "MIG",
            "OK",
        ),
        *(
            "REST",
            "SSH",
            "UTC",
            "UID",
            "URL",
            "YAML",
            "hub",
            "Hub",
            "pip",
            "conda",
            "Docker",
            "JupyterHub",
        ),
        *("JupyterLab", "LabCommons", "Python", "JavaScript", "environment.yml", "quotas.yaml"),
        "nbgrader",
        *("labcommons.yml", "openapi.json", "EN"),
    )
)
_WORD = re.compile(r"[A-Za-z][A-Za-z]+(?:[._:/@-][A-Za-z0-9]+)*")
_HAN = re.compile(r"[\u4e00-\u9fff]+")
_QUIET = ("script", "style", "code", "pre", "textarea", "svg", "template")
_VOID = ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source",
         "track", "wbr")  # fmt: skip


class _Seen(HTMLParser):
    def __init__(self, lang: str) -> None:
        super().__init__()
        self.lang, self.found = lang, list[str]()
        self._quiet: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        other = "lang" in given and tag != "html" and given["lang"][:2] != self.lang[:2]
        quiet = tag in _QUIET or other or any(self._quiet)
        if tag not in _VOID:
            self._quiet.append(quiet)
        if not quiet:
            self.found += [
                given[name]
                for name in SHOWN
                if given.get(name) and (name != "content" or given.get("name") == "description")
            ]

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID and self._quiet:
            self._quiet.pop()

    def handle_data(self, data: str) -> None:
        if data.strip() and not any(self._quiet):
            self.found.append(" ".join(data.split()))


def seen(page: str, lang: str) -> list[str]:
    """The texts of a page that a person meets."""
    parser = _Seen(lang)
    parser.feed(page)
    return parser.found


def foreign(texts: Iterable[str], lang: str, names: Iterable[str] = ()) -> list[str]:
    """Of some texts those with words that are not in a language and are no names."""
    known = NAMES | set(names)
    return [text for text in texts if set(words(text, lang)) - known]


def words(text: str, lang: str) -> list[str]:
    """The words of a text that are of the other language."""
    return (_HAN if lang == "en" else _WORD).findall(text)


def of_page(page: str, lang: str, names: Iterable[str] = ()) -> list[str]:
    """What is not in the language of a page."""
    return foreign(seen(page, lang), lang, names)


_UTC = re.compile(r"\b(?:UTC|GMT)\b|\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z\b|[+-]00:?00)")


def in_utc(page: str) -> list[str]:
    """The texts of a page that name UTC, or a time as programs write it.

    What may be chosen in a form, as a zone, is no time.
    """
    texts = seen(re.sub(r"<option.*?</option>", "", page, flags=re.DOTALL), "en")
    return [text for text in texts if _UTC.search(text)]


def not_in_zone(page: str, zone: tzinfo) -> list[str]:
    """The texts of a page with a time that is not its reader's; their browser has said the zone."""
    wrong = [text for at, text in times(page) if f"{at.astimezone(zone):%H:%M}" not in text]
    return in_utc(page) + wrong


def times(page: str) -> list[tuple[datetime, str]]:
    """The moments that a page says in its ``<time>``s, and in which words."""
    return [
        (datetime.fromisoformat(at.replace("Z", "+00:00")), " ".join(said.split()))
        for at, said in re.findall(
            r'<time[^>]* datetime="([^"]+)"[^>]*>(.*?)</time>', page, re.DOTALL
        )
    ]


def names_in(*data: object) -> set[str]:
    """The words of what is data and no sentence of ours."""
    return {word for one in data for word in _WORD.findall(str(one))}


def literals(template: str) -> Iterator[str]:
    """What a template says without asking the catalogue."""
    out, translated = "", False
    tokens = list(Environment(extensions=["jinja2.ext.i18n"]).lex(template))
    for number, (_line, kind, text) in enumerate(tokens):
        if kind == "block_begin":
            name = next((t for _, k, t in tokens[number:] if k == "name"), "")
            translated = name == "trans" or (translated and name != "endtrans")
        elif kind == "data" and not translated:
            out += text
        elif kind == "variable_begin":
            out += " "
    yield from foreign(seen(out, "zh"), "zh")


# In quotation marks, and as commands, there are names, code and other programs' words.
_QUOTED = re.compile(
    r"(?:labcommons|conda|pip|jupyter)(?: [\w./=-]+)+|“[^”]*”|`[^`]*`|'[^']*'|https?://\S+|<[^>]*>|%\(\w+\)s|\{\w*\}|%%\S|%s"
)
# Two words of English, one after the other, are no name.
_ENGLISH = re.compile(r"\b(?!pip|conda|make|docker|git)[a-z]{2,} [a-z]{2,}\b")


def is_mixed(sentence: str, lang: str) -> bool:
    """Whether a sentence has words of the other language outside quotation marks."""
    text = _QUOTED.sub("", sentence)
    return bool(words(text, "en") if lang == "en" else _ENGLISH.search(text))


def told(document: object) -> Iterator[str]:
    """The sentences of an answer in JSON."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in ("message", "sentence") and isinstance(value, str):
                yield value
            yield from told(value)
    elif isinstance(document, list):
        for value in document:
            yield from told(value)
