"""Front ends that come with environments: checked, chosen, and on a shelf for JupyterLab."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kernels import front_ends, shelf
from kernels.discovery import Discovery, Source
from kernels.front_ends import FrontEndError, choose, look, read
from kernels.kernel_list import Rules, menu
from kernels.kernelspec import Place
from tests.kernels.conftest import MakePrefix

WIDGETS = "@jupyter-widgets/jupyterlab-manager"
BUILD = {"load": "static/remoteEntry.1.js", "extension": "./extension", "style": "./style"}


def put(prefix: Path, name: str = "bqplot", version: str = "0.6.1", /, **changes: Any) -> Path:
    """A front end in an environment; ``changes`` are of its package.json."""
    folder = prefix / "share/jupyter/labextensions" / name
    (folder / "static").mkdir(parents=True)
    (folder / "static/remoteEntry.1.js").write_text("1")
    about = {"name": name, "version": version, "jupyterlab": {"extension": True, "_build": BUILD}}
    (folder / "package.json").write_text(json.dumps(about | changes))
    return folder


def root_of(folder: Path) -> str:
    return str(folder.parent)


def test_names_with_a_scope_and_a_path_with_a_dot_are_taken(roots: Path) -> None:
    """Kind: package.json as the builders of front ends write it (anywidget: ``./static/…``)."""
    build = {"load": "./static/remoteEntry.1.js", "mimeExtension": "./mimeExtension"}
    put(roots, "@bokeh/jupyter_bokeh", "4.1.0", jupyterlab={"_build": build})
    put(roots, "anywidget", "0.11.0")
    found = look(Place("image", "", str(roots), "x"), "x", {})
    assert [(one.name, one.version) for one in found.front_ends] == [
        ("@bokeh/jupyter_bokeh", "4.1.0"),
        ("anywidget", "0.11.0"),
    ]
    assert found.front_ends[0].build["load"] == "static/remoteEntry.1.js"
    assert found.refused == ()


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("@jupyterlab/git", {}, "reserved"),
        ("@labcommons/kernels", {}, "reserved"),
        ("labcommons-notices", {}, "reserved"),
        ("a b", {}, "its name"),
        ("x", {"name": "y"}, "another name"),
        ("x", {"name": "@jupyterlab/notebook-extension"}, "another name"),
        ("x", {"version": 3}, "version"),
        ("x", {"version": "<b>"}, "version"),
        ("x", {"jupyterlab": []}, "_build"),
        (
            "x",
            {"jupyterlab": {"_build": BUILD | {"load": "static/../../../../etc/passwd"}}},
            "_build",
        ),
        ("x", {"jupyterlab": {"_build": BUILD | {"load": "https://elsewhere/x.js"}}}, "_build"),
        ("x", {"jupyterlab": {"_build": BUILD | {"load": ["static/a.js"]}}}, "_build"),
        ("x", {"jupyterlab": {"_build": BUILD | {"style": "./../x"}}}, "_build"),
        ("x", {"jupyterlab": {"_build": {"load": BUILD["load"]}}}, "_build"),
        ("x", {"jupyterlab": {"_build": BUILD | {"load": "static/gone.js"}}}, "is not there"),
    ],
)
def test_what_a_package_says_is_checked(roots: Path, name, changes, words) -> None:
    """Kind: hostile package.json. Names of others, and paths that lead elsewhere."""
    put(roots, name, **changes)
    with pytest.raises(FrontEndError) as refused:
        read(str(roots / "share/jupyter/labextensions"), name)
    assert words in str(refused.value)


def break_by(folder: Path, how: str) -> None:
    file = folder / "package.json"
    if how == "no JSON":
        file.write_text("{")
    elif how == "deep":
        file.write_text('{"a":' * 50_000 + "1" + "}" * 50_000)
    elif how == "list":
        file.write_text("[]")
    elif how == "large":
        file.write_text(json.dumps({"name": "x" * 300_000}))
    elif how == "half a character":
        file.write_text('{"name": "\\ud800"}')
    elif how == "NaN":
        file.write_text('{"name": NaN}')
    elif how == "pipe":
        file.unlink()
        os.mkfifo(file)
    elif how == "folder":
        file.unlink()
        file.mkdir()
    elif how == "gone":
        file.unlink()
    elif how == "link in it":
        (folder / "static/key").symlink_to("/etc/passwd")
    elif how == "static is a link":
        (folder / "static").rename(folder.parent / "elsewhere")
        (folder / "static").symlink_to(folder.parent / "elsewhere")
    elif how == "deep folders":
        Path(folder, *"abcdefghijkl").mkdir(parents=True)
    elif how == "many files":
        for number in range(front_ends.MAX_FILES + 1):
            (folder / f"static/{number}").touch()
    elif how == "huge":
        with (folder / "static/huge").open("wb") as file_of_zeros:
            file_of_zeros.truncate(front_ends.MAX_SIZE + 1)


WAYS = (
    "no JSON", "deep", "list", "large", "half a character", "NaN", "pipe", "folder", "gone",
    "link in it", "static is a link", "deep folders", "many files", "huge",
)  # fmt: skip


@pytest.mark.parametrize("how", WAYS)
def test_one_broken_front_end_spoils_no_other(roots: Path, how: str) -> None:
    """Kind: broken and hostile packages. It is left out with its reason; the rest is taken."""
    break_by(put(roots, "broken"), how)
    put(roots, "fine")
    found = look(Place("image", "", str(roots), "x"), "x", {})
    assert [one.name for one in found.front_ends] == ["fine"]
    refused = dict(found.refused)
    refused.pop("elsewhere", None)  # a folder beside it
    assert list(refused) == ["broken"]
    assert "\n" not in str(refused["broken"])


def test_a_folder_that_is_a_link_is_not_followed(roots: Path) -> None:
    real = put(roots / "elsewhere", "x")
    folder = roots / "share/jupyter/labextensions"
    folder.mkdir(parents=True)
    (folder / "x").symlink_to(real)
    (folder / "@s").symlink_to(real.parent)
    found = look(Place("image", "", str(roots), "x"), "x", {})
    assert found.front_ends == ()
    assert {name for name, _ in found.refused} == {"x", "@s/x"}


def found_in(prefix: Path, source: str, name: str, own: dict[str, str] | None = None):
    return look(Place(source, "", str(prefix), name), f"{name} ({source})", own or {})


def test_of_several_versions_the_chosen_environments_is_taken_and_the_others_are_told(
    roots: Path,
) -> None:
    """Kind: clashes of versions: our own, the chosen environment, then the list's order."""
    own = {WIDGETS: "5.0.16"}
    for place, version in (("a", "0.5.1"), ("b", "0.6.1"), ("c", "0.6.1")):
        put(roots / place, "bqplot", version)
    put(roots / "b", WIDGETS, "3.1.11")
    found = [
        found_in(roots / "a", "image", "a", own),
        found_in(roots / "b", "personal", "b", own),
        found_in(roots / "c", "team-x", "c", own),
    ]
    by_order = choose(found, own, "")
    assert by_order.shelf["bqplot"][0].version == "0.5.1"
    chosen = choose(found, own, "c:2")
    assert chosen.shelf["bqplot"][0].folder.startswith(f"{roots}/c/")
    told = {(one.name, one.version, of.place.environment) for one, of in chosen.passed}
    # ipywidgets 7 in an old environment: what the server has is ipywidgets 8's.
    assert told == {("bqplot", "0.5.1", "a"), (WIDGETS, "3.1.11", "b")}
    assert WIDGETS not in chosen.shelf


