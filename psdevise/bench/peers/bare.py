"""W bare PyTorch processes, each with its own model and a fused Adagrad: nothing is exchanged, so nothing is faster."""

from __future__ import annotations

from typing import Any

from psdevise.bench.gate import Gate
from psdevise.bench.peers import common


def work(rank: int, given: dict[str, Any]) -> None:
    common.one_thread()
    module = common.case_of(given).module()
    common.train(rank, given, Gate(given["gate"]), module, module)


if __name__ == "__main__":
    given = common.specification()
    common.spawn(work, given, given["workers"])
    common.write_result(given, given["workers"])
