"""Where pictures come from: a folder or a tar per class, CIFAR's binary archives, a table of paths, or Parquet.

Every source yields rows (id, encoded bytes, labels) in an order of its own, which is the same each time.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from psdevise import store
from psdevise.data.archives import members, read_inside
from psdevise.data.pictures import Columns, PictureTable, whole
from psdevise.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Row:
    """`data` reads the encoded picture when it is called, so that a missing file is that row's own fault."""

    id: str
    data: Callable[[], bytes]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """`rows`: in all; `read(start, stop)` yields them."""

    rows: int
    read: Callable[[int, int], Iterator[Row]]
    kind: str


def open_source(path: str, columns: Columns | None = None, part: str = "train", names: str | None = None) -> Source:
    """
    Args:
        path: a folder per class; the same in a `.tar`, or a `.tar` per class in a folder or a `.tar`; a `.tar.gz` or
            folder of CIFAR's `.bin` files; `.csv`, `.jsonl` or `.parquet` of image paths and labels; Parquet with
            encoded images.
        part: train or test, of CIFAR's archives.
        names: CIFAR: file of class names, one a line, where the archive has none.

    Raises:
        DataError: nothing usable there; CIFAR's Python archives, which are pickles.
    """
    lower = path.lower()
    if _holds_pictures(path):
        return _archives(path)
    if lower.endswith((".tar.gz", ".tgz", ".tar")) or any(n.endswith(".bin") for n in _names(path)):
        return _cifar(path, part, names)
    if any(n.startswith("data_batch_") or n in ("train", "meta", "batches.meta") for n in _names(path)):
        raise _pickles(path)
    if lower.endswith(".parquet"):
        return _parquet(path, columns or Columns())
    if lower.endswith((".csv", ".jsonl")):
        return _table(path, columns or Columns(image="path"))
    return _folders(path)


def _names(path: str) -> list[str]:
    return store.listing(path) if "." not in path.rsplit("/", 1)[-1] else []


def _holds_pictures(path: str) -> bool:
    """Whether this is a tar of pictures, or a folder of tars. CIFAR's archives hold a few `.bin` files instead."""
    if not path.lower().endswith(".tar"):
        return any(name.lower().endswith(".tar") for name in _names(path))
    try:
        with store.open_read(path) as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
            return any(
                m.isfile() and m.name.lower().endswith((*SUFFIXES, ".tar")) for m in itertools.islice(archive, 100)
            )
    except (tarfile.TarError, EOFError) as e:
        raise DataError(f"not a whole archive: {e}", where=path, mend="fetch it again") from e


def _archives(path: str) -> Source:
    found = members(path, SUFFIXES)
    if not found:
        raise DataError("no pictures in these archives", where=path, mend="expected CLASS.tar, or CLASS/picture.jpg")

    def read(start: int, stop: int) -> Iterator[Row]:
        for member in found.read(start, min(stop, len(found))):
            yield Row(member.id, member.read, (member.label,))

    return Source(len(found), read, "archives")


def _folders(path: str) -> Source:
    """PATH/class name/picture files; underscores in a folder's name stand for spaces."""
    found = []
    for name in store.listing(path):
        folder = store.join(path, name)
        files = [f for f in store.listing(folder) if f.lower().endswith(SUFFIXES)]
        found += [(f"{name}/{f}", store.join(folder, f), name.replace("_", " ")) for f in files]
    if not found:
        raise DataError("no pictures in folders of classes here", where=path, mend="expected PATH/class/picture.jpg")

    def read(start: int, stop: int) -> Iterator[Row]:
        for id, file, label in found[start:stop]:
            yield Row(id, lambda file=file: store.read_bytes(file), (label,))  # type: ignore[misc]

    return Source(len(found), read, "folders")


def _parquet(path: str, columns: Columns) -> Source:
    """Encoded images, or paths of images in a column of text."""
    with whole(path), store.open_read(path) as file:
        schema = pq.ParquetFile(file).schema_arrow
    if columns.image in schema.names and str(schema.field(columns.image).type) in ("string", "large_string"):
        return _table(path, columns)
    table = PictureTable(path, columns)

    def read(start: int, stop: int) -> Iterator[Row]:
        for p in table.read(start, stop):
            yield Row(p.id, lambda data=p.data: data, p.labels)  # type: ignore[misc]

    return Source(table.rows, read, "parquet")


