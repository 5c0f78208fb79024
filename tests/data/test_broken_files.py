"""Whatever is in a file, reading it gives what it holds, or a DataError with its name; never anything else."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from psdevise.data import features
from psdevise.data.corpus import Corpus
from psdevise.data.corpus import write as write_corpus
from psdevise.data.feed import FeedOptions, PictureFeed
from psdevise.data.pictures import PictureTable, crops_of, decode
from psdevise.data.prepare import PrepareOptions, prepare
from psdevise.data.text import Text
from psdevise.errors import DataError, PsdeviseError

FUZZ = settings(max_examples=60, derandomize=True, deadline=None)
SEEDS = st.integers(0, 2**32)


def damaged(data: bytes, r: Random) -> bytes:
    """Cut off, or some of its bits turned, or a part of it doubled, gone or overwritten."""
    found = bytearray(data)
    at = r.randrange(len(found))
    match r.randrange(5):
        case 0:
            del found[at:]
        case 1:
            for _ in range(r.choice([1, 1, 3, 20])):
                found[r.randrange(len(found))] ^= 1 << r.randrange(8)
        case 2:
            del found[at : at + r.randint(1, 50)]
        case 3:
            found[at:at] = found[at : at + r.randint(1, 50)]
        case _:
            found[at : at + 8] = r.choice([b"\xff" * 8, bytes(8), b"\x7f\xff\xff\xff" * 2])
    return bytes(found)


def error_of(action: Callable[[], object]) -> DataError | None:
    try:
        action()
    except DataError as e:
        return e
    return None


def encoded(form: str, mode: str = "RGB", size: tuple[int, int] = (12, 9)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form)
    return file.getvalue()


PICTURES = [encoded(form) for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO")]
PICTURES += [encoded("PNG", mode) for mode in ("1", "L", "P", "RGBA", "LA", "I;16")]
PICTURES += [encoded("TIFF", mode) for mode in ("CMYK", "F", "I")] + [encoded("JPEG", "CMYK")]


@pytest.mark.parametrize("data", PICTURES)
def test_every_mode_of_picture_becomes_rgb(data: bytes) -> None:
    assert decode(data, 8).shape == (8, 8, 3)
    assert crops_of(data, 8).shape == (10, 8, 8, 3)


@settings(FUZZ, max_examples=400)
@given(SEEDS)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_picture_is_a_picture_or_an_error(seed: int) -> None:
    r = Random(seed)
    data = damaged(r.choice(PICTURES), r)
    with suppress(DataError):
        assert decode(data, 8).shape == (8, 8, 3)


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it is as large as that, and is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = min(height, 2_000_000 // (width // 8 + 2) + 1)
    data = zlib.compress(bytes((width // 8 + 2) * rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (50_000_000, 1), (4_000_000, 1), (1, 4_000_000)])
@pytest.mark.filterwarnings("ignore")
def test_a_bomb_does_not_go_off(width: int, height: int) -> None:
    with pytest.raises(DataError):
        decode(bomb(width, height), 224)
    with pytest.raises(DataError):
        crops_of(bomb(width, height), 224)


# ------------------------------------------------------------------ tables


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("table") / "t.parquet"
    rows = [{"id": f"i{i}", "image": PICTURES[i % 3], "labels": ["ab"[i % 2]]} for i in range(12)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=5)
    return path.read_bytes()


def through_everything(path: Path) -> None:
    """Opens a table and reads all of it, as a run does."""
    found = PictureTable(str(path))
    found.ids()
    feed = PictureFeed(found, 8, {"a": 0, "b": 1}, FeedOptions(batch=4))
    kept = sum(len(targets) for _, targets in feed.read(0, found.rows, np.random.default_rng(0)))
    assert kept + len(feed.broken) == feed.usable  # what is left out is counted


@settings(FUZZ, max_examples=300)
@given(seed=SEEDS)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_table_is_read_or_refused(table: bytes, tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    path.write_bytes(damaged(table, Random(seed)))
    error = error_of(lambda: through_everything(path))
    assert error is None or "damaged.parquet" in error.where


@pytest.mark.parametrize(
    "columns",
    [
        {"image": [1, 2], "labels": ["a", "b"]},
        {"image": ["text", "more"], "labels": ["a", "b"]},
        {"image": [None, None], "labels": ["a", "b"]},
        {"image": [b"", b"x"], "labels": [1.5, None]},
        {"image": [[b"x"], []], "labels": [[], [None]]},
        {"image": [{"path": "x"}, {"path": "y"}], "labels": [["a"], ["b"]]},
        {"image": [], "labels": []},
    ],
    ids=str,
)
def test_columns_of_other_kinds_are_broken_pictures_or_refused(
    tmp_path: Path, columns: dict[str, list[object]]
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with suppress(DataError):
        through_everything(tmp_path / "t.parquet")
    with pytest.raises(PsdeviseError):
        prepare(PrepareOptions(str(tmp_path / "t.parquet"), str(tmp_path / "out"), processes=1), lambda done, of: None)


@FUZZ
@given(seed=SEEDS)
def test_damaged_features_and_corpora_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    r, folder = Random(seed), tmp_path_factory.getbasetemp()
    path = folder / "features.parquet"
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    features.write(str(path), [features.Features(list("abcd"), values, [("x",)] * 4)], 3)
    path.write_bytes(damaged(path.read_bytes(), r))
    write_corpus(str(folder / "corpus"), iter([[np.arange(5, dtype=np.int32)] * 6]))
    part = next((folder / "corpus").iterdir())
    part.write_bytes(damaged(part.read_bytes(), r))
    reads: list[Callable[[], object]] = [
        lambda: features.read(str(path)),
        lambda: list(Corpus(str(folder / "corpus")).read(0, 6)),
    ]
    for read in reads:
        with suppress(DataError):
            read()


# ------------------------------------------------------------------ text

LINES = "".join(f"the {i} quick brown fôx jumps\n" for i in range(200)).encode()
DUMP = b"<mediawiki xmlns='http://www.mediawiki.org/xml/export-0.10/'>" + b"".join(
    b"<page><title>T%d</title><ns>0</ns><id>%d</id><revision><text>''words'' [[of|in]] {{x}}</text></revision></page>"
    % (i, i)
    for i in range(20)
)
DUMP += b"</mediawiki>"


def tables_of_text() -> dict[str, bytes]:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": ["a b c\nd"] * 50}), file)
    return {
        ".parquet": file.getvalue(),
        ".csv": b"id,text\n" + b'1,"some words, more"\n' * 50,
        ".jsonl": b'{"text": "some words"}\n' * 50,
    }


TEXTS = {
    ".txt": LINES,
    ".gz": gzip.compress(LINES),
    ".bz2": bz2.compress(LINES),
    ".xz": lzma.compress(LINES),
    ".zst": zstandard.compress(LINES),
    ".xml": DUMP,
    ".xml.bz2": bz2.compress(DUMP),
} | tables_of_text()


@settings(FUZZ, max_examples=300)
@given(seed=SEEDS, suffix=st.sampled_from(sorted(TEXTS)))
def test_a_damaged_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, seed: int, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    path.write_bytes(damaged(TEXTS[suffix], Random(seed)))
    error = error_of(lambda: list(Text(str(path), "text")))
    assert error is None or "damaged" in error.where


def test_a_column_that_is_no_text_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="holds int64, not text"):
        list(Text(str(tmp_path / "t.parquet"), "text"))
