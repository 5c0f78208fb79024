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
DASHES = ("none", "6 3", "2 3", "8 3 2 3", "12 4", "4 2", "1 4", "10 2 2 2")


def write_lines(
    path: str,
    title: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
) -> None:
    """One line per name; up to eight are told apart. x begins at 0 and is positive."""
    kept = {name: points for name, points in curves.items() if points}
    if not kept:
        return
    series = [Series(name, points, number % 8) for number, (name, points) in enumerate(kept.items())]
    drawn = str(lines(series, title, x_label, y_label, zero=True, size=(560.0, 360.0)))
    style = ["svg{background:#fff;font:12px sans-serif}", ".grid{stroke:#ddd}", ".line{fill:none;stroke-width:1.8}"]
    for number, (colour, dash) in enumerate(zip(COLOURS, DASHES, strict=True)):
        style.append(f".c{number}{{stroke:{colour}}}.c{number}.fill{{fill:{colour};stroke:none}}")
        style.append(f".d{number}{{stroke-dasharray:{dash}}}")
    legend = []
    for number, one in enumerate(series):
        y = 40 + 15 * number
        legend.append(f'<line class="line c{one.style} d{one.style}" x1="430" x2="456" y1="{y - 4}" y2="{y - 4}"/>')
        legend.append(f'<text x="460" y="{y}">{_escape(one.name)}</text>')
    legend.append(f'<text x="280" y="14" text-anchor="middle">{_escape(title)}</text>')
    _write(path, drawn, (840, 540), style, legend)


def write_map(
    path: str,
    title: str,
    points: npt.NDArray[np.float32],
    labels: Sequence[str],
    vectors: npt.NDArray[np.float32],
    names: Sequence[str],
    unseen: set[str],
) -> None:
    """t-SNE of mapped pictures [n, d] with the words' vectors [m, d] among them (Socher 2013, Figure 2)."""
    places = tsne(np.concatenate([points, vectors]))
    marks = [Mark(x, y, label not in unseen, label) for (x, y), label in zip(places, labels, strict=False)]
    for (x, y), name in zip(places[len(points) :], names, strict=True):
        marks.append(Mark(x, y, name not in unseen, name, name))
    style = [
        "svg{background:#fff;font:12px sans-serif}",
        f".c0.fill{{fill:{COLOURS[0]};opacity:.55}}.c1.fill{{fill:{COLOURS[1]};opacity:.8}}",
        ".name{font-weight:bold}",
    ]
    heading = f'<text x="480" y="14" text-anchor="middle">{_escape(title)}</text>'
    _write(path, str(scatter(marks, title)), (960, 640), style, [heading])


def _write(path: str, drawn: str, size: tuple[int, int], style: Sequence[str], further: Sequence[str]) -> None:
    """The drawing with its namespace, size, style, and what else is drawn on it."""
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
    drawn = drawn.replace("<svg ", opening, 1)
    opened = drawn.index(">") + 1
    whole = drawn[:opened] + f"<style>{''.join(style)}</style>" + drawn[opened:].replace("</svg>", "")
    store.write_text(path, whole + "".join(further) + "</svg>\n")


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
