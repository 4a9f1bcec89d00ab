"""Charts as SVG text, for pages that need nothing else."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, TypeAlias

Series: TypeAlias = Mapping[str, Sequence[tuple[float, float]]]
"""Points by name, in the order of time."""

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
_RIGHT: Final = 12
_TOP: Final = 30
_BOTTOM: Final = 24
_TICKS: Final = 4
_LETTER: Final = 6.2  # about as wide as one is


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of time that is marked."""

    name: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with the least and the most that it was, and where it should be."""

    name: str
    value: float
    low: float
    high: float
    bar: float | None = None


def lines(title: str, series: Series, end: float, bands: Sequence[Band] = ()) -> str:
    """Values over time, from nought to `end` seconds; what happened meanwhile is shaded."""
    top = nice(max((value for points in series.values() for _, value in points), default=0.0))
    x_of, y_of = _scale(end), _height(top)
    parts = [_opened(title)]
    for band in bands:
        left, right = x_of(band.since), x_of(min(band.until, end))
        parts.append(
            f'<g><rect class="band" x="{left:.1f}" y="{_TOP}" width="{max(right - left, 1):.1f}" '
            f'height="{HEIGHT - _TOP - _BOTTOM}"/><line class="edge" x1="{left:.1f}" x2="{left:.1f}" y1="{_TOP}" '
            f'y2="{HEIGHT - _BOTTOM}"/><title>{escape(band.name)}</title></g>'
        )
    for step in range(_TICKS + 1):
        value = top * step / _TICKS
        y = y_of(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    parts += [
        f'<text x="{x_of(second):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{second:g} s</text>'
        for second in _seconds(end)
    ]
    at = float(_LEFT)
    for (name, points), colour in zip(series.items(), COLOURS, strict=False):
        path = " ".join(f"{x_of(x):.1f},{y_of(value):.1f}" for x, value in points if x <= end)
        parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        parts.append(f'<rect x="{at:.0f}" y="9" width="10" height="10" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{at + 14:.0f}" y="18">{escape(name)}</text>')
        at += 30 + _LETTER * len(name)
    return "".join([*parts, "</svg>"])


def bars(title: str, unit: str, values: Sequence[Bar]) -> str:
    """Values beside each other, each with its least and its most and the line where it should be."""
    row, label = 26, 300
    height = _TOP + row * len(values) + 8
    top = nice(max((max(each.high, each.bar or 0.0) for each in values), default=0.0))

    def x_of(value: float) -> float:
        return label + (WIDTH - _RIGHT - 70 - label) * value / top

    parts = [_opened(title, height), f'<text x="{WIDTH - _RIGHT}" y="18" text-anchor="end">{escape(unit)}</text>']
    for number, each in enumerate(values):
        y, width = _TOP + row * number, x_of(each.value) - label
        parts.append(f'<text x="{label - 8}" y="{y + 14}" text-anchor="end">{escape(each.name)}</text>')
        parts.append(
            f'<rect x="{label}" y="{y + 2}" width="{max(width, 1):.1f}" height="16" rx="2" fill="{COLOURS[0]}" '
            f'fill-opacity=".75"/><line x1="{x_of(each.low):.1f}" x2="{x_of(each.high):.1f}" y1="{y + 10}" '
            f'y2="{y + 10}" stroke="currentColor" stroke-width="1.5"/>'
        )
        if each.bar is not None:
            x = x_of(each.bar)
            parts.append(f'<line class="edge" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 1}" y2="{y + 21}"/>')
        parts.append(f'<text x="{x_of(max(each.high, each.value)) + 8:.1f}" y="{y + 14}">{short(each.value)}</text>')
    return "".join([*parts, "</svg>"])


def nice(value: float, steps: Sequence[int] = (1, 2, 4, 8, 10)) -> float:
    """The next round number that is not smaller: of the usual steps each is four round parts."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in steps if step * power >= value * (1 - 1e-9))


def short(value: float) -> str:
    """A number as one reads it beside a picture."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if letter == 'k' else limit):.3g}{letter}"
    return f"{value:.3g}" if abs(value) < 1_000 else f"{value:.0f}"  # noqa: PLR2004  1e+03 reads badly


def _opened(title: str, height: int = HEIGHT) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>'
    )


def _scale(end: float) -> Callable[[float], float]:
    return lambda x: _LEFT + (WIDTH - _LEFT - _RIGHT) * x / max(end, 1e-9)


def _height(top: float) -> Callable[[float], float]:
    return lambda value: HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * value / top


def _seconds(end: float) -> list[float]:
    step = nice(end / 8, (1, 2, 5, 10))
    return [step * number for number in range(int(end / step) + 1)]
