"""The life of one phase: who gets a new incarnation, when a shard is restored, when a snapshot is taken.

The host (Ray, or a simulated cluster) lends its `Hands`: it starts and ends processes, carries calls and knows the
time. What is to be done with them is decided here, so that what is tested under simulated faults is what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from psdevise.errors import Interrupted, SnapshotError, WorkerLost
from psdevise.events import Listener, Notice, Restarted, SnapshotWritten
from psdevise.server import snapshot
from psdevise.server.hands import Hands, Lost, Terms
from psdevise.server.incarnations import Incarnations
from psdevise.server.layout import Layout
from psdevise.server.revival import Revival, Revivals
from psdevise.server.start import Start

POLL_SECONDS = 0.5  # a look is three Ray calls, each 2 ms for who answers where models fill the caches
BUSY_SECONDS = 0.25  # while somebody waits for what is decided here
BOUNDARY_SECONDS = 0.005
SPARE = 10  # at least so much longer than its writing took until a snapshot is due for what was done


@dataclass(frozen=True)
class Saved:
    """When a snapshot was last tried, how far the phase was (None: not known yet), and the seconds that it took."""

    at: float
    progress: float | None
    seconds: float


class Supervisor:
    """
    Args:
        start: where the phase begins; a shard that dies is restored from there, or from the last snapshot since.
        show: called with the coordinator's status, the shards' statistics, and whether they are the last ones.
    """

    def __init__(
        self,
        hands: Hands,
        terms: Terms,
        layout: Layout,
        incarnations: Incarnations,
        start: Start,
        on_event: Listener,
        show: Callable[[dict[str, Any], list[dict[str, Any]], bool], None],
    ) -> None:
        self._hands, self._terms, self._layout = hands, terms, layout
        self._incarnations, self._on_event, self._show = incarnations, on_event, show
        self._folder, self._number, self.manifest = start.folder, start.number, start.manifest
        self._workers: dict[int, int] = {}  # rank → incarnation of those that run
        self._coming: dict[int, int] = {}  # rank → incarnation of those that wait for their place
        self._restarts, self._done = 0, False
        self._repeated = 0 if start.coordinator is None else start.coordinator["ledger"]["audit"]["repeated"]
        self._restored: set[int] = set()  # shards, since the turn under way began (staleness 0)
        self._lives: dict[int, int] = {}  # shard → the incarnation that workers were told of
        self._revivals = Revivals(terms.phase, on_event, lambda *a: self._hands.ask("taken_back", *a))
        self._warned: set[int] = set()  # incarnations of workers that have sent a bad gradient
        incarnations.last = max(incarnations.last, start.manifest.get("incarnations", 0))
        for problem in start.problems:
            on_event(Notice(terms.phase, f"a snapshot is broken, the one before it is used: {problem}"))

    def start(self) -> None:
        """Starts all shards, then all workers, and waits for those that the phase begins with."""
        self._lives = dict(enumerate(self._incarnations.take(self._layout.shards)))
        self._hands.start_shards(self._lives, self.manifest)
        self._hands.announce()
        self._start_workers(range(self._terms.workers))
        self._hands.await_workers()
        self._let_in()

    def watch(self, interrupted: Callable[[], bool]) -> dict[str, Any]:
        """Until all workers have ended: replaces what dies and writes snapshots on the way → the last status.

        Raises:
            Interrupted: `interrupted()`; a last snapshot was written.
            WorkerLost: more deaths than `max_restarts`, no worker left and no room for another within
                `start_seconds`, or all workers ended before the data did.
        """
        hands, terms = self._hands, self._terms
        stopping, due = False, False
        self._saved = Saved(hands.now(), None, 0.0)
        alive = hands.now()
        while self._workers or (self._coming and not self._done and not stopping):
            if interrupted() and not stopping:
                stopping = True
                under_way = "step" if terms.bound == 0 else "slices"
                self._on_event(Notice(terms.phase, f"stopping at the end of the {under_way} under way"))
                hands.ask("stop")
            busy = bool(stopping or self._coming or self._restored)
            seconds = BOUNDARY_SECONDS if due else BUSY_SECONDS if busy else POLL_SECONDS
            self._reap(seconds, replace=terms.bound == 0 or not stopping)
            status = hands.ask("status")
            self._done = status["done"]
            self._let_in()
            if self._workers:
                alive = hands.now()
            elif hands.now() - alive > terms.start_seconds:
                raise WorkerLost(
                    f"no worker is left, and there was no room for another within {terms.start_seconds:g} s",
                    where=terms.phase,
                    mend="add nodes and give the same command again: it goes on from the last snapshot",
                )
            stats = self._shard_stats()
            self._show(status, stats, False)
            self._replace_silent()
            self._replace_poisonous(stats)
            self._revivals.tell(self._workers.values(), last=False)
            self._help_restored()
            if not due and (self._is_due(status["progress"]) or (stopping and terms.bound == 0)):
                due = True
                hands.ask("pause", True)
            if due and hands.ask("status")["at_boundary"]:
                written = self._save()
                if stopping and terms.bound == 0 and written:
                    break
                hands.ask("pause", False)
                due = False
        else:
            while not self._save():
                self._shard_stats()
        status = hands.ask("status")
        self._show(status, self._shard_stats(), True)
        self._revivals.tell((), last=True)
        if not status["done"]:
            if interrupted():
                raise Interrupted("stopped by the user", mend="give the same command again to go on")
            raise WorkerLost("all workers ended before the data did", where=terms.phase)
        return dict(status)

    # ------------------------------------------------------------------ workers

    def _start_workers(self, ranks: range) -> None:
        lives = dict(zip(ranks, self._incarnations.take(len(ranks)), strict=True))
        self._admit(range(self._layout.shards), lives)
        self._hands.start_workers(lives)
        self._coming |= lives

    def _let_in(self) -> None:
        """Those whose processes are there join; who still waits for a place holds nobody up, and who comes when all is
        done is not let in: it would build its model first, and the phase would wait for it."""
        for rank in [] if self._done else self._hands.up():
            self._workers[rank] = self._coming.pop(rank)
            self._hands.ask("join", rank, self._workers[rank])
            self._hands.run_worker(rank)

    def _reap(self, seconds: float, replace: bool) -> None:
        for end in self._hands.ended(seconds):
            if self._workers.get(end.rank) != end.incarnation:
                continue
            if end.reason:
                self._replace_worker(end.rank, end.reason, replace)
            else:
                del self._workers[end.rank]
                self._hands.end_worker(end.rank)

    def _replace_silent(self) -> None:
        for rank, incarnation in self._hands.ask("expire"):
            if self._workers.get(rank) == incarnation:
                self._replace_worker(rank, f"its lease ran out, on {self._hands.host(rank)}", anew=True)

    def _replace_worker(self, rank: int, reason: str, anew: bool) -> None:
        turn = self._hands.ask("leave", rank, self._workers.pop(rank))
        if turn is not None:
            self._call_all("amend", turn)
        self._hands.end_worker(rank)
        if not anew or self._done:
            return
        self._count_restart(f"worker {rank}: {reason}")
        self._start_workers(range(rank, rank + 1))
        before, self._repeated = self._repeated, self._hands.ask("status")["audit"]["repeated"]
        again = self._repeated - before  # also where its lease had run out before this
        self._on_event(Restarted(self._terms.phase, "worker", rank, self._coming[rank], reason, again))

    def _replace_poisonous(self, stats: list[dict[str, Any]]) -> None:
        """Tells of workers whose gradients were refused as bad, and replaces those that sent too many."""
        for found in stats:
            for rank, (incarnation, count, problem) in found["poisoned"].items():
                if self._workers.get(rank) != incarnation:
                    continue
                if incarnation not in self._warned:
                    self._warned.add(incarnation)
                    text = f"shard {found['shard']} refused a gradient of worker {rank}: {problem}"
                    self._on_event(Notice(self._terms.phase, text))
                if count >= self._terms.max_bad_gradients:
                    self._replace_worker(rank, f"{count} of its gradients were refused, the last: {problem}", anew=True)

    # ------------------------------------------------------------------ shards

    def _shard_stats(self) -> list[dict[str, Any]]:
        """Figures of every shard; one that has died is restored from the last snapshot on the way."""
        found = self._call_all("stats")
        for index, stats in found.items():
            if isinstance(stats, Lost):
                self._revive(index, stats.reason)
        lost = [i for i, stats in found.items() if isinstance(stats, Lost)]
        found |= self._hands.call_shards("stats", {i: () for i in lost})
        return [stats for _, stats in sorted(found.items()) if not isinstance(stats, Lost)]

    def _revive(self, index: int, reason: str) -> None:
        self._count_restart(f"shard {index}: {reason}")
        incarnation, manifest = self._restore(index)
        self._admit(range(index, index + 1), self._workers | self._coming)
        self._restored.add(index)
        stats = self._hands.call_shards("stats", {index: ()})[index]
        if isinstance(stats, Lost):  # already again: nobody has met this life
            return
        reason = f"{reason.rstrip('.')}; from snapshot {manifest['number']}"
        workers = frozenset(self._workers.values())
        self._revivals.add(Revival(index, self._lives[index], incarnation, reason, stats["examples"], workers))
        self._lives[index] = incarnation
        self._hands.announce()

    def _restore(self, index: int) -> tuple[int, Mapping[str, Any]]:
        """A new life of a shard, from the last snapshot whose file for it is whole → its incarnation, the manifest."""
        manifest = self.manifest
        while True:
            incarnation = self._incarnations.take(1)[0]
            try:
                self._hands.start_shards({index: incarnation}, manifest)
                return incarnation, manifest
            except SnapshotError as e:
                text = f"a snapshot is broken, the one before it is used: {e}"
                self._on_event(Notice(self._terms.phase, text))
                manifest = snapshot.before(self._folder, manifest["number"])

    def _help_restored(self) -> None:
        """At staleness 0: a shard that died when it had acknowledged some pushes of a turn gets only the others
        again, and must not wait for those."""
        if not self._restored:
            return
        turn = self._hands.ask("unfinished")
        if turn is None:
            self._restored = set()
        else:
            self._hands.call_shards("amend", {i: (turn,) for i in self._restored})

    def _admit(self, shards: range, workers: Mapping[int, int]) -> None:
        """From now on the shards refuse what older incarnations of these workers send."""
        for rank, incarnation in workers.items():
            self._hands.call_shards("admit", {i: (rank, incarnation) for i in shards})

    def _call_all(self, method: str, *arguments: Any) -> dict[int, Any]:
        return self._hands.call_shards(method, {i: arguments for i in range(self._layout.shards)})

    def _count_restart(self, what: str) -> None:
        self._restarts += 1
        if self._restarts > self._terms.max_restarts:
            raise WorkerLost(
                f"{self._restarts} deaths, cluster.max_restarts is {self._terms.max_restarts}; the last: {what}",
                where=self._terms.phase,
            )

    # ------------------------------------------------------------------ snapshots

    def _is_due(self, progress: float) -> bool:
        if self._saved.progress is None:
            self._saved = replace(self._saved, progress=progress)
        saved, passed = self._saved, self._hands.now() - self._saved.at
        far = progress - (saved.progress or 0.0) >= self._terms.snapshot_share
        return passed > self._terms.snapshot_seconds or (far and passed > SPARE * saved.seconds)

    def _save(self) -> bool:
        """Writes a snapshot; False if a shard died meanwhile: then the last one stays the good one."""
        begin, number = self._hands.now(), self._number + 1
        state, checksums = self._capture(number)
        self._saved = Saved(self._hands.now(), None, self._hands.now() - begin)
        if any(isinstance(c, Lost) for c in checksums.values()):
            return False
        in_order = [checksums[i] for i in range(self._layout.shards)]
        manifest = {
            "layout": self._layout.plain(),
            "checksums": in_order,
            "coordinator": state,
            "incarnations": self._incarnations.last,
        }
        snapshot.commit(self._folder, number, manifest)
        self._number, self.manifest = number, manifest | {"number": number}
        self._on_event(SnapshotWritten(self._terms.phase, number, self._hands.now() - begin))
        return True

    def _capture(self, number: int) -> tuple[dict[str, Any], dict[int, Any]]:
        """The ledger first: what finishes meanwhile is repeated after a resume, never lost."""
        state = self._hands.ask("state")
        paths = {i: (snapshot.shard_path(self._folder, number, i),) for i in range(self._layout.shards)}
        return state, self._hands.call_shards("save", paths)
