"""Pictures inside uncompressed tar archives, as ImageNet comes: read where they lie, never unpacked.

Three layouts, by the names inside: class folders in an archive (train/n01440764/x.JPEG), class archives in an archive
(ILSVRC2012_img_train.tar: n01440764.tar), and class archives in a folder (the 2011 release). The class is the folder's
or the inner archive's name.

What stands in them is listed in Arrow's columns, about 60 bytes a picture, and headers are let go as they are read: the
21K release has 14 million.
"""

from __future__ import annotations

import tarfile
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from typing import IO

import pyarrow as pa

from psdevise import store
from psdevise.errors import DataError

AT_A_TIME = 4096  # members that are Python objects
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("archive", pa.dictionary(pa.int32(), pa.string())),
        ("offset", pa.int64()),
        ("size", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Member:
    """A picture: `size` bytes at `offset` of the file `archive`."""

    id: str
    label: str
    archive: str
    offset: int
    size: int

    def read(self) -> bytes:
        with store.open_read(self.archive) as file, store.explained(self.archive):
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise DataError("the archive was cut off", where=f"{self.archive}: {self.id}", mend="fetch it again")
        return data


@dataclass(frozen=True)
class Members:
    """Pictures in an order of their own, as columns."""

    table: pa.Table

    @staticmethod
    def of(found: Iterator[Member]) -> Members:
        parts = []
        while held := [asdict(member) for member in islice(found, AT_A_TIME)]:
            parts.append(pa.RecordBatch.from_pylist(held, SCHEMA))
        return Members(pa.Table.from_batches(parts, SCHEMA).unify_dictionaries().combine_chunks())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def read(self, start: int, stop: int) -> Iterator[Member]:
        for first in range(start, stop, AT_A_TIME):
            for row in self.table.slice(first, min(AT_A_TIME, stop - first)).to_pylist():
                yield Member(**row)

    def by_id(self) -> Members:
        return Members(self.table.sort_by("id"))

    def find(self, id: str) -> Member | None:
        """The last one of this id, among those of `by_id`."""
        ids = self.table.column("id")
        place = bisect_right(range(len(self)), id, key=lambda i: ids[i].as_py())
        found = next(self.read(place - 1, place), None) if place else None
        return found if found is not None and found.id == id else None


@lru_cache(maxsize=4)
def members(path: str, suffixes: tuple[str, ...]) -> Members:
    """All pictures of an archive, or of a folder of archives, in the order they stand there.

    Args:
        suffixes: of pictures' names, in lower case; other files are left out.

    Raises:
        DataError: not a whole archive; a name that leads out of it; a picture in no class.
    """
    if not path.lower().endswith(".tar"):
        names = [n for n in store.listing(path) if n.lower().endswith(".tar")]
        return Members.of(m for n in names for m in _archive(store.join(path, n), suffixes, n[:-4]))
    return Members.of(_archive(path, suffixes, None))


def read_inside(path: str) -> bytes:
    """The bytes of a file in an archive, `ARCHIVE.tar/NAME`: so that a table of paths may name pictures in one.

    Raises:
        DataError: no such name there.
    """
    archive, name = path.split(".tar/", 1)
    archive += ".tar"
    member = _places(archive).find(name)
    if member is None:
        raise DataError(f"no {name!r} in this archive", where=archive, mend="check the table's paths")
    return member.read()


@lru_cache(maxsize=4)
def _places(path: str) -> Members:
    """Every file of an archive, by its name."""
    try:
        with store.open_read(path) as file:
            return Members.of(
                Member(member.name, "", path, member.offset_data, member.size) for _, member in _files(file)
            ).by_id()
    except (tarfile.TarError, EOFError) as e:
        raise DataError(f"not a whole archive: {e}", where=path, mend="fetch it again") from e


def _archive(path: str, suffixes: tuple[str, ...], label: str | None) -> Iterator[Member]:
    try:
        with store.open_read(path) as file:
            yield from _inside(path, file, 0, suffixes, label)
    except (tarfile.TarError, EOFError) as e:
        raise DataError(f"not a whole archive: {e}", where=path, mend="fetch it again") from e


def _inside(path: str, file: IO[bytes], begin: int, suffixes: tuple[str, ...], label: str | None) -> Iterator[Member]:
    """The pictures of the archive that is `file`, which begins at that byte of `path`."""
    for archive, member in _files(file):
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if ".." in parts or member.name.startswith("/"):
            raise DataError(f"{member.name!r} leads out of the archive", where=path, mend="do not trust this archive")
        if member.name.lower().endswith(".tar"):
            inner = archive.extractfile(member)
            assert inner is not None
            yield from _inside(path, inner, begin + member.offset_data, suffixes, parts[-1][:-4])  # type: ignore[arg-type]
        elif member.name.lower().endswith(suffixes):
            own = label if label is not None else parts[-2] if len(parts) > 1 else None
            if own is None:
                raise DataError(
                    f"{member.name!r} is in no class", where=path, mend="give a table of paths and labels: see docs"
                )
            name = "/".join([own, parts[-1]])
            yield Member(name, own.replace("_", " "), path, begin + member.offset_data, member.size)


def _files(file: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """An archive and its files, one after the other; not its folders, nor its links, which lead elsewhere."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if member.isfile():
                yield archive, member
            # A tarfile keeps every header it has read; of a million pictures that is a gigabyte.
            archive.members = []  # type: ignore[attr-defined]
