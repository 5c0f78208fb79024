"""Runs and data on S3: moto's server on loopback, and its faults through a proxy: refused, silent, cut off."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import fsspec
import numpy as np
import pytest

from psdevise import store
from psdevise.errors import StoreError
from psdevise.orchestrator.run import execute
from psdevise.report import write as write_report
from tests.cluster.faults import Proxy
from tests.world import tiny

moto_server = pytest.importorskip("moto.server", reason="needs moto and s3fs: pip install -e '.[dev]'")
s3fs = pytest.importorskip("s3fs")
pytestmark = pytest.mark.timeout(60)
PART = 5 << 20  # S3's smallest part of an upload in parts


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """moto's server; its port."""
    found = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    found.start()
    yield found.get_host_and_port()[1]
    found.stop()


@pytest.fixture
def proxy(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """All s3:// paths lead through it to a bucket named `bucket`."""
    with Proxy(server) as found:
        options = {
            "endpoint_url": f"http://127.0.0.1:{found.port}",
            "key": "nobody",
            "secret": "nothing",
            "default_block_size": PART,
            "config_kwargs": {"connect_timeout": 2, "read_timeout": 2, "retries": {"max_attempts": 1}},
        }
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
        s3fs.S3FileSystem.clear_instance_cache()
        fs = fsspec.filesystem("s3")
        if not fs.exists("bucket"):
            fs.mkdir("bucket")
        yield found
    s3fs.S3FileSystem.clear_instance_cache()


def large(n: int = 3) -> bytes:
    return np.random.default_rng(0).bytes(n * PART + 17)


def test_what_is_written_is_read(proxy: Proxy) -> None:
    data = large()
    assert store.write_bytes("s3://bucket/a/b/large", data) == hashlib.sha256(data).hexdigest()
    assert store.read_bytes("s3://bucket/a/b/large") == data
    assert store.sha256("s3://bucket/a/b/large") == hashlib.sha256(data).hexdigest()
    store.write_json("s3://bucket/a/x.json", {"k": 1})
    assert store.read_json("s3://bucket/a/x.json") == {"k": 1}
    assert store.listing("s3://bucket/a") == ["b", "x.json"]
    assert (store.exists("s3://bucket/a/x.json"), store.exists("s3://bucket/a/y.json")) == (True, False)
    store.remove("s3://bucket/a")
    assert store.listing("s3://bucket/a") == []


def test_missing_is_named(proxy: Proxy) -> None:
    with pytest.raises(StoreError, match=r"s3://bucket/nothing: no such file"):
        store.read_bytes("s3://bucket/nothing")


def test_a_writer_that_fails_midway_leaves_what_was_there(proxy: Proxy) -> None:
    store.write_bytes("s3://bucket/kept", b"before")

    def write(file: IO[bytes]) -> None:
        file.write(large(2))
        raise RuntimeError("the writer broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        store.write_atomic("s3://bucket/kept", write)
    assert store.read_bytes("s3://bucket/kept") == b"before"


def test_an_upload_that_is_cut_off_leaves_what_was_there(proxy: Proxy) -> None:
    store.write_bytes("s3://bucket/cut", b"before")
    proxy.cut_after = 3 << 20
    with pytest.raises(StoreError, match="s3://bucket/cut"):
        store.write_bytes("s3://bucket/cut", large())
    assert proxy.cuts > 0
    proxy.cut_after = None
    assert store.read_bytes("s3://bucket/cut") == b"before"
    data = large()
    store.write_bytes("s3://bucket/cut", data)  # and the same again goes through
    assert store.read_bytes("s3://bucket/cut") == data


def test_a_download_that_is_cut_off_is_an_error_or_whole(proxy: Proxy) -> None:
    store.write_bytes("s3://bucket/down", large(2))
    proxy.cut_answer_after = 1 << 20
    with pytest.raises(StoreError, match="s3://bucket/down"):
        store.read_bytes("s3://bucket/down")
    assert proxy.cuts > 0
    proxy.cut_answer_after = None
    assert store.read_bytes("s3://bucket/down") == large(2)


def test_a_silent_server_is_an_error_after_its_deadline(proxy: Proxy) -> None:
    store.write_bytes("s3://bucket/silent", b"x")
    fsspec.config.conf["s3"]["config_kwargs"]["read_timeout"] = 0.5  # each of the tries takes it
    s3fs.S3FileSystem.clear_instance_cache()
    proxy.silent.set()
    with pytest.raises(StoreError, match="s3://bucket/silent"):
        store.read_bytes("s3://bucket/silent")


def test_a_server_that_stops_to_read_is_an_error_after_its_deadline(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_bytes("s3://bucket/deaf", b"before")
    monkeypatch.setattr(store, "STALLED_SECONDS", 1.0)
    proxy.deaf_after = 1 << 20
    with pytest.raises(StoreError, match="s3://bucket/deaf: the storage has taken nothing"):
        store.write_bytes("s3://bucket/deaf", large(4))
    proxy.deaf_after = None
    assert store.read_bytes("s3://bucket/deaf") == b"before"


def test_a_refused_connection_is_named(proxy: Proxy) -> None:
    proxy.refuse()
    with pytest.raises(StoreError, match="s3://bucket/refused"):
        store.write_bytes("s3://bucket/refused", b"x")
    with pytest.raises(StoreError, match="s3://bucket/refused"):
        store.exists("s3://bucket/refused")


@pytest.mark.slow
def test_a_run_lives_on_s3_and_goes_on_there(proxy: Proxy, tmp_path: Path) -> None:
    """Artifacts, snapshots and results; the second time everything is there already, with the same results."""
    options = tiny(
        Path("s3:/bucket/runs"),
        "visual.epochs=1",
        "language.epochs=1",
        "joint.fine_tuning.epochs=0",
        "folder=s3://bucket/runs",
        "baselines=[softmax]",
    )
    first = execute(options, finish=write_report)
    assert first.folder == "s3://bucket/runs/tiny"
    names = store.listing(first.folder)
    assert {"run.json", "results.json", "report.html", "events.jsonl"} <= set(names)
    events: list[object] = []
    again = execute(options, events.append, finish=write_report)
    assert again.results == first.results
    assert not any(type(e).__name__ == "SnapshotWritten" for e in events)
    assert os.listdir(tmp_path) == []
