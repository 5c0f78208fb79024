from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from psdevise.data.feed import FeedOptions, PictureFeed, even_batches, shift_and_flip
from psdevise.data.pictures import Columns, PictureTable, decode
from psdevise.data.prepare import PrepareOptions, prepare, shared
from psdevise.errors import ConfigError, DataError, TooManyBroken

NOTHING = lambda done, of: None  # noqa: E731


def png(value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value % 256, value // 256, 7)).save(file, "PNG")
    return file.getvalue()


def folder_of_classes(path: Path, classes: int = 3, each: int = 20) -> Path:
    for c in range(classes):
        (path / f"class_{c}").mkdir(parents=True)
        for i in range(each):
            (path / f"class_{c}" / f"{i}.png").write_bytes(png(c * each + i))
    return path


def test_decode_fits_any_picture_into_the_square() -> None:
    for mode in ("RGB", "L", "RGBA", "P"):
        image = Image.new("RGB", (20, 12), (200, 100, 50)).convert(mode)
        file = io.BytesIO()
        image.save(file, "PNG")
        found = decode(file.getvalue(), 8)
        assert (found.shape, found.dtype) == ((8, 8, 3), np.uint8)
    same = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(same).save(file, "PNG")
    np.testing.assert_array_equal(decode(file.getvalue(), 8), same)


@pytest.mark.parametrize("data", [b"", b"not a picture", png(3)[:40]])
def test_broken_bytes_are_an_error(data: bytes) -> None:
    with pytest.raises(DataError, match="not a readable picture"):
        decode(data, 8)


def test_a_folder_per_class_becomes_fair_samples(tmp_path: Path) -> None:
    source = folder_of_classes(tmp_path / "in", 4, 50)
    out = tmp_path / "out"
    manifest = prepare(PrepareOptions(str(source), str(out), part_rows=60, group_rows=20), NOTHING)
    assert manifest["rows"] == 200
    assert manifest["classes"] == {f"class {c}": 50 for c in range(4)}
    table = PictureTable(str(out))
    assert sorted(table.ids()) == sorted(f"class_{c}/{i}.png" for c in range(4) for i in range(50))
    # Every quarter of the order holds every class: nothing of the folders' order is left.
    for start in range(0, 200, 50):
        counts = Counter(row[0] for row in table.labels()[start : start + 50])
        assert set(counts) == {f"class {c}" for c in range(4)}
        assert max(counts.values()) < 25
    for picture in table.read(30, 70):
        c, i = picture.id.split("/")
        assert picture.labels == (c.replace("_", " "),)
        assert decode(picture.data, 8)[0, 0, 0] == int(c[-1]) * 50 + int(i.removesuffix(".png"))


def test_an_interrupted_conversion_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    source = folder_of_classes(tmp_path / "in", 2, 50)
    options = PrepareOptions(str(source), str(tmp_path / "a"), part_rows=10, processes=1)
    whole = prepare(PrepareOptions(str(source), str(tmp_path / "b"), part_rows=10, processes=1), NOTHING)
    calls = 0

    def stop_half_way(done: int, of: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(options, stop_half_way)
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "a").glob("part-*.parquet")}
    assert 0 < len(kept) < 10
    with pytest.raises(DataError):
        PictureTable(str(tmp_path / "a" / "nothing.parquet"))
    resumed = prepare(options, NOTHING)
    assert resumed["files"] == whole["files"]
    for name, time in kept.items():
        assert (tmp_path / "a" / name).stat().st_mtime_ns == time


def test_broken_pictures_are_skipped_listed_and_too_many_stop_the_job(tmp_path: Path) -> None:
    source = folder_of_classes(tmp_path / "in", 2, 50)
    (source / "class_0" / "7.png").write_bytes(b"broken")
    manifest = prepare(PrepareOptions(str(source), str(tmp_path / "a")), NOTHING)
    assert list(manifest["skipped"]) == ["class_0/7.png"]
    assert manifest["rows"] == 99
    with pytest.raises(TooManyBroken, match=r"class_0/7\.png"):
        prepare(PrepareOptions(str(source), str(tmp_path / "b"), max_broken=0.001), NOTHING)
    assert not (tmp_path / "b" / "manifest.json").exists()


def test_repeated_pictures_are_counted_inside_and_between_sets(tmp_path: Path) -> None:
    a, b = folder_of_classes(tmp_path / "a", 2, 5), folder_of_classes(tmp_path / "b", 1, 3)
    (a / "class_1" / "twin.png").write_bytes(png(0))  # as class_0/0.png
    first = prepare(PrepareOptions(str(a), str(tmp_path / "pa")), NOTHING)
    prepare(PrepareOptions(str(b), str(tmp_path / "pb")), NOTHING)
    assert first["twins"] == {"repeated": 1, "contradictory": 1}
    assert shared(str(tmp_path / "pa"), str(tmp_path / "pb"))["shared"] == 3