@pytest.mark.parametrize("sources", [("personal", "personal"), ("team-x", "team-y")])
@pytest.mark.parametrize(
    ("older", "newer"),
    [("0.9.9", "0.10.0"), ("1.0.0-rc.1", "1.0.0"), ("1.0.0-what.ever", "0.1.0"), ("1.0", "1.0.1")],
)
@pytest.mark.parametrize("turned", [False, True])
def test_of_one_tier_the_newest_is_taken_wherever_it_is_in_the_list(
    roots: Path, older: str, newer: str, turned: bool, sources: tuple[str, str]
) -> None:
    """Kind: two environments of one's own with the same front end; the other is told."""
    versions = (newer, older) if turned else (older, newer)
    found = []
    for place, source, version in zip("ab", sources, versions, strict=True):
        put(roots / place, "bqplot", version)
        found.append(found_in(roots / place, source, place))
    choice = choose(found, {}, "")
    assert choice.shelf["bqplot"][0].version == newer
    assert [one.version for one, _ in choice.passed] == [older]
    # What somebody chose is what they get.
    choice = choose(found, {}, "a" if versions[0] == older else "b")
    assert choice.shelf["bqplot"][0].version == older


def entries_of(roots: Path):
    source = Source("image", f"{roots}/envs/*")
    personal = Source("personal", f"{roots}/own/*", "personal")
    listed = menu(Discovery().scan([source, personal]), Rules(), 4e9)
    return list(listed.entries.values())


