"""Charts of a comparison as SVG files that stand by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psdevise import store
from psdevise.report.chart import Series, lines

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
    drawn = drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" width="840" height="540" ', 1)
    opened = drawn.index(">") + 1
    whole = drawn[:opened] + f"<style>{''.join(style)}</style>" + drawn[opened:].replace("</svg>", "")
    store.write_text(path, whole + "".join(legend) + "</svg>\n")


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
