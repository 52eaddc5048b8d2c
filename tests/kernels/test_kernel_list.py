"""What the list says, in which words, and what stands in for a kernel that is not there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from traitlets import TraitError
from traitlets.config import Config

from kernels import mirror
from kernels.discovery import Discovery, Environment, Source, State
from kernels.kernel_list import QUIET, Rules, default_name, menu, render
from kernels.manager import CondaKernelSpecManager, MissingKernel
from kernels.nearest import Wanted
from tests.kernels.conftest import (
    IPYKERNEL,
    MakePrefix,
    age,
    write_kernel,
    write_notes,
    write_program,
)


def found(roots: Path, source: str = "image", label: str = "") -> list[Environment]:
    return Discovery().scan([Source(source, f"{roots}/envs/*", label)])


def shown(environments: list[Environment], rules: Rules | None = None) -> dict[str, str]:
    listed = menu(environments, rules or Rules(), 4e9)
    return {name: each.document["display_name"] for name, each in listed.entries.items()}


def test_kernels_are_hidden_by_their_names(make_prefix, roots) -> None:
    make_prefix("base")
    make_prefix("data")
    listed = menu(found(roots), Rules(hidden=["conda-*-base-*"]), 4e9)
    assert list(listed.entries) == ["conda-image-data-python3"]
    assert listed.hidden == {"conda-image-base-python3"}


def test_kernels_are_renamed_by_the_first_rule_that_fits(make_prefix, roots) -> None:
    make_prefix("data")
    rules = Rules(renamed={"conda-image-d*": "{environment} on Python {python}", "*": "other"})
    assert list(shown(found(roots), rules).values()) == ["data on Python 3.13"]


@pytest.mark.parametrize("template", ["{unknown}", "{", "{0}", "{environment.nothing}"])
def test_a_template_that_cannot_be_used_is_refused_when_the_server_starts(template) -> None:
    config = Config()
    config.CondaKernelSpecManager.renamed = {"*": template}
    with pytest.raises(TraitError, match="the fields are"):
        CondaKernelSpecManager(config=config)


def test_an_unknown_state_is_refused_with_those_there_are() -> None:
    with pytest.raises(TraitError, match="use healthy, no_kernel"):
        CondaKernelSpecManager(unusable=["broke"])


def test_a_list_sorted_by_name_can_show_each_source_together(make_prefix, roots) -> None:
    make_prefix("data")
    grouped = shown(found(roots, "team-bio", "team: bio"), Rules(grouped=True))
    assert list(grouped.values()) == ["team: bio: data - Python 3.13"]


def test_a_templates_fields_are_only_texts(make_prefix, roots) -> None:
    place = found_one(make_prefix, roots).place
    assert render("{environment} {version}|{kernel}", place, "ir") == "data |ir"


def found_one(make_prefix: MakePrefix, roots: Path) -> Environment:
    make_prefix("data")
    return found(roots)[0]


def test_what_is_just_being_made_is_no_news_until_it_is_quiet(make_prefix, roots) -> None:
    prefix = make_prefix("new", kernel=None)
    (environment,) = found(roots)
    early = menu([environment], Rules(), environment.changed + 1)
    assert (dict(early.entries), early.until) == ({}, environment.changed + QUIET)
    later = menu([environment], Rules(), environment.changed + QUIET)
    assert list(later.entries) == ["conda-image-new-python3"]
    write_kernel(prefix)
    assert list(menu(found(roots), Rules(), environment.changed + 1).entries) == list(later.entries)


def test_somebodys_tools_without_python_are_not_reported_as_broken(make_prefix, roots) -> None:
    prefix = make_prefix("ripgrep", kernel=None)
    next(prefix.glob("conda-meta/python-*")).unlink()
    assert shown(found(roots)) == {}


def test_each_kind_of_broken_environment_says_what_it_is(make_prefix, roots, as_nobody) -> None:
    make_prefix("bad", kernel=b"{")
    make_prefix("bare", kernel=None)
    (make_prefix("half") / "conda-meta/history").unlink()
    (make_prefix("closed") / "conda-meta").chmod(0)
    write_notes(make_prefix("old"), '{"schema": 1, "version": "3", "withdrawn": "CVE-2026-1"}')
    write_notes(make_prefix("aged"), '{"schema": 1, "version": "2", "deprecated": "2026-10-01"}')
    with as_nobody():
        environments = found(roots)
    (roots / "envs/closed/conda-meta").chmod(0o755)
    assert list(shown(environments).values()) == [
        "aged - Python 3.13 (deprecated)",
        "bad - Python 3.13 (cannot start: broken)",
        "bare - Python 3.13 (cannot start: ipykernel is missing)",
        "closed - Python (cannot start: not readable)",
        "half - Python (cannot start: not completely installed)",
        "old - Python 3.13 (withdrawn)",
    ]
    assert list(shown(environments, Rules(unusable=frozenset()))) == ["conda-image-aged-python3"]


@pytest.mark.parametrize(
    ("title", "language", "name"),
    [
        ('{"en": "Data analysis", "zh_CN": "数据分析"}', "en", "Data analysis - Python 3.13"),
        ('{"en": "Data analysis", "zh_CN": "数据分析"}', "zh_CN", "数据分析 - Python 3.13"),
        ('{"zh_CN": "数据分析"}', "en", "数据分析 - Python 3.13"),
        ('"Data"', "zh_CN", "Data - Python 3.13"),
        # Written by who built it: what is no line of text is not shown.
        ('"a\\nb"', "en", "data - Python 3.13"),
        ('" "', "en", "data - Python 3.13"),
        ('["Data"]', "en", "data - Python 3.13"),
        ("null", "en", "data - Python 3.13"),
    ],
)
def test_a_kernel_is_called_by_its_environments_title(
    make_prefix, roots, title: str, language: str, name: str
) -> None:
    write_notes(make_prefix("data"), f'{{"schema": 1, "version": "2", "title": {title}}}')
    environments = found(roots)
    assert list(shown(environments, Rules(language=language)).values()) == [name]


def test_what_cannot_start_is_never_taken_for_a_language(make_prefix, roots) -> None:
    make_prefix("bad", kernel=b"{")
    (entry,) = menu(found(roots), Rules(), 4e9).entries.values()
    assert entry.document["language"] == "none"
    assert "not valid JSON" in entry.document["metadata"]["labcommons"]["reason"]


@pytest.mark.parametrize(
    "notes",
    ["{", "[]", '{"version": 3}', '{"withdrawn": false}', '{"deprecated": null}', "x" * 99999],
)
def test_notes_of_any_other_form_are_ignored(make_prefix, roots, notes) -> None:
    write_notes(make_prefix("data"), notes)
    assert found(roots)[0].state is State.HEALTHY


def test_a_folder_whose_name_is_no_text_is_listed_and_can_be_sent_and_written(roots) -> None:
    prefix = os.path.join(os.fsencode(roots), b"envs", b"bad\xff")
    os.makedirs(os.path.join(prefix, b"conda-meta"))
    open(os.path.join(prefix, b"conda-meta/history"), "w").close()
    write_kernel(Path(os.fsdecode(prefix)))
    write_program(Path(os.fsdecode(prefix)))
    listed = menu(found(roots), Rules(), 4e9)
    [name] = listed.entries
    assert listed.earlier["conda-image-bad-python3"] == name
    assert json.loads(json.dumps(listed.entries[name].document))
    mirror.write(str(roots / "mirror"), listed)
    assert (roots / f"mirror/kernels/{name}/kernel.json").exists()


def test_the_mirror_of_the_list_adds_nothing_to_it(make_prefix, roots) -> None:
    prefix = make_prefix("data")
    source = {"id": "image", "pattern": f"{roots}/envs/*", "label": ""}
    kernel_dirs = [str(roots / "mirror/kernels")]
    manager = CondaKernelSpecManager(
        sources=[source], kernel_dirs=kernel_dirs, mirror=str(roots / "mirror")
    )
    manager.get_all_specs()
    mirror.write(manager.mirror, manager.listed)
    (prefix / "share/jupyter/kernels/python3/kernel.json").unlink()
    assert manager.get_all_specs() == {}


# The default, and the nearest --------------------------------------------------------------------


def test_new_notebooks_get_the_kernel_of_the_chosen_environment(make_prefix, roots) -> None:
    prefix = make_prefix("r44", kernel=None)
    write_program(prefix, "R")
    write_kernel(prefix, {"argv": ["R", "--slave"], "display_name": "R", "language": "R"}, "ir")
    make_prefix("py313")
    listed = menu(found(roots), Rules(), 4e9)
    assert default_name(listed, "r44:2") == "conda-image-r44-ir"
    assert default_name(listed, "py313") == "conda-image-py313-python3"
    assert default_name(listed, "gone:1") is None


def test_a_missing_kernel_is_answered_with_the_nearest_by_python_and_packages(
    make_prefix, roots
) -> None:
    for name, python, package in (
        ("py311-torch21", "3.11.9", "torch"),
        ("py311-data", "3.11.9", "pandas"),
        ("py39-torch20", "3.9.1", "torch"),
    ):
        prefix = make_prefix(name, python=python)
        (prefix / f"conda-meta/{package}-2.1.0-h1_0.json").touch()
    age(roots)
    source = {"id": "image", "pattern": f"{roots}/envs/*", "label": ""}
    manager = CondaKernelSpecManager(sources=[source], kernel_dirs=[], cache_file="")
    with pytest.raises(MissingKernel) as caught:
        manager.get_kernel_spec("conda-team-vision-py311-torch20-python3")
    assert "The nearest is py311-torch21 - Python 3.11; it has torch." in str(caught.value)
    wanted = Wanted("conda-team-x-lab-python3", python="3.9", packages=frozenset({"pandas", "x"}))
    near = manager.nearest(wanted)
    assert near is not None
    assert (near.candidate.environment, near.has, near.lacks) == ("py311-data", ("pandas",), ("x",))
    assert manager.nearest(Wanted("conda-image-r-ir", language="R")) is None


def test_the_registrys_kernel_of_a_deleted_environment_is_not_shown(make_prefix, roots) -> None:
    folder = roots / "registry/conda-team-x-gone-python3"
    folder.mkdir(parents=True)
    mark = {"labcommons": {"prefix": f"{roots}/gone"}}
    write = {**IPYKERNEL, "metadata": mark}
    write_kernel(roots, write, "unused")
    (folder / "kernel.json").write_bytes(
        (roots / "share/jupyter/kernels/unused/kernel.json").read_bytes()
    )
    manager = CondaKernelSpecManager(sources=[], kernel_dirs=[str(roots / "registry")])
    assert manager.get_all_specs() == {}
    (roots / "gone/conda-meta").mkdir(parents=True)
    assert list(manager.get_all_specs()) == ["conda-team-x-gone-python3"]


def test_earlier_names_mean_their_kernel_as_long_as_they_are_nobody_elses(
    roots, make_prefix
) -> None:
    """Kind: names of before, in notebooks. A name that two kernels could claim means none."""
    make_prefix("torch", "home/micromamba/envs")
    sources = [
        Source("personal", f"{roots}/home/.conda/envs/*", "personal"),
        Source("personal", f"{roots}/home/micromamba/envs/*", "personal"),
    ]
    plain = "conda-personal-torch-python3"
    before = menu(Discovery().scan(sources), Rules(), 4e9)
    [hashed] = before.entries
    assert hashed.startswith(f"{plain}-")
    assert before.earlier == {plain: hashed}
    make_prefix("torch", "home/.conda/envs")
    after = menu(Discovery().scan(sources), Rules(), 4e9)
    assert list(after.entries) == [plain, hashed]  # none was renamed
    assert plain not in after.earlier
    assert [after.earlier[name] for name in after.earlier] == [plain]  # its name with a hash


def test_what_a_link_or_a_second_list_adds_renames_nothing(roots, make_prefix) -> None:
    """Kind: two ways to one folder. Both names go on working when either comes or goes."""
    prefix = make_prefix("mine")
    (roots / "again").mkdir()
    (roots / "again/second").symlink_to(prefix)
    image = Source("image", f"{roots}/again/*")
    both = [image, Source("personal", f"{roots}/envs/*", "personal")]
    alone = menu(Discovery().scan(both[1:]), Rules(), 4e9)
    assert list(alone.entries) == ["conda-personal-mine-python3"]
    shown = menu(Discovery().scan(both), Rules(), 4e9)
    assert list(shown.entries) == ["conda-image-second-python3"]
    assert shown.earlier["conda-personal-mine-python3"] == "conda-image-second-python3"
    (roots / "envs/aaa").symlink_to(prefix)
    linked = menu(Discovery().scan(both[1:]), Rules(), 4e9)
    assert set(linked.entries) == {"conda-personal-aaa-python3", "conda-personal-mine-python3"}
