"""The image table: Parquet of encoded pictures and their labels, read by ranges of rows.

A table is one Parquet file, or a folder of them that `psdevise data images` has prepared. Columns: an id
(where it is missing, the row number), the encoded bytes, and labels (a single label is a list of one).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from psdevise import store
from psdevise.errors import DataError

SOURCE_ROW = "source_row"


@dataclass(frozen=True)
class Columns:
    id: str = "id"
    image: str = "image"
    labels: str = "labels"


@dataclass(frozen=True)
class Picture:
    """`data` is the encoded picture; `row` its place in the table."""

    id: str
    data: bytes
    labels: tuple[str, ...]
    row: int


class PictureTable:
    """
    Raises:
        DataError: no such file, a truncated one, or a missing column.
    """

    def __init__(self, path: str, columns: Columns | None = None) -> None:
        self.path, self.columns = path, columns or Columns()
        self._files: list[pq.ParquetFile] = []
        self._label_column = self.columns.labels
        for name in parts(path):
            with whole(name):
                file = pq.ParquetFile(store.open_read(name))
                if sum(_rows_of_groups(file)) != file.metadata.num_rows or min(_rows_of_groups(file), default=0) < 0:
                    raise pa.ArrowInvalid("its row groups do not add up")
            self._check_columns(file.schema_arrow.names, name)
            self._files.append(file)
        groups = [rows for f in self._files for rows in _rows_of_groups(f)]
        self.row_groups: tuple[int, ...] = tuple(groups)
        self.rows = sum(groups)

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the content does: SHA-256 over the files'."""
        return store.key_of([store.sha256(name) for name in parts(self.path)])

    @cached_property
    def _labels(self) -> list[tuple[str, ...]]:
        return [_as_labels(v) for v in self._column(self._label_column)]

    def labels(self) -> list[tuple[str, ...]]:
        """Each row's labels, without reading the pictures."""
        return self._labels

    def ids(self) -> list[str]:
        if self.columns.id not in self._files[0].schema_arrow.names:
            return [str(row) for row in range(self.rows)]
        return [str(v) for v in self._column(self.columns.id)]

    def source_rows(self) -> npt.NDArray[np.int64]:
        """Each row's number in the table it was prepared from; its own where it was not."""
        if SOURCE_ROW not in self._files[0].schema_arrow.names:
            return np.arange(self.rows, dtype=np.int64)
        return np.asarray(self._column(SOURCE_ROW), np.int64)

    def read(self, start: int, stop: int) -> list[Picture]:
        """Rows [start, stop).

        Raises:
            DataError: the file's bytes are broken.
        """
        pictures: list[Picture] = []
        wanted = [self._label_column, self.columns.image]
        base = 0
        for file, group, rows in self._groups():
            if base + rows > start and base < stop:
                a, b = max(start - base, 0), min(stop - base, rows)
                with whole(f"{self.path}, row group {group}"):
                    with_id = self.columns.id in file.schema_arrow.names
                    table = file.read_row_group(group, columns=wanted + ([self.columns.id] if with_id else []))
                    part = table.slice(a, b - a)
                    data = part.column(self.columns.image).to_pylist()
                    labels = part.column(self._label_column).to_pylist()
                    ids = part.column(self.columns.id).to_pylist() if with_id else range(base + a, base + b)
                    pictures += [
                        Picture(str(i), _bytes(d), _as_labels(v), base + a + n)
                        for n, (i, d, v) in enumerate(zip(ids, data, labels, strict=True))
                    ]
            base += rows
        return pictures

    def _groups(self) -> Iterator[tuple[pq.ParquetFile, int, int]]:
        for file in self._files:
            for group in range(file.metadata.num_row_groups):
                yield file, group, file.metadata.row_group(group).num_rows

    def _column(self, name: str) -> list[Any]:
        with whole(self.path):
            found = [v for file in self._files for v in file.read(columns=[name]).column(0).to_pylist()]
            if len(found) != self.rows:
                raise pa.ArrowInvalid(f"{len(found)} values of {name!r} for {self.rows} rows")
            return found

    def _check_columns(self, names: list[str], where: str) -> None:
        if self._label_column not in names and "label" in names:
            self._label_column = "label"
        for column in (self.columns.image, self._label_column):
            if column not in names:
                raise DataError(
                    f"no column {column!r}",
                    where=where,
                    mend=f"columns here: {', '.join(names)}; name yours in data.images",
                )


