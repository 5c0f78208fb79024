"""What one system shows on one split: rows of results, and figures per picture for paired comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import skew
from sklearn.metrics import roc_auc_score

from psdevise import scores
from psdevise.compare.cells import Arrays
from psdevise.evaluation import evaluate
from psdevise.evaluation.evaluate import Scored, Setting
from psdevise.evaluation.pairing import measure
from psdevise.evaluation.result import Result
from psdevise.systems import System

HIT_K, HP_K = (1, 5), (2, 5, 10, 20)
COVERAGES = (1.0, 0.8, 0.5)


def measured(scored: Scored, system: System, setting: Setting) -> tuple[list[Result], Arrays]:
    """Rows as `results.json` has them, and arrays by `images/candidates/metric@k`: a value per picture, for the same
    pictures in the same order whatever the system; missing where the system cannot name what is in them.

    Beside hit@k and hp@k:

    - `hubness`: skewness of N_1, how often each candidate is the nearest to a picture (Radovanović et al. 2010);
    - `unknown_auroc`: how well a low best score among seen classes tells pictures of unseen ones;
    - `named_hit` at k per cent: hit@1 of the k % of all pictures of highest best score, after the calibration bias:
      the others are answered "unknown".
    """
    rows = evaluate.results(scored, [system], setting)
    arrays: Arrays = {}
    for pairing in setting.pairings(scored.classes, scored.true):
        matrix = evaluate.chosen(scored, system.name, setting, pairing)
        found = measure([matrix], pairing)
        where = f"{pairing.images}/{pairing.candidates}"
        if found.nameable[pairing.true].any():
            for k in HIT_K:
                arrays[f"{where}/hit@{k}"] = found.places.hits(k).astype(np.uint8)
        if found.nameable.any():
            for k in HP_K:
                if k in found.hp:
                    arrays[f"{where}/hp@{k}"] = found.hp[k].astype(np.float32)
        if pairing.images == "unseen" and found.nameable.all():
            nearest = np.bincount(matrix.argmax(axis=1), minlength=matrix.shape[1])
            rows.append(
                setting.row(system, pairing, "hubness", 1, (_skew(nearest), None, None), None, None, len(matrix))
            )
    for name, percent, value, chance in _unknown(scored, system, setting):
        n = len(scored.true)
        rows.append(setting.row(system, None, name, percent, (value, None, None), chance, None, n))
    curve = evaluate.curves(scored, [system], setting).get(system.name, [])
    arrays["curve"] = np.array(curve, np.float32).reshape(-1, 2)
    return rows, arrays


def _unknown(scored: Scored, system: System, setting: Setting) -> list[tuple[str, int | None, float, float | None]]:
    matrix = scored.by_system[system.name].astype(np.float64)
    is_seen = np.isin(np.array(scored.classes), setting.split.seen)
    picture_seen = is_seen[scored.true]
    found: list[tuple[str, int | None, float, float | None]] = []
    if picture_seen.any() and not picture_seen.all() and np.isfinite(matrix[:, is_seen]).all():
        best = matrix[:, is_seen].max(axis=1)
        found.append(("unknown_auroc", None, float(roc_auc_score(picture_seen, best)), 0.5))
    if np.isfinite(matrix).all():
        shifted = matrix - setting.bias.get(system.name, 0.0) * is_seen
        order = np.argsort(-shifted.max(axis=1), kind="stable")
        right = scores.places(shifted, scored.true).hits(1)[order]
        for coverage in COVERAGES:
            named = right[: max(1, round(coverage * len(right)))]
            found.append(("named_hit", round(100 * coverage), float(named.mean()), None))
    return found


def _skew(counts: npt.NDArray[Any]) -> float:
    """0 where all candidates are nearest equally often."""
    return float(skew(counts)) if counts.std() > 0 else 0.0
