"""Every error that psdevise raises on purpose, as one tree.

    PsdeviseError                 exit 1: expected, the message says what, where and the mend
    ├── ConfigError               exit 2: a key, a type or a value in the configuration
    ├── DataError                 a data set, a text, a vector file that cannot be used
    │   └── TooManyBroken         more rows were broken than the configuration allows
    ├── LabelError                a label without a vector, an unknown class, a leaking split
    ├── StoreError                a file that cannot be read or written (disk full, no such path)
    │   └── SnapshotError         a snapshot that is missing, cut off or corrupted
    ├── ResourceError             the cluster lacks what the run asks for
    ├── DeadlineExceeded          a wait ended: names the shard or worker that did not answer
    ├── BadMessage                bytes between worker and shard that are no message
    ├── WorkerLost                a worker or shard died more often than the run allows
    ├── Diverged                  the loss is not finite any more, or far above its start
    ├── PushRefused               a shard did not accept a gradient
    │   ├── UnknownVersion        it was computed against a version this shard never had
    │   ├── StaleIncarnation      its sender has been replaced
    │   └── BadGradient           wrong shape, dtype or rows, or not finite
    └── Interrupted               exit 130: Ctrl-C; the run can be resumed

Anything else that reaches the command line is a bug of ours and exits with 3.
`psdevise.cli.main` is the one place that turns errors into exit codes.
"""

from __future__ import annotations


class PsdeviseError(Exception):
    """What went wrong, where, and how to mend it. `exit_code` is what the command line returns.

    Args:
        what: one sentence, with the offending value.
        where: the file, the key, the actor; left out of the message when empty.
        mend: what the reader can do about it; left out when empty.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        super().__init__(what, where, mend)
        self.what, self.where, self.mend = what, where, mend

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders: rebuild from the three parts, not from the joined message.
        return _rebuild, (type(self), self.what, self.where, self.mend)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  → {self.mend}" if self.mend else text


def _rebuild(cls: type[PsdeviseError], what: str, where: str, mend: str) -> PsdeviseError:
    return cls(what, where=where, mend=mend)


class ConfigError(PsdeviseError):
    exit_code = 2


class DataError(PsdeviseError):
    pass


class TooManyBroken(DataError):
    pass


class LabelError(PsdeviseError):
    pass


class StoreError(PsdeviseError):
    pass


class SnapshotError(StoreError):
    pass


class ResourceError(PsdeviseError):
    pass


class DeadlineExceeded(PsdeviseError):
    pass


class BadMessage(PsdeviseError):
    pass


class WorkerLost(PsdeviseError):
    pass


class Diverged(PsdeviseError):
    pass


class PushRefused(PsdeviseError):
    pass


class UnknownVersion(PushRefused):
    pass


class StaleIncarnation(PushRefused):
    pass


class BadGradient(PushRefused):
    pass


class BenchmarkFailed(PsdeviseError):
    """A benchmark whose own work was not correct: its speed means nothing."""


class Interrupted(PsdeviseError):
    exit_code = 130
