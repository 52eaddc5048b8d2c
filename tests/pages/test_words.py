"""The catalogues hold what the code says: nothing missing, nothing that breaks a sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

from hub_ext.i18n import LANGUAGES

ROOT = Path(__file__).parents[2]
LOCALE = ROOT / "hub_ext" / "locale"
PLACEHOLDER = re.compile(r"%%|%\(\w+\)s|\{\w+\}|</?\w+>")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Everything the code and the templates say now."""
    template = tmp_path_factory.mktemp("words") / "labcommons.pot"
    extract = [sys.executable, "-m", "babel.messages.frontend", "-q", "extract"]
    options = ["--mapping", str(LOCALE / "babel.cfg"), "--keyword", "N_", "--output", str(template)]
    subprocess.run(
        [*extract, *options, "hub_ext", "spawner", "kernels"],
        cwd=ROOT,
        check=True,
        timeout=120,
    )
    with template.open("rb") as file:
        return read_po(file)


def _catalogue(lang: str) -> Catalog:
    with (LOCALE / lang / "LC_MESSAGES" / "labcommons.po").open("rb") as file:
        return read_po(file)


def _texts(catalogue: Catalog) -> dict[str, str]:
    return {str(m.id): str(m.string or "") for m in catalogue if m.id and not m.fuzzy}


@pytest.mark.parametrize("lang", [lang for lang in LANGUAGES if lang != "en"])
def test_everything_that_is_said_is_translated(said: Catalog, lang: str) -> None:
    translated = _texts(_catalogue(lang))
    missing = [message for message in _texts(said) if not translated.get(message)]
    assert not missing, "run hub_ext/locale/update.sh and translate"


@pytest.mark.parametrize("lang", [lang for lang in LANGUAGES if lang != "en"])
def test_translations_keep_every_placeholder(lang: str) -> None:
    for message, translation in _texts(_catalogue(lang)).items():
        assert sorted(PLACEHOLDER.findall(translation)) == sorted(PLACEHOLDER.findall(message))


def test_the_check_reads_templates_and_every_package(said: Catalog) -> None:
    places = {place.partition("/")[0] for m in said for place, _ in m.locations}
    assert places == {"hub_ext", "spawner", "kernels"}
    assert "Sign in to %(site_name)s" in _texts(said)
