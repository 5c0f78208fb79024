"""The event stream as curves in TensorBoard. An optional extra: `pip install psdevise[tensorboard]`.

psdevise run CONFIG --set monitor.tensorboard=true      tensorboard --logdir runs
"""

from __future__ import annotations

from psdevise.errors import ConfigError
from psdevise.events import Event, Progress, Validated


class TensorBoard:
    """A listener that writes to `folder`: per phase loss, throughput, lag and learning rate over examples or words,
    and what was validated.

    Raises:
        ConfigError: tensorboard is not installed.
    """

    def __init__(self, folder: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as e:
            raise ConfigError(
                "tensorboard is not installed", where="monitor.tensorboard", mend="pip install psdevise[tensorboard]"
            ) from e
        self._writer = SummaryWriter(folder)  # type: ignore[no-untyped-call]
        self._counts: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Progress(phase=phase) if event.count:
                self._counts[phase] = int(event.count)
                for name, value in curves(event).items():
                    self._writer.add_scalar(f"{phase}/{name}", value, self._counts[phase])  # type: ignore[no-untyped-call]
            case Validated(phase, name, value):
                self._writer.add_scalar(f"{phase}/{name}", value, self._counts.get(phase, 0))  # type: ignore[no-untyped-call]
            case _:
                pass

    def close(self, failed: bool = False) -> None:
        self._writer.close()  # type: ignore[no-untyped-call]


def curves(event: Progress) -> dict[str, float]:
    """What of a Progress is a curve; figures that are not known are left out."""
    found = {
        "loss": event.loss,
        "per_second": event.rate,
        "lag": event.lag,
        "learning_rate": event.learning_rate,
        "workers": float(event.workers),
    }
    return {name: value for name, value in found.items() if value is not None}
