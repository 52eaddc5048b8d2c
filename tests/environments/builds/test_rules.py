"""What environments may be called, and what a builder may touch: pure rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commons.errors import BadRequest
from commons.messages import Message, verbatim
from commons.principal import Principal
from commons.scopes import Scope, personal
from commons.site import Environments
from environments import errors, policy
from environments.builds import messages
from environments.builds.build_container import Listener
from environments.builds.names import check_name
from environments.builds.service import named
from environments.condarc import condarc
from environments.messages import rules
from environments.spec import parse_spec

VISION, ML = Scope("team", "vision"), Scope("course", "ml101")
MINE = personal("alice")
MEMBER = Principal.from_groups("alice", False, ["team:vision"])


@pytest.mark.parametrize(
    "name",
    ["", "..", "a/b", "../a", "A", "a b", "a\n", ".a", "-a", "a-", "a--b", "a" * 65, 3, None, "é"],
)
def test_names_that_could_be_paths_or_options_are_refused(name: object) -> None:
    with pytest.raises(BadRequest):
        check_name(name)


def test_a_spec_is_renamed_without_moving_its_lines() -> None:
    text = "# mine\nname: theirs # x\ndependencies:\n  - name: 3\n"
    assert named(text, "ours") == "# mine\nname: ours\ndependencies:\n  - name: 3\n"
    assert named("channels: []\n", "ours") == "channels: []\n"


def test_the_condarc_knows_mirrors_packages_and_the_folders_one_sees() -> None:
    settings = Environments(
        mirrors={
            "conda-forge": ["https://mirror.example.org/conda/conda-forge"],
            "lab": ["https://files.example.org/a"],
        }
    )
    text = condarc(settings, MEMBER.scopes)
    found = dict(line.split(": ", 1) for line in text.splitlines())
    assert json.loads(found["custom_channels"]) == {
        "conda-forge": "https://mirror.example.org/conda"
    }
    assert json.loads(found["custom_multichannels"]) == {"lab": ["https://files.example.org/a"]}
    assert json.loads(found["pkgs_dirs"]) == ["~/.conda/pkgs", "/opt/labcommons/pkgs"]
    assert json.loads(found["envs_dirs"]) == [
        "/home/alice/.conda/envs",
        "/opt/labcommons/teams/vision/envs",
        "/opt/labcommons/shared/envs",
        "/opt/conda/envs",
    ]


def test_what_a_builder_says_is_data_and_never_a_format() -> None:
    """The kind: words of ours are found by their code; a stranger's are text."""

    def german(text: str) -> str:
        return {"installing {count} conda packages": "{count} Pakete von conda"}.get(text, text)

    known = {"code": "step_installing", "data": {"count": 31}, "sentence": "FORGED"}
    assert messages.in_words(known, german) == "31 Pakete von conda"
    for text in ("{count:>999999999}", "{count.__class__}", "something else"):
        foreign = {"code": "theirs", "data": {"count": 31}, "sentence": text}
        assert messages.in_words(foreign, german) == text
    assert messages.in_words(None, german) is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.LockError(verbatim("x")), "lock"),
        (errors.PolicyError(verbatim("x")), "policy"),
        (errors.SpecError(verbatim("x")), "spec"),
        (errors.ChannelError(verbatim("x")), "channel"),
        (errors.ExportError(verbatim("x")), "build"),
        (OSError("x"), "disk"),
    ],
)
def test_a_failure_is_of_a_kind_that_says_what_to_do(error: Exception, kind: str) -> None:
    assert messages.kind_of(error) == kind
    assert kind in messages.FAILURES


def test_a_failure_is_kept_as_data_within_limits_whatever_the_builder_says() -> None:
    for reason in ("x" * 2**20, "{reason!r:>99999999}", "a\0b\x1b[31m", ""):
        message = messages.failed("lock", reason)
        kept = message.as_json()
        assert len(json.dumps(kept)) < 20_000
        assert kept["code"] == "build_failed_lock"
        assert not messages.is_explained(kept)
        assert messages.in_words(kept, str) == str(messages.FAILURES["lock"].english)
    assert messages.failed("no such kind", "x").code == "build_failed_build"
    assert messages.told(messages.failed("spec", "line 3: {x}")) == "line 3: {x}"
    assert messages.is_explained(messages.TIMED_OUT(seconds=3600).as_json())


def test_a_reason_that_is_a_message_is_said_in_the_readers_language() -> None:
    """As a builder hands it over, JSON of messages within messages."""
    chinese = {
        "refused ({rule}): {what}; {remedy}": "不允许（{rule}）：{what}；{remedy}",
        "package {name} is not allowed here: {reason}": "不允许使用 {name}：{reason}",
        "no reason is given": "未说明原因",
        "leave it out": "请去掉",
    }
    finding = policy.Finding(
        "refuse", "package", rules.DENIED(name="x", reason=rules.NO_REASON()), rules.LEAVE_OUT()
    )
    with pytest.raises(errors.PolicyError) as refused:
        policy.enforce([finding, finding])
    said = json.loads(json.dumps(refused.value.message.as_json()))
    kept = messages.failed("policy", Message.from_json(said)).as_json()
    english = "refused (package): package x is not allowed here: no reason is given; leave it out"
    assert messages.told(messages.failed("policy", Message.from_json(said))) == (
        f"{english}\n{english}"
    )
    assert messages.is_explained(kept)
    heading, *lines = messages.in_words(kept, lambda text: chinese.get(text, text)).splitlines()
    assert heading == messages.FAILURES["policy"].english
    assert lines == ["不允许（package）：不允许使用 x：未说明原因；请去掉"] * 2


def test_the_hub_reads_a_builders_reason_as_data_or_as_text(tmp_path: Path) -> None:
    with pytest.raises(errors.SpecError) as wrong:
        parse_spec("name: x\nname: x\n", name=None)
    reason = wrong.value.message
    assert str(reason) == str(wrong.value)
    with Listener(tmp_path / "log") as listener:
        for said, read in (
            (reason.as_json(), reason),
            (None, verbatim("words")),
            ("x", verbatim("words")),
            ([{}], verbatim("words")),
            ({"code": "newer", "data": 1, "sentence": "of a newer builder"}, "of a newer builder"),
        ):
            line = {"error": "words", "kind": "spec", "message": said}
            event = listener.take(json.dumps(line).encode())
            assert event is not None
            assert str(event["error"]) == str(read)
            kept = messages.failed(event["kind"], event["error"]).as_json()
            assert str(messages.in_words(kept, str)).splitlines()[1:] == [str(read)]
    assert reason.params["line"] == 2
    assert reason.params["problem"].params["key"] == "name"
