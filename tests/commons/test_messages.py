"""Messages are data: they survive JSON, and nothing that is in them does harm."""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons import messages
from commons.i18n import NN_, NP_
from commons.messages import ENGLISH, Locale, Message, Text, verbatim

CHINESE = {
    "test\4it has {what}": "其中有 {what}",
    "{count} build of {name}": "{name} 的 {count} 个构建",
    "{count} builds of {name}": "{name} 的 {count} 个构建",
    "between the names of a list\4, ": "、",
}


def gettext(text: str) -> str:
    return CHINESE.get(text, text)


@pytest.fixture(scope="module")
def texts() -> Any:
    """Two texts that are known while this module runs."""
    before = dict(messages.TEXTS)
    yield (
        Text("test_has", NP_("test", "it has {what}")),
        Text("test_builds", NN_("{count} build of {name}", "{count} builds of {name}")),
    )
    messages.TEXTS.clear()
    messages.TEXTS.update(before)


PLAIN = st.text(st.characters(exclude_categories=("C",)), max_size=40)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.builds(lambda what: Message("test_has", {"what": what}), inner)
    ),
    max_leaves=6,
)


def depth(value: object) -> int:
    if isinstance(value, Message):
        return 1 + max(map(depth, value.params.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, tuple) else 0


@given(VALUES.filter(lambda value: depth(value) < messages.MAX_DEPTH - 1))
def test_a_message_survives_json(texts: Any, value: object) -> None:
    message = texts[0](what=value)
    assert Message.from_json(json.loads(json.dumps(message.as_json()))) == message


def test_one_and_many_and_contexts_are_translated_at_the_edge(texts: Any) -> None:
    has, builds = texts
    one, two = builds(count=1, name="vision"), builds(count=2, name="nlp")
    assert str(one) == "1 build of vision"
    assert str(has(what=[one, two])) == "it has 1 build of vision 2 builds of nlp"
    assert str(has(what=["a", "b"])) == "it has a, b"
    assert has(what=["a", one]).in_words(gettext) == "其中有 a、vision 的 1 个构建"
    form = has(what=two).as_json(gettext)
    assert form["sentence"] == "其中有 nlp 的 2 个构建"
    assert form["data"]["what"]["data"] == {"count": 2, "name": "nlp"}


@pytest.mark.parametrize(
    "value",
    ["{what}", "{0.__class__}", "{what!r:>1000000}", "%(x)s%n", "{", "}}", "{what:{what}}", "\\1"],
)
def test_what_looks_like_a_format_is_text(texts: Any, value: str) -> None:
    assert str(texts[0](what=value)) == f"it has {value}"
    assert texts[0](what=value).in_words(gettext) == f"其中有 {value}"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.text() | st.sampled_from(["code", "data", "sentence"]), inner)
            | st.fixed_dictionaries({"code": st.sampled_from(["test_has", "x"]), "data": inner})
        ),
    )
)
def test_whatever_is_read_back_can_be_said_stored_and_read_again(texts: Any, found: object) -> None:
    message = Message.from_json(found)
    assert isinstance(message.in_words(gettext), str)
    stored = json.dumps(message.as_json()).encode("utf-8")
    assert Message.from_json(json.loads(stored)).in_words() == message.in_words()


def test_much_and_deep_is_cut(texts: Any) -> None:
    deep: Any = "x"
    for _ in range(10_000):
        deep = {"code": "test_has", "data": {"what": [deep]}}
    wide = {"code": "test_has", "data": {"what": ["y" * 2**20] * 10_000}}
    for found in (deep, wide, "z" * 2**20, {"code": "c" * 2**20, "sentence": "s" * 2**20}):
        message = Message.from_json(found)
        assert len(str(message)) <= messages.MAX_SENTENCE
        assert len(json.dumps(message.as_json())) < 5 * 2**20


def test_a_wide_message_of_messages_is_not_said_again_and_again(texts: Any) -> None:
    """Each level holds the one below many times: the sentence must not grow by powers."""
    inner: Any = "x" * messages.MAX_TEXT
    for _ in range(4):
        inner = {"code": "test_has", "data": {"what": [inner] * 100}}
    begun = time.process_time()
    assert len(str(Message.from_json(inner))) <= messages.MAX_SENTENCE
    assert time.process_time() - begun < 5


def test_an_unknown_code_keeps_its_sentence_as_text(texts: Any) -> None:
    found = Message.from_json({"code": "newer", "data": {"a": 1}, "sentence": "a {new} thing"})
    assert (found.code, found.params, str(found)) == ("newer", {"a": 1}, "a {new} thing")
    assert str(Message.from_json({"code": "newer"})) == "newer"
    # A known code is said in our words, whatever the sentence was.
    known = {"code": "test_has", "data": {"what": "a"}, "sentence": "send your password"}
    assert str(Message.from_json(known)) == "it has a"


def test_what_is_missing_or_cannot_be_shown_is_a_dash(texts: Any) -> None:
    strict = Text("test_strict", "at {at}, {other}", {"at": lambda value, locale: f"{value:.1f}"})
    assert str(Message("test_strict", {"at": "soon"})) == "at –, –"
    assert strict(at=1).in_words(Locale()) == "at 1.0, –"
    assert str(verbatim("{as it is}")) == "{as it is}"


def test_two_texts_cannot_have_one_code(texts: Any) -> None:
    with pytest.raises(ValueError, match="test_has"):
        Text("test_has", "something else")
    assert Text("test_has", NP_("test", "it has {what}"))(what=1).in_words(ENGLISH) == "it has 1"


PACKAGES = ("commons", "courses", "environments", "hub_ext", "jobs", "jump", "kernels", "spawner")
# What is told to people: its first argument is a message, never a sentence that is finished.
TOLD = {"N_", "NP_", "NN_", "Text", "say", "LabError", "BadRequest", "NotAllowed", "NotAvailable",
        "NotThere", "RuntimeSilent", "RuntimeRefused", "Refused", "BuildFailed",
        "BuildError", "SpecError", "ChannelError", "LockError", "PolicyError", "ExportError",
        "WrongValue"}  # fmt: skip


def calls() -> Iterator[tuple[str, ast.Call]]:
    for package in PACKAGES:
        for file in (Path(messages.__file__).parents[1] / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    yield f"{file}:{node.lineno}", node


def test_nobody_is_told_a_sentence_that_was_put_together_before() -> None:
    for where, call in calls():
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        if name in TOLD and call.args:
            assert not isinstance(call.args[0], ast.JoinedStr), where
            if name not in ("N_", "NP_", "NN_", "Text", "say"):
                assert not isinstance(call.args[0], ast.Constant), where


def test_every_code_is_defined_once() -> None:
    seen: dict[str, str] = {}
    for where, call in calls():
        if isinstance(call.func, ast.Name) and call.func.id == "Text" and call.args:
            code = call.args[0]
            if isinstance(code, ast.Constant):
                assert seen.setdefault(str(code.value), where) == where
    assert len(seen) > 100
