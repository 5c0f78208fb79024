"""Which phases a run has, what each is made from, and what it needs: one readable function.

world ─► images ──────► visual ─► features ─► joint-* ─► index ─► evaluate
    └──► vocabulary ─► language ─► labels ──────┘

Without pictures a run is vocabulary and language.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from psdevise import config, store
from psdevise.orchestrator import judge, learn, prepare, train
from psdevise.orchestrator.graph import Phase
from psdevise.orchestrator.joint import Joint
from psdevise.orchestrator.learn import phase_name
from psdevise.orchestrator.options import RunOptions
from psdevise.orchestrator.targets import trains_labels
from psdevise.systems.baselines import JOINT, on_core, recipe
from psdevise.systems.recipe import fingerprint

FORMAT = 1


def joint_systems(options: RunOptions) -> tuple[str, ...]:
    """The systems that the joint phase trains."""
    return ("devise", *(b for b in options.baselines if b in JOINT))


def plan(options: RunOptions) -> list[Phase]:
    """The run's phases, every one after those it needs."""
    world = options.data.world is not None
    seed = {"seed": options.seed, "format": FORMAT}

    def of(*parts: Any) -> dict[str, Any]:
        return seed | {str(i): config.plain(p) for i, p in enumerate(parts)}

    if not options.data.has_pictures:
        return _words(options, of)
    phases = []
    source: tuple[str, ...] = ()
    if world:
        phases.append(Phase("world", (), lambda: of(options.data.world), prepare.World(options), "pictures"))
        source = ("world",)
    phases.append(
        Phase(
            "images",
            source,
            lambda: of(
                options.data.images.validation_rows,
                options.data.images.max_broken,
                _images(options),
                _labels(options),
            ),
            prepare.Images(options),
            "pictures",
        )
    )
    foreign = options.language.vectors
    if foreign is None:
        phases.append(
            Phase(
                "vocabulary",
                (*source, "images"),
                lambda: of(_vocabulary(options), _text(options), options.data.text_column),
                prepare.Words(options),
                "words",
            )
        )
    phases.append(
        Phase(
            "language",
            () if foreign else ("vocabulary",),
            lambda: of(options.language, _hash(foreign)),
            train.Language(options),
            "words",
        )
    )
    phases.append(Phase("visual", ("images",), lambda: of(options.visual), train.Visual(options)))
    phases.append(
        Phase(
            "labels",
            ("images", "language", *(() if foreign else ("vocabulary",)), *source),
            lambda: of(options.labels.resolve, _hash(options.labels.is_a)),
            prepare.Labels(options),
            "labels",
        )
    )
    phases.append(
        Phase(
            "features",
            ("images", "visual"),
            lambda: of(options.visual.core),
            train.Features(options),
            "pictures",
        )
    )
    words = ("language", *(() if foreign else ("vocabulary",)), *source)
    for system in joint_systems(options):
        reads_words = options.joint.false_terms == "lexicon" or trains_labels(options, system)
        phases.append(
            Phase(
                f"joint-{system}",
                ("images", "visual", "features", "labels", *(words if reads_words else ())),
                lambda system=system: of(_joint(options, system), system),  # type: ignore[misc]
                Joint(options, system),
            )
        )
    for system in on_core(options.baselines):
        phases.append(
            Phase(
                phase_name(system),
                ("images", "visual", "features", "labels"),
                lambda system=system: of(options.joint.centre, fingerprint(recipe(system))),  # type: ignore[misc]
                learn.Learn(options, system),
            )
        )
    joints = (*(f"joint-{s}" for s in joint_systems(options)), *map(phase_name, on_core(options.baselines)))
    phases.append(
        Phase(
            "index",
            ("images", "language", "labels", "joint-devise", *(() if foreign else ("vocabulary",))),
            lambda: of(options.joint.centre),
            judge.MakeIndex(options),
            "labels",
        )
    )
    phases.append(
        Phase(
            "evaluate",
            (*source, "images", "visual", "features", "labels", "index", *joints),
            lambda: of(replace(options.evaluate, batch=1), options.baselines, options.name),
            judge.Evaluate(options),
            "pictures",
        )
    )
    return phases


def _words(options: RunOptions, of: Callable[..., dict[str, Any]]) -> list[Phase]:
    def counted() -> dict[str, Any]:
        return of(_vocabulary(options), _text(options), options.data.text_column, _hash(options.labels.table))

    return [
        Phase("vocabulary", (), counted, prepare.Words(options), "words"),
        Phase("language", ("vocabulary",), lambda: of(options.language, None), train.Language(options), "words"),
    ]


def _joint(options: RunOptions, system: str) -> dict[str, Any]:
    """Its options, without those of the label vectors where they stay as they are."""
    unused = () if trains_labels(options, system) else ("label_vectors", "label_rate", "text_passes")
    return {k: v for k, v in config.plain(options.joint).items() if k not in unused}


def _vocabulary(options: RunOptions) -> list[Any]:
    """What of the vocabulary's options changes it (not the processes, and of files their content), and the corpus'
    form: since it is a folder of parts, one of another form is not taken for it."""
    return ["parts", replace(options.vocabulary, processes=1, keep=()), *map(_hash, options.vocabulary.keep)]


def _images(options: RunOptions) -> list[Any]:
    images = options.data.images
    if options.data.world is not None:
        return []
    columns = [images.id_column, images.image_column, images.labels_column]
    return [columns, *(_content(path) for path in (images.train, images.test))]


def _labels(options: RunOptions) -> list[Any]:
    labels = options.labels
    return [_hash(labels.table), _hash(labels.unseen), _hash(labels.tune), _hash(labels.trained)]


def _text(options: RunOptions) -> str | None:
    return _hash(options.data.text)


def _hash(path: str | None) -> str | None:
    """A file's content, not its place, is part of a key."""
    return None if path is None else store.sha256(path)


def _content(path: str) -> list[str]:
    from psdevise.data.pictures import parts

    return [store.sha256(name) for name in parts(path)]
