"""Plots as inline SVG.

Not matplotlib: its SVG carries style attributes, which the page's content security policy forbids, and fixed colours,
which do not follow light and dark mode. These plots hold CSS classes only; ``assets/page.css`` colours them. Each is an
image with a label for screen readers; a table beside it has the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from distill.report.markdown import visible

WIDTH = 640
_LEFT, _RIGHT, _TOP, _ROW = 300, 70, 12, 34


def intervals(rows: Sequence[tuple[str, float, float, float]], label: str, low: float = 0.0, high: float = 1.0) -> str:
    """(name, value, low, high): a dot with its interval, on one common axis."""
    height = _TOP + _ROW * len(rows) + 30
    x = _scale(low, high)
    parts = []
    for at in range(5):
        value = low + (high - low) * at / 4
        parts.append(_line(x(value), _TOP, x(value), height - 26, "grid"))
        parts.append(_text(x(value), height - 8, f"{value:+.2f}" if low < 0 else f"{value:.2f}", "middle"))
    if low < 0 < high:
        parts.append(_line(x(0), _TOP, x(0), height - 26, "axis"))
    for at, (name, value, left, right) in enumerate(rows):
        y = _TOP + _ROW * at + _ROW / 2
        parts.append(_text(_LEFT - 12, y + 4, _short(name), "end"))
        parts.append(_line(x(left), y, x(right), y, "interval"))
        parts.append(f'<circle class="dot" cx="{x(value):.1f}" cy="{y:.1f}" r="5"/>')
        parts.append(_text(WIDTH - 4, y + 4, f"{value:+.3f}" if low < 0 else f"{value:.3f}", "end"))
    return _svg(height, label, parts)


def steps(rows: Sequence[tuple[str, int]], label: str) -> str:
    """(name, count): bars, the first one full."""
    height = _TOP + 28 * len(rows) + 4
    x = _scale(0, max((count for _, count in rows), default=0) or 1)
    parts = []
    for at, (name, count) in enumerate(rows):
        y = _TOP + 28 * at
        parts.append(_text(_LEFT - 12, y + 15, _short(name), "end"))
        parts.append(f'<rect class="bar" x="{_LEFT}" y="{y}" width="{x(count) - _LEFT:.1f}" height="20"/>')
        parts.append(_text(WIDTH - 4, y + 15, f"{count:,}", "end"))
    return _svg(height, label, parts)


def line(points: Sequence[tuple[float, float]], label: str) -> str:
    """(step, value), at most some hundred of them drawn: beyond that every n-th, and the last."""
    every = max(1, len(points) // 400)
    drawn = [*points[:-1:every], points[-1]]
    low, high = min(y for _, y in points), max(y for _, y in points)
    if low == high:
        low, high = low - 0.5, high + 0.5
    height, bottom, left = 240, 206, 60
    first, last = points[0][0], points[-1][0]
    x = _scale(first, last if last > first else first + 1, left, WIDTH - 16)
    y = _scale(low, high, bottom, 14)
    parts = []
    for at in range(4):
        value = low + (high - low) * at / 3
        parts += [
            _line(left, y(value), WIDTH - 16, y(value), "grid"),
            _text(left - 8, y(value) + 4, f"{value:.3g}", "end"),
        ]
    parts += [
        _text(left, height - 12, f"step {first:g}", "start"),
        _text(WIDTH - 16, height - 12, f"step {last:g}", "end"),
    ]
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in drawn)
    parts.append(f'<polyline class="curve" points="{path}"/>')
    return _svg(height, label, parts)


def histogram(edges: Sequence[int], groups: Mapping[str, Sequence[int]], label: str) -> str:
    """Stacked bars, one a bin; a group is named in the legend below, by its colour and its order from below."""
    used = [at for at in range(len(edges)) if any(bins[at] for bins in groups.values())]
    first, last = used[0], used[-1]
    top = max(sum(bins[at] for bins in groups.values()) for at in used)
    bottom, left = 190, 60
    height = bottom + 44 + 20 * ((len(groups) + 3) // 4)
    y = _scale(0, top, bottom, 14)
    wide = (WIDTH - 16 - left) / (last - first + 1)
    parts = []
    for value in sorted({0, top // 2, top}):
        parts += [
            _line(left, y(value), WIDTH - 16, y(value), "grid"),
            _text(left - 8, y(value) + 4, f"{value:,}", "end"),
        ]
    for at in range(first, last + 1):
        base, x = 0, left + wide * (at - first)
        for number, bins in enumerate(groups.values()):
            if bins[at]:
                rect = f'x="{x + 2:.1f}" y="{y(base + bins[at]):.1f}" width="{wide - 4:.1f}"'
                parts.append(f'<rect class="group g{number % 6}" {rect} height="{y(base) - y(base + bins[at]):.1f}"/>')
                base += bins[at]
        parts.append(_text(x, bottom + 18, f"{edges[at]:,}", "start"))
    for number, name in enumerate(groups):
        x, below = left + 145 * (number % 4), bottom + 42 + 20 * (number // 4)
        parts.append(f'<rect class="group g{number % 6}" x="{x}" y="{below - 10}" width="12" height="12"/>')
        parts.append(_text(x + 18, below, _short(name, 16), "start"))
    return _svg(height, label, parts)


def _scale(low: float, high: float, left: float = _LEFT, right: float = WIDTH - _RIGHT) -> Callable[[float], float]:
    return lambda value: left + (value - low) / (high - low) * (right - left)


def _svg(height: int, label: str, parts: Sequence[str]) -> str:
    text = escape(visible(label))
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return f'<svg class="plot" role="img" aria-label="{text}" {size}>{"".join(parts)}</svg>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(visible(text))}</text>'


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
