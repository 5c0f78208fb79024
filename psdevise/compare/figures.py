"""Charts of a comparison as SVG files that stand by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from psdevise import store
from psdevise.report.chart import Mark, Series, lines, scatter
from psdevise.report.maps import tsne

# The report's colours; here a file brings its own.
COLOURS = ("#2563a8", "#d9730d", "#3a8f4d", "#a23b72", "#7a5fb0", "#7d6b3a", "#c2453c", "#4a4f57")
LEVEL = len(COLOURS)  # style of a line that is no system's curve
LETTER = 7.0  # a letter's width, on the safe side
DASHES = ("none", "6 3", "2 3", "8 3 2 3", "12 4", "4 2", "1 4", "10 2 2 2")


def write_lines(
    path: str,
    title: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
    level: tuple[str, float] | None = None,
) -> None:
    """One line per name; up to eight are told apart. x begins at 0 and is positive.

    Args:
        level: name and y of a thin line over all x.
    """
    kept = {name: points for name, points in curves.items() if points}
    if not kept:
        return
    series = [Series(name, points, number % LEVEL) for number, (name, points) in enumerate(kept.items())]
    if level is not None:
        end = max(x for one in series for x, _ in one.points)
        series.append(Series(level[0], [(0.0, level[1]), (end, level[1])], LEVEL))
    wide, tall = 560.0, 360.0
    drawn = str(lines(series, title, x_label, y_label, zero=True, size=(wide, tall)))
    style = ["svg{background:#fff;font:12px sans-serif}", ".grid{stroke:#ddd}", ".line{fill:none;stroke-width:1.8}"]
    for number, (colour, dash) in enumerate(zip(COLOURS, DASHES, strict=True)):
        style.append(f".c{number}{{stroke:{colour}}}.c{number}.fill{{fill:{colour};stroke:none}}")
        style.append(f".d{number}{{stroke-dasharray:{dash}}}")
    style.append(f".c{LEVEL}{{stroke:#000;stroke-width:.8}}.d{LEVEL}{{stroke-dasharray:1 2}}")
    legend = []
    for number, one in enumerate(series):
        y = 40 + 15 * number
        line = f'x1="{wide:g}" x2="{wide + 26:g}" y1="{y - 4}" y2="{y - 4}"'
        legend.append(f'<line class="line c{one.style} d{one.style}" {line}/>')
        legend.append(f'<text x="{wide + 30:g}" y="{y}">{_escape(one.name)}</text>')
    legend.append(f'<text x="{wide / 2:g}" y="-6" text-anchor="middle">{_escape(title)}</text>')
    # The title above y's name, the key beside the curves and as wide as the longest name.
    whole, above = wide + 40 + LETTER * max(len(one.name) for one in series), 20.0
    box = f'viewBox="0 {-above:g} {whole:g} {tall + above:g}"'
    drawn = drawn.replace(f'viewBox="0 0 {wide:g} {tall:g}"', box, 1)
    _write(path, drawn, (round(1.5 * whole), round(1.5 * (tall + above))), style, legend)


def write_map(
    path: str,
    title: str,
    points: npt.NDArray[np.float32],
    labels: Sequence[str],
    vectors: npt.NDArray[np.float32],
    names: Sequence[str],
    unseen: set[str],
) -> None:
    """t-SNE of mapped pictures [n, d] with the words' vectors [m, d] among them (Socher 2013, Figure 2). A colour per
    class; unseen classes are diamonds, the words have a black border."""
    places = tsne(np.concatenate([points, vectors]))
    number = {name: i for i, name in enumerate(names)}
    marks = [
        Mark(x, y, label not in unseen, label, style=f"k{number[label]}")
        for (x, y), label in zip(places, labels, strict=False)
    ]
    for (x, y), name in zip(places[len(points) :], names, strict=True):
        marks.append(Mark(x, y, name not in unseen, name, name, f"k{number[name]} word"))
    style = [
        "svg{background:#fff;font:12px sans-serif}",
        *(f".k{i}{{fill:{colour};opacity:.75}}" for i, colour in enumerate(_colours(len(names)))),
        ".word{opacity:1;stroke:#000;stroke-width:1.5}.name{font-weight:bold}",
    ]
    further = [f'<text x="480" y="14" text-anchor="middle">{_escape(title)}</text>']
    further.append('<text x="8" y="660">black border: the word; diamonds: unseen classes; a colour per class:</text>')
    for i, name in enumerate(names):
        x, y = 8 + 150 * (i % 6), 680 + 16 * (i // 6)
        further.append(f'<rect class="k{i}" x="{x}" y="{y - 9}" width="10" height="10"/>')
        further.append(f'<text x="{x + 15}" y="{y}">{_escape(name + " (unseen)" * (name in unseen))}</text>')
    height = 690 + 16 * (-(-len(names) // 6) - 1)
    drawn = str(scatter(marks, title)).replace('viewBox="0 0 960 640"', f'viewBox="0 0 960 {height}"', 1)
    _write(path, drawn, (960, height), style, further)


def _colours(count: int) -> list[str]:
    """The eight, two more that differ from them, and then any."""
    return [*COLOURS, "#17b3c9", "#d8c118", *(f"hsl({(137 * i) % 360},60%,45%)" for i in range(count))][:count]


def _write(path: str, drawn: str, size: tuple[int, int], style: Sequence[str], further: Sequence[str]) -> None:
    """The drawing with its namespace, size, style, and what else is drawn on it."""
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
    drawn = drawn.replace("<svg ", opening, 1)
    opened = drawn.index(">") + 1
    whole = drawn[:opened] + f"<style>{''.join(style)}</style>" + drawn[opened:].replace("</svg>", "")
    store.write_text(path, whole + "".join(further) + "</svg>\n")


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
