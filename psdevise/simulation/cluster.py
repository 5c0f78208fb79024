"""The supervisor's hands in a simulated cluster: processes that start, answer and die under a simulated clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from psdevise import store
from psdevise.errors import DeadlineExceeded, PsdeviseError
from psdevise.server import snapshot
from psdevise.server.coordinator import Coordinator
from psdevise.server.hands import Ended, Lost
from psdevise.server.layout import Layout
from psdevise.server.optimizer import OptimizerOptions
from psdevise.server.shard import LagOptions, Shard, ShardState
from psdevise.simulation.clock import Clock
from psdevise.simulation.disk import SimulatedDisk
from psdevise.simulation.faults import DriverKilled, Fault
from psdevise.simulation.network import ShardLife, Transport
from psdevise.simulation.witness import Witness
from psdevise.simulation.worker import SimulatedWorker
from psdevise.worker.downpour import DownpourOptions
from psdevise.worker.task import Task


@dataclass(frozen=True)
class SimulatedJob:
    """One phase's training, as `runtime.job.Job`. `snapshots` and `incarnations` are paths on the simulated disk."""

    build: Callable[[], Task]
    snapshots: str
    incarnations: str
    seed: int = 0
    workers: int = 2
    shards: int = 1
    downpour: DownpourOptions = field(default_factory=DownpourOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    lag: LagOptions = field(default_factory=LagOptions)
    lease_seconds: float = 1.0
    start_seconds: float = 2.0
    snapshot_seconds: float = 0.2
    report_seconds: float = 0.1
    snapshot_share: float = 0.5
    max_restarts: int = 50
    max_bad_gradients: int = 3

    @property
    def key(self) -> tuple[int, int]:
        return self.seed, 1


class SimulatedCluster:
    """
    Args:
        known: shard → its process, as the workers were told.
        fallen: whether there may be a worker that died or has ended; asking all after every event takes long.
    """

    def __init__(
        self,
        job: SimulatedJob,
        layout: Layout,
        coordinator: Coordinator,
        clock: Clock,
        network: Transport,
        witness: Witness,
    ) -> None:
        self.job, self.layout, self.clock, self.network, self.witness = job, layout, clock, network, witness
        self.coordinator = coordinator
        self.shards: dict[int, ShardLife] = {}
        self.known: dict[int, ShardLife] = {}
        self.workers: dict[int, SimulatedWorker] = {}
        self.fallen = False
        self.interrupted = False

    def answer(self, question: str, arguments: tuple[Any, ...]) -> Any:
        return self.coordinator.answer(question, arguments, self.clock.now)

    # ------------------------------------------------------------------ the supervisor's hands

    def now(self) -> float:
        return self.clock.now

    def ask(self, method: str, *arguments: Any) -> Any:
        return self._call(lambda: self.answer(method, arguments))

    def call_shards(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for index, own in arguments.items():
            self._reach(self.shards[index], method, own, found)
        self._wait(lambda: len(found) == len(arguments))
        for reply in found.values():
            if isinstance(reply, PsdeviseError):
                raise reply
        return found

    def start_shards(self, incarnations: Mapping[int, int], manifest: Mapping[str, Any]) -> None:
        self._wait_seconds(self.network.start_seconds("shard"))
        for index, incarnation in incarnations.items():
            state = snapshot.load_for(self.job.snapshots, manifest, self.layout, index)
            made = Shard(self.layout, index, self.job.optimizer, incarnation, state, self.job.lag)
            self.shards[index] = life = ShardLife(index, incarnation, made)
            self.witness.restored(life, manifest["number"], self.layout.shards)

    def announce(self) -> None:
        self._call(lambda: self.known.update(self.shards))

    def start_workers(self, incarnations: Mapping[int, int]) -> None:
        for rank, incarnation in incarnations.items():
            self.workers[rank] = SimulatedWorker(self, rank, incarnation)

    def await_workers(self) -> None:
        self._wait_seconds(self.network.start_seconds("worker"))

    def up(self) -> list[int]:
        return [rank for rank, worker in self.workers.items() if not worker.running]

    def run_worker(self, rank: int) -> None:
        self.workers[rank].running = True
        worker = self.workers[rank]
        self.clock.after(self.network.start_seconds("worker"), lambda: worker.begin() if worker.alive else None)

    def host(self, rank: int) -> str:
        return "a simulated host"

    def end_worker(self, rank: int) -> None:
        self.workers.pop(rank).die()

    def ended(self, seconds: float) -> list[Ended]:
        self.clock.run(lambda: bool(self._ends()), seconds)
        ends = self._ends()
        for worker in self.workers.values():
            if isinstance(worker.fate, PsdeviseError):
                raise worker.fate
        return ends

    # ------------------------------------------------------------------ faults

    def suffer(self, fault: Fault) -> None:
        match fault.kind:
            case "worker dies":
                if (worker := self.workers.get(fault.who % self.job.workers)) is not None:
                    worker.die()
            case "worker hangs":
                if (worker := self.workers.get(fault.who % self.job.workers)) is not None:
                    worker.hangs_until = max(worker.hangs_until, self.clock.now + fault.seconds)
            case "shard dies":
                if (life := self.shards.get(fault.who % self.job.shards)) is not None:
                    life.alive = False
            case "driver dies":
                raise DriverKilled
            case "interrupt":
                self.interrupted = True
            case "disk full":
                SimulatedDisk.fail_writes(1)
            case "file cut":
                self._cut(fault)

    def _cut(self, fault: Fault) -> None:
        """Damages one file of the newest snapshot, where an older one is left to fall back on."""
        numbers = snapshot.numbers(self.job.snapshots)
        if len(numbers) < 2:
            return
        folder = store.join(self.job.snapshots, f"{numbers[-1]:06d}")
        files = store.listing(folder)
        SimulatedDisk.cut(store.join(folder, files[fault.who % len(files)]), fault.seconds % 1.0)

    # ------------------------------------------------------------------ messages of the driver

    def _reach(self, life: ShardLife, method: str, arguments: tuple[Any, ...], found: dict[int, Any]) -> None:
        """Ray tells a caller that an actor is dead; between driver and shards nothing else is lost."""

        def answer(reply: Any) -> None:
            lost = Lost(f"shard {life.index} died")
            self.clock.after(self.network.delay(), lambda: found.__setitem__(life.index, reply if life.alive else lost))

        def arrive() -> None:
            if not life.alive:
                answer(None)
            elif method == "save":
                self._save(life, arguments[0], answer)
            else:
                before = life.shard.version
                reply = getattr(life.shard, method)(*arguments)
                if method == "amend":
                    self.witness.amended(life, arguments[0], before)
                answer(reply)

        self.clock.after(self.network.delay(), arrive)

    def _save(self, life: ShardLife, path: str, answer: Callable[[Any], None]) -> None:
        state: list[ShardState] = []

        def copy() -> None:
            state.append(life.shard.snapshot())
            self.witness.copied(life, int(path.split("/")[-2]), state[0])

        def write() -> None:
            reply: Any = None
            if life.alive:
                try:
                    reply = snapshot.write_shard(path, state[0])
                except PsdeviseError as e:
                    reply = e
            answer(reply)

        self.network.save(life, copy, write)

    def _call(self, action: Callable[[], Any]) -> Any:
        found: list[Any] = []

        def arrive() -> None:
            reply = action()
            self.clock.after(self.network.delay(), lambda: found.append(reply))

        self.clock.after(self.network.delay(), arrive)
        self._wait(lambda: bool(found))
        return found[0]

    def _wait(self, until: Callable[[], bool]) -> None:
        if not self.clock.run(until, self.job.downpour.deadline):
            raise DeadlineExceeded(f"no answer within {self.job.downpour.deadline:g} s")

    def _wait_seconds(self, seconds: float) -> None:
        self.clock.run(lambda: False, seconds)

    def _ends(self) -> list[Ended]:
        if not self.fallen:
            return []
        ends = []
        for w in self.workers.values():
            if w.alive and isinstance(w.fate, str):
                ends.append(Ended(w.rank, w.incarnation, w.fate))
            elif not w.alive:
                ends.append(Ended(w.rank, w.incarnation, "its process died"))
        self.fallen = bool(ends)
        return ends
