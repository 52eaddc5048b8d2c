"""environment.yml: what conda users write is understood, what is wrong is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from rattler import MatchSpec

from commons.scopes import Scope, listed
from environments.errors import SpecError
from environments.spec import find_environments, load_spec, parse_spec

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
        (HEAD + "  - ../../etc\n", "line 5: '../../etc': a package's name is wanted"),
        (HEAD + "  - -r\n", "line 5"),
        (HEAD + "  - https://x.example/a-1-0.conda\n", "line 5: .*not a URL"),
        (HEAD + "  - 3.9\n", "line 5: '3.9' is not a package's name"),
        (HEAD + "  - numpy: 2\n", "line 5: a dependency is one text"),
        (HEAD + "  - [a]\n", "line 5: a dependency must be a text"),
        (HEAD + "name: tiny\n", "line 5: 'name' is given twice"),
        (HEAD + "\t- numpy\n", "line 5: a tab"),
        (HEAD + "  - *x\n", r"line 5: what begins with '\*' names an anchor"),
        (HEAD + "a: &a [*a]\n", "line 5: nested too deeply"),
        (HEAD + "a: !!python/object:os.system x\n", "line 5: tags"),
        ("%TAG ! tag:x,2000:\n---\n" + HEAD, "line 1: directives"),
        (HEAD + 'a: "\\UFFFFFFFF"\n', "not valid YAML"),
        (HEAD + "a: [unclosed\n", "not valid YAML"),
        ("name: tiny\nchannels: [a]\n", "'dependencies' is missing"),
        (HEAD.replace("conda-forge", "nodefaults"), "line 2: 'nodefaults' alone leaves no"),
        (HEAD.replace("conda-forge", ", ".join(f"c{n}" for n in range(17))), "more than 16 ch"),
        (HEAD.replace("conda-forge", "../up"), "line 2: '../up' is not a channel's name"),
        (HEAD.replace("conda-forge", "ftp://x/y"), "line 2: channel 'ftp://x/y': write https"),
        (HEAD.replace("conda-forge", "https://a:b@x/y"), "line 2: .*password or token"),
        (HEAD.replace("conda-forge", '"http://["'), "line 2: .*not a valid URL"),
        (b"\xff\xfe\x00", "it begins as UTF-16 text and is none from here on"),
        (HEAD + "#" * 600_000, "larger than 512 kB"),
        ("[" * 100_000, "line 1: nested too deeply"),
        (HEAD + "".join(f"{' ' * n}a:\n" for n in range(1, 500)), "nested too deeply"),
        (HEAD + "".join(f"  - p{n}\n" for n in range(5000)), "one to 5000 dependencies"),
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
        "default": False,
        "order": 1000,
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


PIP = HEAD + "  - pip:\n      - {}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PIP.format("requests >="), "line 6: 'requests >=' is not a pip requirement"),
        (PIP.format("a @ https://x.example/a-1-py3-none-any.whl"), "line 6: .*can change"),
        (PIP.format('a\n      - A; python_version < "3"'), "line 7: 'A' is listed twice for pip"),
        (PIP.format("/etc"), "line 6: '/etc': a file or folder on one machine only"),
        (PIP.format("--no-deps"), "line 6: .*pip's options are not read"),
        (HEAD + "  - pip: requests\n", "line 5: pip must be a list"),
        (HEAD + "  - numpy[url=https://x.example/y.conda]\n", "line 5: .*stands in brackets"),
        (HEAD + "  - numpy[subdir=win-64]\n", "line 5: .*a package for win-64"),
        (HEAD + "  - conda-forge/osx-64::numpy\n", "line 5: .*a package for osx-64"),
        (HEAD + "  - __cuda >=12\n", "line 5: '__cuda' is what a machine has"),
        (HEAD + "variables: {PATH: /x}\n", "line 5: variable PATH is set by the server"),
        (HEAD + "variables: {CUDA_VISIBLE_DEVICES: '0'}\n", "line 5: variable CUDA_VISIBLE_D"),
        (HEAD + "variables: {A: 'x$(id)'}\n", "line 5: variable A: some shells would run"),
        (HEAD + "variables: {A-B: x}\n", "line 5: 'A-B' is not a variable's name"),
        (HEAD + "variables: {A: [x]}\n", "line 5: variable A must be a text"),
        (
            HEAD.replace("conda-forge", "https://conda.example/t/tk-123/main"),
            "line 2: .*environments.credentials",
        ),
        (HEAD + "".join(f"  - p{n}\n" for n in range(10_000)), "too many entries"),
        (HEAD + "  - a::b::numpy\n", "line 5: 'a::b' is not a channel's name"),
    ],
)
def test_what_can_not_be_kept_to_is_refused(tmp_path: Path, text: str, words: str) -> None:
    folder = write(tmp_path / "tiny", text)
    with pytest.raises(SpecError, match=words):
        load_spec(folder)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("blas[build=mkl]", (None, 'blas[build="mkl"]', None)),
        ("pytorch[build=*cuda*]", (None, 'pytorch[build="*cuda*"]', None)),
        ("conda-forge::libblas[build=*mkl]", (None, 'libblas[build="*mkl"]', "conda-forge")),
        ("python=3.11[build=*cpython]", ("3.11.*", "python 3.11.* *cpython", None)),
        ("blas=*=mkl", ("*", "blas * mkl", None)),
        ("foo 1.0 ^py3(9|10)_.*$", ("==1.0", 'foo ==1.0[build="^py3(9|10)_.*$"]', None)),
        ("bioconda:bcftools=1.20", ("1.20.*", "bcftools 1.20.*", None)),
        ("numpy >=1.20, <2", (">=1.20,<2", "numpy >=1.20,<2", None)),
    ],
)
def test_what_conda_understands_is_understood_alike(
    written: str, read: tuple[str | None, str, str | None]
) -> None:
    spec = parse_spec(HEAD + f"  - '{written}'\n", name=None)
    found = next(item for item in spec.dependencies if item.name != "python" or "3.11" in item.spec)
    assert (found.version, found.spec, found.channel) == read
    assert MatchSpec(found.spec).name.normalized == found.name


@pytest.mark.parametrize(
    "written", ["numpy >=1.20 <2", "foo>=1.2<2", "foo<=1.2 >1.0", "a[build='>2']"]
)
def test_a_comma_that_was_forgotten_is_named(written: str) -> None:
    with pytest.raises(SpecError, match=r"line 5: .*put a comma between versions"):
        parse_spec(HEAD + f'  - "{written}"\n', name=None)


def test_a_package_may_be_named_once_more_where_that_asks_for_nothing_more() -> None:
    more = "  - python >=3\n  - graphviz\n  - graphviz\n  - python\n"
    spec = parse_spec(HEAD + more, name=None)
    assert [str(item) for item in spec.dependencies] == ["python >=3", "graphviz"]


def test_a_package_that_is_listed_twice_is_asked_for_by_both_lines() -> None:
    spec = parse_spec(HEAD + "  - numpy >=2\n  - bioconda::numpy <3\n  - numpy\n", name=None)
    assert list(map(str, spec.dependencies[1:])) == ["numpy >=2", "bioconda::numpy <3"]
    spec = parse_spec(PIP.format("A[x] >=1\n      - a <2\n      - a"), name=None)
    assert spec.pip == ("a[x]<2,>=1",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PIP.format("-e git+https://x.example/a.git#egg=a"), "line 6: .*can change"),
        (PIP.format("-e git@x.example:a/b.git"), "line 6: .*a git repository gives can change"),
        (PIP.format("git+ssh://git@x.example/a.git"), "line 6: .*a git repository gives"),
        (PIP.format("submodules/diff-gaussian"), "line 6: .*folder on one machine only"),
        (PIP.format("-e ."), "line 6: .*folder on one machine only"),
        (PIP.format("-e ./a[x]"), "line 6: .*folder on one machine only"),
        (PIP.format(".[dev]"), "line 6: .*folder on one machine only"),
        (PIP.format("~/a"), "line 6: .*folder on one machine only"),
        (PIP.format("a-1-py3-none-any.whl"), "line 6: .*folder on one machine only"),
        (PIP.format("a @ file:///x/a"), "line 6: .*folder on one machine only"),
        (PIP.format("-r requirements.txt"), "line 6: '-r requirements.txt': other files are not"),
        (PIP.format("-rrequirements.txt"), "line 6: .*other files are not read"),
        (PIP.format("-c pins.txt"), "line 6: .*other files are not read"),
        (PIP.format("--index-url https://x.example/"), "line 6: .*where pip's packages come from"),
        (PIP.format("--extra-index-url=https://x.example/"), "line 6: .*ask an administrator"),
        (PIP.format("-f https://x.example/"), "line 6: .*ask an administrator"),
        (PIP.format("--pre"), "line 6: .*pip's options are not read"),
        (PIP.format("a==1 --hash=sha256:00"), "line 6: .*the lock keeps the hashes"),
        (PIP.format(""), "line 6: a pip package must not be empty"),
        (HEAD + "  - __glibc >=2.28\n", "line 5: '__glibc' is what a machine has.*leave it out"),
        (HEAD + "variables: {'': x}\n", "line 5: a key must not be empty"),
    ],
)
def test_the_reason_fits(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_spec(text, name=None)


def test_a_variable_may_be_empty() -> None:
    spec = parse_spec(HEAD + "variables: {PYTHONPATH: ''}\n", name=None)
    assert spec.variables == {"PYTHONPATH": ""}


def test_a_text_is_checked_as_a_file_is() -> None:
    spec = parse_spec(GOOD, name=None, words="tag: 1.2.0\n", file="pasted")
    assert (spec.name, spec.folder, spec.about.tag) == ("tiny", None, "1.2.0")
    assert parse_spec(GOOD.replace("tiny", "My Env"), name="other").name == "other"
    with pytest.raises(SpecError, match="'name' is missing"):
        parse_spec(GOOD.partition("\n")[2], name=None)
    with pytest.raises(SpecError, match=r"labcommons\.yml, line 2: tag: .*semantic version"):
        parse_spec(GOOD, name=None, words="gpu: required\ntag: newest\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpu: maybe\n", "line 1: gpu"),
        ("title: x\ncuda: twelve\n", "line 2: cuda: .*'twelve' is not a CUDA version"),
        ("imports:\n  - numpy\n  - os; system('x')\n", "line 3: imports.1: .*not a module's name"),
        ("access: {teams: []}\n", "line 1: access: .*write 'everyone'"),
        ("access: {people: [x]}\n", "line 1: access"),
        ("access: {teams: [../x]}\n", "line 1: access.teams.0"),
        ("platforms: [osx-64]\n", "line 1: platforms.0"),
        ("maintainer: ''\n", "line 1: maintainer"),
        ("size: Not A Size\n", "line 1: size"),
    ],
)
def test_an_error_in_labcommons_yml_names_its_line(tmp_path: Path, text: str, words: str) -> None:
    folder = write(tmp_path / "tiny", GOOD)
    write(folder, text, "labcommons.yml")
    with pytest.raises(SpecError, match=f"labcommons.yml, {words}"):
        load_spec(folder)


def test_who_may_use_it_is_everyone_or_members_of_any_that_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "tiny", GOOD)
    assert not listed(load_spec(folder).about.access.model_dump())
    write(folder, "access: everyone\n", "labcommons.yml")
    assert not listed(load_spec(folder).about.access.model_dump())
    write(folder, "access: {teams: [vision], courses: [ml101]}\n", "labcommons.yml")
    access = listed(load_spec(folder).about.access.model_dump())
    assert access == [Scope("team", "vision"), Scope("course", "ml101")]
