"""Bulk prediction over a cluster: a worker is killed on the way, and every id is in the output exactly once.

The same with 100,000 pictures, and pictures per second against one process (about five minutes):

    PSDEVISE_BULK_PICTURES=100000 python -m pytest tests/runtime/test_naming.py -s
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from psdevise.errors import WorkerLost
from psdevise.evaluation.bulk import LoadTagger, Prediction, predict_table
from psdevise.orchestrator.run import execute
from psdevise.runtime.job import ClusterOptions
from psdevise.runtime.naming import predict_on_cluster
from tests.world import tiny

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PICTURES = int(os.environ.get("PSDEVISE_BULK_PICTURES", "2000"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    short = ("visual.epochs=1", "language.epochs=1", "joint.fine_tuning.epochs=0", "baselines=[softmax]")
    execute(tiny(folder, *short))
    return folder / "tiny"


@pytest.fixture(scope="module")
def table(run: Path) -> Path:
    """The world's test pictures over and over, each with an id of its own."""
    world = pq.read_table(next((run / "artifacts").glob("world-*")) / "test.parquet")
    whole = pa.concat_tables([world] * (PICTURES // world.num_rows + 1)).slice(0, PICTURES).combine_chunks()
    ids = pa.array([f"picture-{i}" for i in range(PICTURES)])
    path = run.parent / "pictures.parquet"
    pq.write_table(whole.set_column(whole.schema.get_field_index("id"), "id", ids), path, row_group_size=500)
    return path


def naming_processes() -> list[psutil.Process]:
    """The workers of the Ray that this process has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "NamingActor" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.timeout(1200)
def test_a_worker_is_killed_and_every_id_is_there_once(
    ray_cluster: None, run: Path, table: Path, tmp_path: Path
) -> None:
    make, part = LoadTagger(str(run)), max(100, PICTURES // 50)
    killed: list[int] = []
    deaths: list[str] = []

    def on_progress(done: int, of: int) -> None:
        assert (done <= of, of) == (True, PICTURES)
        if done > of // 4 and not killed:
            victim = naming_processes()[0]
            killed.append(victim.pid)
            victim.send_signal(signal.SIGKILL)

    begin = time.monotonic()
    wanted = Prediction(str(table), str(tmp_path / "cluster.parquet"), None, 2, None, part)
    rows = predict_on_cluster(make, wanted, ClusterOptions(num_workers=2), on_progress, deaths.append)
    together = time.monotonic() - begin
    assert len(killed) == len(deaths) == 1
    found = pq.read_table(wanted.out)
    assert rows == found.num_rows == PICTURES
    assert found.column("id").to_pylist() == [f"picture-{i}" for i in range(PICTURES)]
    assert not Path(wanted.out + ".parts").exists()

    begin = time.monotonic()
    alone = Prediction(str(table), str(tmp_path / "alone.parquet"), None, 2, None, part)
    predict_table(make(), alone, lambda done, of: None)
    seconds = time.monotonic() - begin
    print(
        f"\n{PICTURES} pictures: two workers, one killed on the way, {PICTURES / together:.0f}/s;"
        f" one process {PICTURES / seconds:.0f}/s"
    )
    same = pq.read_table(alone.out)
    assert found.column("labels").equals(same.column("labels"))


def test_a_worker_that_always_dies_ends_the_prediction(
    ray_cluster: None, run: Path, table: Path, tmp_path: Path
) -> None:
    wanted = Prediction(str(table), str(tmp_path / "never.parquet"))
    with pytest.raises(WorkerLost, match="3 workers died"):
        predict_on_cluster(Dying(str(run)), wanted, ClusterOptions(num_workers=1, max_restarts=2), lambda a, b: None)


class Dying(LoadTagger):
    """Loads here, and ends the process of a worker."""

    def __call__(self):  # type: ignore[no-untyped-def]
        import ray

        if ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None:
            os._exit(1)
        return super().__call__()
