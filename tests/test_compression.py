"""Every compression gives what was compressed, whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from psdevise.data import text
from psdevise.errors import DataError

LINES = ["The pickup truck, a Truck!", "", "Zoë's café — naïve"]


@pytest.mark.parametrize("suffix", [".txt", ".gz", ".bz2", ".xz", ".zst"])
def test_every_compression_gives_the_same_lines(tmp_path: Path, suffix: str) -> None:
    data = "\n".join(LINES).encode()
    compress = {
        ".txt": bytes,
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zst": zstandard.ZstdCompressor().compress,
    }[suffix]
    path = tmp_path / f"text{suffix}"
    path.write_bytes(compress(data))
    assert list(text.lines(str(path))) == [line for line in LINES if line]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_truncated_file_is_an_error_not_a_short_text(tmp_path: Path, suffix: str) -> None:
    data = ("some words that do not repeat " * 50 + str(np.random.default_rng(0).random(5000).tolist())).encode()
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}[suffix]
    path = tmp_path / f"text{suffix}"
    whole = compress(data)
    for lost in (1, 400, len(whole) - 4):
        path.write_bytes(whole[:-lost])
        with pytest.raises(DataError, match="cut off"):
            list(text.lines(str(path)))


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_a_file_of_several_compressed_parts_is_read_whole(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    suffix = {"gzip": ".gz", "bz2": ".bz2", "lzma": ".xz"}.get(compress.__module__, ".zst")
    path = tmp_path / f"text{suffix}"
    long = " ".join(map(str, range(100_000)))
    path.write_bytes(compress(long.encode()) + compress(b" more\nand ") + compress(b"") + compress(b"the end"))
    assert list(text.lines(str(path))) == [f"{long} more", "and the end"]
