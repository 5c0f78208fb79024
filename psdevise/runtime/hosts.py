"""The host that a configuration asks for."""

from __future__ import annotations

from psdevise.events import Listener
from psdevise.runtime.inprocess import InProcess
from psdevise.runtime.job import ClusterOptions, Interrupt, Job, Trained


def make_host(options: ClusterOptions) -> InProcess | RayHost:
    return InProcess() if options.host == "inprocess" else RayHost()


class RayHost:
    """Ray, imported when the first phase trains: a run whose phases are all there needs no cluster."""

    def train(self, job: Job, on_event: Listener, interrupt: Interrupt) -> Trained:
        from psdevise.runtime.training import OnRay

        return OnRay().train(job, on_event, interrupt)

    def close(self) -> None:
        import sys

        if "psdevise.runtime.cluster" in sys.modules:
            from psdevise.runtime.cluster import disconnect

            disconnect()
