"""``make picture``: docs/rooms.svg, the rooms of the house as the code's own imports make them.

Rooms lie by floor; the boxes in a room are its packages, with their lines. An arrow is "imports",
with the number of such lines; one that goes up is red. The same code makes the same picture.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from deploy.files import write_atomically
from deploy.settings import ROOT

PICTURE = ROOT / "docs" / "rooms.svg"
# From the roof down; what a room is for. A package within a room may be a room of its own.
ROOMS = {
    "hub_ext": "what the hub gains: login, pages, console",
    "courses": "a class: its timetable, its people, its servers at the hour",
    "jobs": "programs that people have run without their servers",
    "spawner": "from a request to a running server",
    "kernels.service": "the hub's side of kernels",
    "environments": "from environment.yml to what people build and share",
    "spawner.runtime": "the only room that knows an Engine",
    "jump": "people's way to their servers by SSH",
    "perimeter": "who reaches whom: one table of rules a node",
    "commons": "the ground floor: site, store, messages, rights, web",
    "kernels": "from environments on disk to named kernels; in users' servers it stands alone",
}
_WIDTH, _LEFT, _TOP, _PAD, _GAP, _HEAD = 1180, 24, 64, 12, 22, 34
_CELL, _ROW, _LANE = 176, 44, 22
_COLOURS = ("#3b6fb6", "#b0562c", "#3c8d5a", "#7a4fa3", "#a3384b", "#4a7f8c", "#8a6d1f", "#555555")


@dataclass(frozen=True)
class House:
    """``lines``: of each package, by room; ``imports``: how often one room imports another."""

    lines: Mapping[str, Mapping[str, int]]
    imports: Mapping[tuple[str, str], int]

    def as_json(self) -> str:
        """For the picture, which thereby can be read again."""
        arrows = [[*rooms, number] for rooms, number in sorted(self.imports.items())]
        lines = {room: dict(sorted(found.items())) for room, found in self.lines.items()}
        return json.dumps({"lines": lines, "imports": arrows})

    @classmethod
    def drawn(cls, picture: str) -> House:
        """What a picture was made of."""
        found = json.loads(
            re.search(r"<metadata>(.*?)</metadata>", picture, re.DOTALL)[1]  # type: ignore[index]
        )
        return cls(found["lines"], {(a, b): number for a, b, number in found["imports"]})


def room_of(module: str, rooms: Iterable[str] = ROOMS) -> str | None:
    """The innermost room that a module lies in; None for other people's."""
    fitting = [room for room in rooms if f"{module}.".startswith(f"{room}.")]
    return max(fitting, key=len, default=None)