def test_the_shelf_has_what_was_checked_and_nothing_else(
    make_prefix: MakePrefix, roots: Path
) -> None:
    """Kind: what comes and goes while the server runs."""
    prefix, mine = make_prefix("data"), make_prefix("mine", "own")
    folder = put(prefix, "bqplot", jupyterlab={
        "_build": BUILD, "disabledExtensions": ["@labcommons/kernels"],
    })  # fmt: skip
    schema = folder / "schemas/bqplot"
    schema.mkdir(parents=True)
    (schema / "plugin.json").write_text('{"title": "x", "type": "object"}')
    (schema / "broken.json").write_text("{")
    on = shelf.Shelf({WIDGETS: "5.0.16"}, "data:1", folder=str(roots / "shelf"))
    assert on.look(entries_of(roots))
    assert not on.look(entries_of(roots))
    there = roots / "shelf/bqplot"
    assert json.loads((there / "package.json").read_text()) == {
        "name": "bqplot", "version": "0.6.1", "jupyterlab": {"_build": BUILD},
    }  # fmt: skip
    assert (there / "static/remoteEntry.1.js").read_text() == "1"
    assert os.listdir(there / "schemas/bqplot") == ["plugin.json"]
    page = on.in_page(
        {"federated_extensions": [{"name": WIDGETS}, {"name": "bqplot", "load": "old"}]}
    )
    assert [each["name"] for each in page["federated_extensions"]] == [WIDGETS, "bqplot"]
    assert page["federated_extensions"][1]["load"] == BUILD["load"]

    put(mine, "@s/new", "2")
    (roots / "shelf/evil").mkdir()
    (roots / "shelf/evil/package.json").write_text("{")
    assert on.look(entries_of(roots))
    assert sorted(os.listdir(roots / "shelf")) == ["@s", "bqplot"]
    (folder / "package.json").write_text("{")
    assert on.look(entries_of(roots))
    assert on.choice.shelf.keys() == {"@s/new"}
    assert on.report("en")["refused"][0]["environment"] == "data - Python 3.13"
    assert not (roots / "shelf/bqplot").exists()


def test_where_pages_share_an_origin_only_administrators_environments_are_taken(
    make_prefix: MakePrefix, roots: Path
) -> None:
    put(make_prefix("data"), "bqplot")
    put(make_prefix("mine", "own"), "evil")
    on = shelf.Shelf({}, "", folder=str(roots / "shelf"), sources=["image", "shared"])
    on.look(entries_of(roots))
    assert on.choice.shelf.keys() == {"bqplot"}
    left = on.report("en")["left_out"]
    assert [(each["name"], each["source"]) for each in left] == [("evil", "personal")]
    on = shelf.Shelf({}, "", folder=str(roots / "all"))
    on.look(entries_of(roots))
    assert on.choice.shelf.keys() == {"bqplot", "evil"}


def test_a_shelf_of_somebody_else_is_not_written(roots: Path, as_nobody) -> None:
    (roots / "theirs").mkdir(mode=0o777)
    with as_nobody(), pytest.raises(PermissionError):
        shelf.write(str(roots / "theirs"), front_ends.Choice())
