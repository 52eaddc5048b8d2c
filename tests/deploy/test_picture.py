"""The picture of the rooms is that of this code."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from deploy.picture import PICTURE, ROOMS, House, draw, look, room_of

from .conftest import ROOT

# Numbers in the picture may be so much behind the code: else each commit would have to draw it.
DRIFT = 0.25


def _near(one: int, other: int) -> bool:
    return abs(one - other) <= max(10, DRIFT * max(one, other))


def test_the_committed_picture_shows_the_rooms_and_arrows_that_there_are() -> None:
    committed = PICTURE.read_text("utf-8")
    shown, now = House.drawn(committed), look(ROOT)
    remedy = "run make picture"
    assert draw(shown) == committed, remedy
    assert list(shown.lines) == list(now.lines), remedy
    assert set(shown.imports) == set(now.imports), remedy
    assert all(_near(number, now.imports[key]) for key, number in shown.imports.items()), remedy
    for room, packages in now.lines.items():
        assert set(shown.lines[room]) == set(packages), remedy
        assert _near(sum(shown.lines[room].values()), sum(packages.values())), remedy


def test_every_package_of_ours_is_in_the_picture() -> None:
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"deploy", "tests"}
    assert packages == {room.partition(".")[0] for room in ROOMS}


def test_imports_are_counted_by_room_and_drawn(tmp_path: Path) -> None:
    for name, text in {
        "up/__init__.py": "",
        "up/one.py": "from down.deep import a, b\nimport os\nif 1:\n    import down.x\n",
        "up/in/two.py": "def f():\n    from up.one import x\n    from down import deep\n",
        "down/x.py": "import up.one\n",
        "down/deep/__init__.py": "from . import y\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    house = look(tmp_path, ("up", "down", "down.deep"))
    assert house.lines == {"up": {"up": 4, "up.in": 3}, "down": {"down": 1},
                           "down.deep": {"down.deep": 1}}  # fmt: skip
    assert house.imports == {
        ("up", "down.deep"): 3, ("up", "down"): 1, ("down", "up"): 1,
    }  # fmt: skip
    svg = draw(house)
    assert House.drawn(svg) == house
    assert len(ET.fromstring(svg).findall(".//{*}path[@class='lane']")) == 3
    assert svg.count("#e00000") > 0, "an arrow that goes up is red"


@pytest.mark.parametrize(
    ("module", "room"),
    [("kernels.service.app", "kernels.service"), ("kernels.servicex", "kernels"), ("os", None)],
)
def test_a_module_lies_in_the_innermost_room(module: str, room: str | None) -> None:
    assert room_of(module) == room
