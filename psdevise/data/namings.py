"""What pictures were named: Parquet with the columns id, labels, scores."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from psdevise import store

Row = tuple[str, list[str], list[float]]
SCHEMA = pa.schema([("id", pa.string()), ("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])


def write(path: str, rows: Sequence[Row]) -> None:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    arrays = [pa.array(list(c), t) for c, t in zip(columns, SCHEMA.types, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=SCHEMA)
    store.write_atomic(path, lambda f: pq.write_table(table, f))


def join(path: str, parts: Sequence[str]) -> int:
    """Puts parts together, a row group each; the number of rows."""
    total = 0

    def write_to(file: object) -> None:
        nonlocal total
        with pq.ParquetWriter(file, SCHEMA) as writer:
            for part in parts:
                with store.open_read(part) as f:
                    table = pq.read_table(f)
                writer.write_table(table)
                total += table.num_rows

    store.write_atomic(path, write_to)
    return total
