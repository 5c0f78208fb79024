"""The encoded corpus: a folder of Parquet parts, each a table of sentences, each a list of term numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from psdevise import store
from psdevise.data.pictures import whole
from psdevise.errors import DataError

Sentence = npt.NDArray[np.int32]
SENTENCES_PER_GROUP = 200
WORDS_PER_PART = 4_000_000
SCHEMA = pa.schema([("words", pa.list_(pa.int32()))])


def write(folder: str, sentences: Iterable[list[Sentence]], words_per_part: int = WORDS_PER_PART) -> tuple[int, int]:
    """Writes part-00000.parquet, … in place of whatever the folder held; (sentences, words)."""
    store.remove(folder)
    counts = [0, 0]
    for number, part in enumerate(_parts(sentences, words_per_part)):
        store.write_atomic(store.join(folder, f"part-{number:05d}.parquet"), partial(_write, part))
        counts[0] += len(part)
        counts[1] += sum(map(len, part))
    return counts[0], counts[1]


def _parts(batches: Iterable[list[Sentence]], words_per_part: int) -> Iterator[list[Sentence]]:
    held: list[Sentence] = []
    words = 0
    for batch in batches:
        for sentence in batch:
            held.append(sentence)
            words += len(sentence)
            if words >= words_per_part:
                yield held
                held, words = [], 0
    if held:
        yield held


def _write(sentences: list[Sentence], file: Any) -> None:
    with pq.ParquetWriter(file, SCHEMA) as writer:
        for start in range(0, len(sentences), SENTENCES_PER_GROUP):
            group = sentences[start : start + SENTENCES_PER_GROUP]
            offsets = np.cumsum([0, *map(len, group)]).astype(np.int32)
            column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(group)))
            writer.write_table(pa.Table.from_arrays([column], schema=SCHEMA))


class Corpus:
    """Reads ranges of sentences, numbered through all parts.

    Raises:
        DataError: no part, or one that is cut off or no corpus.
    """

    def __init__(self, folder: str) -> None:
        names = [name for name in store.listing(folder) if name.endswith(".parquet")]
        if not names:
            raise DataError("no corpus here", where=folder, mend="give the same command again")
        self._parts = [_open(store.join(folder, name)) for name in names]
        # (part, row group) of each group, and the number of its first sentence.
        self._groups = [(p, g) for p, part in enumerate(self._parts) for g in range(part.metadata.num_row_groups)]
        rows = [self._parts[p].metadata.row_group(g).num_rows for p, g in self._groups]
        self._starts = np.cumsum([0, *rows])
        self.rows = int(self._starts[-1])

    def read(self, start: int, stop: int) -> Iterator[Sentence]:
        """Sentences [start, stop), int32 arrays, a row group at a time."""
        first = int(np.searchsorted(self._starts, start, "right")) - 1
        last = int(np.searchsorted(self._starts, stop, "left"))
        for number in range(first, last):
            part, group = self._groups[number]
            with whole(f"corpus, part {part}"):
                column = self._parts[part].read_row_group(group, columns=["words"]).column(0).combine_chunks()
                offsets, values = column.offsets.to_numpy(), column.values.to_numpy()
            begin, end = (int(self._starts[number + i]) for i in (0, 1))
            for i in range(max(start, begin) - begin, min(stop, end) - begin):
                yield values[offsets[i] : offsets[i + 1]].astype(np.int32, copy=False)


def _open(path: str) -> pq.ParquetFile:
    with whole(path):
        return pq.ParquetFile(store.open_read(path))
