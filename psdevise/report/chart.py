"""Small inline SVG charts: lines, bars, a scatter with labels that do not overlap.

Colours are CSS classes (`c0` …), so that one drawing serves light and dark; series differ in dash or shape as
well as in colour. All text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 28.0, 32.0


@dataclass(frozen=True)
class Series:
    """`points` (x, y) in order; `style` picks colour and dash."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0


@dataclass(frozen=True)
class Mark:
    """A point of a scatter, in the unit square. `title` shows on hover; `text`, if any, beside it; `style`: CSS classes
    in place of those for seen and unseen."""

    x: float
    y: float
    seen: bool
    title: str
    text: str = ""
    style: str = ""


def lines(
    series: Sequence[Series],
    describe: str,
    x_label: str,
    y_label: str,
    *,
    zero: bool = False,
    size: tuple[float, float] = (480.0, 230.0),
) -> Markup:
    """A line per series; x is positive and begins at 0, y too if `zero`. `describe` is for who cannot see it."""
    width, height = size
    xs = [x for s in series for x, _ in s.points]
    ys = [y for s in series for _, y in s.points]
    x_ticks, y_ticks = ticks(0.0, max(xs)), ticks(0.0 if zero else min(ys), max(ys))
    low_x, high_x = 0.0, max(max(xs), 1e-9)
    low_y, high_y = y_ticks[0], max(y_ticks[-1], y_ticks[0] + 1e-9)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - low_x) / (high_x - low_x) * (width - LEFT - RIGHT),
            height - BOTTOM - (y - low_y) / (high_y - low_y) * (height - TOP - BOTTOM),
        )

    parts = []
    for tick in y_ticks:
        _, y = place(low_x, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in x_ticks:
        x, _ = place(tick, low_y)
        if LEFT - 1 <= x <= width - RIGHT + 1:
            parts.append(f'<text x="{x:.1f}" y="{height - BOTTOM + 15}" text-anchor="middle">{number(tick)}</text>')
    parts.append(_text(width - RIGHT, height - 3, x_label, "end"))
    parts.append(_text(4, 12, y_label, "start"))
    for one in series:
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in one.points)
        if len(one.points) == 1:
            x, y = place(*one.points[0])
            parts.append(f'<circle class="c{one.style} fill" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        parts.append(f'<polyline class="line c{one.style} d{one.style}" points="{path}"/>')
    return _svg(width, height, describe, parts)


def bars(
    values: Sequence[tuple[str, float]], describe: str, x_label: str, y_label: str, height: float = 200.0
) -> Markup:
    """A bar per value, named below it; heights from 0."""
    width = 480.0
    y_ticks = ticks(0.0, max(v for _, v in values))
    top = max(y_ticks[-1], 1e-9)
    step = (width - LEFT - RIGHT) / len(values)
    every = max(1, math.ceil(len(values) * max(len(name) for name, _ in values) * 7 / (width - LEFT)))
    parts = []
    for tick in y_ticks:
        y = height - BOTTOM - tick / top * (height - TOP - BOTTOM)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for i, (name, value) in enumerate(values):
        x, tall = LEFT + i * step, value / top * (height - TOP - BOTTOM)
        wide = min(step * 0.8, 44.0)
        parts.append(
            f'<rect class="c0 fill" x="{x + (step - wide) / 2:.1f}" y="{height - BOTTOM - tall:.1f}"'
            f' width="{wide:.1f}" height="{tall:.1f}"><title>{escape(name)}: {number(value)}</title></rect>'
        )
        if i % every == 0:
            parts.append(_text(x + step / 2, height - BOTTOM + 15, name, "middle"))
    parts.append(_text(width - RIGHT, height - 3, x_label, "end"))
    parts.append(_text(4, 12, y_label, "start"))
    return _svg(width, height, describe, parts)


def scatter(
    marks: Sequence[Mark],
    describe: str,
    links: Sequence[tuple[float, float, float, float]] = (),
    *,
    radius: float = 3.0,
    size: tuple[float, float] = (960.0, 640.0),
) -> Markup:
    """Seen ones as blue dots, unseen ones as orange diamonds; texts are left out where they would overlap
    (unseen ones are placed first). `links`: faint lines (x1, y1, x2, y2)."""
    width, height = size
    margin = 16.0

    def place(x: float, y: float) -> tuple[float, float]:
        return margin + x * (width - 2 * margin), margin + (1 - y) * (height - 2 * margin)

    parts = []
    for x1, y1, x2, y2 in links:
        (a, b), (c, d) = place(x1, y1), place(x2, y2)
        parts.append(f'<line class="link" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>')
    texts, taken = [], []
    for mark in marks:
        if mark.text:
            x, y = place(mark.x, mark.y)
            taken.append((x - radius, y - radius, x + radius, y + radius))
    for mark in sorted(marks, key=lambda m: not m.seen):
        x, y = place(mark.x, mark.y)
        kind, r = ("c0", radius) if mark.seen else ("c1", radius * 1.25)
        kind = mark.style or kind
        shape = (
            f'<circle class="{kind} fill" cx="{x:.1f}" cy="{y:.1f}" r="{r:g}">'
            if mark.seen
            else f'<path class="{kind} fill" d="M{x:.1f} {y - r:.1f}l{r:g} {r:g}l{-r:g} {r:g}l{-r:g} {-r:g}z">'
        )
        end = "</circle>" if mark.seen else "</path>"
        parts.append(f"{shape}<title>{escape(mark.title)}</title>{end}")
    for mark in sorted(marks, key=lambda m: m.seen):
        if mark.text and (spot := _free(mark, place(mark.x, mark.y), radius, taken, width, height)):
            x, y, anchor = spot
            kind = "name" if mark.seen else "name unseen"
            texts.append(
                f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(mark.text)}</text>'
            )
    return _svg(width, height, describe, parts + texts)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 × 10^n apart) that enclose low … high."""
    span = high - low if high - low > 1e-300 else max(abs(high), 1.0)  # below that a fifth of it may be 0
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(max(high, low + span) / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.4g}{unit}"
    return f"{value:.4g}"


def _free(
    mark: Mark,
    at: tuple[float, float],
    radius: float,
    taken: list[tuple[float, float, float, float]],
    width: float,
    height: float,
) -> tuple[float, float, str] | None:
    """Right, left, above, below or a corner of the point, whichever is free; takes the place."""
    (x, y), wide, tall, gap = at, 6.6 * len(mark.text), 12.0, radius + 3
    for left, low, anchor, at_x in (
        (x + gap, y + 4, "start", x + gap),
        (x - gap - wide, y + 4, "end", x - gap),
        (x - wide / 2, y - gap, "middle", x),
        (x - wide / 2, y + gap + 9, "middle", x),
        (x + gap / 2, y - gap, "start", x + gap / 2),
        (x + gap / 2, y + gap + 9, "start", x + gap / 2),
        (x - gap / 2 - wide, y - gap, "end", x - gap / 2),
        (x - gap / 2 - wide, y + gap + 9, "end", x - gap / 2),
    ):
        box = (left, low - tall + 2, left + wide, low + 2)
        inside = box[0] >= 0 and box[2] <= width and box[1] >= 0 and box[3] <= height
        if inside and not any(a < box[2] and c > box[0] and b < box[3] and d > box[1] for a, b, c, d in taken):
            taken.append(box)
            return at_x, low, anchor
    return None


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: float, height: float, describe: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(describe)}">'
        + "".join(parts)
        + "</svg>"
    )
