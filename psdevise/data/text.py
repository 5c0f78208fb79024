"""Lines of text from plain or compressed files, a table's column, or a Wikipedia dump; never whole in memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from psdevise import store
from psdevise.errors import DataError


def lines(path: str, column: str | None = None) -> Iterator[str]:
    """Non-empty lines; bytes that are no UTF-8 are replaced by U+FFFD.

    Args:
        path: .txt, .gz, .bz2, .xz or .zst; .parquet, .csv or .jsonl with `column`; a Wikipedia dump
            (…articles….xml.bz2) gives one article's words a line.

    Raises:
        DataError: a truncated or broken file, or no such column.
    """
    name = path.lower()
    try:
        if name.endswith((".xml", ".xml.bz2")):
            yield from _wikipedia(path)
        elif name.endswith((".parquet", ".csv", ".jsonl")):
            yield from _column(path, column)
        else:
            with io.TextIOWrapper(_decompressed(path), encoding="utf-8", errors="replace") as file:
                for line in file:
                    if stripped := line.strip():
                        yield stripped
    except (EOFError, OSError, lzma.LZMAError, zstandard.ZstdError, pa.ArrowInvalid) as e:
        raise DataError(f"cut off or broken: {e}", where=path, mend="fetch or make the file again") from e


def _decompressed(path: str) -> Any:
    raw = store.open_read(path)
    name = path.lower()
    if name.endswith(".gz"):
        return gzip.GzipFile(fileobj=raw)
    if name.endswith(".bz2"):
        return bz2.BZ2File(raw)
    if name.endswith(".xz"):
        return lzma.LZMAFile(raw)
    if name.endswith(".zst"):
        # Windows up to 128 MiB, as `zstd --long=27` writes them.
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(raw, read_across_frames=True)
        return io.BufferedReader(reader, 1 << 20)
    return raw


def _column(path: str, column: str | None) -> Iterator[str]:
    if column is None:
        raise DataError("a table needs the name of its text column", where=path, mend="set data.text_column")
    if path.lower().endswith(".parquet"):
        with store.open_read(path) as file:
            table = pq.ParquetFile(file)
            _require(column, table.schema_arrow.names, path)
            for batch in table.iter_batches(columns=[column]):
                yield from _texts(batch.column(0).to_pylist())
        return
    import pyarrow.csv
    import pyarrow.json

    module = pyarrow.csv if path.lower().endswith(".csv") else pyarrow.json
    with store.open_read(path) as file:
        whole = module.open_csv(file) if module is pyarrow.csv else [module.read_json(file)]
        for batch in whole:
            _require(column, batch.schema.names, path)
            yield from _texts(batch.column(column).to_pylist())


def _texts(values: list[str | None]) -> Iterator[str]:
    for value in values:
        for line in (value or "").splitlines():
            if stripped := line.strip():
                yield stripped


def _wikipedia(path: str) -> Iterator[str]:
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki

    with store.open_read(path) as raw:
        file = bz2.BZ2File(raw) if path.lower().endswith(".bz2") else raw
        for _, text, _ in extract_pages(file, filter_namespaces=("0",)):
            if found := " ".join(filter_wiki(text).split()):
                yield found


def _require(column: str, names: list[str], path: str) -> None:
    if column not in names:
        raise DataError(f"no column {column!r}", where=path, mend=f"columns here: {', '.join(names)}")
