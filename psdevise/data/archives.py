"""Pictures inside uncompressed tar archives, as ImageNet comes: read where they lie, never unpacked.

Three layouts, by the names inside: class folders in an archive (train/n01440764/x.JPEG), class archives in an archive
(ILSVRC2012_img_train.tar: n01440764.tar), and class archives in a folder (the 2011 release). The class is the folder's
or the inner archive's name.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

from psdevise import store
from psdevise.errors import DataError


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


@lru_cache(maxsize=4)
def members(path: str, suffixes: tuple[str, ...]) -> tuple[Member, ...]:
    """All pictures of an archive, or of a folder of archives, in the order they stand there.

    Args:
        suffixes: of pictures' names, in lower case; other files are left out.

    Raises:
        DataError: not a whole archive; a name that leads out of it; a picture in no class.
    """
    if not path.lower().endswith(".tar"):
        names = [n for n in store.listing(path) if n.lower().endswith(".tar")]
        return tuple(m for n in names for m in _archive(store.join(path, n), suffixes, n[:-4]))
    return tuple(_archive(path, suffixes, None))


def read_inside(path: str) -> bytes:
    """The bytes of a file in an archive, `ARCHIVE.tar/NAME`: so that a table of paths may name pictures in one.

    Raises:
        DataError: no such name there.
    """
    archive, name = path.split(".tar/", 1)
    archive += ".tar"
    try:
        offset, size = _places(archive)[name]
    except KeyError:
        raise DataError(f"no {name!r} in this archive", where=archive, mend="check the table's paths") from None
    return Member(name, "", archive, offset, size).read()


@lru_cache(maxsize=4)
def _places(path: str) -> dict[str, tuple[int, int]]:
    """name → offset and size of every file of an archive."""
    try:
        with store.open_read(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            return {member.name: (member.offset_data, member.size) for member in archive if member.isfile()}
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
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if ".." in parts or member.name.startswith("/"):
                raise DataError(
                    f"{member.name!r} leads out of the archive", where=path, mend="do not trust this archive"
                )
            if not member.isfile():  # folders; links lead elsewhere
                continue
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
            # A tarfile keeps every header it has read; of a million pictures that is a gigabyte.
            archive.members = []  # type: ignore[attr-defined]
