"""The quotas document, and quotas in the store."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from commons.i18n import gettext_for
from commons.site import Site
from commons.store import GpuState, Store
from commons.units import parse_duration, show_duration
from spawner.gpu.policy.state import HOUR, Budget
from spawner.gpu.quotas import quota_store
from spawner.gpu.quotas.document import (
    QuotaDocumentError,
    Specs,
    check_names,
    check_spec,
    read_document,
    to_document,
    to_yaml,
)

EXAMPLE = Path(__file__).parents[3] / "config" / "quotas.example.yaml"
DOCUMENT = """
version: 1
settings: {half_life: 7d, hold_time: 600}
default: {max_gpus: 1, time_limit: 12h, default_time_limit: 2h}
users:
  alice: {max_gpus: 2}
groups:
  vision:
    grp_gpus: 4
    grp_budget: {gpu_hours: 500, window: month}
    nominal: 2
    cohort: lab
    borrowing_limit: 2
    idle: {after: 30m, gpu_percent: 5}
courses:
  ml101: {max_gpus: 1, budget: {gpu_hours: 10, half_life: 14d}}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(QuotaDocumentError) as caught:
        read_document(text, "quotas.yaml")
    return [str(problem) for problem in caught.value.problems]


def apply(store: Store, text: str, prune: bool = False) -> tuple[quota_store.Change, ...]:
    specs = read_document(text)
    return store.transact(lambda s: quota_store.apply(s, specs, "carol", prune))


def version(store: Store) -> int:
    return store.transact(lambda s: s.get_one(GpuState, 1).version)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("8h", 28800), ("1d12h", 129600), (60, 60), ("45", 45)]
)
def test_durations_are_read_as_people_write_them(text: object, seconds: int) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(show_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["8 hours", "-1h", "1.5h", 1.5, True, None, 0, "0h", "99999w", ""])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"write for example|must be longer"):
        parse_duration(text)


def test_a_document_becomes_one_spec_for_each_subject() -> None:
    specs = read_document(DOCUMENT)
    assert list(specs) == ["settings", "default", "user:alice", "group:vision", "course:ml101"]
    assert specs["settings"] == {"half_life": "7d", "hold_time": "10m"}
    assert specs["group:vision"]["grp_budget"] == {"gpu_hours": 500.0, "window": "month"}


def test_every_wrong_key_is_named_with_its_line_and_the_remedy() -> None:
    found = problems(
        "version: 1\n"
        "default:\n"
        "  time_limt: 8h\n"
        "groups:\n"
        "  vision:\n"
        "    grp_gpus: -1\n"
        "    nominal: .nan\n"
        "users:\n"
        "  alice: {max_gpus: 1.5, grp_gpus: 3}\n"
    )
    assert found == [
        "line 3: default.time_limt: there is no such key here. Did you mean “time_limit”?",
        "line 6: groups.vision.grp_gpus: must be a whole number from 0 to 100000",
        "line 7: groups.vision.nominal: must be a whole number from 0 to 100000",
        "line 9: users.alice.max_gpus: must be a whole number from 0 to 100000",
        "line 9: users.alice.grp_gpus: is for groups and courses; a person has max_gpus and budget",
    ]


@pytest.mark.parametrize(
    "value", ["-1", "1.5", ".nan", ".inf", "1e99", "10000000000", "true", "'2'", "[1]", "null"]
)
def test_a_count_is_a_whole_number_and_nothing_else(value: str) -> None:
    text = f"version: 1\ndefault: {{max_gpus: {value}}}"
    if value == "null":  # as good as not written
        assert read_document(text) == {}
        return
    assert "must be a whole number" in problems(text)[0]


