"""``labcommons quota``, as an administrator types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from commons.store import Store
from hub_ext.cli import cli
from spawner.gpu.quotas import quota_store

SITE = """
version: 1
directory:
  servers: [ldaps://ldap.example.org]
  users: {base_dn: 'dc=example,dc=org'}
  teams: {vision: {members: [vision]}}
  courses: {ml101: {students: [ml101]}}
sizes: {small: {cpu: 1, memory: 1G}}
"""
DOCUMENT = """
version: 1
default: {max_gpus: 1, time_limit: 8h}
groups: {vision: {max_gpus: 3, grp_gpus: 4}}
"""


class Terminal:
    """Commands against a database of their own."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        (folder / "site.yaml").write_text(SITE, "utf-8")
        self.environment = {
            "LABCOMMONS_DATABASE_URL": store.url,
            "LABCOMMONS_SITE_FILE": str(folder / "site.yaml"),
        }

    def __call__(self, *words: str, code: int = 0, typed: str | None = None) -> Result:
        result = CliRunner().invoke(cli, words, env=self.environment, input=typed)
        assert result.exit_code == code, result.output
        return result

    def apply(self, text: str, *more: str, code: int = 0) -> Result:
        file = self.folder / "quotas.yaml"
        file.write_text(text, "utf-8")
        return self("quota", "apply", "-f", str(file), *more, code=code)


@pytest.fixture
def terminal(store: Store, tmp_path: Path) -> Terminal:
    return Terminal(store, tmp_path)


def test_a_dry_run_shows_the_changes_and_makes_none(terminal: Terminal) -> None:
    shown = terminal.apply(DOCUMENT, "--dry-run").output
    assert "group:vision\n  + max_gpus: 3\n  + grp_gpus: 4\nNot applied" in shown
    assert terminal.store.transact(quota_store.specs) == {}


def test_applying_twice_changes_nothing_the_second_time(terminal: Terminal) -> None:
    assert "Applied." in terminal.apply(DOCUMENT).output
    assert terminal.apply(DOCUMENT).output == "Nothing changes.\n"
    changed = json.loads(terminal.apply(DOCUMENT.replace("4", "5"), "--json").output)
    assert changed["changes"] == [
        {"subject": "group:vision", "key": "grp_gpus", "before": 4, "after": 5}
    ]


def test_where_leases_need_not_end_that_is_said_with_the_remedy(terminal: Terminal) -> None:
    """Kind: a document of before time limits, after which a big request never starts."""
    told = "Warning: default: has no time limit"
    endless = DOCUMENT.replace(", time_limit: 8h", "")
    for more in (["--dry-run"], [], ["--prune"], ["--strict"]):
        assert told in terminal.apply(endless, *more).stderr
    assert "default_time_limit, such as 8h" in terminal.apply(endless).stderr
    assert told in terminal("quota", "set", "default", "max_gpus=2").stderr
    assert "Warning" not in terminal("quota", "set", "default", "default_time_limit=8h").stderr
    # What the file does not name stays.
    vision = "{version: 1, groups: {vision: {max_gpus: 3}}}"
    assert "Warning" not in terminal.apply(vision).stderr
    assert told in terminal.apply(vision, "--prune", "--dry-run").stderr
    assert told in terminal("quota", "unset", "default", "default_time_limit").stderr


def test_a_wrong_document_is_refused_whole(terminal: Terminal) -> None:
    refused = terminal.apply(DOCUMENT + "courses: {ml102: {max_gpus: 1}}", code=1).output
    assert "course:ml102: there is no such course" in refused
    assert "Did you mean “ml101”?" in refused
    refused = terminal.apply(DOCUMENT.replace("grp_gpus", "grp_gpu"), code=1).output
    assert "line 4: groups.vision.grp_gpu: there is no such key here." in refused
    assert terminal.store.transact(quota_store.specs) == {}


def test_what_the_file_leaves_out_is_named_and_pruned_when_asked(terminal: Terminal) -> None:
    terminal.apply(DOCUMENT)
    assert (
        "stays (--prune removes it): group:vision"
        in terminal.apply("version: 1\ndefault: {max_gpus: 1}").output
    )
    assert (
        "group:vision\n  - max_gpus: 3"
        in terminal.apply("version: 1\ndefault: {max_gpus: 1}", "--prune").output
    )


def test_unknown_people_are_warned_about_and_refused_when_strict(terminal: Terminal) -> None:
    text = "version: 1\ndefault: {time_limit: 8h}\nusers: {zoe: {max_gpus: 1}}"
    assert "Warning: user:zoe: nobody of this name" in terminal.apply(text).stderr
    [warning] = json.loads(terminal.apply(text, "--dry-run", "--json").stdout)["warnings"]
    assert (warning["code"], warning["data"]) == ("person_unknown", {"name": "zoe"})
    terminal.apply(text, "--strict", code=1)


def test_keys_are_set_by_hand_and_read_back(terminal: Terminal) -> None:
    terminal(
        "quota",
        "set",
        "group:vision",
        "grp_gpus=4",
        "budget.gpu_hours=20.5",
        "budget.window=week",
        "max_by_type.RTX 4090=2",
    )
    shown = json.loads(terminal("quota", "show", "group:vision", "--json").output)
    assert shown == {
        "group:vision": {
            "grp_gpus": 4,
            "budget": {"gpu_hours": 20.5, "window": "week"},
            "max_by_type": {"RTX 4090": 2},
        }
    }
    terminal("quota", "unset", "group:vision", "grp_gpus", "max_by_type.RTX 4090")
    assert list(terminal.store.transact(quota_store.specs)["group:vision"]) == ["budget"]
    terminal("quota", "unset", "group:vision", "--all")
    assert terminal.store.transact(quota_store.specs) == {}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["set", "group:vision", "grp_gpus=-1"], 1, "whole number"),
        (["set", "group:vison", "grp_gpus=1"], 1, "Did you mean “vision”?"),
        (["set", "vision", "grp_gpus=1"], 1, "is not a subject"),
        (["set", "group:vision", "grp_gpus"], 2, "KEY=VALUE"),
        (["set", "group:vision", "grp_gpus=[1"], 2, "cannot be read"),
        (["set", "user:alice", "nominal=1"], 1, "is for groups and courses"),
        (["unset", "group:vision"], 2, "--all"),
        (["apply"], 2, "--file"),
        (["apply", "-f", "none.yaml"], 2, "No such file"),
    ],
)
def test_mistakes_are_refused_with_the_remedy(
    terminal: Terminal, words: list[str], code: int, said: str
) -> None:
    assert said in terminal("quota", *words, code=code).output


def test_explain_says_which_limit_holds_and_where_from(terminal: Terminal) -> None:
    terminal.apply(DOCUMENT)
    words = ["quota", "explain", "alice", "--account", "group:vision", "--json"]
    assert json.loads(terminal(*words).output)["limits"] == [
        {"key": "max_gpus", "value": 3, "source": "group:vision", "hidden": ["default"]},
        {"key": "time_limit", "value": "8h", "source": "default", "hidden": []},
        {"key": "grp_gpus", "value": 4, "source": "group:vision", "hidden": []},
    ]
    terminal("quota", "set", "user:alice", "max_gpus=0")
    assert "user:alice    group:vision, default" in terminal(*words[:-1]).output


def test_export_and_history_tell_what_was_done(terminal: Terminal) -> None:
    terminal.apply(DOCUMENT)
    exported = terminal("quota", "export").output
    assert terminal("quota", "apply", "-f", "-", "--prune", typed=exported).output == (
        "Nothing changes.\n"
    )
    terminal("quota", "set", "default", "max_gpus=2")
    assert "~ max_gpus: 1 -> 2" in terminal("quota", "history", "default", "--limit", "1").output
    assert len(json.loads(terminal("quota", "history", "--json").output)) == 3
