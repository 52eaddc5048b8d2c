"""pixi.toml and a pyproject.toml with pixi's tables: its default environment, for Linux."""

from __future__ import annotations

import pytest

from environments.errors import SpecError
from environments.spec import parse_spec

PIXI = """\
[workspace]
name = "cells"
channels = ["conda-forge", {channel = "bioconda", priority = 1}]
platforms = ["osx-arm64", "linux-64"]

[tasks]
run = "python x.py"

[dependencies]
python = "3.11.*"
numpy = "*"
pytorch = {version = ">=2", build = "*cuda*", channel = "pytorch"}

[target.linux-64.dependencies]
samtools = ">=1.20,<2"
[target.osx-arm64.dependencies]
pyobjc = "*"

[pypi-dependencies]
rich = {version = ">=13", extras = ["jupyter"]}

[activation.env]
TITLE = "细胞"

[system-requirements]
cuda = "12.4"

[feature.test.dependencies]
pytest = ">=8"
[environments]
test = ["test"]
"""


def test_its_default_environment_is_read_for_linux() -> None:
    spec = parse_spec(PIXI, name=None)
    assert spec.name == "cells"
    assert spec.channels == ("conda-forge", "bioconda")
    assert [str(item) for item in spec.dependencies] == [
        "python 3.11.*",
        "numpy",
        "pytorch::pytorch >=2 *cuda*",
        "samtools >=1.20,<2",
    ]
    assert (spec.pip, spec.variables) == (("rich[jupyter]>=13",), {"TITLE": "细胞"})
    assert spec.about.cuda == "12.4"
    assert spec.appended == ()


def test_features_of_the_default_environment_count() -> None:
    found = parse_spec(PIXI + 'default = ["test"]\n', name="x")
    assert "pytest >=8" in [str(item) for item in found.dependencies]
    alone = PIXI + 'default = {features = ["test"], no-default-feature = true}\n'
    assert [str(item) for item in parse_spec(alone, name="x").dependencies] == ["pytest >=8"]


PYPROJECT = """\
[project]
name = "Cells"
requires-python = ">=3.11"
dependencies = ["rich>=13", "attrs"]

[tool.pixi.workspace]
channels = ["conda-forge"]
platforms = ["linux-64"]

[tool.pixi.pypi-dependencies]
cells = { path = ".", editable = true }

[tool.pixi.dependencies]
ipykernel = "*"
"""


def test_a_pyproject_gives_its_own_needs_as_well() -> None:
    spec = parse_spec(PYPROJECT, name="cells")
    assert [str(item) for item in spec.dependencies] == ["python >=3.11", "ipykernel"]
    assert spec.pip == ("attrs", "rich>=13")
    assert ["'cells' is the project's own folder" in str(one) for one in spec.remarks] == [True]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('numpy = "*"', 'numpy = ">=1 <2"', "line 11: 'numpy >=1 <2': .*put a comma"),
        ('numpy = "*"', 'numpy = {git = "https://x.example/a"}', "line 11: numpy: git cannot be"),
        ('numpy = "*"', "numpy = 3", "line 11: numpy must be a text"),
        ('numpy = "*"', 'numpy = "*', r"line 11: not valid TOML"),
        ('{version = ">=13", extras = ["jupyter"]}', '{path = "../rich"}', "line 20: .*folder on"),
        ('{version = ">=13", extras = ["jupyter"]}', '{git = "https://x.example/r"}', "git repos"),
        ('"conda-forge"', '"https://a:b@x.example/c"', "line 3: .*password or token"),
        ("TITLE =", "PATH =", "variable PATH is set by the server"),
        ("[dependencies]", "[[dependencies]]", "line 10: dependencies has another form|dependenc"),
        ('test = ["test"]', 'default = ["tset"]', "the feature 'tset', which is not there"),
        ("[workspace]", "a = " + "[" * 5000 + "\n[workspace]", "not valid TOML"),
    ],
)
def test_what_cannot_be_built_is_named(before: str, after: str, words: str) -> None:
    assert before in PIXI
    with pytest.raises(SpecError, match=words):
        parse_spec(PIXI.replace(before, after), name="x")