@pytest.mark.parametrize("value", ["-1", ".nan", ".inf", "1e99", "true", "many"])
def test_gpu_hours_are_a_finite_number(value: str) -> None:
    text = f"version: 1\ndefault: {{budget: {{gpu_hours: {value}, window: week}}}}"
    assert "must be a number" in problems(text)[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "begins with “version: 1”"),
        ("- 1", "begins with “version: 1”"),
        ("version: 2", "version: must be one of 1"),
        ("version: 1\nversion: 1", "duplicate key"),
        ("version: 1\nusers: {a: [", "not valid YAML"),
        ("version: 1\nusers: &a {b: *a}", "aliases"),
        ("version: 1\nusers: [alice]", "must be a mapping"),
        ("version: 1\nusers: {'': {max_gpus: 1}}", "is not a name"),
        ("version: 1\ndefault: {budget: {gpu_hours: 1}}", "needs either window"),
        ("version: 1\ndefault: {time_limit: 1h, default_time_limit: 2h}", "must not be longer"),
        ("version: 1\ngroups: {a: {borrowing_limit: 1}}", "need nominal and cohort"),
        ("version: 1\nsettings: {strategy: fifo}", "'StrictFIFO'"),
        ("version: 1\nsettings: {timezone: Europe/Nowhere}", "is not a time zone"),
        ("version: 1\nsettings: {timezone: ../../etc/passwd}", "is not a time zone"),
        ("version: 1\nsettings: {timezone: 8}", "is not a time zone"),
        ("version: 1\n" + "#" * 600_000, "longer than 512 KiB"),
        ("a: " + "[" * 250_000, "nested too deeply"),
        ("a: " + "{\n" * 120_000, "nested too deeply"),
    ],
)
def test_a_document_that_cannot_be_used_says_why(text: str, said: str) -> None:
    assert said in problems(text)[0]


def test_what_is_wrong_is_data_for_programs() -> None:
    with pytest.raises(QuotaDocumentError) as caught:
        read_document("version: 1\ndefault:\n  time_limt: 8h\n  max_gpus: -1\n  time_limit: soon\n")
    key, count, duration = (one.as_json() for one in caught.value.problems)
    assert key | {"hint": None} == {
        "path": "default.time_limt",
        "line": 3,
        "message": "there is no such key here. Did you mean “time_limit”?",
        "code": "key_unknown",
        "data": {"key": "time_limt"},
        "hint": None,
    }
    assert key["hint"]["code"] == "did_you_mean"
    assert key["hint"]["data"] == {"near": "time_limit"}
    assert [count["code"], duration["code"]] == ["not_a_count", "not_a_duration"]


def test_what_is_wrong_is_said_in_the_readers_language() -> None:
    with pytest.raises(QuotaDocumentError) as caught:
        read_document("version: 1\ndefault: {max_gpu: 1, max_queued: -1, time_limit: soon}")
    chinese = gettext_for("zh_CN")
    for problem in caught.value.problems:
        assert re.search("[\u4e00-\u9fff]", problem.sentence(chinese)), problem


def test_one_subject_is_checked_as_in_a_document() -> None:
    assert check_spec("group:vision", {"time_limit": 3600}) == {"time_limit": "1h"}
    for subject in ("vision", "group:", "default:x", "planet:earth", "user: alice"):
        with pytest.raises(QuotaDocumentError, match="is not a subject"):
            check_spec(subject, {})


def test_unknown_groups_are_refused_and_unknown_people_warned_about(site: Site) -> None:
    specs = read_document("version: 1\nusers: {alcie: {max_gpus: 1}}")
    (warning,) = check_names(specs, site, {"alice"}, {"A100"})
    assert "Did you mean “alice”?" in str(warning)
    with pytest.raises(QuotaDocumentError, match="alcie"):
        check_names(specs, site, {"alice"}, {"A100"}, strict=True)
    with pytest.raises(QuotaDocumentError, match=r"group:vison: there is no such team"):
        check_names({"group:vison": {"grp_gpus": 1}}, site, (), ())


def test_unknown_gpu_types_and_budgets_without_time_limit_are_warned_about(site: Site) -> None:
    specs = read_document(
        "version: 1\ndefault: {max_by_type: {A10: 1}, budget: {gpu_hours: 5, window: day}}"
    )
    first, second = check_names(specs, site, (), {"A100"})
    assert "Did you mean “A100”?" in str(first)
    assert "set default_time_limit" in str(second)


def test_the_example_of_the_documentation_is_right() -> None:
    assert read_document(EXAMPLE.read_text("utf-8"))["group:vision"]["grp_gpus"]


