"""Words to pictures: the pictures nearest to any term, also one that was never trained on; precision@k of classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from psdevise import scores, store
from psdevise.data.pictures import PictureTable, decode
from psdevise.data.sources import open_source
from psdevise.errors import DataError
from psdevise.evaluation.evaluate import Scored, Setting
from psdevise.evaluation.result import Result
from psdevise.systems import Scores, System
from psdevise.tagger import Tagger

ROWS = 500


class Match(NamedTuple):
    """A picture, its encoded bytes, its own labels if it has any, and its cosine with the term."""

    id: str
    image: bytes
    labels: tuple[str, ...]
    score: float


def search(
    tagger: Tagger,
    images: str,
    terms: Sequence[str],
    k: int,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, list[Match]]:
    """term → its k nearest pictures of a data set, best first; broken pictures are passed over.

    Args:
        images: an image table, or any source of pictures that `psdevise data images` takes.

    Raises:
        LabelError: a term has no vector.
        DataError: no pictures there, or none that can be read.
    """
    index = tagger.index_of(terms)
    best: dict[str, list[Match]] = {term: [] for term in terms}
    for rows, done, of in _parts(images):
        pixels, kept = [], []
        for row in rows:
            try:
                pixels.append(decode(row.image, tagger.size))
            except DataError:
                continue
            kept.append(row)
        if pixels:
            cosines = index.scores(tagger.embed_pixels(np.stack(pixels)))
            for column, term in enumerate(terms):
                near = np.argsort(-cosines[:, column], kind="stable")[:k]
                more = [kept[i]._replace(score=float(cosines[i, column])) for i in near]
                best[term] = sorted([*best[term], *more], key=lambda match: -match.score)[:k]
        on_progress(done, of)
    if not any(best.values()):
        raise DataError("no picture here can be read", where=images)
    return best


def _parts(images: str) -> Iterator[tuple[list[Match], int, int]]:
    """The pictures of a data set, some at a time, with how many were read and are to be read."""
    if images.endswith(".parquet") or any(name.endswith(".parquet") for name in store.listing(images)):
        table = PictureTable(images)
        for start in range(0, table.rows, ROWS):
            stop = min(start + ROWS, table.rows)
            yield [Match(p.id, p.data, p.labels, 0.0) for p in table.read(start, stop)], stop, table.rows
        return
    source = open_source(images)
    for start in range(0, source.rows, ROWS):
        stop = min(start + ROWS, source.rows)
        yield [Match(r.id, r.data(), r.labels, 0.0) for r in source.read(start, stop)], stop, source.rows


class Precision(NamedTuple):
    """Of one class: the share of its k nearest pictures that are of it, by chance |c| / n, at most min(k, |c|) / k."""

    label: str
    value: float
    chance: float
    ceiling: float


def precisions(
    matrix: Scores, true: npt.NDArray[np.int64], classes: Sequence[str], of: Sequence[str], k: int
) -> list[Precision]:
    """precision@k of the classes `of` that the system can name and that have pictures, equal scores in picture order.

    Args:
        matrix: [n, len(classes)], all pictures against all classes.
        true: each picture's class, an index into `classes`.
    """
    counts = np.bincount(true, minlength=len(classes))
    wanted = set(of)
    columns = [c for c, name in enumerate(classes) if name in wanted and counts[c] and np.isfinite(matrix[:, c]).any()]
    if not columns:
        return []
    best = scores.top_k(np.ascontiguousarray(matrix[:, columns].T), k)
    right = (true[best] == np.array(columns)[:, None]).sum(axis=1) / k
    share, most = counts[columns] / len(true), np.minimum(counts[columns], k) / k
    return [
        Precision(classes[c], float(v), float(s) * min(k, len(true)) / k, float(m))
        for c, v, s, m in zip(columns, right, share, most, strict=True)
    ]


def results(scored: Scored, systems: Sequence[System], setting: Setting) -> list[Result]:
    """Mean precision@k over the unseen classes, with its interval over them, among all test pictures."""
    rows = []
    for system in systems:
        found = of_unseen(scored, system.name, setting)
        if found:
            interval = scores.bootstrap(np.array([p.value for p in found]), setting.seed)
            chance, ceiling = (float(np.mean([getattr(p, what) for p in found])) for what in ("chance", "ceiling"))
            k, n = setting.options.precision_k, len(found)
            row = setting.row(system, None, "precision", k, interval, chance, ceiling, n)
            rows.append(replace(row, candidates="unseen"))
    return rows


def of_unseen(scored: Scored, system: str, setting: Setting) -> list[Precision]:
    """Of each unseen class."""
    k, unseen = setting.options.precision_k, setting.split.unseen
    return precisions(scored.by_system[system], scored.true, scored.classes, unseen, k)
