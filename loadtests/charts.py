"""Line and bar charts as SVG text, without scripts or external files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, TypeAlias

Series: TypeAlias = Mapping[str, Sequence[tuple[float, float]]]
"""Points (seconds, value) by name of the series, in order of time."""

WIDTH: Final = 920
HEIGHT: Final = 210

COLOURS: Final = (
    *("#2563eb", "#d97706", "#dc2626", "#059669", "#7c3aed", "#0891b2"),
    *("#be185d", "#65a30d", "#475569", "#a16207", "#4338ca", "#0f766e"),
)
STYLE: Final = """
svg { width: 100%; height: auto; display: block; font: 11px system-ui, sans-serif; }
svg .grid { stroke: currentColor; stroke-opacity: .12; }
svg text { fill: currentColor; fill-opacity: .75; }
svg .line { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
svg .band { fill: #dc2626; fill-opacity: .10; }
svg .edge { stroke: #dc2626; stroke-opacity: .55; stroke-dasharray: 3 3; }
"""

_LEFT: Final = 56
_RIGHT: Final = WIDTH - 12
_TOP: Final = 30
_BOTTOM: Final = HEIGHT - 24
_TICKS: Final = 4
_LETTER_WIDTH: Final = 6.2


@dataclass(frozen=True, slots=True)
class Band:
    """Shaded time interval of a line chart, in seconds."""

    name: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Bar:
    """Row of a bar chart: a value with its minimum and maximum, and its target if it has one."""

    name: str
    value: float
    low: float
    high: float
    bar: float | None = None


def draw_lines(title: str, series: Series, end: float, bands: Sequence[Band] = ()) -> str:
    """Draw values over time, from 0 to `end` seconds, with shaded bands."""
    top = round_up(max((value for points in series.values() for _, value in points), default=0.0))

    def x_of(second: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * second / max(end, 1e-9)

    def y_of(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * value / top

    parts = []
    for band in bands:
        left, right = x_of(band.since), x_of(min(band.until, end))
        parts.append(
            f'<g><rect class="band" x="{left:.1f}" y="{_TOP}" width="{max(right - left, 1):.1f}" '
            f'height="{_BOTTOM - _TOP}"/>{_edge(left, _TOP, _BOTTOM)}<title>{escape(band.name)}</title></g>'
        )
    for value in (top * step / _TICKS for step in range(_TICKS + 1)):
        y = y_of(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 6, y + 4, format_short(value), "end"))
    step = round_up(end / 8, (1, 2, 5, 10))
    seconds = (step * number for number in range(int(end / step) + 1))
    parts += (_text(x_of(second), HEIGHT - 8, f"{second:g} s", "middle") for second in seconds)
    legend_x = float(_LEFT)
    for (name, points), colour in zip(series.items(), COLOURS, strict=False):
        path = " ".join(f"{x_of(x):.1f},{y_of(value):.1f}" for x, value in points if x <= end)
        parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        parts.append(f'<rect x="{legend_x:.0f}" y="9" width="10" height="10" rx="2" fill="{colour}"/>')
        parts.append(_text(legend_x + 14, 18, name))
        legend_x += 30 + _LETTER_WIDTH * len(name)
    return _svg(title, HEIGHT, parts)


def draw_bars(title: str, unit: str, values: Sequence[Bar]) -> str:
    """Draw one row per value, with its range and a line at its target."""
    row, label = 26, 300
    top = round_up(max((max(each.high, each.bar or 0.0) for each in values), default=0.0))

    def x_of(value: float) -> float:
        return label + (_RIGHT - 70 - label) * value / top

    parts = [_text(_RIGHT, 18, unit, "end")]
    for number, each in enumerate(values):
        y, width = _TOP + row * number, x_of(each.value) - label
        parts.append(_text(label - 8, y + 14, each.name, "end"))
        parts.append(
            f'<rect x="{label}" y="{y + 2}" width="{max(width, 1):.1f}" height="16" rx="2" fill="{COLOURS[0]}" '
            f'fill-opacity=".75"/><line x1="{x_of(each.low):.1f}" x2="{x_of(each.high):.1f}" y1="{y + 10}" '
            f'y2="{y + 10}" stroke="currentColor" stroke-width="1.5"/>'
        )
        if each.bar is not None:
            parts.append(_edge(x_of(each.bar), y - 1, y + 21))
        parts.append(_text(x_of(max(each.high, each.value)) + 8, y + 14, format_short(each.value)))
    return _svg(title, _TOP + row * len(values) + 8, parts)


def round_up(value: float, steps: Sequence[int] = (1, 2, 4, 8, 10)) -> float:
    """Return the smallest round number that is at least `value`.

    With the default steps, the labels of the four grid lines, at each quarter of the result, are short numbers.
    """
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in steps if step * power >= value * (1 - 1e-9))


def format_short(value: float) -> str:
    """Format a number with at most three significant digits, and from 10,000 on with the suffix k, M or G.

    From 1,000 to 9,999 it is a whole number.
    """
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if letter == 'k' else limit):.3g}{letter}"
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"  # noqa: PLR2004  avoids 1e+03


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _edge(x: float, top: float, bottom: float) -> str:
    return f'<line class="edge" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
