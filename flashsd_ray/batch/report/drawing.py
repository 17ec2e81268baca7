"""Small plots as SVG, which a page holds in itself and shows without a program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 420, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 36  # room for numbers and labels
MOST_BARS = 40
TOPS = (1, 1.5, 2, 3, 4, 6, 8, 10)  # of a scale
STEPS = (1, 2, 5, 10)  # between its numbers


def histogram(
    bars: Sequence[tuple[float, float]],  # where each begins, ascending and evenly spaced; how high it is
    step: float,  # how wide each is
    *,
    x_label: str,
    y_label: str,
) -> str:
    """Bars over a line of numbers."""
    if not bars:
        return _empty(x_label)
    first, last = bars[0][0], bars[-1][0] + step
    top = nice_above(max(height for _, height in bars), TOPS)
    drawn = [
        _bar(_x(at, first, last), _x(at + step, first, last) - 1, height / top, f"{at:g}: {height:g}")
        for at, height in bars
    ]
    ticks = [(_x(value, first, last), f"{value:g}") for value in _marks(first, last)]
    return _plot(drawn, ticks, top, x_label, y_label)


def rows(
    values: Sequence[tuple[str, float]],
    *,
    unit: str,
) -> str:
    """One bar beside each name."""
    if not values:
        return _empty(unit)
    top = max(value for _, value in values) or 1.0
    height = 26
    parts = []
    for place, (name, value) in enumerate(values):
        y = place * height + 4
        length = (WIDTH - 190) * value / top
        parts.append(f'<text x="74" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="bar" x="80" y="{y}" width="{length:.1f}" height="18"/>')
        parts.append(f'<text x="{86 + length:.1f}" y="{y + 13}">{value:,.1f} {escape(unit)}</text>')
    return _svg(parts, height * len(values) + 8)


def merged(
    counts: Sequence[tuple[float, float]],  # where each begins, ascending; how many
    step: float,
) -> tuple[list[tuple[float, float]], float]:
    """Evenly spaced bars, gaps filled, of which there are not too many; and how wide each is."""
    if not counts:
        return [], step
    first, last = counts[0][0], counts[-1][0]
    width = step * max(1, math.ceil(((last - first) / step + 1) / MOST_BARS))
    bars = [0.0] * (int((last - first) / width + 1e-9) + 1)
    for at, count in counts:
        bars[int((at - first) / width + 1e-9)] += count
    return [(first + place * width, count) for place, count in enumerate(bars)], width


def nice_above(value: float, factors: Sequence[float]) -> float:
    """The least of these factors, times a power of ten, that is not below the value."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in factors if factor * power >= value * (1 - 1e-9))


def _marks(first: float, last: float) -> list[float]:
    step = nice_above((last - first) / 5, STEPS)
    begin = math.ceil(first / step - 1e-9)
    return [place * step for place in range(begin, math.floor(last / step + 1e-9) + 1)]


def _x(value: float, first: float, last: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (value - first) / (last - first)


def _bar(left: float, right: float, share: float, title: str) -> str:
    height = (HEIGHT - TOP - BOTTOM) * share
    width = max(right - left, 0.5)
    return (
        f'<rect class="bar" x="{left:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}"><title>{escape(title)}</title></rect>'
    )


def _plot(drawn: Sequence[str], ticks: Sequence[tuple[float, str]], top: float, x_label: str, y_label: str) -> str:
    floor, middle = HEIGHT - BOTTOM, (HEIGHT - BOTTOM + TOP) / 2
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = floor - (floor - TOP) * share
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top * share:,g}</text>')
    parts += drawn
    parts += [f'<text x="{x:.1f}" y="{floor + 14}" text-anchor="middle">{escape(text)}</text>' for x, text in ticks]
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    turn = f"rotate(-90 12 {middle})"
    parts.append(f'<text x="12" y="{middle}" text-anchor="middle" transform="{turn}">{escape(y_label)}</text>')
    return _svg(parts, HEIGHT)


def _empty(label: str) -> str:
    text = f"nothing to show: {label}"
    return _svg([f'<text x="{WIDTH / 2}" y="20" text-anchor="middle">{escape(text)}</text>'], 32)


def _svg(parts: Sequence[str], height: float) -> str:
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{"".join(parts)}</svg>'
