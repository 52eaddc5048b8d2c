"""What the spawn page shows and what a posted form becomes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.errors import BadRequest, LabError
from commons.i18n import gettext_for
from commons.principal import Principal
from commons.site import Site
from environments.catalog import CatalogEntry
from spawner import options
from spawner.gpu.policy.placement import Availability, GpuType


def entry(name: str, version: str) -> CatalogEntry:
    return CatalogEntry(
        name=name,
        version=version,
        image=f"labcommons/env-{name}:{version}",
        image_id="sha256:1",
        prefix=f"/opt/conda/envs/{name}",
        lock_digest="sha256:0",
        channels=("conda-forge",),
        python="3.13.5",
        words={"title": {"en": "Data", "zh_CN": "数据"}, "description": ""},
        main_packages=[{"name": "numpy", "version": "2.3.1"}],
        packages=[{"name": "numpy", "version": "2.3.1"}, {"name": "python", "version": "3.13.5"}],
        kernelspecs={},
        created_at=datetime(2026, 1, 1),
    )


CATALOG = {"data": [entry("data", "2"), entry("data", "1")], "other": [entry("other", "7")]}
SOME = Availability((GpuType("A100", 80 * 2**30, 4, 1), GpuType("T4", 16 * 2**30, 1, 1)), True)
NONE = Availability((), False)


def model(
    site: Site,
    available: Availability = SOME,
    lang: str = "en",
    last: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return options.form_model(CATALOG, site, available, last or {}, lang, gettext_for(lang))


def test_a_form_becomes_user_options() -> None:
    form = {
        "environment": ["data"],
        "gpus": ["1"],
        "size": ["small"],
        "gpu_type": [""],
        "_xsrf": ["x"],
    }
    assert options.from_form(form) == {"environment": "data", "gpus": 1, "size": "small"}


@given(st.text(max_size=8))
def test_a_number_of_gpus_is_digits_or_refused(text: str) -> None:
    found = options.from_form({"gpus": [text]})
    if text.isascii() and text.isdigit() and len(text) <= 4:
        assert options.parse(found).gpus == int(text)
    elif text == "":
        assert options.parse(found).gpus == 0
    elif not isinstance(found["gpus"], int):
        with pytest.raises(BadRequest):
            options.parse(found)


@given(
    st.dictionaries(
        st.sampled_from([*options.KEYS, "image", "profile"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
    )
)
def test_whatever_is_posted_is_a_request_or_a_sentence(posted: dict[str, Any]) -> None:
    try:
        request = options.parse(posted)
    except BadRequest as error:
        sentence = error.sentence(gettext_for("zh_CN"))
    else:
        assert request.gpus >= 0
        assert "image" not in posted
        return
    assert "{" not in sentence or "{" in str(posted)


def test_an_option_given_twice_is_refused() -> None:
    with pytest.raises(BadRequest, match="more than once"):
        options.from_form({"size": ["small", "large"]})


def test_left_out_options_get_the_sites_defaults(site: Site) -> None:
    choice = options.resolve(options.Request(), CATALOG, site, Principal("alice"))
    assert (choice.entry.name, choice.entry.version, choice.size_name) == ("data", "2", "large")


def test_a_catalog_without_environments_says_what_to_do(site: Site) -> None:
    with pytest.raises(BadRequest, match="labcommons env build"):
        options.resolve(options.Request(), {}, site, Principal("alice"))


def test_the_page_offers_what_can_be_had_and_says_why_not(site: Site) -> None:
    gpus = model(site)["gpus"]
    assert (gpus["total"], gpus["free"], gpus["max"]) == (5, 2, 2)
    assert [choice["disabled"] for choice in gpus["choices"]] == [
        None,
        None,
        "Free now, of one type: 1.",
    ]


def test_the_page_speaks_the_persons_language(site: Site) -> None:
    shown = model(site, lang="zh_CN")
    assert shown["environments"][0]["title"] == "数据"
    assert shown["sizes"][0]["title"] == "小"


def test_the_last_choice_is_chosen_again(site: Site) -> None:
    last = {"environment": "data:1", "size": "small", "gpus": 2, "gpu_type": "A100"}
    shown = model(site, last=last)
    assert [e["name"] for e in shown["environments"] if e["selected"]] == ["data"]
    assert [e["chosen_version"] for e in shown["environments"]] == ["1", "7"]
    assert [s["name"] for s in shown["sizes"] if s["selected"]] == ["small"]
    assert [c["count"] for c in shown["gpus"]["choices"] if c["selected"]] == [1]
    assert shown["gpus"]["selected_type"] == "A100"


@given(st.dictionaries(st.sampled_from(options.KEYS), st.none() | st.integers() | st.text()))
def test_whatever_was_kept_from_last_time_one_of_each_is_chosen(last: dict[str, Any]) -> None:
    site = Site.model_validate(
        {
            "version": 1,
            "directory": {"servers": ["ldaps://d"], "users": {"base_dn": "dc=x"}},
            "sizes": {"small": {"cpu": 1, "memory": "1G"}},
        }
    )
    shown = options.form_model(CATALOG, site, SOME, last, "en", gettext_for("en"))
    for choices in (shown["environments"], shown["sizes"], shown["gpus"]["choices"]):
        assert sum(choice["selected"] for choice in choices) == 1


def test_a_site_without_gpus_offers_none(site: Site) -> None:
    gpus = model(site, NONE)["gpus"]
    assert (gpus["total"], [choice["count"] for choice in gpus["choices"]]) == (0, [0])


@pytest.mark.parametrize(
    ("count", "text"), [(2**30, "1 GiB"), (1536 * 2**20, "1.5 GiB"), (512 * 2**20, "512 MiB")]
)
def test_memory_reads_as_people_write_it(count: int, text: str) -> None:
    assert options.show_bytes(count) == text


ALICE = Principal.from_groups("alice", False, ["team:vision", "team:nlp", "course:ml101:students"])


@pytest.mark.parametrize(
    ("asked", "account"),
    [
        ({}, "user:alice"),
        ({"account": "vision"}, "group:vision"),
        ({"account": "group:nlp"}, "group:nlp"),
        ({"account": "ml101"}, "course:ml101"),
        ({"account": "alice"}, "user:alice"),
        ({"course": "ml101"}, "course:ml101"),
        ({"course": "ml101", "account": "nlp"}, "group:nlp"),
    ],
)
def test_who_is_charged(asked: dict[str, str], account: str, site: Site) -> None:
    assert options.account_of(options.Request(**asked), ALICE, site) == account


def test_the_only_team_is_charged_without_a_word(site: Site) -> None:
    person = Principal.from_groups("alice", False, ["team:vision"])
    assert options.account_of(options.Request(), person, site) == "group:vision"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"account": "user:bob"}, "account_not_yours"),
        ({"account": "robotics"}, "account_not_yours"),
        ({"account": "group:alice"}, "account_not_yours"),
        ({"course": "ml102"}, "course_unknown"),
    ],
)
def test_nobody_charges_others(asked: dict[str, str], code: str, site: Site) -> None:
    with pytest.raises(LabError) as caught:
        options.account_of(options.Request(**asked), ALICE, site)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "asked",
    [
        *({"time_limit": value} for value in (0, -1, 1.5, "60", True, float("nan"), 10**9)),
        *({"wait": value} for value in ("no", 1, None)),
        {"account": ["vision"]},
    ],
)
def test_what_is_no_time_or_no_answer_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        options.parse(asked)


def test_what_was_asked_comes_back_as_it_was(site: Site) -> None:
    asked = {"gpus": 1, "account": "vision", "time_limit": 90, "wait": False, "course": "ml101"}
    choice = options.resolve(options.parse(asked), CATALOG, site, ALICE)
    assert choice.time_limit == 5400
    kept = choice.user_options()
    assert {key: kept[key] for key in asked} == asked
    assert options.resolve(options.parse(kept), CATALOG, site, ALICE) == choice


def test_a_withdrawn_version_is_not_offered_and_says_why(site: Site) -> None:
    old = replace(
        CATALOG["data"][1], withdrawn_at=datetime(2026, 11, 1), withdrawn_reason="a hole."
    )
    catalog = {**CATALOG, "data": [CATALOG["data"][0], old]}
    shown = options.form_model(catalog, site, SOME, {}, "en", gettext_for("en"))
    assert shown["environments"][0]["versions"] == ["2"]
    with pytest.raises(BadRequest, match=r"was withdrawn: a hole\. Take version “2”"):
        options.resolve(options.Request("data", "1"), catalog, site, ALICE)
    assert options.resolve(options.Request("data"), catalog, site, ALICE).entry.version == "2"


def test_an_environment_without_any_version_to_start_is_not_there(site: Site) -> None:
    gone = [replace(entry, removed=True) for entry in CATALOG["data"]]
    assert "data" not in options.usable({**CATALOG, "data": gone}, Principal("alice"))


def test_a_deprecated_version_is_offered_with_its_date(site: Site) -> None:
    old = replace(CATALOG["data"][1], deprecated_at=datetime(2026, 11, 1), tag="1.2.0")
    catalog = {**CATALOG, "data": [CATALOG["data"][0], old]}
    shown = options.form_model(catalog, site, SOME, {}, "en", gettext_for("en"))
    assert shown["environments"][0]["deprecated"] == {"1": "2026-11-01"}
    assert (
        options.resolve(options.Request("data", "1.2.0"), catalog, site, ALICE).entry.version == "1"
    )


@pytest.mark.parametrize(
    ("auth_state", "sees"),
    [
        ({}, False),
        ({"teams": {"vision": "member"}}, True),
        ({"teams": {"other": "lead"}, "courses": {"ml101": "student"}}, True),
        ({"courses": {"vision": "student"}}, False),
    ],
)
def test_an_environment_is_only_for_those_that_it_names(
    auth_state: dict[str, Any], sees: bool
) -> None:
    access = {"teams": ["vision"], "courses": ["ml101"]}
    person = Principal.from_auth_state("alice", False, auth_state)
    kept = [replace(entry, access=access) for entry in CATALOG["data"]]
    assert ("data" in options.usable({**CATALOG, "data": kept}, person)) is sees


def test_an_environment_that_needs_a_gpu_is_refused_without_one(site: Site) -> None:
    catalog = {"data": [replace(entry, gpu="required") for entry in CATALOG["data"]]}
    with pytest.raises(BadRequest, match="only with a GPU"):
        options.resolve(options.Request("data"), catalog, site, ALICE)
    assert options.resolve(options.Request("data", gpus=1), catalog, site, ALICE).gpus == 1


def test_an_environment_suggests_the_size_that_suits_it(site: Site) -> None:
    for suggested, expected in (("small", "small"), ("huge", "large"), (None, "large")):
        catalog = {"data": [replace(CATALOG["data"][0], server_size=suggested)]}
        choice = options.resolve(options.Request("data"), catalog, site, ALICE)
        assert choice.size_name == expected
        shown = options.form_model(catalog, site, SOME, {}, "en", gettext_for("en"))
        assert [size["name"] for size in shown["sizes"] if size["selected"]] == [expected]


def test_each_option_is_declared_once_and_describes_itself(site: Site) -> None:
    described = options.schema()["properties"]
    assert tuple(described) == options.KEYS
    assert all(one["title"] and one["description"] for one in described.values())
    # What is described as usual is what is meant by nothing.
    usual = {name: one["default"] for name, one in described.items() if "default" in one}
    assert options.parse(usual) == options.parse({}) == options.Request()


@pytest.mark.parametrize("name", ["gpus", "time_limit"])
def test_the_bounds_that_are_described_are_those_that_are_checked(name: str) -> None:
    kind = options.schema()["properties"][name]
    for value, right in (
        (kind["minimum"], True),
        (kind["maximum"], True),
        (kind["minimum"] - 1, False),
        (kind["maximum"] + 1, False),
    ):
        if right:
            options.parse({name: value})
        else:
            with pytest.raises(BadRequest):
                options.parse({name: value})


LINKS: list[tuple[dict[str, list[str]], dict[str, Any], list[str]]] = [
    ({"environment": ["data:1"], "gpus": ["1"], "size": ["small"]},
     {"environment": "data:1", "gpus": 1, "size": "small"}, []),
    ({"environment": ["data:9"], "size": ["small"]},
     {"environment": "data", "size": "small"}, ["version_unknown"]),
    ({"environment": ["secret"], "size": ["huge"], "gpus": ["1"]},
     {"gpus": 1}, ["environment_unknown", "size_unknown"]),
    ({"gpus": ["99"], "gpu_type": ["H900"], "wait": ["true"]},
     {"wait": True}, ["gpu_over_limit", "gpu_type_unknown"]),
    ({"gpus": ["many"], "enviroment": ["data"], "time_limit": ["90"]},
     {"time_limit": 90}, ["option_unknown", "gpus_not_a_number"]),
    ({"account": ["user:bob"], "size": ["small"]}, {"size": "small"}, ["account_not_yours"]),
    ({"course": ["ml101"]}, {"account": "course:ml101"}, []),
    ({"size": ["small", "large"], "environment": ["data"]},
     {"environment": "data"}, ["option_repeated"]),
]  # fmt: skip


@pytest.mark.parametrize(("link", "filled", "codes"), LINKS, ids=range(len(LINKS)))
def test_a_link_fills_what_it_can_and_says_what_it_cannot(
    link: dict[str, list[str]], filled: dict[str, Any], codes: list[str], site: Site
) -> None:
    """Kind: links that are old, mistyped or somebody else's: each name counts by itself."""
    found, problems = options.linked(link, CATALOG, site, SOME, ALICE)
    assert (found, [one.code for one in problems]) == (filled, codes)


