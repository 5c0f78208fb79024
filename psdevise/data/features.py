"""A core's outputs as a Parquet file: computed once, and what everything behind a frozen core trains on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from psdevise import store
from psdevise.data.pictures import whole

ROWS = 2000  # of a row group


@dataclass(frozen=True)
class Features:
    """
    Attributes:
        ids: of the pictures.
        values: float32 [n, dim].
        labels: each picture's labels.
    """

    ids: list[str]
    values: npt.NDArray[np.float32]
    labels: list[tuple[str, ...]]

    @property
    def rows(self) -> int:
        return len(self.values)

    @property
    def dim(self) -> int:
        return int(self.values.shape[1])


def write(path: str, parts: Iterable[Features], dim: int) -> str:
    """Writes parts, one row group each; returns the file's SHA-256."""
    schema = pa.schema(
        [("id", pa.string()), ("labels", pa.list_(pa.string())), ("features", pa.list_(pa.float32(), dim))]
    )

    def write_to(file: object) -> None:
        with pq.ParquetWriter(file, schema, compression="none") as writer:
            for part in parts:
                flat = pa.array(np.ascontiguousarray(part.values, np.float32).reshape(-1))
                columns = [
                    pa.array(part.ids, pa.string()),
                    pa.array([list(labels) for labels in part.labels], pa.list_(pa.string())),
                    pa.FixedSizeListArray.from_arrays(flat, dim),
                ]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))

    return store.write_atomic(path, write_to)


def write_rows(path: str, values: npt.NDArray[np.float32], labels: Sequence[Sequence[str]]) -> str:
    """Writes values [n, dim] and their labels, numbered from 0; returns the file's SHA-256."""
    starts = range(0, len(labels), ROWS)
    ids = [str(row) for row in range(len(labels))]
    cuts = (slice(start, start + ROWS) for start in starts)
    parts = (Features(ids[cut], values[cut], [tuple(row) for row in labels[cut]]) for cut in cuts)
    return write(path, parts, values.shape[1])


def read(path: str, keep: Sequence[str] | None = None) -> Features:
    """All rows, or those with at least one label of `keep`.

    Raises:
        DataError: the file is cut off or not such a table.
    """
    with whole(path):
        with store.open_read(path) as file:
            table = pq.read_table(file)
        labels = [tuple(row) for row in table.column("labels").to_pylist()]
        column = table.column("features").combine_chunks()
        dim = column.type.list_size
        values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim).astype(np.float32, copy=False)
        ids = table.column("id").to_pylist()
    if keep is None:
        return Features(ids, values, labels)
    wanted = set(keep)
    rows = [i for i, row in enumerate(labels) if wanted.intersection(row)]
    return Features([ids[i] for i in rows], values[rows], [labels[i] for i in rows])
