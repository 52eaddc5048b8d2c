"""environment.yml: what conda users write is understood, what is wrong is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from spawner.environments.errors import SpecError
from spawner.environments.spec import find_environments, load_spec

GOOD = """\
name: tiny
channels:
  - conda-forge
  - nodefaults
  - https://mirror.example.org/conda/bio
dependencies:
  - python 3.13.*
  - numpy=2
  - bioconda::samtools >=1.20
prefix: /home/someone/envs/tiny
"""


def write(folder: Path, text: str | bytes, file: str = "environment.yml") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_what_conda_users_write_is_read(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path / "tiny", GOOD))
    assert spec.channels == ("conda-forge", "https://mirror.example.org/conda/bio")
    assert [(item.name, item.version, item.channel) for item in spec.dependencies] == [
        ("python", "3.13.*", None),
        ("numpy", "2.*", None),
        ("samtools", ">=1.20", "bioconda"),
    ]
    assert spec.all_channels[-1] == "bioconda"


def test_the_digest_follows_what_is_installed_and_nothing_else(tmp_path: Path) -> None:
    folder = write(tmp_path / "tiny", GOOD)
    before = load_spec(folder).digest
    write(folder, "title: Another title\n", "labcommons.yml")
    write(folder, GOOD.replace("  - numpy=2", "  - numpy 2.*   # the same"))
    assert load_spec(folder).digest == before
    write(folder, GOOD.replace("numpy=2", "numpy=1"))
    assert load_spec(folder).digest != before


HEAD = "name: tiny\nchannels: [conda-forge]\ndependencies:\n  - python\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("- a\n- b\n", "line 1: the file must be a mapping"),
        ("name: other\n" + HEAD[11:], "line 1: name 'other' must be the folder's name"),
        (HEAD + "  - numpy >=\n", "line 5: 'numpy >=' is not a package spec"),
        (HEAD + "  - ../../etc\n", "line 5: '../../etc' is not a package spec"),
        (HEAD + "  - -r\n", "line 5"),
        (HEAD + "  - https://x.example/a-1-0.conda\n", "line 5: .*not a URL"),
        (HEAD + "  - python >=3\n", "line 5: 'python' is listed twice"),
        (HEAD + "  - numpy: 2\n", "line 5: a dependency is one text"),
        (HEAD + "  - [a]\n", "line 5: a dependency must be a text"),
        (HEAD + "depends: []\n", "line 5: unknown key 'depends'; known are name, channels"),
        (HEAD + "name: tiny\n", "line 5: 'name' is given twice"),
        (HEAD + "\t- numpy\n", "line 5: a tab"),
        (HEAD + "  - *x\n", "line 5: aliases"),
        (HEAD + "a: &a [x]\n", "line 5: aliases"),
        (HEAD + "a: !!python/object:os.system x\n", "line 5: aliases, anchors, tags"),
        (HEAD + 'a: "\\UFFFFFFFF"\n', "not valid YAML"),
        (HEAD + "a: [unclosed\n", "not valid YAML"),
        ("name: tiny\nchannels: [a]\n", "'dependencies' is missing"),
        ("name: tiny\ndependencies: [python]\n", "'channels' is missing"),
        (HEAD.replace("conda-forge", ""), "line 2: one to 16 channels"),
        (HEAD.replace("conda-forge", "../up"), "line 2: '../up' is not a channel's name"),
        (HEAD.replace("conda-forge", "ftp://x/y"), "line 2: channel 'ftp://x/y': write https"),
        (HEAD.replace("conda-forge", "https://a:b@x/y"), "line 2: .*password or token"),
        (HEAD.replace("conda-forge", '"http://["'), "line 2: .*not a valid URL"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (HEAD + "#" * 300_000, "larger than 256 kB"),
        ("[" * 100_000, "line 1: nested too deeply"),
        (HEAD + "".join(f"{' ' * n}a:\n" for n in range(1, 500)), "nested too deeply"),
        (HEAD + "".join(f"  - p{n}\n" for n in range(600)), "one to 500 dependencies"),
    ],
)
def test_an_error_names_file_line_and_remedy(tmp_path: Path, text: str | bytes, words: str) -> None:
    folder = write(tmp_path / "tiny", text)
    with pytest.raises(SpecError, match=words) as caught:
        load_spec(folder)
    assert str(folder / "environment.yml") in str(caught.value)


@pytest.mark.parametrize("name", ["Tiny", "a b", "-a", "a.", "a..b", "a" * 65, "ä"])
def test_a_name_that_docker_would_refuse_is_refused_first(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / name, GOOD.replace("tiny", name))
    with pytest.raises(SpecError, match="rename it"):
        load_spec(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("titel: x\n", "titel: .*known are title and description"),
        ("title: {de: x}\n", "title"),
        ("title: ''\n", "1 to 500 characters"),
        ("description: " + "x" * 600 + "\n", "1 to 500 characters"),
        ('title: "a\\u0007b"\n', "control characters"),
    ],
)
def test_a_wrong_labcommons_yml_is_refused(tmp_path: Path, text: str, words: str) -> None:
    folder = write(tmp_path / "tiny", GOOD)
    write(folder, text, "labcommons.yml")
    with pytest.raises(SpecError, match=words):
        load_spec(folder)


def test_title_and_description_come_in_both_languages(tmp_path: Path) -> None:
    folder = write(tmp_path / "tiny", GOOD)
    write(folder, "title: {en: Tiny, zh_CN: 小}\ndescription: >\n  One\n  line\n", "labcommons.yml")
    assert load_spec(folder).words == {
        "title": {"en": "Tiny", "zh_CN": "小"},
        "description": "One line\n",
    }


def test_folders_without_a_spec_are_no_environments(tmp_path: Path) -> None:
    write(tmp_path / "tiny", GOOD)
    (tmp_path / "notes").mkdir()
    assert find_environments(tmp_path) == ["tiny"]


def test_the_environments_that_come_with_labcommons_are_right() -> None:
    folder = Path(__file__).parents[2] / "config" / "environments"
    specs = [load_spec(folder / name) for name in find_environments(folder)]
    assert len(specs) >= 2
    for spec in specs:
        assert isinstance(spec.about.title, dict)
        assert set(spec.about.title) == {"en", "zh_CN"}
