"""Every reader of what people wrote, given what nobody in good faith writes; memory measured."""

from __future__ import annotations

import json
import os
import random
import resource
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commons.errors import LabError
from commons.scopes import personal
from commons.store import Store
from environments.about import parse_about
from environments.builds import repository, runner, service
from environments.builds.build_container import Listener, read_event
from environments.builds.prefix_scan import MAX_ANSWER, look
from environments.errors import LockError, SpecError
from environments.lock import read_lock
from environments.spec import parse_spec
from environments.stamp import FOLDER, STAMP_FILE, read_stamp
from kernels.hostile import Lines, TooMuchError, parse_json
from kernels.kernelspec import SpecError as KernelSpecError
from kernels.kernelspec import load_document
from kernels.service.counting import ReportError, read_report
from spawner.gpu.watch.server_activity import Jupyter, read_answers
from spawner.runtime.protocol import MAX_OUTPUT as MAX_LOG
from spawner.runtime.protocol import output_limits as limits

MB = 2**20


def peak(work: Callable[[], object]) -> int:
    """Bytes that Python had at most while it worked."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# JSON that is small and becomes large, deep, or something that the next program cannot use.
BAD_JSON = {
    "many": b'{"result": [' + b"{}," * 300_000 + b"{}]}",
    "lists": b'{"result": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep": b'{"a":' * 900 + b"1" + b"}" * 900,
    "digits": b'{"result": ' + b"9" * 60_000 + b"}",
    "large": b'{"result": 1e999}',
    "nan": b'{"result": NaN}',
    "half": b'{"result": "\\ud800"}',
    "nul": b'{"result": "\\u0000"}',
    "bytes": b'{"result": "\xff\xfe"}',
    "cut": b'{"result": {"lock": "',
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_json_that_is_a_weapon_is_none(kind: str) -> None:
    raw = BAD_JSON[kind]
    with pytest.raises(ValueError, match=r"."):
        parse_json(raw, 8 * MB)
    assert peak(lambda: read_event(raw)) < 20 * len(raw) + MB
    assert read_event(raw) == {} or kind == "many"
    with pytest.raises(ReportError):
        read_report(raw)
    with pytest.raises(KernelSpecError):
        load_document(raw[: 64 * 1024] if kind != "many" else raw)


def test_what_is_within_the_limits_is_read_as_json_has_it() -> None:
    document = {"a": [1, -(2**63), 2.5, True, None, "ü€\U0001f600"], "b": {"c": {}}}
    assert parse_json(json.dumps(document), 1000) == document
    with pytest.raises(TooMuchError):
        parse_json(json.dumps(document), 10)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@settings(max_examples=150, deadline=None)
@given(JSONISH, st.binary(max_size=200))
def test_no_answer_of_a_program_surprises_its_reader(value: Any, raw: bytes) -> None:
    for line in (raw, json.dumps(value).encode(), json.dumps({"result": value}).encode()):
        assert isinstance(read_event(line), dict)
        try:
            known = parse_json(line, MB)
        except ValueError:
            continue
        json.dumps(known, allow_nan=False).encode()
        with suppress(ValueError, KeyError, OverflowError):  # its caller: "nothing known"
            assert isinstance(read_answers(known, known), Jupyter)


@settings(max_examples=100, deadline=None)
@given(st.lists(JSONISH, max_size=3), JSONISH)
def test_a_builders_word_is_kept_only_as_far_as_it_has_the_form(found: Any, more: Any) -> None:
    job: Any = SimpleNamespace(spec="s", words="", origin=None)
    chosen = {
        "python": "3.13", "tag": None, "lock_digest": "d", "version": "v", "findings": [],
        "packages": [{"name": "six", "version": "1", "channel": "c"}], "exports": {},
    }  # fmt: skip
    forged = {
        "lock": "# forged", "python": more, "tag": more, "lock_digest": more, "packages": found,
        "exports": more, "size": more, "kernels": more, "findings": found, "kept": found,
    }  # fmt: skip
    facts = runner._facts(job, {"lock": "ours", "chosen": chosen}, forged)
    assert (facts["lock"], facts["exports"]) == ("ours", {"pixi.lock": "ours"})
    assert {key: facts[key] for key in ("python", "tag", "lock_digest", "packages")} == {
        key: chosen[key] for key in ("python", "tag", "lock_digest", "packages")
    }
    assert isinstance(facts["size"], int)
    assert isinstance(facts["kernels"], dict)


def pieces(size: int) -> Iterator[bytes]:
    """A line without an end."""
    return (b"x" * 16384 for _ in range(size // 16384))


def test_a_line_without_an_end_costs_no_more_than_its_limit() -> None:
    assert peak(lambda: list(limits().cut(pieces(256 * MB)))) < 40 * MB
    counted = limits()
    assert [len(line) for line in counted.cut(pieces(16 * MB))] == [counted.longest]
    counted = limits()
    list(counted.cut(pieces(2 * MAX_LOG)))
    assert counted.over


def test_lines_are_cut_in_linear_time() -> None:
    def work(count: int) -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        lines = Lines(64 * MB, 128 * MB, 10**6)
        assert sum(map(len, lines.cut(b"x" * 1024 for _ in range(count)))) == count * 1024
        assert sum(map(len, lines._parts)) == 0
        return int(1000 * (resource.getrusage(resource.RUSAGE_SELF).ru_utime - before)) + 1

    # Quadratic, the second would take 64 times as long: 32 MB in pieces of a kilobyte.
    assert work(32 * 1024) < 64 * max(work(4 * 1024), 20)


def test_a_flood_of_lines_ends_and_so_does_a_log(tmp_path: Path) -> None:
    counted = limits()
    assert sum(1 for _ in counted.cut(b"\n" * 65536 for _ in range(100))) <= 200_001
    assert counted.over
    noise = random.Random(11)
    lines = [noise.randbytes(noise.randrange(300)).replace(b"\n", b"") for _ in range(2000)]
    with Listener(tmp_path / "x.log") as listener:
        assert all(listener.take(line) is None for line in lines)
        assert listener.take(b"[" * 64 * 1024 * 2) is None
        assert listener.take(b'{"result": {"lock": "ours"}}') == {"result": {"lock": "ours"}}
    assert (tmp_path / "x.log").stat().st_size < 3 * sum(map(len, lines)) + 10_000


BOMBS = {
    "aliases": "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\ndependencies: [*b, *b]\n",
    "merge": "a: &a {x: 1}\nb:\n  <<: *a\n",
    "deep": "dependencies: " + "[" * 5000 + "]" * 5000,
    "blocks": "".join(f"{' ' * n}a{n}:\n" for n in range(400)),
    "keys": "".join(f"k{n}: 1\n" for n in range(15_000)),
    "scalar": "name: " + "x" * 200_000,
    "packages": "dependencies:\n" + "- a\n" * 60_000,
    "tag": "!!python/object/apply:os.system ['true']\n",
    "control": "name: \x1b[31m\x00\n",
    "half": "name: \ud800\n",
    "large": "x" * (300 * 1024),
    "quotes": "name: '" + "''" * 60_000,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_yaml_that_is_a_weapon_is_refused_with_a_sentence(kind: str) -> None:
    text = BOMBS[kind]

    def read() -> None:
        for reader in (lambda: parse_spec(text, name="x"), lambda: parse_about(text, "f")):
            with pytest.raises(SpecError):
                reader()
        with pytest.raises(LabError):
            service.words_of(text)

    assert peak(read) < 150 * MB


def prefix(folder: Path, name: str) -> Path:
    there = folder / name
    (there / FOLDER).mkdir(parents=True)
    (there / "conda-meta" / "history").touch()
    return there


def test_nothing_in_a_persons_folder_holds_up_a_look(tmp_path: Path) -> None:
    fifo = prefix(tmp_path, "fifo") / FOLDER / STAMP_FILE
    os.mkfifo(fifo)
    sparse = prefix(tmp_path, "sparse") / FOLDER / STAMP_FILE
    with sparse.open("wb") as file:
        file.truncate(2**40)
    (prefix(tmp_path, "device") / FOLDER / STAMP_FILE).symlink_to("/dev/zero")
    (prefix(tmp_path, "deep") / FOLDER / STAMP_FILE).write_text("[" * 60_000)
    for name in ("fifo", "sparse", "device", "deep"):
        assert read_stamp(tmp_path / name) is None
    os.mkdir(os.fsencode(tmp_path) + b"/\xff\xfe\n")
    answer: list[dict[str, Any]] = []
    assert peak(lambda: answer.extend(look(tmp_path, {}))) < 64 * MB
    assert sorted(item["name"] for item in answer) == ["deep", "device", "fifo", "sparse"]
    assert len(json.dumps(answer)) <= MAX_ANSWER


def test_what_a_look_says_neither_fills_the_store_nor_changes_what_we_built(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/labcommons.sqlite")
    store.migrate()
    scope = personal("alice")
    facts = {
        "python": "3.13", "lock_digest": "d", "size": 1, "spec": "ours", "words": "",
        "lock": "ours", "packages": [], "kernels": {}, "findings": [], "origin": None,
        "exports": {"pixi.lock": "ours"},
    }  # fmt: skip
    from commons.store.models import utcnow

    store.transact(
        lambda s: repository.record(
            s, scope, "mine", "20260101-00000000",
            built_by="alice", created_at=utcnow(), facts=facts, kept=set(),
        )
    )  # fmt: skip
    forged = {
        "version": "20260101-00000000", "digest": "forged", "packages": [{}] * 6000,
        "exports": {"pixi.lock": "# forged", "x" * 99: "y", "explicit": "z" * 3 * MB},
    }  # fmt: skip
    found = [
        {"name": "mine", **forged},
        {"name": "new", **forged, "version": "live"},
        {"name": "other", **forged},
    ]
    store.transact(lambda s: repository.seen(s, scope, found))

    def rows(s: Any) -> dict[str, tuple[str, str, int, set[str]]]:
        return {
            row.name: (row.lock, row.lock_digest, len(row.packages), set(row.exports))
            for row in repository.of_scopes(s, [scope])
        }

    assert store.transact(rows, read=True) == {
        "mine": ("ours", "d", 0, {"pixi.lock"}),
        "new": ("", "forged", 5000, {"pixi.lock"}),
        "other": ("", "forged", 5000, {"pixi.lock"}),
    }
    store.close()


def test_a_lock_that_is_none_is_refused_in_little_memory(tmp_path: Path) -> None:
    noise, path = random.Random(7), tmp_path / "x" / "pixi.lock"
    path.parent.mkdir()
    head = "version: 6\nenvironments:\n  default:\n"
    for text in ("", head, head + "[" * 2000, "a: &a [*a]", head + "x" * MB, "\0" * 100):
        path.write_text(text)
        with pytest.raises(LockError):
            read_lock(path)
    for _ in range(50):
        path.write_bytes(head.encode() + noise.randbytes(200))
        with pytest.raises(LockError):
            read_lock(path)
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(LockError, match="larger"):
        read_lock(path)
