"""The encoded corpus: a Parquet table of sentences, each a list of term numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from psdevise import store
from psdevise.errors import DataError

Sentence = npt.NDArray[np.int32]
SENTENCES_PER_GROUP = 200


def write(path: str, parts: Iterable[list[Sentence]]) -> tuple[int, int]:
    """Writes sentences in row groups of a few hundred; (sentences, words)."""
    schema = pa.schema([("words", pa.list_(pa.int32()))])
    counts = [0, 0]

    def groups() -> Iterator[list[Sentence]]:
        held: list[Sentence] = []
        for part in parts:
            held += part
            while len(held) >= SENTENCES_PER_GROUP:
                yield held[:SENTENCES_PER_GROUP]
                held = held[SENTENCES_PER_GROUP:]
        if held:
            yield held

    def write_to(file: object) -> None:
        with pq.ParquetWriter(file, schema) as writer:
            for group in groups():
                offsets = np.cumsum([0, *map(len, group)]).astype(np.int32)
                column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(group)))
                writer.write_table(pa.Table.from_arrays([column], schema=schema))
                counts[0] += len(group)
                counts[1] += int(offsets[-1])

    store.write_atomic(path, write_to)
    return counts[0], counts[1]


class Corpus:
    """Reads ranges of sentences.

    Raises:
        DataError: the file is cut off or not a corpus.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = pq.ParquetFile(store.open_read(path))
        except (pa.ArrowInvalid, OSError) as e:
            raise DataError(f"not a corpus: {e}", where=path, mend="remove it, and give the same command again") from e
        metadata = self._file.metadata
        self.row_groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        self.rows = metadata.num_rows

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.cumsum([0, *self.row_groups])

    def read(self, start: int, stop: int) -> list[Sentence]:
        """Sentences [start, stop), int32 arrays."""
        starts = self._starts
        first = int(np.searchsorted(starts, start, "right")) - 1
        last = int(np.searchsorted(starts, stop, "left"))
        column = self._file.read_row_groups(list(range(first, last)), columns=["words"]).column(0).combine_chunks()
        offsets, values = column.offsets.to_numpy(), column.values.to_numpy()
        base = int(starts[first])
        return [
            values[offsets[i] : offsets[i + 1]].astype(np.int32, copy=False) for i in range(start - base, stop - base)
        ]
