"""The configuration of a run: what each room declares, put together."""

from __future__ import annotations

from dataclasses import dataclass

from psdevise.config import option
from psdevise.data.vocabulary import VocabularyOptions
from psdevise.data.world import WorldOptions
from psdevise.errors import ConfigError
from psdevise.evaluation.evaluate import EvaluationOptions
from psdevise.labels.resolve import ResolveOptions
from psdevise.phases.joint import JointOptions
from psdevise.phases.language import LanguageOptions
from psdevise.phases.visual import VisualOptions
from psdevise.runtime.job import ClusterOptions
from psdevise.systems.baselines import check


@dataclass(frozen=True)
class ImagesOptions:
    train: str = option("", "Parquet file or prepared folder of training pictures")
    test: str = option("", "Parquet file or prepared folder of test pictures; read once, at the end")
    id_column: str = option("id", "column of the pictures' ids; where it is missing, the row number is the id")
    image_column: str = option("image", "column of the encoded pictures")
    labels_column: str = option("labels", "column of a label, or of a list of labels")
    validation_rows: int = option(0, "this many last rows of the training pictures choose, and train nothing", low=0)
    processes: int = option(2, "processes that read and check the pictures", low=1)
    max_broken: float = option(0.01, "share of pictures that may be broken", low=0.0, high=1.0)


@dataclass(frozen=True)
class DataOptions:
    world: WorldOptions | None = option(None, "draw a small world instead of reading data: needs no files")
    images: ImagesOptions = option(ImagesOptions(), "labelled pictures")
    text: str | None = option(None, "text: plain, gz, bz2, xz or zst; one paragraph or article a line")
    text_column: str | None = option(None, "where the text is a table: its column")

    @property
    def has_pictures(self) -> bool:
        return self.world is not None or bool(self.images.train and self.images.test)

    def __post_init__(self) -> None:
        half = bool(self.images.train) != bool(self.images.test)
        if half or (self.text is None and not self.has_pictures):
            raise ConfigError(
                "no pictures",
                where="images",
                mend="give images.train and images.test, or world: {} for a drawn world; with data.text alone a run"
                " trains word vectors",
            )


@dataclass(frozen=True)
class LabelOptions:
    table: str | None = option(None, "TSV with columns label, wnid, terms; null: a label's name is its only term")
    unseen: str | None = option(None, "file of the classes that are never trained on, one a line")
    trained: str | None = option(
        None,
        "file of classes that a core of your own was trained on, one a line: an unseen class among them is refused",
    )
    tune: str | None = option(None, "file of seen classes that calibrate the unseen ones, one a line")
    is_a: str | None = option(None, "TSV with columns child, parent, relation; null leaves hp@k out")
    resolve: ResolveOptions = option(ResolveOptions(), "how a label gets its vector")


@dataclass(frozen=True)
class MonitorOptions:
    port: int | None = option(9464, "port of /metrics; 0 takes a free one, null none")
    address: str = option("127.0.0.1", "address that /metrics listens on")
    tensorboard: bool = option(False, "curves for TensorBoard in the run folder; needs psdevise[tensorboard]")
    mlflow: str | None = option(None, "tracking URI of an MLflow that gets the run; needs psdevise[mlflow]")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    name: str = option("run", "name of the run, and of its folder")
    folder: str = option("runs", "where run folders are made; any fsspec path")
    seed: int = option(0, "seed of everything random", low=0)
    data: DataOptions = option(help="pictures and text")
    labels: LabelOptions = option(LabelOptions(), "classes, terms, hierarchy")
    vocabulary: VocabularyOptions = option(VocabularyOptions(), "tokeniser and vocabulary")
    language: LanguageOptions = option(LanguageOptions(), "skip-gram language model")
    visual: VisualOptions = option(VisualOptions(), "convolutional visual model")
    joint: JointOptions = option(JointOptions(), "joint visual-semantic model")
    baselines: tuple[str, ...] = option(
        ("softmax", "random"),
        "systems trained beside DeViSE with the same visual model: softmax, random, l2, wsabie, conse, cosine, socher,"
        " chollet, logistic, or module:name of your own",
    )
    evaluate: EvaluationOptions = option(EvaluationOptions(), "what is measured")
    cluster: ClusterOptions = option(ClusterOptions(), "workers, shards, resources")
    monitor: MonitorOptions = option(MonitorOptions(), "Prometheus endpoint")
    parallel_phases: bool = option(False, "train language and visual at the same time")

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ConfigError(f"{self.name!r} is no folder name", where="name")
        check(self.baselines)
        if not self.data.has_pictures and self.language.vectors is not None:
            raise ConfigError("a run without pictures trains word vectors", where="language.vectors", mend="remove it")
        if self.joint.label_vectors == "trained":
            self._check_trained_labels()
        if self.data.world is None and self.data.text is None and self.language.vectors is None:
            raise ConfigError("no text", where="data.text", mend="give data.text, or language.vectors of your own")
        for where, slices in {
            "language.slices": self.language.slices,
            "visual.slices": self.visual.slices,
            "joint.projection.slices": self.joint.projection.slices,
            "joint.fine_tuning.slices": self.joint.fine_tuning.slices,
        }.items():
            if slices < 10 * self.cluster.num_workers:
                raise ConfigError(
                    f"{slices} slices for {self.cluster.num_workers} workers",
                    where=where,
                    mend=f"at least ten per worker: {10 * self.cluster.num_workers}",
                )

    def _check_trained_labels(self) -> None:
        joint, language = self.joint, self.language
        for wrong, mend in (
            (language.vectors is not None, "the text that it goes on with needs a language model trained here"),
            (language.optimizer.table_rule != "sum", "set language.optimizer.table_rule: sum"),
            (joint.false_terms != "labels", "set joint.false_terms: labels"),
            (self.labels.resolve.terms == "mean", "set labels.resolve.terms: first, or sample"),
            (joint.projection.epochs == 0, "set joint.projection.epochs > 0"),
        ):
            if wrong:
                raise ConfigError("the label vectors cannot be trained so", where="joint.label_vectors", mend=mend)