def look(root: Path, rooms: Sequence[str] = tuple(ROOMS)) -> House:
    """Read the sources. Raises SyntaxError for a file that is no Python."""
    lines: dict[str, Counter[str]] = {room: Counter() for room in rooms}
    imports: Counter[tuple[str, str]] = Counter()
    for top in dict.fromkeys(room.partition(".")[0] for room in rooms):
        for file in sorted((root / top).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            module = ".".join(parts).removesuffix(".__init__")
            room, text = room_of(module, rooms), file.read_text("utf-8")
            assert room is not None
            depth = room.count(".") + 1
            lines[room][".".join(parts[:-1][: depth + 2])] += text.count("\n")
            for other in _imported(ast.parse(text), rooms):
                if other != room:
                    imports[room, other] += 1
    return House(lines, imports)


def _imported(tree: ast.Module, rooms: Sequence[str]) -> Iterator[str]:
    """The rooms of all that a file imports, one for each name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (room for name in names if (room := room_of(name, rooms)))


def draw(house: House) -> str:
    """The picture as SVG."""
    rooms = list(house.lines)
    right = _LEFT + _WIDTH
    tops: dict[str, int] = {}
    heights: dict[str, int] = {}
    parts: list[str] = []
    y = _TOP
    for number, room in enumerate(rooms):
        cells = sorted(house.lines[room].items())
        across = (_WIDTH - _PAD) // (_CELL + _PAD)
        rows = -(-len(cells) // across)
        tops[room], heights[room] = y, _HEAD + rows * (_ROW + _PAD)
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(_box(_LEFT, y, _WIDTH, heights[room], colour, 0.07))
        title = f'<tspan class="room" style="fill:{colour}">{escape(room)}</tspan>'
        about = f'<tspan class="about" dx="12">{escape(ROOMS.get(room, ""))}</tspan>'
        parts.append(f'<text x="{_LEFT + _PAD}" y="{y + 22}">{title}{about}</text>')
        total = f"{sum(house.lines[room].values()):,} lines".replace(",", " ")
        parts.append(
            f'<text class="about" x="{right - _PAD}" y="{y + 22}" text-anchor="end">{total}</text>'
        )
        for place, (package, lines) in enumerate(cells):
            x = _LEFT + _PAD + place % across * (_CELL + _PAD)
            top = y + _HEAD + place // across * (_ROW + _PAD)
            name = package.removeprefix(f"{room}.") if package != room else "(itself)"
            parts.append(_box(x, top, _CELL, _ROW, colour, 0.16))
            parts.append(f'<text class="cell" x="{x + 9}" y="{top + 18}">{escape(name)}</text>')
            shown = f"{lines:,}".replace(",", " ")
            parts.append(f'<text class="about" x="{x + 9}" y="{top + 35}">{shown}</text>')
        y += heights[room] + _GAP
    width = right + _lanes(house, rooms, tops, heights, right, parts) + _LEFT
    return _page(width, y, house, parts)


def _lanes(
    house: House,
    rooms: Sequence[str],
    tops: Mapping[str, int],
    heights: Mapping[str, int],
    right: int,
    parts: list[str],
) -> int:
    """Draw the arrows, each in a lane of its own beside the rooms; the width of all."""
    arrows = sorted(
        house.imports.items(),
        key=lambda item: (abs(rooms.index(item[0][1]) - rooms.index(item[0][0])), item[0]),
    )
    starts, ends = Counter(a for (a, _), _ in arrows), Counter(b for (_, b), _ in arrows)
    used: Counter[tuple[str, str]] = Counter()
    for lane, ((source, target), number) in enumerate(arrows):
        x = right + 34 + lane * _LANE
        down = rooms.index(target) > rooms.index(source)
        colour = _COLOURS[rooms.index(source) % len(_COLOURS)] if down else "#e00000"
        # Arrows leave in the lower half of a room and come in by the upper one.
        leave = tops[source] + heights[source] // 2
        leave += (used["from", source] + 1) * (heights[source] // 2) // (starts[source] + 1)
        enter = tops[target] + (used["to", target] + 1) * (heights[target] // 2) // (
            ends[target] + 1
        )
        used["from", source] += 1
        used["to", target] += 1
        parts.append(
            f'<path class="lane" d="M{right} {leave}H{x}V{enter}H{right + 7}" stroke="{colour}"/>'
            f'<path d="M{right} {enter}l9 -4v8z" fill="{colour}" stroke="none"/>'
            f'<text class="number" x="{x}" y="{(leave + enter) // 2}"'
            f' style="fill:{colour}" text-anchor="middle">{number}</text>'
        )
    return 34 + len(arrows) * _LANE


def _box(x: int, y: int, width: int, height: int, colour: str, strength: float) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="{colour}"'
        f' fill-opacity="{strength}" stroke="{colour}" stroke-opacity="0.5"/>'
    )


def _page(width: int, height: int, house: House, parts: Iterable[str]) -> str:
    style = (
        "text{font-family:'DejaVu Sans',Verdana,sans-serif;fill:#222}"
        ".room{font-size:16px;font-weight:bold}.about{font-size:12px;fill:#555}"
        ".cell{font-size:13px}.title{font-size:20px;font-weight:bold}"
        ".number{font-size:11px;font-weight:bold;paint-order:stroke;stroke:#fff;stroke-width:5px}.lane{fill:none}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}">\n<metadata>{escape(house.as_json(), quote=False)}'
        f"</metadata>\n<style>{style}</style>\n"
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n'
        f'<text class="title" x="{_LEFT}" y="32">The rooms of LabCommons</text>'
        f'<text class="about" x="{_LEFT}" y="51">Lines of code in each package. An arrow is '
        "“imports”, with their number; they go down only. Made by: make picture</text>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def picture() -> None:
    """Write the picture."""
    write_atomically(PICTURE, draw(look(ROOT)), 0o644)
    print(PICTURE.relative_to(ROOT))
