"""Word vectors by term: trained here or brought along, in word2vec, GloVe or Parquet form."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from psdevise import compression, store
from psdevise.errors import DataError

LARGEST_DIM = 1_000_000  # no file has such vectors: what is read as a header is none


def unit_rows(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows [n, dim] of length 1; rows of zeros stay so."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))


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

    def term_of(self, phrase: str) -> str:
        """A phrase as it would stand among the terms: as it is (vectors from elsewhere may know capitals), or else in
        lower case."""
        spaced = " ".join(phrase.split())
        return spaced if spaced in self.index else spaced.lower()

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
        return unit_rows(self.matrix)

    def save(self, path: str) -> None:
        """By the file's name: `.parquet` (terms as they are), `.bin` word2vec binary, `.glove` or `.glove.txt` GloVe's
        text, else word2vec text. In all but Parquet spaces inside a term become underscores, as is usual there, so
        that gensim's KeyedVectors reads it.

        Raises:
            DataError: terms that differ only in that, of which gensim would drop all but the first; a compressed
                file's name.
        """
        if path.endswith(".parquet"):
            save_parquet(self, path)
            return
        if path.lower().endswith(compression.SUFFIXES):
            raise DataError("vectors are not written compressed", where=path, mend="compress the file afterwards")
        twice = _repeated([term.replace(" ", "_") for term in self.terms])
        if twice is not None:
            raise DataError(f"several terms would be written as {twice!r}", where=path)
        lines = self._lines(binary=path.endswith(".bin"), header=not path.endswith((".glove", ".glove.txt")))

        def write_to(file: IO[bytes]) -> None:
            for line in lines:
                file.write(line)

        store.write_atomic(path, write_to)

    def _lines(self, binary: bool, header: bool) -> Iterable[bytes]:
        if header:
            yield f"{len(self.terms)} {self.dim}\n".encode()
        for term, row in zip(self.terms, self.matrix, strict=True):
            name = term.replace(" ", "_").encode()
            if binary:
                yield name + b" " + row.astype("<f4").tobytes() + b"\n"
            else:
                yield name + b" " + " ".join(map(repr, row.tolist())).encode() + b"\n"


def load(path: str, repeats: bool = False) -> WordVectors:
    """Vectors from a `.bin` (word2vec binary), `.parquet` (columns label or term, and vector), or a text
    file with word2vec's header line or, as GloVe's, without; all but Parquet also compressed (`.bin.gz`, `.txt.zst`).
    Underscores in terms become spaces.

    Args:
        repeats: a term may stand there several times, in rows one after the other: a label and its terms' vectors.

    A term in GloVe's text may hold spaces (its 840B file has some): a line's last values are its vector.

    Raises:
        DataError: a folder, cut off, a line of another dimension (named), a repeated term, a value that is not finite.
    """
    folders, inside = store.filesystem(path)
    with store.explained(path):
        is_folder = folders.isdir(inside)
    if is_folder:
        raise DataError(
            "a folder is no file of vectors",
            where=path,
            mend="name a file in it; where a run may be given, its folder is the one that holds run.json",
        )
    packed = path.lower().endswith(compression.SUFFIXES)
    name = path.rpartition(".")[0] if packed else path
    if path.lower().endswith(".zip") or (packed and name.endswith(".parquet")):
        raise DataError("vectors are not read from such a file", where=path, mend="decompress it first")
    try:
        read = _parquet if name.endswith(".parquet") else _binary if name.endswith(".bin") else _text
        terms, matrix = read(path)
    except compression.ERRORS as e:
        raise DataError(f"cut off or broken: {e}", where=path, mend="fetch the file again") from e
    if not terms:
        raise DataError("no vectors here", where=path)
    if (twice := _repeated([term for term, _ in groupby(terms)] if repeats else terms)) is not None:
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
    terms, column = table.column(name).to_pylist(), table.column("vector").combine_chunks()
    if any(t is None for t in terms) or column.null_count:
        raise DataError("a row has no label or no vector", where=path)
    if not isinstance(column, (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray)):
        raise DataError(f"the column vector holds {column.type}, not lists of numbers", where=path)
    dims = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(dims) > 1:
        raise DataError(f"vectors of different dimensions: {sorted(dims)[:5]}", where=path)
    try:
        matrix = column.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
        raise DataError(f"the vectors are not numbers: {e}", where=path) from e
    return [str(t) for t in terms], matrix.reshape(len(terms), -1) if terms else np.zeros((0, 0), np.float32)


def _binary(path: str) -> tuple[list[str], npt.NDArray[np.float32]]:
    packed = path.lower().endswith(compression.SUFFIXES)
    with store.open_read(path) as raw:
        file = io.BufferedReader(compression.decompressed(path, raw), 1 << 20)
        header = file.readline(100).split()
        if len(header) != 2 or not all(part.isdigit() for part in header):
            raise DataError("no word2vec header", where=path, mend="text files must not end in .bin")
        n, dim = map(int, header)
        if not 0 < dim <= LARGEST_DIM:
            raise DataError(f"vectors of {dim} dimensions", where=path)
        if not packed:  # before room is made for what is not there
            begin = file.tell()
            if file.seek(0, io.SEEK_END) - begin < n * (4 * dim + 1):
                raise DataError(f"cut off: too short for {n} vectors", where=path, mend="fetch the file again")
            file.seek(begin)
        terms, matrix = [], np.empty((0 if packed else n, dim), np.float32)
        for i in range(n):
            if i == len(matrix):  # how much is in a compressed file is known at its end
                matrix.resize((min(n, 2 * i + 1), dim), refcheck=False)
            name = bytearray()
            while (byte := file.read(1)) not in (b" ", b""):
                if byte != b"\n":
                    name += byte
            row = file.read(4 * dim)
            if len(row) < 4 * dim:
                raise DataError(f"cut off: {i} of {n} vectors are whole", where=path, mend="fetch the file again")
            matrix[i] = np.frombuffer(row, "<f4")
            terms.append(name.decode("utf-8", "replace").replace("_", " "))
        if file.read(64).strip():  # with another dimension than the header says terms would be pieces of numbers
            raise DataError(f"goes on after the {n} vectors of {dim} dimensions of its header", where=path)
    return terms, matrix


def _text(path: str) -> tuple[list[str], npt.NDArray[np.float32]]:
    terms: list[str] = []
    rows: list[npt.NDArray[np.float32]] = []
    count = dim = None
    with (
        store.open_read(path) as raw,
        io.TextIOWrapper(compression.decompressed(path, raw), encoding="utf-8-sig", errors="replace") as file,
    ):
        for number, line in enumerate(file, 1):
            parts = line.rstrip().split(" ")
            if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
                count, dim = map(int, parts)
                continue
            if parts == [""]:
                continue
            if dim is None and len(parts) == 1:
                raise DataError(f"line {number} is not a term and numbers parted by spaces", where=path)
            if dim is None:
                dim = len(parts) - 1
            values = parts[-dim:] if 0 < dim < len(parts) else []
            if not values or any(map(_is_number, parts[1:-dim])):
                raise DataError(f"line {number} has {len(parts) - 1} values, expected {dim}", where=path)
            try:
                rows.append(np.array(values, np.float32))
            except ValueError as e:
                raise DataError(f"line {number}: {e}", where=path) from e
            terms.append(" ".join(parts[:-dim]).replace("_", " "))
    if count is not None and count != len(rows):
        what = "cut off" if len(rows) < count else "the header says less than there is"
        raise DataError(f"{what}: {len(rows)} of {count} vectors", where=path, mend="fetch the file again")
    return terms, np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _repeated(terms: Sequence[str]) -> str | None:
    """The first term that stands there again."""
    seen: set[str] = set()
    for term in terms:
        if term in seen:
            return term
        seen.add(term)
    return None


def save_parquet(vectors: WordVectors, path: str) -> None:
    """Columns label and vector; terms as they are."""
    rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.matrix.astype(np.float32).reshape(-1)), vectors.dim)
    table = pa.table({"label": list(vectors.terms), "vector": rows})
    store.write_atomic(path, lambda f: pq.write_table(table, f))
