"""The ImageNet protocol of Frome et al. 2013, section 4 and its Tables 1 to 4, from systems as files to results.

Table 1   the supervised test: pictures of the seen 1,000 among them           part `supervised`
Table 2   flat hit@k on unseen pictures of the 2-hop, 3-hop and all sets       part `unseen`
Table 3   hierarchical precision@k on the same                                 part `unseen`
Table 4   hit@5 after training on 800 of 1,000 classes, 200 unseen             part `split`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from psdevise.data.features import Features
from psdevise.errors import LabelError
from psdevise.evaluation.embedded import Embedded
from psdevise.evaluation.evaluate import EvaluationOptions, Setting, figures
from psdevise.evaluation.pairing import measure
from psdevise.evaluation.result import Result
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.hops import Hops, Lists, published
from psdevise.labels.space import LabelSpace
from psdevise.labels.split import Split

DATASET = "imagenet"
SUPERVISED, UNSEEN, SPLIT = "supervised", "unseen", "split"
PARTS = (SUPERVISED, UNSEEN, SPLIT)
HOPS: dict[str, Hops] = {"2-hop": "2", "3-hop": "3", "ImageNet 2011 21K": "all"}


@dataclass(frozen=True)
class Protocol:
    """
    Attributes:
        lists: the seen classes, all classes, and the is-a edges.
        split: the classes of Table 4, of which the unseen ones were trained on by no system that has that part.
    """

    lists: Lists
    split: Split | None = None
    options: EvaluationOptions = EvaluationOptions()
    seed: int = 0

    def splits(self, part: str) -> list[Split]:
        """The class splits that the pictures of a part are evaluated on."""
        if part == SUPERVISED:
            return [Split("ILSVRC 2012 1K", self.lists.seen, ())]
        if part == SPLIT:
            return [] if self.split is None else [self.split]
        return [Split(name, self.lists.seen, tuple(published(self.lists, k))) for name, k in HOPS.items()]

    def refuse_leaks(self, part: str, trained_on: Sequence[str], where: str) -> None:
        """
        Raises:
            LabelError: a class that counts as unseen in this part was trained on.
        """
        for split in self.splits(part):
            Split(f"{where}: {split.name}", split.seen, split.unseen).check_unseen(trained_on)


def draw_split(classes: Sequence[str], unseen: int, seed: int) -> Split:
    """So many unseen ones, drawn with the seed: 800/200 of 1,000, where no published list is at hand."""
    chosen = set(np.random.default_rng(seed).choice(len(classes), unseen, replace=False).tolist())
    return Split(
        f"{len(classes) - unseen}/{unseen} drawn with seed {seed}",
        tuple(c for i, c in enumerate(classes) if i not in chosen),
        tuple(c for i, c in enumerate(classes) if i in chosen),
    )


def results(
    systems: Sequence[Embedded], protocol: Protocol, on_progress: Callable[[int, int], None] = lambda done, of: None
) -> list[Result]:
    """All rows of all systems, of the parts that each has.

    Args:
        on_progress: called with the evaluations made and to make: one per system, part and set of classes.

    Raises:
        LabelError: a class that counts as unseen was trained on; a class that is not in the is-a table; a picture
            without a label of the lists, or no picture for any of them.
    """
    hierarchy = Hierarchy([(child, parent) for child, parent, _ in protocol.lists.edges])
    work = [(s, part, split) for s in systems for part in PARTS if s.has(part) for split in protocol.splits(part)]
    known = {*protocol.lists.seen, *protocol.lists.every}
    for system in systems:
        for part in filter(system.has, PARTS):
            protocol.refuse_leaks(part, system.trained_on, system.folder)
            _refuse_unknown(system.pictures(part), known, f"{system.folder}, {part}")
    rows: list[Result] = []
    for number, (system, part, split) in enumerate(work):
        rows += _rows(system, part, split, protocol, hierarchy)
        on_progress(number + 1, len(work))
    if not rows:
        raise LabelError("no picture for any of the tables", where=", ".join(s.folder for s in systems))
    return rows


def _refuse_unknown(pictures: Features, known: AbstractSet[str], where: str) -> None:
    unknown = [labels for labels in pictures.labels if known.isdisjoint(labels)]
    if unknown:
        some = sorted({label for labels in unknown for label in labels})
        raise LabelError(
            f"{len(unknown)} pictures have no label of the lists: {', '.join(some[:5])}",
            where=where,
            mend="label pictures with wnids, and list all of them",
        )


def _rows(system: Embedded, part: str, split: Split, protocol: Protocol, hierarchy: Hierarchy) -> Iterator[Result]:
    classes = (*split.seen, *split.unseen)
    space = LabelSpace(classes, {c: (c,) for c in classes}, {c: c for c in classes})
    pictures, true = _of_classes(system.pictures(part), split.seen if part == SUPERVISED else split.unseen, classes)
    if not pictures.rows:
        return
    groups = {system.name: system.tie_groups(classes)}
    setting = Setting(DATASET, protocol.seed, split, space, hierarchy, protocol.options, groups=groups)
    for pairing in setting.pairings(classes, true):
        own = setting.tie_groups(system.name, pairing)
        measured = measure(system.blocks(pictures.values, classes, pairing, own), pairing)
        yield from figures(measured, pairing, system, setting)


def _of_classes(
    pictures: Features, wanted: Sequence[str], classes: Sequence[str]
) -> tuple[Features, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """The pictures that have one of the wanted classes, and which one, as an index into `classes`."""
    index = {name: i for i, name in enumerate(classes)}
    among = set(wanted)
    own = [next((label for label in labels if label in among), None) for labels in pictures.labels]
    rows = [row for row, label in enumerate(own) if label is not None]
    kept = Features([pictures.ids[r] for r in rows], pictures.values[rows], [pictures.labels[r] for r in rows])
    return kept, np.array([index[label] for label in own if label is not None], np.int64)
