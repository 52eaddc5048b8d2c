"""Any file by any way in is read, or refused in a sentence: never a traceback, never a guess."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rattler import MatchSpec

from commons.errors import BadRequest
from commons.messages import Message
from commons.store import Store
from environments import match_spec, pip_lines
from environments.about import parse_about
from environments.builds import service
from environments.cli.builds import env
from environments.encoding import decode
from environments.errors import SpecError
from environments.kinds import kind_of
from environments.spec import EnvironmentSpec, load_spec, parse_spec

TABLE = Path(__file__).parents[1] / "environments" / "conda" / "answers.json"
ANSWERS = json.loads(TABLE.read_text("utf-8"))
URL = "https://c.example/lab/noarch/a-1-0.conda"
# Whole files of each kind, from which the others are made by mutation.
SEEDS = [
    *list(ANSWERS["files"])[::4],
    f"@EXPLICIT\n{URL}#{'0' * 32}\n{URL}#sha256:{'0' * 64}\n",
    "version: 1\nmetadata: {channels: [{url: c}], platforms: [linux-64]}\npackage:\n- name: a\n"
    f"  version: '1'\n  manager: conda\n  platform: linux-64\n  url: {URL}\n  hash: {{md5: "
    f"{'0' * 32}}}\n  dependencies: {{}}\n",
    "version: 6\nenvironments:\n  default:\n    channels: [{url: https://c.example/lab/}]\n"
    f"    packages: {{linux-64: [{{conda: {URL}}}]}}\npackages:\n- conda: {URL}\n"
    f"  sha256: {'0' * 64}\n",
    '[workspace]\nname = "x"\nchannels = ["c"]\n[dependencies]\npython = "3.*"\n'
    'a = {version = "1", build = "b*"}\n[pypi-dependencies]\nb = {version = "*", extras = ["c"]}\n'
    '[feature.f.dependencies]\nd = "*"\n[environments]\ndefault = ["f"]\n',
    '[project]\ndependencies = ["a"]\nrequires-python = ">=3"\n[tool.pixi.workspace]\n',
    "numpy\nscipy>=1 # c\n-r x\n",
]
SNIPPETS = [
    *("\0", "\t", "\ufeff", "\u2028", "\x85", "\r", "&a ", "*a", "<<: *a", "!!python/x:os ", "{"),
    *("[", "null", "~", "''", "- ", ": ", "#", "'", '"', "]", "}", "|", ">", "%", "@", "`", "\\"),
    *("[[", "]]", " = ", "[a.b]", "999999999999", "-1", "\ud800", "x" * 600, "$(id)"),
]  # fmt: skip
MANY = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A file of some kind with parts replaced, doubled and taken away."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(text)))
        to = min(len(text), at + draw(st.integers(0, 12)))
        put = draw(st.one_of(st.sampled_from(SNIPPETS), st.text(max_size=4), st.just(text[at:to])))
        text = text[:at] + put + text[to:]
    return text


def answer(reader: Callable[[], object], refused: type[Exception]) -> object:
    """What a reader gives, or the sentence with which it refuses. Raises whatever else it does."""
    try:
        return reader()
    except refused as error:
        message = getattr(error, "message", None)
        assert isinstance(message, Message)
        sentence = str(error)
        assert sentence
        assert "Traceback" not in sentence
        # It can be stored and sent: all of it.
        assert str(Message.from_json(json.loads(json.dumps(message.as_json())))) == sentence
        sentence.encode()
        return message


def check(spec: object) -> None:
    """What was read can be used: no part of it can be taken for anything else later on."""
    if not isinstance(spec, EnvironmentSpec):
        return
    for item in spec.dependencies:
        assert re.fullmatch(r"[a-z0-9_][a-z0-9._+-]*", item.name)
        assert item.spec.isprintable()
    assert all(line.isprintable() for line in (*spec.pip, *spec.channels, *spec.variables.values()))
    assert len(spec.digest) == 64


@MANY
@given(st.one_of(mutated(), st.text(max_size=200)))
@example("name: x\ndependencies: [python]\n? [a]\n: b\n")
@example("? {a: b}\n: c\n")
@example("<<: x\ndependencies: [a]\n")
@example("[" * 5000)
@example("a = [\n" * 3000 + "\n[workspace]\n")
def test_any_text_is_read_or_refused(text: str) -> None:
    """The kind: a form that ends in what Python, YAML, TOML or the solver raises."""
    check(answer(lambda: parse_spec(text, name="x"), SpecError))
    answer(lambda: parse_spec(text, name=None, words=text[:80]), SpecError)
    answer(lambda: parse_about(text, "labcommons.yml"), SpecError)
    kind_of(text)
    # REST and page: before anybody waits for a builder.
    kept = answer(lambda: service.text_of(text, "environment.yml"), BadRequest)
    if isinstance(kept, str):
        service.named(kept, "x").encode()
    answer(lambda: service.words_of(text), BadRequest)


@MANY
@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda text, codec: text.encode(codec, "replace"),
            mutated(),
            st.sampled_from(["utf-8", "utf-16", "utf-16-be", "utf-32", "latin-1", "gb18030"]),
        ),
    )
)
def test_any_bytes_are_read_or_refused(tmp_path: Path, raw: bytes) -> None:
    """The kind: a file in a folder, whatever wrote it."""
    kept = answer(lambda: decode(raw, "environment.yml"), SpecError)
    if isinstance(kept, str):
        assert not {"\0", "\r", "\ufffd"} & {*kept}
    folder = tmp_path / "x"
    folder.mkdir(exist_ok=True)
    (folder / "environment.yml").write_bytes(raw)
    check(answer(lambda: load_spec(folder), SpecError))


LINES = [*ANSWERS["specs"]]


@MANY
@given(
    st.one_of(
        st.text(max_size=40).filter(str.isprintable),
        st.text("ab1.*<>=!~|,:[]()\"' /#@", max_size=24),
        st.builds(
            lambda line, at, put: line[:at] + put + line[at:],
            st.sampled_from(LINES),
            st.integers(0, 30),
            st.text("ab1.*<>=!~|,:[]()\"' /#", max_size=3),
        ),
    )
)
def test_any_line_is_read_or_refused(line: str) -> None:
    """The kind: a match spec or requirement that a parser chokes on."""
    asked = answer(lambda: match_spec.read(line), SpecError)
    if isinstance(asked, match_spec.Asked):
        assert MatchSpec(asked.spec).name.normalized == asked.name
    answer(lambda: pip_lines.problem(line), SpecError)


SITE = """\
version: 1
directory: {servers: [ldaps://d.example.org], users: {base_dn: "dc=x"}}
sizes: {small: {cpu: 1, memory: 1G}}
"""


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff\xfe\x00",
        b"\x80\x81",
        "name: x\ndependencies: [\ud800]\n".encode("utf-8", "surrogatepass"),
        b"",
        b"numpy\n",
        b"\0" * 1000,
        b"x: " * (9 * 2**20),
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_the_command_refuses_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: bytes
) -> None:
    """The kind: a traceback of a command about a file."""
    path, site, url = tmp_path / "e.yml", tmp_path / "s.yaml", f"sqlite:///{tmp_path / 'x.sqlite'}"
    path.write_bytes(raw)
    site.write_text(SITE)
    monkeypatch.setenv("LABCOMMONS_SITE_FILE", str(site))
    monkeypatch.setenv("LABCOMMONS_DATABASE_URL", url)
    Store(url).migrate()
    done = CliRunner().invoke(env, ["create", str(path), "--user", "alice", "--name", "x"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