@given(
    st.dictionaries(
        st.sampled_from([*options.KEYS, "image"]) | st.text(max_size=4),
        st.lists(st.sampled_from(["data:1", "other", "small", "1", "2", ""]) | st.text()),
    )
)
def test_whatever_a_link_asks_for_one_of_each_is_chosen(link: dict[str, list[str]]) -> None:
    site = Site.model_validate(
        {
            "version": 1,
            "directory": {"servers": ["ldaps://d"], "users": {"base_dn": "dc=x"}},
            "sizes": {"small": {"cpu": 1, "memory": "1G"}},
            "gpus": {"source": "none", "max_per_server": 2},
        }
    )
    found, problems = options.linked(link, CATALOG, site, SOME, ALICE)
    shown = options.form_model(CATALOG, site, SOME, found, "en", gettext_for("en"))
    problems += options.not_chosen(shown, found)
    for choices in (shown["environments"], shown["sizes"], shown["gpus"]["choices"]):
        assert sum(choice["selected"] for choice in choices) == 1
    options.resolve(options.parse(found), CATALOG, site, ALICE)
    assert all(one.in_words(gettext_for("zh_CN")) for one in problems)


def test_a_link_to_gpus_that_cannot_be_had_now_says_why(site: Site) -> None:
    found, problems = options.linked({"gpus": ["2"]}, CATALOG, site, SOME, ALICE)
    assert (found, problems) == ({"gpus": 2}, [])
    [problem] = options.not_chosen(model(site, last=found), found)
    words = problem.in_words(gettext_for("en"))
    assert words == "2 GPUs are not available: Free now, of one type: 1."