def test_tables_of_paths(tmp_path: Path) -> None:
    folder_of_classes(tmp_path / "in", 1, 3)
    rows = [{"path": f"in/class_0/{i}.png", "labels": ["x", f"y{i}"]} for i in range(3)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"in/class_0/{i}.png,x|y{i}\n" for i in range(3)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    for name, labels in (("t.jsonl", "labels"), ("t.csv", "label"), ("t.parquet", "labels")):
        options = PrepareOptions(
            str(tmp_path / name), str(tmp_path / f"out-{name}"), image_column="path", labels_column=labels
        )
        assert prepare(options, NOTHING)["classes"] == {"x": 3, "y0": 1, "y1": 1, "y2": 1}


def cifar_archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_cifars_binary_archive(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), np.uint8)
    records = b"".join(bytes([9, i % 2]) + pixels[i].tobytes() for i in range(6))
    members = {
        "cifar-100-binary/train.bin": records,
        "cifar-100-binary/fine_label_names.txt": b"apple\naquarium_fish\n",
        "../../escape.bin": b"x",  # is read by its base name and never unpacked
    }
    path = cifar_archive(tmp_path / "c.tar.gz", members)
    manifest = prepare(PrepareOptions(str(path), str(tmp_path / "out")), NOTHING)
    assert manifest["classes"] == {"apple": 3, "aquarium fish": 3}
    for picture in PictureTable(str(tmp_path / "out")).read(0, 6):
        np.testing.assert_array_equal(decode(picture.data, 32), pixels[int(picture.id[-1])].transpose(1, 2, 0))
    assert not (tmp_path.parent / "escape.bin").exists()


def test_cifars_pickles_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = cifar_archive(tmp_path / "c.tar.gz", {"cifar-100-python/train": pickle.dumps({"data": 1})})
    with pytest.raises(DataError, match="pickles"):
        prepare(PrepareOptions(str(path), str(tmp_path / "out")), NOTHING)


@pytest.mark.parametrize("kind", ["cut archive", "cut records", "nothing", "missing", "cut parquet"])
def test_unusable_sources_are_clear_errors(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "c.tar.gz"
    if kind == "cut archive":
        cifar_archive(path, {"train.bin": bytes(3074 * 40)})
        path.write_bytes(path.read_bytes()[:100])
    elif kind == "cut records":
        cifar_archive(path, {"train.bin": bytes(3073)})
    elif kind == "nothing":
        path = tmp_path / "empty"
        path.mkdir()
    elif kind == "missing":
        path = tmp_path / "missing.parquet"
    else:
        folder_of_classes(tmp_path / "in", 1, 3)
        prepare(PrepareOptions(str(tmp_path / "in"), str(tmp_path / "p")), NOTHING)
        path = tmp_path / "p" / "part-00000.parquet"
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(Exception, match=path.name) as caught:
        prepare(PrepareOptions(str(path), str(tmp_path / "out")), NOTHING)
    assert caught.type.__module__ == "psdevise.errors"


def test_a_folder_with_another_conversion_is_left_alone(tmp_path: Path) -> None:
    source = folder_of_classes(tmp_path / "in", 1, 3)
    prepare(PrepareOptions(str(source), str(tmp_path / "out")), NOTHING)
    with pytest.raises(ConfigError, match="another conversion"):
        prepare(PrepareOptions(str(source), str(tmp_path / "out"), seed=1), NOTHING)


def table_of(tmp_path: Path) -> PictureTable:
    rows = [{"image": png(i), "label": "ab"[i % 2] if i % 5 else "c"} for i in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet", row_group_size=7)
    return PictureTable(str(tmp_path / "t.parquet"), Columns())


def test_the_feed_reads_wanted_classes_once_and_the_same_from_the_same_seed(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    keep = np.arange(40) < 35
    feed = PictureFeed(table, 8, {"a": 0, "b": 1}, FeedOptions(batch=6, augment="none"), keep)

    def read(seed: int) -> list[tuple[int, tuple[int, ...]]]:
        found = []
        for pixels, targets in feed.read(3, 38, np.random.default_rng(seed)):
            assert len(pixels) <= 6
            found += [(int(p[0, 0, 0]), t) for p, t in zip(pixels, targets, strict=True)]
        return found

    expected = [(i, (i % 2,)) for i in range(3, 35) if i % 5]
    assert sorted(read(0)) == expected
    assert read(0) == read(0) != read(1)


@given(st.integers(0, 500), st.integers(1, 40))
def test_batches_are_even_and_lose_nothing(n: int, batch: int) -> None:
    parts = even_batches(np.arange(n), batch)
    assert [int(r) for p in parts for r in p] == list(range(n))
    sizes = {len(p) for p in parts}
    assert not sizes or (max(sizes) <= batch and max(sizes) - min(sizes) <= 1)


def test_shift_and_flip_moves_within_the_padding() -> None:
    rng = np.random.default_rng(0)
    pictures = np.zeros((200, 8, 8, 3), np.uint8)
    pictures[:, 3, 3] = 255
    moved = shift_and_flip(pictures, 2, rng)
    _, ys, xs = np.nonzero(moved[..., 0])
    assert len(ys) == 200
    assert set(ys) == {1, 2, 3, 4, 5}
    assert set(xs) == {1, 2, 3, 4, 5, 6}  # 3 ± 2, or mirrored: 7 − (3 ± 2)


def test_large_pictures_are_cropped_and_resized(tmp_path: Path) -> None:
    rows = [{"image": png(i, (40, 30)), "label": "a"} for i in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    feed = PictureFeed(PictureTable(str(tmp_path / "t.parquet")), 16, {"a": 0}, FeedOptions(augment="resize"))
    (pixels, _), *rest = feed.read(0, 6, np.random.default_rng(0))
    assert not rest
    assert pixels.shape == (6, 16, 16, 3)
    assert sorted(pixels[:, 8, 8, 0].tolist()) == list(range(6))
