"""Lets many workers, in many processes, compute only while it is their system's turn.

A gate is one small file that all processes map: the contest opens it for so many seconds, every worker begins its
steps between `enter` and `enter`, and stops at the first step's border after the end. Time is counted per worker up to
the border it stopped at, so a turn holds whole steps only and none is cut. Waiting costs no core: a gate that is shut
is looked at every millisecond, and the processes of a system that is not on are stopped altogether (`contest`).
"""

from __future__ import annotations

import os
import time

import numpy as np

TURN, UNTIL, START, FINISHED, STOP_AT, SETTING, HEADER = range(7)
DONE, STEPS, END, TOTAL, WRONG, SLOT = range(6)
LOOK_SECONDS = 0.001


class Gate:
    """
    Args:
        path: the file; made with `create`, opened by the workers' processes.
        lockstep: workers end a turn after the same step, as those must that meet in every step (an all-reduce).
    """

    def __init__(self, path: str, lockstep: bool = False) -> None:
        self.path, self._lockstep = path, lockstep
        self._words = np.memmap(path, np.int64, "r+")
        self.workers = (len(self._words) - HEADER) // SLOT
        self._slots = self._words[HEADER:].reshape(self.workers, SLOT)
        self._slot: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None
        self._turn, self._open, self._steps = 0, False, 0

    @classmethod
    def create(cls, path: str, workers: int) -> Gate:
        np.zeros(HEADER + workers * SLOT, np.int64).tofile(path)
        return cls(path)

    # ------------------------------------------------------------------ the contest's side

    def open(self, seconds: float, setting: int = 0) -> None:
        """Begins a turn; `setting` is a number that its workers may read."""
        self._words[SETTING] = setting
        now = time.monotonic_ns()
        self._words[START], self._words[UNTIL] = now, now + int(seconds * 1e9)
        self._words[STOP_AT] = 0
        self._words[TURN] += 1

    @property
    def ended(self) -> bool:
        """Whether all workers have come to the end of the turn."""
        return bool((self._slots[:, DONE] == self._words[TURN]).all())

    def rate(self) -> float:
        """Steps per second of the turn that has ended, summed over workers."""
        seconds = (self._slots[:, END] - self._words[START]) / 1e9
        return float((self._slots[:, STEPS] / seconds).sum())

    def finish(self) -> None:
        """No further turn."""
        self._words[FINISHED] = 1

    @property
    def attended(self) -> bool:
        """Whether all workers have claimed their places."""
        return all(os.path.exists(f"{self.path}.{rank}") for rank in range(self.workers))

    @property
    def setting(self) -> int:
        return int(self._words[SETTING])

    @property
    def start(self) -> int:
        """When the turn under way began, in nanoseconds of the monotonic clock."""
        return int(self._words[START])

    @property
    def total(self) -> int:
        """Gradients that all workers have counted."""
        return int(self._slots[:, TOTAL].sum())

    @property
    def wrong(self) -> int:
        return int(self._slots[:, WRONG].sum())

    @property
    def finished(self) -> bool:
        return bool(self._words[FINISHED])

    def is_set(self) -> bool:
        """`finished`, as a run asks for its user's Ctrl-C."""
        return self.finished

    # ------------------------------------------------------------------ a worker's side

    def claim(self) -> int:
        """This process's number among the gate's workers: the first that nobody has taken."""
        for rank in range(self.workers):
            try:
                os.close(os.open(f"{self.path}.{rank}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            self._slot = self._slots[rank]
            return rank
        raise RuntimeError("more workers than the gate was made for: one was replaced")

    def enter(self, wrong: int = 0) -> bool:
        """Stands before every step; waits while it is not this system's turn. False when there is none to come.

        Args:
            wrong: faults seen since the last step.
        """
        if self._slot is None:
            self.claim()
        slot = self._slot
        assert slot is not None
        slot[WRONG] += wrong
        if self._open and self._over():
            slot[STEPS], slot[END] = self._steps, time.monotonic_ns()
            slot[DONE] = self._turn
            self._open = False
        while not self._open:
            if self.finished:
                return False
            if self._words[TURN] != self._turn:
                self._turn, self._steps, self._open = int(self._words[TURN]), 0, True
            else:
                time.sleep(LOOK_SECONDS)
        self._steps += 1
        return True

    def count(self) -> None:
        """Stands behind every gradient that is to reach the parameters, in a turn or after the last one."""
        assert self._slot is not None
        self._slot[TOTAL] += 1

    def _over(self) -> bool:
        late = time.monotonic_ns() >= self._words[UNTIL]
        if not self._lockstep:
            return late
        if late and not self._words[STOP_AT]:
            # Nobody is more than one step ahead of another, so all get to know of it before that step.
            self._words[STOP_AT] = self._steps + 2
        return bool(self._words[STOP_AT]) and self._steps >= self._words[STOP_AT]
