"""The ImageNet protocol's results as Tables 1 to 4 of Frome et al. 2013, in Markdown, with chance and ceiling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psdevise.evaluation.imagenet import HOPS
from psdevise.evaluation.result import Result

PUBLISHED = {
    "Mensink et al. 2012 (as published)": ("35.7", "1.9"),
    "Rohrbach et al. 2011 (as published)": ("34.8", "–"),
}
TITLES = {"softmax": "Softmax baseline", "devise": "DeViSE", "random": "Random embeddings"}
# The rows of Tables 2 and 3; softmax, which names seen classes only, has no hits.
SHOWN = (("devise", "unseen"), ("devise", "seen+unseen"), ("softmax", "seen+unseen"))
ZERO_SHOT = {"unseen": "-0", "seen+unseen": "+1K"}

Line = list[str]


def markdown(rows: Sequence[Result]) -> str:
    """All tables that there are rows for, hit@k in per cent, hp@k as shares."""
    tables = [_table_1(rows), _zero_shot(rows, "Table 2", "hit"), _zero_shot(rows, "Table 3", "hp"), _table_4(rows)]
    return "\n\n".join(table for table in tables if table) + "\n"


def _table_1(rows: Sequence[Result]) -> str:
    own = [r for r in rows if r.images == "seen" and r.candidates == "seen"]
    lines = []
    for system in _systems(own):
        mine = [r for r in own if (r.system, r.variant) == system]
        lines.append([_title(*system), *_cells(mine, "hit", (1, 2, 5, 10)), *_cells(mine, "hp", (2, 5, 10, 20))])
    for what in ("chance", "ceiling"):
        first = [r for r in own if (r.system, r.variant) == _systems(own)[0]]
        cells = [*_cells(first, "hit", (1, 2, 5, 10), what), *_cells(first, "hp", (2, 5, 10, 20), what)]
        lines.append([what.capitalize(), *cells])
    heading = ["Model", *(f"hit@{k}" for k in (1, 2, 5, 10)), *(f"hp@{k}" for k in (2, 5, 10, 20))]
    return _table(f"Table 1: the supervised test, {_pictures(own)} pictures of the 1K", heading, lines) if own else ""


def _zero_shot(rows: Sequence[Result], number: str, metric: str) -> str:
    k = (1, 2, 5, 10, 20)
    lines = []
    for name in HOPS:
        for system, candidates in SHOWN if metric == "hp" else SHOWN[:2]:
            own = [r for r in rows if (r.split, r.candidates, r.system) == (name, candidates, system)]
            title = TITLES[system] + (ZERO_SHOT[candidates] if system == "devise" else "")
            for variant in dict.fromkeys(r.variant for r in own):
                mine = [r for r in own if r.variant == variant]
                lines.append([name, _titled(title, variant), _candidates(mine), *_cells(mine, metric, k)])
            first = [r for r in own if r.variant == own[0].variant]
            for what in ("chance", "ceiling") if first else ():
                lines.append([name, f"{what.capitalize()}, {title}", "", *_cells(first, metric, k, what)])
    what = "flat hit@k" if metric == "hit" else "hierarchical precision@k"
    heading = ["Data set", "Model", "Candidate labels", *(f"{metric}@{n}" for n in k)]
    return _table(f"{number}: {what} on unseen classes", heading, lines) if lines else ""


def _table_4(rows: Sequence[Result]) -> str:
    own = [r for r in rows if r.images == "unseen" and r.split not in HOPS and r.metric == "hit" and r.k == 5]
    lines = []
    for system in _systems(own):
        by = {r.candidates: r for r in own if (r.system, r.variant) == system}
        lines.append([_title(*system), *(_cell(by.get(c), "value") for c in ("unseen", "seen+unseen"))])
    lines += [[name, *figures] for name, figures in PUBLISHED.items()]
    heading = ["Model", "unseen labels", "all labels"]
    return _table(f"Table 4: hit@5 on unseen classes, {own[0].split}", heading, lines) if own else ""


def _systems(rows: Iterable[Result]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((r.system, r.variant) for r in rows))


def _title(system: str, variant: str) -> str:
    return _titled(TITLES.get(system, system), variant)


def _titled(title: str, variant: str) -> str:
    return title if variant == "default" else f"{title} {variant}"


def _candidates(rows: Sequence[Result]) -> str:
    """How many labels were chosen from: the inverse of hit@1's chance."""
    return next((f"{round(1 / r.chance):,}" for r in rows if r.metric == "hit" and r.k == 1 and r.chance), "")


def _pictures(rows: Sequence[Result]) -> str:
    return f"{rows[0].n:,}" if rows else "no"


def _cells(rows: Sequence[Result], metric: str, k: Sequence[int], what: str = "value") -> Line:
    by = {r.k: r for r in rows if r.metric == metric}
    return [_cell(by.get(each), what) for each in k]


def _cell(row: Result | None, what: str) -> str:
    value = None if row is None else getattr(row, what)
    if row is None or value is None:
        return "–"
    return f"{100 * value:.1f}" if row.metric == "hit" else f"{value:.3f}"


def _table(title: str, heading: Line, lines: Sequence[Line]) -> str:
    rule = ["---", *("--:" if "@" in h or "labels" in h else "---" for h in heading[1:])]
    return "\n".join([f"**{title}**", "", *("| " + " | ".join(line) + " |" for line in (heading, rule, *lines))])
