"""`psdevise data images`: pictures of any source as a folder of Parquet parts in a shuffled order.

    OUT/part-00000.parquet …    each a fair sample of the whole set, in row groups
    OUT/manifest.json           written last: counts, classes, checksums, what was skipped, repeated pictures

The order is one seeded permutation of the source's rows; part p holds the rows whose place falls into it.
Parts are written by several processes, each on its own, so a conversion that was interrupted goes on with
the parts that are missing. Memory holds one part per process.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from psdevise import store
from psdevise.config import option
from psdevise.data.pictures import SOURCE_ROW, Columns, open_rgb, scaled
from psdevise.data.processes import pool
from psdevise.data.sources import open_source
from psdevise.errors import ConfigError, DataError, PsdeviseError, TooManyBroken

FORMAT = 1
HASHES = "pixels.hashes"  # of all pictures, to find those that two sets share
WINDOW = 1000  # rows that are read at a time
SCHEMA = pa.schema(
    [("id", pa.string()), ("image", pa.binary()), ("labels", pa.list_(pa.string())), (SOURCE_ROW, pa.int64())]
)


@dataclass(frozen=True)
class PrepareOptions:
    source: str = option(help="folder, archive or table of pictures")
    out: str = option(help="folder to write")
    part: str = option("train", "train or test, of CIFAR's archives")
    names: str | None = option(None, "file of CIFAR's class names")
    id_column: str = option("id", "column of ids in a table")
    image_column: str = option("image", "column of encoded pictures, or of their paths")
    labels_column: str = option("labels", "column of labels")
    resize: int | None = option(None, "resize the shorter side to this many pixels, once", low=8)
    seed: int = option(0, "seed of the order", low=0)
    part_rows: int = option(10_000, "pictures in a part", low=1)
    group_rows: int = option(1_000, "pictures in a row group", low=1)
    max_broken: float = option(0.01, "share of pictures that may be broken", low=0.0, high=1.0)
    processes: int = option(2, "processes", low=1)


def prepare(options: PrepareOptions, on_progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Converts, or goes on converting; the manifest.

    Raises:
        TooManyBroken: more than the share `max_broken` cannot be decoded; nothing is committed.
        DataError: no such source, an empty one.
        ConfigError: OUT holds another conversion.
    """
    source = open_source(options.source, _columns(options), options.part, options.names)
    plan = {"format": FORMAT} | {k: v for k, v in asdict(options).items() if k not in ("processes", "out")}
    done_path = store.join(options.out, "manifest.json")
    if store.exists(done_path):
        manifest: dict[str, Any] = store.read_json(done_path)
        if manifest["plan"] != plan:
            raise ConfigError("this folder holds another conversion", where=options.out, mend="give another OUT")
        return manifest
    plan_path = store.join(options.out, "plan.json")
    if store.exists(plan_path) and store.read_json(plan_path) != plan:
        raise ConfigError("this folder holds another conversion", where=options.out, mend="give another OUT")
    store.write_json(plan_path, plan)
    parts = max(1, -(-source.rows // options.part_rows))
    reports: dict[int, dict[str, Any]] = {}
    waiting: list[int] = []
    for part in range(parts):
        path = store.join(options.out, f"part-{part:05d}.json")
        if store.exists(path):
            reports[part] = store.read_json(path)
        else:
            waiting.append(part)
    seen = sum(r["rows"] + len(r["broken"]) for r in reports.values())
    on_progress(seen, source.rows)
    for part, report in _run(options, waiting, parts):
        reports[part] = report
        seen += report["rows"] + len(report["broken"])
        on_progress(seen, source.rows)
    return _commit(options, plan, [reports[p] for p in range(parts)], source.rows)


def _run(options: PrepareOptions, waiting: list[int], parts: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(part, report) of each missing part, as they are finished."""
    if options.processes == 1 or len(waiting) <= 1:
        yield from ((part, _write_part(options, part, parts)) for part in waiting)
        return
    with pool(min(options.processes, len(waiting))) as workers:
        futures = {workers.submit(_write_part, options, part, parts): part for part in waiting}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            workers.shutdown(cancel_futures=True)


def _write_part(options: PrepareOptions, part: int, parts: int) -> dict[str, Any]:
    """Part `part`: the rows that the permutation puts there, in its order; its report is written beside."""
    source = open_source(options.source, _columns(options), options.part, options.names)
    order = np.random.default_rng([options.seed, 12]).permutation(source.rows)
    mine = order[source.rows * part // parts : source.rows * (part + 1) // parts]
    kept: dict[int, tuple[str, bytes, tuple[str, ...]]] = {}
    broken: dict[str, str] = {}
    hashes: dict[str, list[str]] = {}
    twins: list[list[Any]] = []
    wanted = set(mine.tolist())
    for start in range(0, source.rows, WINDOW):
        stop = min(start + WINDOW, source.rows)
        if wanted.isdisjoint(range(start, stop)):
            continue
        for number, row in enumerate(source.read(start, stop), start):
            if number not in wanted:
                continue
            try:
                data, digest = _convert(row.data(), options.resize)
                if not row.labels:
                    raise DataError("no label")
            except PsdeviseError as e:
                broken[row.id] = e.what
                continue
            if digest in hashes:
                twins.append([row.id, sorted(row.labels) != hashes[digest]])
            hashes[digest] = sorted(row.labels)
            kept[number] = (row.id, data, row.labels)
    rows = [(*kept[int(n)], int(n)) for n in mine if int(n) in kept]
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    arrays = [pa.array(list(c), t) for c, t in zip(columns, SCHEMA.types, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=SCHEMA)
    name = f"part-{part:05d}.parquet"
    checksum = store.write_atomic(
        store.join(options.out, name),
        lambda f: pq.write_table(table, f, row_group_size=options.group_rows, compression="none"),
    )
    classes = Counter(label for _, _, labels, _ in rows for label in labels)
    report = {
        "file": name,
        "sha256": checksum,
        "rows": len(rows),
        "broken": broken,
        "classes": dict(classes),
        "hashes": hashes,
        "twins": twins,
    }
    store.write_json(store.join(options.out, f"part-{part:05d}.json"), report)
    return report


def _commit(options: PrepareOptions, plan: dict[str, Any], reports: list[dict[str, Any]], rows: int) -> dict[str, Any]:
    broken = {k: v for r in reports for k, v in r["broken"].items()}
    if len(broken) > options.max_broken * rows:
        some = "; ".join(f"{i}: {why}" for i, why in list(broken.items())[:3])
        raise TooManyBroken(
            f"{len(broken)} of {rows} pictures are broken: {some}",
            where=options.source,
            mend="mend them, or raise --max-broken",
        )
    if not any(r["rows"] for r in reports):
        raise DataError("no usable picture here", where=options.source)
    classes: Counter[str] = Counter()
    known: dict[str, list[str]] = {}
    twins = {"repeated": 0, "contradictory": 0}
    for report in reports:
        classes.update(report["classes"])
        twins["repeated"] += len(report["twins"])
        twins["contradictory"] += sum(bool(c) for _, c in report["twins"])
        for digest, labels in report["hashes"].items():
            if digest in known:
                twins["repeated"] += 1
                twins["contradictory"] += known[digest] != labels
            known[digest] = labels
    manifest = {
        "format": FORMAT,
        "plan": plan,
        "rows": sum(r["rows"] for r in reports),
        "classes": dict(sorted(classes.items())),
        "files": {r["file"]: r["sha256"] for r in reports},
        "skipped": broken,
        "twins": twins,
    }
    hashes = pa.table({"hash": list(known), "labels": [list(v) for v in known.values()]})
    store.write_atomic(store.join(options.out, HASHES), lambda f: pq.write_table(hashes, f))
    store.write_json(store.join(options.out, "manifest.json"), manifest)
    for part in range(len(reports)):
        store.remove(store.join(options.out, f"part-{part:05d}.json"))
    store.remove(store.join(options.out, "plan.json"))
    return manifest


def shared(one: str, other: str) -> dict[str, int]:
    """Pictures that stand in two prepared folders, and how many of them have other labels there."""
    tables = []
    for folder in (one, other):
        with store.open_read(store.join(folder, HASHES)) as f:
            columns = pq.read_table(f).to_pydict()
        tables.append(dict(zip(columns["hash"], columns["labels"], strict=True)))
    both = tables[0].keys() & tables[1].keys()
    return {"shared": len(both), "contradictory": sum(tables[0][h] != tables[1][h] for h in both)}


def _convert(data: bytes, resize: int | None) -> tuple[bytes, str]:
    """The picture's bytes, resized if asked, and the hash of its decoded pixels."""
    image = open_rgb(data)
    digest = hashlib.blake2b(image.tobytes(), digest_size=12).hexdigest()
    if resize is None or min(image.size) == resize:
        return data, digest
    width, height = scaled(image, resize)
    file = io.BytesIO()
    image.resize((width, height), Image.Resampling.LANCZOS).save(file, "JPEG", quality=95)
    return file.getvalue(), digest


def _columns(options: PrepareOptions) -> Columns:
    return Columns(options.id_column, options.image_column, options.labels_column)
