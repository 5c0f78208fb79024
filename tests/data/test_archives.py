"""Pictures in tars: ImageNet's layouts, and what an archive may not do."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from psdevise.data import archives
from psdevise.data.pictures import PictureTable
from psdevise.data.prepare import PrepareOptions, prepare
from psdevise.data.sources import open_source
from psdevise.errors import DataError
from tests.data.test_pictures import NOTHING, png

Files = dict[str, bytes]


def tar(files: Files) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def pictures(c: int) -> Files:
    return {f"n0000000{c}_{i}.JPEG": png(10 * c + i) for i in range(4)}


def layouts(folder: Path) -> list[Path]:
    """The same eight pictures: class folders in a tar, class tars in a tar, class tars in a folder, class folders."""
    classes = {f"n0000000{c}": pictures(c) for c in (1, 2)}
    (folder / "folders.tar").write_bytes(
        tar({f"train/{c}/{n}": d for c, files in classes.items() for n, d in files.items()} | {"train/README": b"x"})
    )
    (folder / "nested.tar").write_bytes(tar({f"{c}.tar": tar(files) for c, files in classes.items()}))
    for name, files in classes.items():
        (folder / "tars").mkdir(exist_ok=True)
        (folder / "tars" / f"{name}.tar").write_bytes(tar(files))
        (folder / "plain" / name).mkdir(parents=True)
        for file, data in files.items():
            (folder / "plain" / name / file).write_bytes(data)
    return [folder / "folders.tar", folder / "nested.tar", folder / "tars", folder / "plain"]


def test_all_layouts_hold_the_same_pictures(tmp_path: Path) -> None:
    found = []
    for path in layouts(tmp_path):
        source = open_source(str(path))
        found.append({row.id: (row.data(), row.labels) for row in source.read(0, source.rows)})
    assert len(found[0]) == 8
    assert found[0]["n00000002/n00000002_3.JPEG"] == (png(23), ("n00000002",))
    assert all(each == found[0] for each in found)


def test_tars_are_prepared_by_several_processes(tmp_path: Path) -> None:
    path = layouts(tmp_path)[1]
    manifest = prepare(PrepareOptions(str(path), str(tmp_path / "out"), part_rows=3, processes=2), NOTHING)
    assert manifest["classes"] == {"n00000001": 4, "n00000002": 4}
    assert manifest["skipped"] == {}
    assert PictureTable(str(tmp_path / "out")).rows == 8


@pytest.mark.parametrize("name", ["../n1/x.jpg", "/n1/x.jpg", "n1/../../x.jpg"])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(tar({"n1/good.jpg": png(1), name: png(2)}))
    with pytest.raises(DataError, match="leads out of the archive"):
        open_source(str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["bad.tar"]


def test_links_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(png(9))
    with tarfile.open(tmp_path / "linked.tar", "w") as archive:
        (tmp_path / "x.png").write_bytes(png(1))
        archive.add(tmp_path / "x.png", "n1/x.png")
        for kind, name in ((tarfile.SYMTYPE, "n1/soft.png"), (tarfile.LNKTYPE, "n1/hard.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "../../secret"
            archive.addfile(info)
    source = open_source(str(tmp_path / "linked.tar"))
    assert [row.id for row in source.read(0, 9)] == ["n1/x.png"]


def test_what_is_no_archive_of_classes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "flat.tar"
    path.write_bytes(tar({"ILSVRC2012_val_00000001.JPEG": png(1)}))
    with pytest.raises(DataError, match="is in no class"):
        open_source(str(path))
    whole = tar({"n1/a.jpg": png(1), "n1/b.jpg": png(2)})
    (tmp_path / "cut.tar").write_bytes(whole[: 512 + 100])
    with pytest.raises(DataError, match=r"not a whole archive|cut off"):
        next(open_source(str(tmp_path / "cut.tar")).read(0, 1)).data()
    (tmp_path / "other.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match="not a whole archive"):
        open_source(str(tmp_path / "other.tar"))


def test_a_flat_archive_takes_a_table_of_labels(tmp_path: Path) -> None:
    (tmp_path / "val.tar").write_bytes(tar({"val_1.JPEG": png(1), "val_2.JPEG": png(2)}))
    lines = [f"val.tar/val_{i}.JPEG,n0000000{i}" for i in (1, 2, 3)]
    (tmp_path / "val.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    options = PrepareOptions(
        str(tmp_path / "val.csv"),
        str(tmp_path / "out"),
        image_column="path",
        labels_column="label",
        max_broken=0.5,
        processes=1,
    )
    manifest = prepare(options, NOTHING)
    assert manifest["classes"] == {"n00000001": 1, "n00000002": 1}
    assert manifest["skipped"] == {"val.tar/val_3.JPEG": "no 'val_3.JPEG' in this archive"}


def test_a_large_archive_is_listed_in_little_memory(tmp_path: Path) -> None:
    """20,000 pictures: their headers would be 30 MB of Python objects, and what is kept of them 5."""
    n, nothing = 20_000, b"\0" * 512
    with (tmp_path / "large.tar").open("wb") as file:
        for i in range(n):
            info = tarfile.TarInfo(f"n{i % 1000:08d}/picture_{i:06d}.JPEG")
            info.size = 512
            file.write(info.tobuf())
            file.write(nothing)
        file.write(2 * nothing)
    for listed in (archives.members, archives._places):
        listed.cache_clear()
    path, arrow = str(tmp_path / "large.tar"), pa.total_allocated_bytes()
    tracemalloc.start()
    found = archives.members(path, (".jpeg",))
    by_name = archives._places(path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6
    assert kept < 5e5
    assert pa.total_allocated_bytes() - arrow < 2 * 100 * n
    assert len(found) == len(by_name) == n
    assert [m.id for m in found.read(n - 1, n)] == [f"n{(n - 1) % 1000:08d}/picture_{n - 1:06d}.JPEG"]
    for i in (0, 4095, 4096, n - 1):
        (one,) = found.read(i, i + 1)
        again = by_name.find(one.id)
        assert again is not None
        assert (again.offset, again.size) == (one.offset, one.size) == (1024 * i + 512, 512)
    assert by_name.find("n00000000/none.JPEG") is None


def test_of_a_name_that_stands_twice_the_last_one_counts(tmp_path: Path) -> None:
    """As when an archive is unpacked: what was appended to it replaces the first."""
    for part, mode in ((1, "w"), (2, "a")):
        with tarfile.open(tmp_path / "twice.tar", mode) as archive:  # type: ignore[call-overload]
            (tmp_path / "a.png").write_bytes(png(part))
            archive.add(tmp_path / "a.png", "a.png")
    assert archives.read_inside(str(tmp_path / "twice.tar/a.png")) == png(2)
