"""Word vectors by term: trained here or brought along, in word2vec, GloVe or Parquet form."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from psdevise import store
from psdevise.errors import DataError


@dataclass(frozen=True)
class WordVectors:
    """
    Attributes:
        terms: words of a multi-word term are joined by one space.
        matrix: float32 [len(terms), dim].
        counts: occurrences in the corpus, where they are known.
    """

    terms: tuple[str, ...]
    matrix: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64] | None = None

    @property
    def dim(self) -> int:
        return int(self.matrix.shape[1])

    @cached_property
    def index(self) -> dict[str, int]:
        return {term: i for i, term in enumerate(self.terms)}

    def __contains__(self, term: str) -> bool:
        return term in self.index

    def vector(self, term: str) -> npt.NDArray[np.float32]:
        return self.matrix[self.index[term]]

    def count(self, term: str) -> int:
        return 0 if self.counts is None else int(self.counts[self.index[term]])

    def neighbours(self, vector: npt.NDArray[np.float32], k: int) -> list[tuple[str, float]]:
        """The k terms of highest cosine with `vector` [dim]."""
        cosines = self._unit @ (vector / max(float(np.linalg.norm(vector)), 1e-12))
        best = np.argsort(-cosines, kind="stable")[:k]
        return [(self.terms[i], float(cosines[i])) for i in best]

    @cached_property
    def _unit(self) -> npt.NDArray[np.float32]:
        norms = np.linalg.norm(self.matrix, axis=1, keepdims=True)
        return (self.matrix / np.maximum(norms, 1e-12)).astype(np.float32)

    def save(self, path: str) -> None:
        """word2vec format, `.bin` binary, else text; spaces inside a term become underscores, as is
        usual there, so that gensim's KeyedVectors reads it."""
        binary = path.endswith(".bin")

        def write_to(file: IO[bytes]) -> None:
            for line in self._word2vec(binary):
                file.write(line)

        store.write_atomic(path, write_to)

    def _word2vec(self, binary: bool) -> Iterable[bytes]:
        yield f"{len(self.terms)} {self.dim}\n".encode()
        for term, row in zip(self.terms, self.matrix, strict=True):
            name = term.replace(" ", "_").encode()
            if binary:
                yield name + b" " + row.astype("<f4").tobytes() + b"\n"
            else:
                yield name + b" " + " ".join(map(repr, row.tolist())).encode() + b"\n"


def load(path: str) -> WordVectors:
    """Vectors from a `.bin` (word2vec binary), `.parquet` (columns label or term, and vector), or a text
    file with word2vec's header line or, as GloVe's, without. Underscores in terms become spaces.

    Raises:
        DataError: cut off, a line of another dimension (named), a repeated term, a value that is not finite.
    """
    if path.endswith(".parquet"):
        terms, matrix = _parquet(path)
    elif path.endswith(".bin"):
        terms, matrix = _binary(path)
    else:
        terms, matrix = _text(path)
    if not terms:
        raise DataError("no vectors here", where=path)
    if len(set(terms)) < len(terms):
        seen: set[str] = set()
        twice = next(t for t in terms if t in seen or seen.add(t))  # type: ignore[func-returns-value]
        raise DataError(f"the term {twice!r} stands here twice", where=path)
    if not np.isfinite(matrix).all():
        bad = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise DataError(f"the vector of {terms[bad]!r} is not finite", where=path)
    return WordVectors(tuple(terms), matrix)


def _parquet(path: str) -> tuple[list[str], npt.NDArray[np.float32]]:
    try:
        with store.open_read(path) as f:
            table = pq.read_table(f)
    except (pa.ArrowInvalid, OSError) as e:
        raise DataError(f"not a whole Parquet file: {e}", where=path) from e
    name = next((c for c in ("label", "term") if c in table.column_names), None)
    if name is None or "vector" not in table.column_names:
        raise DataError("needs the columns label and vector", where=path, mend=f"has: {table.column_names}")
    rows = table.column("vector").to_pylist()
    dims = {len(r) for r in rows if r is not None}
    if len(dims) != 1 or any(r is None for r in rows):
        raise DataError(f"vectors of different dimensions: {sorted(dims)[:5]}", where=path)
    return [str(t) for t in table.column(name).to_pylist()], np.array(rows, np.float32)


def _binary(path: str) -> tuple[list[str], npt.NDArray[np.float32]]:
    with store.open_read(path) as raw:
        file = io.BufferedReader(raw, 1 << 20)  # type: ignore[type-var]
        try:
            n, dim = map(int, file.readline().split())
        except ValueError as e:
            raise DataError("no word2vec header", where=path) from e
        terms, matrix = [], np.empty((n, dim), np.float32)
        for i in range(n):
            name = bytearray()
            while (byte := file.read(1)) not in (b" ", b""):
                if byte != b"\n":
                    name += byte
            row = file.read(4 * dim)
            if len(row) < 4 * dim:
                raise DataError(f"cut off: {i} of {n} vectors are whole", where=path, mend="fetch the file again")
            matrix[i] = np.frombuffer(row, "<f4")
            terms.append(name.decode("utf-8", "replace").replace("_", " "))
    return terms, matrix


def _text(path: str) -> tuple[list[str], npt.NDArray[np.float32]]:
    terms: list[str] = []
    rows: list[npt.NDArray[np.float32]] = []
    expected = None
    with io.TextIOWrapper(store.open_read(path), encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            parts = line.rstrip().split(" ")
            if number == 1 and len(parts) == 2:
                expected = int(parts[0])
                continue
            if len(parts) < 2:
                continue
            try:
                row = np.array(parts[1:], np.float32)
            except ValueError as e:
                raise DataError(f"line {number}: {e}", where=path) from e
            if rows and len(row) != len(rows[0]):
                raise DataError(f"line {number} has {len(row)} values, the first has {len(rows[0])}", where=path)
            terms.append(parts[0].replace("_", " "))
            rows.append(row)
    if expected is not None and expected != len(rows):
        raise DataError(f"cut off: {len(rows)} of {expected} vectors", where=path, mend="fetch the file again")
    return terms, np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def save_parquet(vectors: WordVectors, path: str) -> None:
    """Columns label and vector; terms as they are."""
    rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.matrix.astype(np.float32).reshape(-1)), vectors.dim)
    table = pa.table({"label": list(vectors.terms), "vector": rows})
    store.write_atomic(path, lambda f: pq.write_table(table, f))