def test_what_is_exported_applies_cleanly(store: Store) -> None:
    apply(store, DOCUMENT)
    exported = store.transact(lambda s: to_yaml(quota_store.specs(s)))
    assert apply(store, exported, prune=True) == ()
    assert YAML(typ="safe").load(exported) == to_document(read_document(DOCUMENT))


def test_the_policy_gets_seconds_and_budgets(store: Store) -> None:
    apply(store, DOCUMENT)
    found, settings = store.transact(quota_store.load)
    assert found["default"].time_limit == 12 * HOUR
    assert found["group:vision"].grp_budget == Budget(500, window="month")
    assert found["course:ml101"].budget == Budget(10, half_life=14 * 24 * HOUR)
    assert (settings.half_life, settings.hold_time) == (7 * 24 * HOUR, 600)
    idle = store.transact(quota_store.idle_specs)
    assert idle == {"group:vision": {"after": 1800, "gpu_percent": 5.0}}


def test_applying_says_what_changes_and_bumps_the_version_once(store: Store) -> None:
    before = version(store)
    assert len(apply(store, DOCUMENT)) == 14
    assert version(store) == before + 1
    (change,) = apply(
        store, "version: 1\ndefault: {max_gpus: 3, time_limit: 12h, default_time_limit: 7200}"
    )
    assert str(change) == "~ max_gpus: 1 -> 3"
    assert (
        apply(
            store, "version: 1\ndefault: {max_gpus: 3, time_limit: 43200, default_time_limit: 2h}"
        )
        == ()
    )
    assert version(store) == before + 2


def test_subjects_left_out_stay_unless_pruned(store: Store) -> None:
    apply(store, DOCUMENT)
    only: Specs = {"user:alice": {"max_gpus": 2}}
    assert store.transact(lambda s: quota_store.apply(s, only, "carol")) == ()
    gone = store.transact(lambda s: quota_store.apply(s, only, "carol", prune=True))
    assert {change.subject for change in gone} == {
        "settings",
        "default",
        "group:vision",
        "course:ml101",
    }
    assert store.transact(quota_store.specs) == only


def test_keys_are_set_and_unset_and_the_history_says_by_whom(store: Store) -> None:
    store.transact(lambda s: quota_store.set_keys(s, "group:vision", {"grp_gpus": 4}, "carol"))
    store.transact(lambda s: quota_store.set_keys(s, "group:vision", {"time_limit": "8h"}, "carol"))
    (change,) = store.transact(
        lambda s: quota_store.set_keys(s, "group:vision", {"grp_gpus": None}, "dave")
    )
    assert (change.key, change.before, change.after) == ("grp_gpus", 4, None)
    last = store.transact(quota_store.history)[0]
    assert (last.by, last.before, last.after) == (
        "dave",
        {"grp_gpus": 4, "time_limit": "8h"},
        {"time_limit": "8h"},
    )
    store.transact(lambda s: quota_store.remove(s, "group:vision", "carol"))
    assert store.transact(quota_store.specs) == {}


def test_a_wrong_value_changes_nothing(store: Store) -> None:
    store.transact(lambda s: quota_store.set_keys(s, "default", {"max_gpus": 4}, "carol"))
    before = version(store)
    with pytest.raises(QuotaDocumentError, match="whole number"):
        store.transact(lambda s: quota_store.set_keys(s, "default", {"max_gpus": -4}, "carol"))
    assert store.transact(quota_store.specs) == {"default": {"max_gpus": 4}}
    assert version(store) == before


def test_a_site_that_has_set_nothing_begins_with_limits_that_are_fair(store: Store) -> None:
    assert store.transact(lambda s: quota_store.begin(s, 4))
    quota = store.transact(lambda s: quota_store.load(s)[0], read=True)["default"]
    assert (quota.ceiling, quota.default_time_limit, quota.time_limit) == (4, 8 * HOUR, 168 * HOUR)
    assert store.transact(quota_store.idle_specs)["default"] == {"after": 2 * HOUR}


def test_what_somebody_set_or_removed_stays_as_it_is(store: Store) -> None:
    store.transact(lambda s: quota_store.begin(s, 1))
    store.transact(lambda s: quota_store.remove(s, "default", "carol"))
    assert not store.transact(lambda s: quota_store.begin(s, 1))
    assert store.transact(quota_store.specs) == {}
