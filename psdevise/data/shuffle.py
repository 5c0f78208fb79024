"""An image table in an order shuffled over the whole set, so that any range of rows is a fair sample.

A folder per class must train as well as a shuffled list. Two passes in bounded memory: rows are first cast
into buckets of a few thousand by a seeded permutation, then each bucket is written in its own order.
Every picture is opened on the way: broken ones are left out and counted, repeated ones reported.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from psdevise import store
from psdevise.data.pictures import SOURCE_ROW, Picture, PictureTable, open_rgb
from psdevise.errors import DataError, TooManyBroken

BUCKET_ROWS = 8192
SCHEMA = pa.schema(
    [("id", pa.string()), ("image", pa.binary()), ("labels", pa.list_(pa.string())), (SOURCE_ROW, pa.int64())]
)


@dataclass
class ShuffleReport:
    """`broken`: id → reason. `twins`: pictures repeated inside, shared with the known set, and how many of
    those contradict each other's labels. `hashes`: of decoded pixels → labels."""

    rows: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    twins: dict[str, int] = field(default_factory=lambda: {"inside": 0, "with_train": 0, "contradictory": 0})
    hashes: dict[bytes, tuple[str, ...]] = field(default_factory=dict)

    @property
    def skipped(self) -> int:
        return len(self.broken)


def shuffle(
    table: PictureTable,
    out: str,
    seed: int,
    max_broken: float,
    on_progress: Callable[[int, int], None],
    known: Mapping[bytes, tuple[str, ...]] | None = None,
    group_rows: int = 1000,
) -> ShuffleReport:
    """Writes `table` to `out` in row groups of `group_rows`.

    Args:
        known: hashes of another table (the training pictures), to find shared pictures.

    Raises:
        TooManyBroken: more than the share `max_broken` cannot be decoded.
        DataError: the table has no rows.
    """
    if table.rows == 0:
        raise DataError("no pictures here", where=table.path)
    report = ShuffleReport()
    order = np.random.default_rng([seed, 11]).permutation(table.rows)
    buckets = max(1, -(-table.rows // BUCKET_ROWS))
    with tempfile.TemporaryDirectory(prefix="psdevise-") as scratch:
        place = _scatter(table, order, buckets, Path(scratch), report, known or {}, on_progress)
        if report.skipped > max_broken * table.rows:
            some = "; ".join(f"{i}: {why}" for i, why in list(report.broken.items())[:3])
            raise TooManyBroken(
                f"{report.skipped} of {table.rows} pictures are broken: {some}",
                where=table.path,
                mend="mend them, or raise data.images.max_broken",
            )
        store.write_atomic(out, lambda f: _gather(f, place, order, group_rows))
    return report


def _scatter(
    table: PictureTable,
    order: np.ndarray[tuple[int], np.dtype[np.int64]],
    buckets: int,
    scratch: Path,
    report: ShuffleReport,
    known: Mapping[bytes, tuple[str, ...]],
    on_progress: Callable[[int, int], None],
) -> list[Path]:
    paths = [scratch / f"{b}.parquet" for b in range(buckets)]
    writers = [pq.ParquetWriter(p, SCHEMA, compression="none") for p in paths]
    start = 0
    for rows in table.row_groups:
        pictures = [p for p in table.read(start, start + rows) if _sound(p, report, known)]
        destination = order[[p.row for p in pictures]] * buckets // table.rows
        for b in np.unique(destination):
            writers[b].write_table(_table([p for p, d in zip(pictures, destination, strict=True) if d == b]))
        start += rows
        on_progress(start, table.rows)
    for writer in writers:
        writer.close()
    return paths


def _gather(
    file: object, paths: list[Path], order: np.ndarray[tuple[int], np.dtype[np.int64]], group_rows: int
) -> None:
    with pq.ParquetWriter(file, SCHEMA, compression="none") as writer:
        for part in _regrouped((_in_order(p, order) for p in paths), group_rows):
            writer.write_table(part, row_group_size=group_rows)


def _in_order(path: Path, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pa.Table:
    table = pq.read_table(path)
    return table.take(np.argsort(order[table.column(SOURCE_ROW).to_numpy()], kind="stable"))


def _regrouped(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    held: pa.Table | None = None
    for table in tables:
        held = table if held is None else pa.concat_tables([held, table])
        whole = held.num_rows // rows * rows
        if whole:
            yield held.slice(0, whole)
            held = held.slice(whole)
    if held is not None and held.num_rows:
        yield held


def _sound(picture: Picture, report: ShuffleReport, known: Mapping[bytes, tuple[str, ...]]) -> bool:
    try:
        pixels = open_rgb(picture.data)
    except DataError as e:
        report.broken[picture.id] = str(e)
        return False
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=12).digest()
    for where, earlier in (("inside", report.hashes.get(digest)), ("with_train", known.get(digest))):
        if earlier is not None:
            report.twins[where] += 1
            report.twins["contradictory"] += set(earlier) != set(picture.labels)
    report.hashes[digest] = picture.labels
    report.rows += 1
    return True


def _table(pictures: list[Picture]) -> pa.Table:
    columns = [
        pa.array([p.id for p in pictures], pa.string()),
        pa.array([p.data for p in pictures], pa.binary()),
        pa.array([list(p.labels) for p in pictures], pa.list_(pa.string())),
        pa.array([p.row for p in pictures], pa.int64()),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)
