"""Figures as a reader wants them: three digits, and a unit that fits."""

from __future__ import annotations


def short(value: float) -> str:
    """950, 8.1k, 1.24M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit * 0.9995:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """`0.2 s`, `42 s`, `12 min 5 s`, `1 h 2 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def core_hours(seconds: float) -> str:
    """Hours, to three digits but never finer than a thousandth."""
    hours = seconds / 3600
    return f"{hours:.3f}" if hours < 10 else f"{hours:.1f}"


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f}"


def points(share: float) -> str:
    """A difference of shares in percentage points: +1.5, −0.7."""
    return f"{100 * share:+.1f}".replace("-", "−")
