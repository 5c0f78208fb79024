"""gz, bz2, xz and zst as streams, by a file's name; never whole in memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import IO, Any

import zstandard

SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
# What reading a file that is cut off, broken or of another form may raise.
ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


def decompressed(path: str, raw: IO[bytes]) -> Any:
    """What is in `raw`, the file at `path`: as it is where the name ends in none of SUFFIXES.

    Raises:
        one of ERRORS, here or while it is read.
    """
    name = path.lower()
    if name.endswith(".gz"):
        return gzip.GzipFile(fileobj=raw)
    if name.endswith(".bz2"):
        return bz2.BZ2File(raw)
    if name.endswith(".xz"):
        return lzma.LZMAFile(raw)
    if name.endswith(".zst"):
        return io.BufferedReader(_Zstd(raw), 1 << 20)
    return raw


class _Zstd(io.RawIOBase):
    """Reads frames one after the other. zstandard's own reader takes a file that ends in the middle of one for whole.

    Raises:
        EOFError: the last frame has no end.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._frame, self._left, self._out = raw, _frame(), b"", memoryview(b"")
        self._begun = False  # whether some of this frame was read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._out:
            data = self._left or self._raw.read(1 << 16)
            if not data:
                if self._begun:
                    raise EOFError("compressed file ended before the end of its last frame")
                return 0
            self._out, self._begun = memoryview(self._frame.decompress(data)), True
            self._left = b""
            if self._frame.eof:
                self._frame, self._left, self._begun = _frame(), self._frame.unused_data, False
        size = min(len(buffer), len(self._out))
        buffer[:size], self._out = self._out[:size], self._out[size:]
        return size


def _frame() -> Any:
    # Windows up to 128 MiB, as `zstd --long=27` writes them.
    return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
