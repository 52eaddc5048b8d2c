"""Stacked bars as SVG, drawn here: no library, no script; colours by class, as dark as the page."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date

from markupsafe import Markup, escape

from spawner.usage.report import Plot

HEIGHT, LEFT, TOP, BOTTOM = 250, 46, 10, 24
WIDE, NARROW = 760, 340  # two drawings, of which the style sheet shows one: letters stay as large
_LETTER = 44  # px that a date below takes


def ticks(most: float, count: int = 4) -> list[float]:
    """Round numbers from 0 to at least ``most``, about ``count`` steps apart."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in (1, 2, 2.5, 5, 10) if power * one >= rough * 0.999)
    return [step * n for n in range(math.ceil(most / step * 0.999) + 1)]


def hours(value: float) -> str:
    """So many hours, as short as they are exact enough."""
    if value >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.05 or value == 0 else f"{value:.2g}"


def stacked(
    plot: Plot, width: int, title: str, name_of: Callable[[str], str], day_of: Callable[[date], str]
) -> Markup:
    """The drawing. ``title`` is what a screen reader says; the figures are in the table below."""
    most = max((sum(bar.values()) for _, bar in plot.bars), default=0.0)
    lines = ticks(most)
    inner, high = width - LEFT - 4, HEIGHT - TOP - BOTTOM
    step = inner / max(1, len(plot.bars))
    thick = min(48.0, max(1.0, step * 0.72))
    out = [
        Markup(
            '<svg class="lc-plot lc-plot--{}" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        ).format("wide" if width == WIDE else "narrow", width, HEIGHT, title)
    ]
    for value in lines:
        y = TOP + high * (1 - value / lines[-1])
        out.append(
            Markup('<line class="lc-plot__line" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                LEFT, width - 4, y, y
            )
        )
        out.append(
            Markup(
                '<text class="lc-plot__text" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
            ).format(LEFT - 6, y + 4, hours(value))
        )
    every = max(1, math.ceil(_LETTER / step))
    for number, (at, bar) in enumerate(plot.bars):
        x, y = LEFT + step * (number + 0.5) - thick / 2, float(TOP + high)
        for colour, name in enumerate(plot.names):
            if (value := bar.get(name, 0.0)) <= 0:
                continue
            tall = high * value / lines[-1]
            y -= tall
            said = f"{name_of(name)}: {hours(value)} h ({day_of(at)})"
            out.append(
                Markup(
                    '<rect class="lc-plot__bar lc-colour-{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" '
                    'height="{:.1f}"><title>{}</title></rect>'
                ).format(colour_of(plot, colour), x, y, thick, max(tall, 0.6), said)
            )
        if number % every == 0:
            out.append(
                Markup(
                    '<text class="lc-plot__text" x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
                ).format(LEFT + step * (number + 0.5), HEIGHT - 7, short(at, plot.step))
            )
    return Markup("").join([*out, Markup("</svg>")])


def colour_of(plot: Plot, number: int) -> str:
    """Which colour a name has; the rest is grey."""
    return "rest" if plot.names[number] == "" else str(number)


def short(at: date, step: str) -> str:
    """A date below a bar."""
    return f"{at:%Y-%m}"[2:] if step == "month" else f"{at:%m-%d}"


def both(
    plot: Plot, title: str, name_of: Callable[[str], str], day_of: Callable[[date], str]
) -> Markup:
    """For wide and for narrow windows."""
    return Markup("").join(
        stacked(plot, width, str(escape(title)), name_of, day_of) for width in (WIDE, NARROW)
    )