def _table(path: str, columns: Columns) -> Source:
    """A table with a column of image paths (relative to the table; ARCHIVE.tar/NAME lies in a tar) and one of labels: a
    list, or names separated by `|`."""
    rows = _table_rows(path)
    if not rows:
        raise DataError("an empty table", where=path)
    for column in (columns.image, columns.labels):
        name = "label" if column == "labels" and "label" in rows[0] else column
        if name not in rows[0]:
            raise DataError(f"no column {name!r}", where=path, mend=f"columns here: {', '.join(rows[0])}")
    base = path.rsplit("/", 1)[0] if "/" in path else "."

    def read(start: int, stop: int) -> Iterator[Row]:
        for row in rows[start:stop]:
            name = str(row[columns.image])
            file = name if name.startswith("/") or "://" in name else store.join(base, name)
            labels = row.get(columns.labels, row.get("label"))
            split = labels if isinstance(labels, list) else str(labels or "").split("|")
            id = str(row.get(columns.id, name))
            read_picture = read_inside if ".tar/" in file else store.read_bytes
            yield Row(id, partial(read_picture, file), tuple(str(v) for v in split if v))

    return Source(len(rows), read, "table")


def _table_rows(path: str) -> list[dict[str, object]]:
    if path.lower().endswith(".parquet"):
        with whole(path), store.open_read(path) as file:
            return list(pq.read_table(file).to_pylist())
    text = store.read_text(path)
    if path.lower().endswith(".csv"):
        return [dict(row) for row in csv.DictReader(io.StringIO(text))]
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as e:
                raise DataError(f"line {number} is not JSON: {e}", where=path) from e
    return rows


def _cifar(path: str, part: str, names: str | None) -> Source:
    """CIFAR's binary version: records of one (CIFAR-10) or two (coarse, fine) label bytes and 3,072 pixels."""
    files = _cifar_files(path)
    hundred = any(n.endswith(("train.bin", "test.bin")) for n in files)
    if not any(n.endswith(".bin") for n in files):
        raise _pickles(path)
    label_bytes = 2 if hundred else 1
    wanted = {"train": ("train.bin", "data_batch"), "test": ("test.bin", "test_batch")}[part]
    data = b"".join(files[n] for n in sorted(files) if n.endswith(".bin") and n.startswith(wanted))
    record = label_bytes + 3072
    if not data or len(data) % record:
        raise DataError(
            f"{len(data)} bytes are not whole records of {record}",
            where=path,
            mend="the archive was cut off; fetch it again",
        )
    meta = next((n for n in files if n.endswith(("fine_label_names.txt", "batches.meta.txt"))), None)
    listed = store.read_text(names) if names else files[meta].decode() if meta else ""
    labels = [line.strip().replace("_", " ") for line in listed.splitlines() if line.strip()]
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    if len(labels) <= int(records[:, label_bytes - 1].max()):
        raise DataError("the archive names no classes", where=path, mend="give --names FILE, one class a line")

    def read(start: int, stop: int) -> Iterator[Row]:
        for i in range(start, min(stop, len(records))):
            pixels = records[i, label_bytes:].reshape(3, 32, 32).transpose(1, 2, 0)
            label = labels[int(records[i, label_bytes - 1])]
            yield Row(f"{part}-{i:05d}", lambda p=pixels: _png(p), (label,))  # type: ignore[misc]

    return Source(len(records), read, "cifar")


def _cifar_files(path: str) -> dict[str, bytes]:
    """Base name → content. Members are read, never unpacked, so no path in the archive leads anywhere."""
    if not path.lower().endswith((".tar.gz", ".tgz", ".tar")):
        names = [n for n in store.listing(path) if n.endswith((".bin", ".txt"))]
        return {n: store.read_bytes(store.join(path, n)) for n in names}
    try:
        with store.open_read(path) as raw, tarfile.open(fileobj=raw) as archive:
            found = {}
            for member in archive:
                opened = archive.extractfile(member) if member.isfile() else None
                if opened is not None:
                    found[member.name.rsplit("/", 1)[-1]] = opened.read()
            return found
    except (tarfile.TarError, EOFError, OSError) as e:
        raise DataError(f"not a whole archive: {e}", where=path, mend="fetch it again") from e


def _pickles(path: str) -> DataError:
    return DataError(
        "this is CIFAR's Python version, whose files are pickles: reading one can run any code",
        where=path,
        mend="take the binary version (…-binary.tar.gz)",
    )


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=1)
    return file.getvalue()
