"""The protocol on its way: every call has its messages, and errors arrive as what they were."""

from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from commons.errors import NotAllowed, RuntimeRefused, RuntimeSilent
from spawner.runtime import wire
from spawner.runtime.messages import ENGINE_SILENT, HOME_OF_ANOTHER
from spawner.runtime.protocol import ServerState, TooMuchSaid
from spawner.runtime.spec import Account, Limits, Name, ScopeName, ServerName, ServerSpec

SPEC = ServerSpec(
    user="alice",
    server="",
    account=Account(uid=7001, gid=7001),
    image=f"sha256:{'0' * 64}",
    environment="minimal",
    version="1",
    limits=Limits(cpu=1, memory=2**30, pids=100, shared_memory=2**26, tmp=2**26),
)


def test_every_method_of_the_protocols_is_a_call() -> None:
    assert {"start", "inspect", "run_task", "follow", "events", "images/publish"} <= set(wire.CALLS)
    assert {name for name, call in wire.CALLS.items() if call.stream} == {"follow", "events"}


def test_the_version_that_both_sides_compare_is_that_of_the_messages() -> None:
    assert wire.digest() == wire.MESSAGES
    assert wire.protocol_version().endswith(f"+{wire.MESSAGES}")


def test_ids_of_images_are_understood() -> None:
    """`env prune` asked so, and was refused."""
    known = [SPEC.image, f"sha256:{'1' * 64}"]
    assert wire.CALLS["images/orphans"].arguments(known=known)


def test_a_spec_arrives_as_it_was_sent() -> None:
    arguments = wire.CALLS["start"].arguments
    raw = arguments(spec=SPEC).model_dump_json()
    assert arguments.model_validate_json(raw).spec == SPEC  # type: ignore[attr-defined]


def test_answers_with_none_arrive() -> None:
    answer = wire.CALLS["inspect"].answer
    state = ServerState(handle="a", user="alice", server="", status="exited", exit_code=3)
    said = {"a": state, "b": None}
    assert answer.validate_json(answer.dump_json(said)) == said


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"handles": "abc"},
        {"handles": ["../../info"]},
        {"handles": ["a" * 10_000]},
        {"handles": ["a"], "privileged": True},
    ],
)
def test_what_is_not_in_the_table_is_not_understood(raw: object) -> None:
    with pytest.raises(ValidationError):
        wire.CALLS["inspect"].arguments.model_validate_json(json.dumps(raw))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", "a\n", "..\n", "x" * 256])
def test_what_is_no_part_of_a_path_is_no_name(name: str) -> None:
    for adapter, value in ((TypeAdapter(Name), name), (TypeAdapter(ScopeName), f"team-{name}")):
        with pytest.raises(ValidationError):
            adapter.validate_python(value + ("x" * 300 if len(name) > 255 else ""))


@pytest.mark.parametrize("name", ["a", ".a", "..a", "...", "…", "é ü", "李"])
def test_names_of_people_are_names(name: str) -> None:
    assert TypeAdapter(Name).validate_python(name) == name
    assert TypeAdapter(ServerName).validate_python(name) == name


def test_errors_arrive_as_what_they_were() -> None:
    refused = NotAllowed(HOME_OF_ANOTHER(user="bob", owner=5, uid=6))
    back = wire.told(*wire.tell(refused))
    assert isinstance(back, RuntimeRefused)
    assert (back.code, back.status, str(back)) == ("home_of_another", 403, str(refused))
    silent = wire.told(*wire.tell(RuntimeSilent(ENGINE_SILENT(reason="no"))))
    assert isinstance(silent, RuntimeSilent)
    assert isinstance(wire.told(*wire.tell(TooMuchSaid())), TooMuchSaid)


def test_an_agent_of_another_version_is_as_good_as_silent() -> None:
    error = wire.other_version("1", "2")
    assert isinstance(error, RuntimeSilent)
    assert isinstance(wire.told(426, wire.tell(error)[1]), RuntimeSilent)


@pytest.mark.parametrize("said", [None, [], "x", {"code": 5, "params": 3}, {}])
def test_an_answer_that_is_none_is_a_refusal(said: object) -> None:
    assert isinstance(wire.told(500, said), RuntimeRefused)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a b", "a\n", "a\0", "ä", "a:b", "x" * 31])
def test_a_name_that_is_none_for_a_container_is_not_understood(name: str) -> None:
    """The kind: the agent bounds each word of the hub that it hands on to the Engine."""
    with pytest.raises(ValidationError):
        ServerSpec.model_validate_json(
            json.dumps(json.loads(SPEC.model_dump_json()) | {"name": name})
        )
