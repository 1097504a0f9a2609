"""Small line plots as inline SVG, in the colours of the page they stand on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

_WIDTH, _HEIGHT = 640.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 12.0, 12.0, 40.0
_MOST_POINTS = 400


@dataclass(frozen=True)
class Line:
    """A line of a plot; `style` is a class of the page's style sheet (a, b, faint).

    whiskers: low and high of every point, for lines with at most `_MOST_POINTS` points.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: str
    dots: bool = False
    whiskers: Sequence[tuple[float, float]] = ()


def thinned(points: Sequence[tuple[float, float]], most: int = _MOST_POINTS) -> list[tuple[float, float]]:
    """At most `most` points, each the mean of its neighbourhood."""
    size = -(-len(points) // most) if points else 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A running mean that starts without a bias (Kingma & Ba 2015, section 3), over about a twentieth of the points."""
    keep = 1 - 1 / max(1.0, len(points) / 20)
    mean, weight, result = 0.0, 0.0, list[tuple[float, float]]()
    for x, y in points:
        mean, weight = keep * mean + (1 - keep) * y, keep * weight + (1 - keep)
        result.append((x, mean / weight))
    return result


def short(value: float) -> str:
    """A number as an axis shows it: 1200 -> 1.2k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


class _Axis:
    def __init__(self, values: Sequence[float], start: float, end: float, *, logarithmic: bool) -> None:
        self._log = logarithmic
        scaled = [self._scale(value) for value in values]
        low, high = min(scaled), max(scaled)
        margin = (high - low) * 0.04 if high > low else abs(high) * 0.5 or 0.5
        self._low, self._high = low - margin, high + margin
        self._start, self._end = start, end

    def _scale(self, value: float) -> float:
        return math.log10(value) if self._log else value

    def at(self, value: float) -> float:
        share = (self._scale(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        low, high = self._low, self._high
        step = 10.0 ** math.floor(math.log10((high - low) / 2))
        step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
        values = [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
        return [10.0**value for value in values] if self._log else values


def _powers_of_two(low: float, high: float) -> list[float]:
    return [2.0**power for power in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]


def plot(lines: Sequence[Line], x_name: str, *, logarithmic: bool | None = None, doubling: bool = False) -> str:
    """The lines as an SVG element; an empty string where there is nothing to draw.

    `logarithmic` of None decides by the data: a logarithmic y axis where all are positive and span a factor of 10.
    doubling: a logarithmic x axis, marked at the powers of 2.
    """
    lines = [replace(line, points=thinned(line.points)) for line in lines if line.points]
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    ys += [end for line in lines for ends in line.whiskers for end in ends]
    if not xs:
        return ""
    if logarithmic is None:
        logarithmic = min(ys) > 0 and max(ys) > 10 * min(ys)
    across = _Axis(xs, _LEFT, _WIDTH - _RIGHT, logarithmic=doubling)
    up = _Axis(ys, _HEIGHT - _BOTTOM, _TOP, logarithmic=logarithmic)
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(lines[-1].name)}">']
    for value in up.ticks():
        y = up.at(value)
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for value in _powers_of_two(min(xs), max(xs)) if doubling else across.ticks():
        x = across.at(value)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{short(value)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>')
    for line in lines:
        drawn = [(across.at(x), up.at(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        parts.append(f'<polyline class="{line.style}" points="{path}"/>')
        parts += [
            f'<line class="{line.style}" x1="{x:.1f}" x2="{x:.1f}" y1="{up.at(low):.1f}" y2="{up.at(high):.1f}"/>'
            for (x, _), (low, high) in zip(drawn, line.whiskers, strict=bool(line.whiskers))
        ]
        if line.dots or len(drawn) == 1:
            parts += [
                f'<circle class="{line.style}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
                f"<title>{escape(line.name)}: {short(a)}, {short(b)}</title></circle>"
                for (x, y), (a, b) in zip(drawn, line.points, strict=True)
            ]
    return "".join([*parts, "</svg>"])
