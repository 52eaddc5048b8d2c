"""What people are told of environments and kernels, in their language: English or Chinese.

English is what the code says, with ``say``; other languages are in ``locale/<language>.json``,
which maps each sentence of the code to its translation. A sentence is translated by what it says
and not where it was made, because it may come from a cache, the store or another process.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path

ENGLISH, CHINESE = "en", "zh_CN"
Translate = Callable[[str], str]

# Where JupyterLab keeps the language that somebody chose in its menu.
_LAB = "@jupyterlab/translation-extension/plugin.jupyterlab-settings"
_LOCALE = re.compile(r'^[^/]*"locale"\s*:\s*"([A-Za-z_.-]{2,20})"', re.MULTILINE)
_FIELD = re.compile(r"\{(\w+)\}")
# Fields whose values are sentences themselves; all others are names, paths, commands.
_SAID = frozenset(("ended", "error", "near", "reason", "remedy", "what", "where", "why"))
# Longer than anything that is told, with room for a log's last lines.
_LONGEST = 8000
# Between reasons in one line, and how many of these may be: the texts can be anybody's.
_BETWEEN, _MOST = "; ", 100


def say(sentence: str, **values: object) -> str:
    """A sentence in English with its ``{fields}`` filled in; ``locale`` has it for others."""
    return sentence.format(**values) if values else sentence


def language_of(tag: str | None) -> str | None:
    """The language of a tag or locale such as ``zh_CN.UTF-8``; None where it says none."""
    start = re.split(r"[-_.]", tag or "")[0].lower()
    return {"zh": CHINESE, "en": ENGLISH}.get(start)


def persons_language(environ: Mapping[str, str] = os.environ) -> str:
    """The language of whoever's server this is.

    What was chosen in JupyterLab's menu, else what the hub knew as the server started
    (LABCOMMONS_LANGUAGE), else the locale's.
    """
    settings = environ.get("JUPYTERLAB_SETTINGS_DIR") or os.path.join(
        environ.get("JUPYTER_CONFIG_DIR") or os.path.expanduser("~/.jupyter"), "lab/user-settings"
    )
    try:
        with open(os.path.join(settings, _LAB), encoding="utf-8", errors="replace") as file:
            chosen = _LOCALE.search(file.read(64 * 1024))
    except OSError:
        chosen = None
    tags = [environ.get(name) for name in ("LABCOMMONS_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")]
    known = map(language_of, [chosen[1] if chosen else None, *tags])
    return next((language for language in known if language), ENGLISH)


def in_language(language: str) -> Translate:
    """What puts sentences into a language; one that is not known stays as it is."""
    if language == ENGLISH or not _sentences(language):
        return str
    return lambda text: _joined(text, language) or text


@lru_cache(maxsize=4096)
def _joined(text: str, language: str) -> str | None:
    """A sentence, or several in one line, or lines; None where one of them is not known."""
    if len(text) > _LONGEST or text.count(_BETWEEN) > _MOST:
        return None
    if (whole := _one(text, language)) is not None:
        return whole
    at = text.find(_BETWEEN)
    while at >= 0:
        first = _one(text[:at], language)
        if first is not None and (rest := _joined(text[at + len(_BETWEEN) :], language)):
            return f"{first}；{rest}"
        at = text.find(_BETWEEN, at + 1)
    return None


def _one(text: str, language: str) -> str | None:
    for head, tail, pattern, translation in _sentences(language):
        likely = text.startswith(head) and text.endswith(tail)
        if likely and (match := pattern.fullmatch(text)):
            values = {
                name: (_joined(of, language) if name in _SAID else None) or of
                for name, of in match.groupdict().items()
            }
            return translation.format(**values)
    return None


@cache
def _sentences(language: str) -> list[tuple[str, str, re.Pattern[str], str]]:
    """Beginning, end, pattern and translation of all sentences, those that say most first."""
    found = catalogue(language)
    sentences = []
    for sentence in sorted(found, key=lambda each: -len(_FIELD.sub("", each))):
        parts = _FIELD.split(sentence)
        sentences.append((parts[0], parts[-1], _pattern(parts), found[sentence]))
    return sentences


def catalogue(language: str) -> dict[str, str]:
    """The sentences of a language by the English ones; none where there is no such language."""
    file = Path(__file__).parent / "locale" / f"{language}.json"
    if not file.exists():
        return {}
    document: dict[str, dict[str, str]] = json.loads(file.read_text("utf-8"))
    return document["sentences"] | document["system"]


def _pattern(parts: list[str]) -> re.Pattern[str]:
    """Of what stands between the fields, and the fields' names, by turns."""
    pattern = "".join(
        f"(?P<{part}>.+?)" if number % 2 else re.escape(part) for number, part in enumerate(parts)
    )
    return re.compile(pattern, re.DOTALL)
