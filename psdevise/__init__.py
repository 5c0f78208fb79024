"""psdevise: an asynchronous parameter-server trainer on Ray for models that name what they never saw.

The rooms, in reading order; imports point only downward, from high rows to low ones.

    0  errors        every error, as one tree
       config        YAML → frozen dataclasses
       store         files on any fsspec path: atomic, checksummed
       compression   gz, bz2, xz, zst as streams
       compiled      functions as machine code (numba)
       events        all progress as one stream
    1  models        skip-gram, AlexNet, small CNN, DeViSE head, losses
       data          tokeniser, vocabulary, corpus, image tables, the drawn world
       labels        classes, terms, word vectors, is-a graph, splits, the vocabulary doctor
       index         nearest labels through faiss
       scores        hit@k, hp@k, intervals: arrays in, figures out
    2  server        layout, shard, Adagrad, ledger, staleness, snapshots
       worker        the Downpour loop, its client and replica
    3  phases        language, visual, joint: the tasks of one loop
       systems       DeViSE and what it is compared with
       tagger        a finished run → names, without Ray
       evaluation    protocols → results
       monitor       the event stream as Prometheus series
    4  runtime       Ray and in-process hosts: threads, clocks, actors, restarts
       simulation    the same objects under a simulated clock, network, disk and faults
    5  orchestrator  phases in order, artifacts, resume
    6  report        results and curves as one HTML page
       compare       every system of the papers on identical features, over class splits
       bench         speed and memory beside other systems, in paired rounds
       cli           the command line, a file per verb

From Python: `psdevise.run(config, on_event=None)` trains, `psdevise.load(RUN)` gives a tagger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psdevise.events import Listener
    from psdevise.orchestrator.run import Done
    from psdevise.tagger import Tagger

__all__ = ["load", "run"]
__version__ = "0.1.0"


def run(config: str | Mapping[str, Any], on_event: Listener | None = None, overrides: tuple[str, ...] = ()) -> Done:
    """Trains and evaluates one run, and writes its report.

    Args:
        config: path of a YAML file, or its content as a mapping.
        on_event: called with every event (`psdevise.events`).
        overrides: `a.b=value`, as `--set` takes them.

    Raises:
        PsdeviseError: what went wrong, where, and the mend; the same call goes on with what is finished.
    """
    from psdevise import config as configuration
    from psdevise.orchestrator.options import RunOptions
    from psdevise.orchestrator.run import execute
    from psdevise.report import write

    if isinstance(config, str):
        options = configuration.load(RunOptions, config, overrides)
    else:
        options = configuration.build(RunOptions, configuration.override(config, overrides))
    return execute(options, on_event, finish=write)


def load(run: str) -> Tagger:
    """The tagger of the finished run in the folder `run`: `predict(images, labels=None, k=5)`, `embed(images)`."""
    from psdevise.tagger import load as load_tagger

    return load_tagger(run)
