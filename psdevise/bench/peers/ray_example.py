"""Ray's documented asynchronous parameter server ("Parameter Server" in its Core examples).

An actor holds model and optimizer, workers get its weights as state dicts and return lists of NumPy gradients, and the
driver hands each gradient on as it comes. Changed: the model, its data, and Adagrad in place of SGD, so that all
systems do the same arithmetic; the driver does not evaluate; it ends with the contest.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import ray
import torch

from psdevise.bench.gate import Gate
from psdevise.bench.peers import common
from psdevise.bench.tasks import optimizer


class ParameterServer:
    def __init__(self, given: dict[str, Any]) -> None:
        common.one_thread()
        self._module = common.case_of(given).module()
        self._optimizer = optimizer(self._module.parameters())

    def apply_gradients(self, *gradients: list[Any]) -> dict[str, torch.Tensor]:
        summed = [np.stack(same).sum(axis=0) for same in zip(*gradients, strict=True)]
        self._optimizer.zero_grad()
        for gradient, parameter in zip(summed, self._module.parameters(), strict=True):
            parameter.grad = torch.from_numpy(gradient)
        self._optimizer.step()
        return self.get_weights()

    def get_weights(self) -> dict[str, torch.Tensor]:
        return {k: v.cpu() for k, v in self._module.state_dict().items()}

    def lost(self, gradients: int) -> int:
        return common.lost(self._module, self._optimizer, gradients)


class DataWorker:
    def __init__(self, given: dict[str, Any]) -> None:
        common.one_thread()
        case = common.case_of(given)
        self._gate = Gate(given["gate"])
        self._module, self._batches = case.module(), cycle(case.batches())

    def compute_gradients(self, weights: dict[str, torch.Tensor]) -> list[Any] | None:
        self._module.load_state_dict(weights)
        batch = next(self._batches)
        if not self._gate.enter(wrong=int(self._module.torn)):
            return None
        self._gate.count()
        self._module.zero_grad()
        self._module(*batch).backward()
        return [None if p.grad is None else p.grad.data.cpu().numpy() for p in self._module.parameters()]


def main(given: dict[str, Any]) -> None:
    ray.init(
        address="local", num_cpus=given["workers"] + 1, include_dashboard=False, log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )  # fmt: skip
    server: Any = ray.remote(ParameterServer).remote(given)
    workers: list[Any] = [ray.remote(DataWorker).remote(given) for _ in range(given["workers"])]
    gate = Gate(given["gate"])
    weights = server.get_weights.remote()
    gradients = {worker.compute_gradients.remote(weights): worker for worker in workers}
    # When the contest ends, all workers wait at the gate, and what they then return is no gradient.
    while not gate.finished:
        ready, _ = ray.wait(list(gradients), timeout=1.0)
        if not ready or gate.finished:
            continue
        worker = gradients.pop(ready[0])
        weights = server.apply_gradients.remote(*ready)
        gradients[worker.compute_gradients.remote(weights)] = worker
    for last in ray.get(list(gradients)):
        if last is not None:
            ray.get(server.apply_gradients.remote(last))
    common.write_part(given, 0, ray.get(server.lost.remote(gate.total)) + gate.wrong)
    ray.shutdown()


if __name__ == "__main__":
    from psdevise.bench.peers import ray_example  # actors are found by their module's name

    given = common.specification()
    ray_example.main(given)
    common.write_result(given, 1)
