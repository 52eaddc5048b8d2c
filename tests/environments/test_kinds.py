"""What people give in place of an environment.yml is known for what it is."""

from __future__ import annotations

import pytest

from environments.errors import SpecError
from environments.kinds import MAX_LOCK, MAX_TEXT, Kind, kind_of, most
from environments.spec import parse_spec

URL = "https://conda.example.org/conda-forge/linux-64/numpy-1.26.4-py312heda63a1_0.conda"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("name: x\ndependencies:\n  - python\n", Kind.SPEC),
        ("dependencies: [python]\n", Kind.SPEC),
        ("# @EXPLICIT\nname: x\n", Kind.SPEC),
        ("version: 1\ndependencies: [python]\n", Kind.SPEC),
        ('{"name": "x", "dependencies": ["python"]}', Kind.SPEC),
        ("- python\n- numpy\n", Kind.SPEC),
        ("", Kind.SPEC),
        (f"# platform: linux-64\n@EXPLICIT\n{URL}#00\n", Kind.EXPLICIT),
        (f"\ufeff@EXPLICIT\r\n{URL}\r\n", Kind.EXPLICIT),
        (f"{URL}#00\n{URL}\n", Kind.EXPLICIT),
        ("# made\nversion: 1\nmetadata:\n  content_hash: {}\npackage: []\n", Kind.CONDA_LOCK),
        ("version: 6\nenvironments:\n  default:\n    channels: []\npackages: []\n", Kind.PIXI_LOCK),
        ('[workspace]\nchannels = ["a"]\n[dependencies]\npython = "*"\n', Kind.PIXI),
        ('[project]\nname = "x"\nchannels = []\n\n[dependencies]\npython = "3.*"\n', Kind.PIXI),
        ('[project]\nname = "x"\n\n[tool.pixi.workspace]\nplatforms = []\n', Kind.PIXI),
        ('[build-system]\nrequires = ["hatchling"]\n[project]\nname = "x"\n', Kind.PYPROJECT),
        ("numpy\nscipy>=1\n", Kind.REQUIREMENTS),
        ("# pip\n-r base.txt\n--index-url https://x.example/\n", Kind.REQUIREMENTS),
        ("rich[jupyter]==1 ; python_version<'3'\n", Kind.REQUIREMENTS),
        ("git+https://x.example/a.git\n-e .\n", Kind.REQUIREMENTS),
    ],
)
def test_a_file_is_known_by_its_text(text: str, kind: Kind) -> None:
    assert kind_of(text) is kind
    assert most(text) == (MAX_LOCK if kind.is_lock else MAX_TEXT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("numpy\nscipy>=1\n", "This is pip's requirements.txt. Write an environment.yml"),
        ("name: x\ndependencies：\n  - python\n", "line 2: “：” is a sign of a Chinese keyboard"),
        ("dependencies:\n  - numpy>=1，<2\n", "line 2: “，” is a sign of a Chinese keyboard"),
        ("name: x\ndependencies:\n\u00a0 - python\n", "line 3: a space that YAML does not know"),
        ('[project]\nname = "x"\n', "This is TOML without pixi's tables"),
    ],
)
def test_what_cannot_be_built_says_what_to_write(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_spec(text, name="x")