def parts(path: str) -> list[str]:
    """The Parquet files of a table.

    Raises:
        DataError: there are none.
    """
    if path.endswith(".parquet"):
        if not store.exists(path):
            raise DataError("no such file", where=path, mend="check the path")
        return [path]
    found = [store.join(path, name) for name in store.listing(path) if name.endswith(".parquet")]
    if not found:
        raise DataError("no Parquet file here", where=path, mend="give a .parquet file or a prepared folder")
    return found


def decode(data: bytes, size: int) -> npt.NDArray[np.uint8]:
    """uint8 RGB [size, size, 3]: the shorter side is resized to `size` (bilinear), then the centre is cut
    out; grey and palette pictures become RGB.

    Raises:
        DataError: the bytes are no picture, or a broken one.
    """
    image = open_rgb(data)
    if image.size != (size, size):
        width, height = scaled(image, size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image, np.uint8)


def crops_of(data: bytes, size: int) -> npt.NDArray[np.uint8]:
    """uint8 [10, size, size, 3]: the centre and the four corners of the picture, whose shorter side is resized to
    `size` · 256/224, and their mirror images (Krizhevsky et al. 2012, section 4.1: 224 of 256 pixels)."""
    side = round(size * 256 / 224)
    image = open_rgb(data)
    width, height = scaled(image, side)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    # The corners are those of the central square, as there.
    left, top, free = (width - side) // 2, (height - side) // 2, side - size
    corners = [(left, top), (left + free, top), (left, top + free), (left + free, top + free)]
    places = [(left + free // 2, top + free // 2), *corners]
    pixels = np.asarray(image, np.uint8)
    five = np.stack([pixels[y : y + size, x : x + size] for x, y in places])
    return np.concatenate([five, five[:, :, ::-1]])


def open_rgb(data: bytes) -> Image.Image:
    """The whole picture in RGB.

    Raises:
        DataError: the bytes are no picture, or a broken one.
    """
    try:
        image = Image.open(io.BytesIO(data))
        found = image.convert("RGB")
    except Exception as e:  # each format's decoder raises what it likes
        raise DataError(f"not a readable picture: {e}") from e
    if not min(found.size):
        raise DataError("not a readable picture: it has no pixels")
    return found


def scaled(image: Image.Image, shorter: int) -> tuple[int, int]:
    """Width and height of the picture when its shorter side has become `shorter` pixels.

    Raises:
        DataError: a strip so narrow that it would become larger than Pillow's limit for a picture.
    """
    scale = shorter / min(image.size)
    width, height = (max(shorter, round(side * scale)) for side in image.size)
    if width * height > (Image.MAX_IMAGE_PIXELS or float("inf")):
        raise DataError(f"a strip of {image.size[0]} × {image.size[1]} pixels")
    return width, height


@contextmanager
def whole(where: str) -> Iterator[None]:
    """Turns what pyarrow raises on a broken file into a DataError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as e:
        mend = "it was cut off, changed, or is of another format"
        raise DataError(f"not a whole Parquet file: {e}", where=where, mend=mend) from e


def _rows_of_groups(file: pq.ParquetFile) -> list[int]:
    return [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]


def classes(tables: Sequence[PictureTable]) -> tuple[str, ...]:
    """All labels of all tables, sorted."""
    return tuple(sorted({name for table in tables for row in table.labels() for name in row}))


def _bytes(value: Any) -> bytes:
    # Hugging Face's image tables hold {"bytes": …, "path": …}.
    found = value.get("bytes") if isinstance(value, dict) else value
    return found or b""


def _as_labels(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, (list, tuple)):
        return tuple(str(v) for v in value)
    return (str(value),)
