"""The journal as tables and charts: what ran, loss and throughput, lags, the bill."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from psdevise.errors import DataError
from psdevise.report.chart import Series, bars, lines
from psdevise.report.journal import REUSED, Journal, Phase, Point
from psdevise.report.text import short

MOST_POINTS = 200  # of one curve
MOST_BARS = 24
SHORT_SECONDS = 5.0  # of a phase without a loss: too short for a curve


def describe_phases(journal: Journal) -> list[dict[str, Any]]:
    """A row per phase: outcome, time, and where its attempts lie on the run's clock (per cent)."""
    whole = max(journal.seconds, 1e-9)
    rows = []
    for phase in journal.phases.values():
        restarts = [r for a in phase.chain for r in a.restarts]
        notes = [f"stopped {len(phase.chain) - 1} × and continued"] if len(phase.chain) > 1 else []
        notes += [
            f"{r.role} {r.rank} was restarted{f' ({short(r.examples)} examples {r.fate})' if r.examples else ''}:"
            f" {r.reason}"
            for r in restarts
        ]
        notes += list(dict.fromkeys(n for a in phase.chain for n in a.notices))
        notes += [f"{name}: {value:.3f}" for a in phase.chain for name, value in a.validated]
        rows.append(
            {
                "name": phase.name,
                "outcome": phase.outcome if phase.attempts else "not begun",
                "seconds": phase.seconds if phase.outcome != REUSED else None,
                "count": f"{short(phase.count)} {phase.unit}" if phase.count else "",
                "snapshots": sum(a.snapshots for a in phase.chain),
                "bars": [
                    (100 * a.begin / whole, max(100 * (a.end - a.begin) / whole, 0.4), a.outcome)
                    for a in phase.attempts
                    if a.outcome != REUSED
                ],
                "notes": notes,
            }
        )
    return rows


def curves(journal: Journal) -> list[dict[str, Any]]:
    """Loss and throughput of each phase that was trained, then the throughput of longer other ones."""
    trained: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for phase in journal.phases.values():
        points = list(phase.points())
        if sum(p.rate > 0 for p in points) < 2:
            continue
        scale, unit = (60.0, "minutes") if points[-1].seconds > 180 else (1.0, "seconds")
        rate = {"name": phase.name, "svg": _rate(phase, points, scale, unit)}
        losses = [p for p in points if p.loss is not None]
        if len(losses) > 1:
            trained += [{"name": phase.name, "svg": _loss(phase, losses, scale, unit)}, rate]
        elif phase.seconds >= SHORT_SECONDS:
            others.append(rate)
    if not trained and not others:
        raise DataError("no phase has reported figures while it ran")
    return trained + others


def lag_charts(journal: Journal) -> list[dict[str, Any]]:
    """Per phase: how many pushes had which lag, over all shards."""
    found = []
    for phase in journal.phases.values():
        lags = phase.lags
        total = sum(lags.values())
        if not total:
            continue
        mean = sum(lag * n for lag, n in lags.items()) / total
        describe = f"Lag of {total} pushes of {phase.name}: mean {mean:.1f}, at most {max(lags)} updates"
        found.append(
            {
                "name": phase.name,
                "pushes": total,
                "mean": mean,
                "median": _quantile(lags, 0.5),
                "most": _quantile(lags, 0.99),
                "max": max(lags),
                "svg": bars(_binned(lags), describe, "lag, updates", "% of pushes"),
            }
        )
    if not found:
        raise DataError("no phase has pushed gradients")
    return found


def bill(journal: Journal) -> dict[str, Any]:
    """Rows of the bill and their total; `roles` are the columns of peak memory."""
    billed = [p for p in journal.phases.values() if p.chain and p.seconds > 0]
    if not billed:
        raise DataError("no phase has run in this folder")
    prefix = "peak_bytes_"
    roles = sorted({k.removeprefix(prefix) for p in billed for k in p.bill if k.startswith(prefix)})
    rows: list[dict[str, Any]] = []
    for phase in billed:
        own = phase.bill
        spent = [own.get(f"{what}_seconds", 0.0) for what in ("compute", "wire", "read")]
        rows.append(
            {
                "name": phase.name,
                "seconds": phase.seconds,
                "core_seconds": own.get("core_seconds"),
                "gpu_seconds": own.get("gpu_seconds"),
                "bytes": own.get("bytes"),
                "peaks": [own.get(prefix + role) for role in roles],
                "shares": [round(100 * s / sum(spent)) for s in spent] if sum(spent) > 0 else None,
            }
        )
    total = {key: sum(r[key] or 0.0 for r in rows) for key in ("seconds", "core_seconds", "gpu_seconds", "bytes")}
    peaks = [max((r["peaks"][i] or 0.0 for r in rows), default=0.0) for i in range(len(roles))]
    return {"rows": rows, "roles": roles, "total": total | {"peaks": peaks}}


def _loss(phase: Phase, points: Sequence[Point], scale: float, unit: str) -> Any:
    """A line per part, as a part begins with a loss of its own."""
    series = [
        Series(phase.name, thinned([(p.seconds / scale, p.loss or 0.0) for p in part]), 0)
        for _, part in groupby(points, key=lambda p: p.part)
    ]
    describe = f"Loss of {phase.name}: from {points[0].loss:.3g} to {points[-1].loss:.3g}"
    return lines(series, describe, unit, "loss")


def _rate(phase: Phase, points: Sequence[Point], scale: float, unit: str) -> Any:
    rates = [p.rate for p in points if p.rate > 0]
    mean = sum(rates) / len(rates)
    series = [
        Series(phase.name, thinned([(p.seconds / scale, p.rate) for p in part]), 2)
        for _, part in groupby(points, key=lambda p: p.part)
    ]
    describe = f"Throughput of {phase.name}: {short(mean)} {phase.unit} per second on average"
    return lines(series, describe, unit, f"{phase.unit} per second", zero=True)


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS: means of neighbours; the last point stays as it is."""
    if len(points) <= MOST_POINTS:
        return list(points)
    size = -(-len(points) // (MOST_POINTS - 1))
    blocks = [points[i : i + size] for i in range(0, len(points), size)]
    means = [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b)) for b in blocks]
    return [*means, points[-1]]


def _binned(lags: dict[int, int]) -> list[tuple[str, float]]:
    """Per cent of pushes per lag, or per range of lags where there are many."""
    total, most = sum(lags.values()), max(lags)
    width = -(-(most + 1) // MOST_BARS)
    found = []
    for low in range(0, most + 1, width):
        inside = sum(n for lag, n in lags.items() if low <= lag < low + width)
        found.append((str(low) if width == 1 else f"{low}–{low + width - 1}", 100 * inside / total))
    return found


def _quantile(lags: dict[int, int], share: float) -> int:
    wanted, below = share * sum(lags.values()), 0
    for lag, count in sorted(lags.items()):
        below += count
        if below >= wanted:
            return lag
    return max(lags)
