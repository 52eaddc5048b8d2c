"""The first choice is right: whose environments are offered, in which order, and who is charged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from commons.errors import BadRequest
from commons.i18n import gettext_for
from commons.principal import Principal
from commons.scopes import SHARED, Scope, personal
from commons.site import Site
from commons.store import Store
from environments import catalog
from environments.builds import repository
from spawner import options
from spawner.gpu.policy.placement import Availability
from spawner.options.scoped import ScopedEntry

from .test_options import entry

VISION, ML = Scope("team", "vision"), Scope("course", "ml101")
ALICE = Principal.from_groups("alice", False, ["team:vision"])
STUDENT = Principal.from_groups("dan", False, ["course:ml101:students"])
INSTRUCTOR = Principal.from_groups("ina", False, ["course:ml101:instructors"])
NO_GPUS = Availability((), False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'x.sqlite'}")
    store.migrate()
    yield store
    store.close()


def image(store: Store, name: str, **words: Any) -> None:
    more = {key: words.pop(key) for key in ("access",) if key in words}
    made = replace(entry(name, "1"), channels=[], words={"title": name.upper(), **words}, **more)
    store.transact(lambda s: catalog.record(s, made))


def built(store: Store, scope: Scope, name: str, **more: Any) -> None:
    facts = {
        "python": "3.12.1", "lock_digest": "", "size": 1, "spec": "", "words": "", "lock": "",
        "packages": [], "kernels": {"python3": {}}, "findings": [], "origin": None, "exports": {},
        **more,
    }  # fmt: skip
    store.transact(
        lambda s: repository.record(
            s, scope, name, "20261126-aa", built_by="x", created_at=datetime(2026, 11, 26),
            facts=facts, kept=set(),
        )
    )  # fmt: skip


def names(store: Store, who: Principal) -> list[str]:
    return list(store.transact(lambda s: options.offered(s, who), read=True))


def test_the_sites_default_is_first_then_its_order_then_names(store: Store) -> None:
    for name, words in (("a", {}), ("b", {"order": 5}), ("c", {"default": True, "order": 9})):
        image(store, name, **words)
    assert names(store, ALICE) == ["c", "b", "a"]


def test_what_groups_and_the_person_built_can_be_started_and_nobody_elses(store: Store) -> None:
    image(store, "data")
    for scope, name in ((VISION, "torch"), (ML, "lab"), (SHARED, "all"), (personal("alice"), "my")):
        built(store, scope, name)
    built(store, personal("bob"), "his")
    built(store, VISION, "no-kernel", kernels={})
    assert set(names(store, ALICE)) == {"data", "team-vision/torch", "shared/all", "personal/my"}
    # Without any image there is no server that could be started.
    store.transact(lambda s: catalog.delete(s, "data", "1"))
    assert names(store, ALICE) == []


def test_a_server_of_ones_own_environment_starts_from_the_image_that_it_came_from(
    store: Store, site: Site
) -> None:
    image(store, "data", default=True)
    image(store, "old")
    origin = {"source": "image", "owner": "", "name": "old", "version": "1"}
    built(store, personal("alice"), "mine", origin=origin, words="title: Mine\ngpu: required\n")
    built(store, VISION, "torch")
    found = store.transact(lambda s: options.offered(s, ALICE), read=True)
    for asked, base, prefix in (
        ("personal/mine", "old", "/home/alice/.conda/envs/mine"),
        ("team-vision/torch:20261126-aa", "data", "/opt/labcommons/teams/vision/envs/torch"),
    ):
        gpus = 1 if "mine" in asked else 0
        request = options.parse({"environment": asked, "gpus": gpus})
        choice = options.resolve(request, found, site, ALICE)
        assert isinstance(choice.entry, ScopedEntry)
        assert (choice.entry.runs_in.name, choice.entry.prefix) == (base, prefix)
        assert choice.user_options()["environment"] == asked.partition(":")[0]
    with pytest.raises(BadRequest, match="only with a GPU"):
        options.resolve(options.parse({"environment": "personal/mine"}), found, site, ALICE)
    with pytest.raises(BadRequest, match="There is no environment"):
        options.resolve(options.parse({"environment": "team-bio/x"}), found, site, ALICE)


def test_a_student_sees_the_course_first_and_charges_it(store: Store, site: Site) -> None:
    image(store, "data", default=True)
    image(store, "course-image", access={"teams": [], "courses": ["ml101"]})
    built(store, ML, "lab")
    assert names(store, STUDENT) == ["course-image", "course-ml101/lab", "data"]
    # Who teaches it works on other things, too.
    assert names(store, INSTRUCTOR)[0] == "data"
    found = store.transact(lambda s: options.offered(s, STUDENT), read=True)
    for asked in ({}, {"environment": "data"}, {"environment": "course-ml101/lab"}):
        choice = options.resolve(options.parse(asked), found, site, STUDENT)
        assert choice.account == "course:ml101"
    asked = {"environment": "course-ml101/lab"}
    assert options.resolve(options.parse(asked), found, site, INSTRUCTOR).account == "course:ml101"
    choice = options.resolve(options.parse({**asked, "account": "user:dan"}), found, site, STUDENT)
    assert choice.account == "user:dan"


@pytest.mark.parametrize(
    ("groups", "account"),
    [
        ([], "user:x"),
        (["team:vision"], "group:vision"),
        (["team:vision", "team:bio"], "user:x"),
        (["course:ml101:students"], "course:ml101"),
        (["course:ml101:students", "course:ml102:students"], "user:x"),
        (["course:ml101:instructors"], "user:x"),
        (["team:vision", "course:ml101:students"], "group:vision"),
    ],
)
def test_who_is_meant_without_a_word(groups: list[str], account: str) -> None:
    assert Principal.from_groups("x", False, groups).accounts[0] == account


def test_the_last_choice_wins_over_the_default(store: Store, site: Site) -> None:
    image(store, "data", default=True)
    built(store, personal("alice"), "mine", words="title: {en: Mine, zh_CN: 我的}\n")
    found = store.transact(lambda s: options.offered(s, ALICE), read=True)

    def chosen(last: dict[str, Any], lang: str = "en") -> list[tuple[str, str]]:
        shown = options.form_model(found, site, NO_GPUS, last, lang, gettext_for(lang))
        return [(e["name"], e["title"]) for e in shown["environments"] if e["selected"]]

    assert chosen({}) == [("data", "DATA")]
    assert chosen({"environment": "personal/mine"}, "zh_CN") == [("personal/mine", "我的")]
    # What is gone since is not chosen.
    assert chosen({"environment": "personal/gone"}) == [("data", "DATA")]
