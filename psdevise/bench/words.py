"""Skip-gram through the parameter server beside gensim's Word2Vec: as fast, and as good, on the same cores.

Both get the same lines of at most 1,000 words, the same vocabulary (min-count 5), dimension, window, sub-sampling and
one pass; two workers against two threads, at the same niceness. Of gensim's two modes (an iterable of sentences, a
corpus file) the one that a short trial finds faster. Timed is the training alone: neither counting nor the start of
processes. psdevise runs with the options that it ships with.

The default set is speed on the text's first two million words. `--full` adds 1 and 4 workers, and quality on the
whole text: Spearman on WordSim-353 and MEN from the folder words/ in PSDEVISE_DATA, mean of three seeds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Event

import numpy as np

from psdevise import store
from psdevise.bench import judged, machine
from psdevise.bench.rounds import Rounds, paired
from psdevise.bench.table import Context, Row
from psdevise.data import prepare_text, text, tokenizer
from psdevise.data.corpus import Corpus
from psdevise.data.vocabulary import Vocabulary, VocabularyOptions
from psdevise.errors import BenchmarkFailed, ConfigError
from psdevise.evaluation.words import Pair, read_pairs
from psdevise.labels import vectors as word_vectors
from psdevise.labels.vectors import WordVectors
from psdevise.models.skipgram import SkipGramOptions
from psdevise.phases.language import BuildLanguage, LanguageOptions
from psdevise.phases.language import word_vectors as trained_vectors
from psdevise.runtime.actor import worker_niceness
from psdevise.runtime.cluster import connect
from psdevise.runtime.hosts import make_host
from psdevise.runtime.job import ClusterOptions, Job

SLICE_WORDS, TRIAL_WORDS, LINE_WORDS = 2_000_000, 200_000, 1000
SAMPLE, MIN_COUNT = 1e-4, 5
ROUNDS, SEEDS = 5, 3
CASES = {"500d w20": (500, 20), "200d w5": (200, 5)}
QUALITY = (200, LanguageOptions().skipgram.window)
PAIRS = {"wordsim353": "wordsim353.tsv", "men": "EN-MEN-TR-3k.txt"}


@dataclass(frozen=True)
class Prepared:
    """One text in both systems' forms; `words` of it are in the vocabulary."""

    folder: str
    lines: str
    words: int
    vocabulary: Vocabulary


@dataclass(frozen=True)
class Learned:
    """What one training gave. `errors`: sentences that were not trained on, or refused."""

    words_per_second: float
    bytes_per_word: float
    errors: int
    vectors: WordVectors


def run(context: Context) -> list[Row]:
    if context.text is None:
        raise ConfigError("this benchmark needs a text", where="--text", mend="psdevise bench words --text FILE")
    pairs = pair_sets() if context.full else {}
    workers = (2, 1, 4) if context.full else (2,)
    turns = len(CASES) * (2 + 2 * ROUNDS * len(workers)) + (SEEDS * (len(workers) + 1) if context.full else 0)
    progress = _Progress(context, turns)
    rows = machine.figures("words")
    with tempfile.TemporaryDirectory() as folder:
        part = prepare(context.text, SLICE_WORDS, f"{folder}/slice", context.seed)
        trial = prepare(context.text, TRIAL_WORDS, f"{folder}/trial", context.seed)
        for case, (dim, window) in CASES.items():
            mode = _faster_mode(trial, dim, window, progress)
            for count in workers:
                rows += _speed(f"{case} W={count}", part, dim, window, count, mode, context.seed, progress)
        if context.full:
            whole = prepare(context.text, None, f"{folder}/whole", context.seed)
            rows += _quality(whole, pairs, workers, progress, context.on_note)
    return rows


def prepare(path: str, words: int | None, folder: str, seed: int) -> Prepared:
    """The first `words` words of a text (None: all) as lines, and as an encoded corpus."""
    store.make_folder(folder)
    lines = f"{folder}/lines.txt"
    with open(lines, "w", encoding="utf-8") as file:
        file.writelines(" ".join(line) + "\n" for line in _lines(path, words))
    options = VocabularyOptions(min_count=MIN_COUNT, max_line_words=LINE_WORDS, processes=1)
    prepare_text.prepare(lines, folder, options, [], None, seed)
    vocabulary = Vocabulary.load(f"{folder}/vocabulary.parquet")
    return Prepared(folder, lines, vocabulary.total, vocabulary)


def train(prepared: Prepared, options: LanguageOptions, workers: int, seed: int) -> Learned:
    """One pass through the parameter server on Ray, with one shard. The time is the workers' own, from their first
    question to the last slice's end, and waiting is part of it."""
    counts = tuple(prepared.vocabulary.counts.tolist())
    # More workers than cores share them: Ray places no more CPUs than there are.
    share = min(1.0, (os.cpu_count() or 1) / workers)
    cluster = ClusterOptions(
        num_workers=workers, num_shards=1, cpus_per_worker=share, snapshot_seconds=1e9, snapshot_share=1.0
    )
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            run="bench-words",
            phase="language",
            build=BuildLanguage(f"{prepared.folder}/corpus", counts, options, seed),
            snapshots=f"{folder}/snapshots",
            incarnations=f"{folder}/incarnations.json",
            seed=seed,
            phase_number=1,
            cluster=cluster,
            downpour=options.downpour,
            optimizer=options.optimizer,
            unit="words",
        )
        trained = make_host(cluster).train(job, lambda event: None, Event())
    bill, audit = trained.bill, trained.audit
    seconds = sum(bill[f"{what}_seconds"] for what in ("compute", "wire", "read", "idle")) / workers
    errors = abs(Corpus(f"{prepared.folder}/corpus").rows - audit["finished"]) + audit["refused"]
    vectors = trained_vectors(prepared.vocabulary.terms, counts, trained.parameters)
    return Learned(prepared.words / seconds, bill["bytes"] / prepared.words, errors, vectors)


def pair_sets() -> dict[str, list[Pair]]:
    """WordSim-353 and MEN, from the folder that PSDEVISE_DATA names.

    Raises:
        ConfigError: it names none that holds them.
    """
    folder = os.environ.get("PSDEVISE_DATA", "")
    if not Path(folder, "words", PAIRS["men"]).is_file():
        raise ConfigError(
            "quality needs pairs of words with human scores",
            where="PSDEVISE_DATA",
            mend=f"set it to a folder that holds words/{' and words/'.join(PAIRS.values())}",
        )
    return {name: read_pairs(str(Path(folder, "words", file))) for name, file in PAIRS.items()}


def _speed(
    case: str,
    prepared: Prepared,
    dim: int,
    window: int,
    workers: int,
    mode: str,
    seed: int,
    done: Callable[[str], None],
) -> list[Row]:
    learned: list[Learned] = []

    def ours(number: int) -> float:
        learned.append(train(prepared, shipped(dim, window), workers, seed + number))
        done(f"{case}, psdevise")
        return learned[-1].words_per_second

    def theirs(number: int) -> float:
        seconds = _gensim(prepared, dim, window, workers, mode, seed + number)
        done(f"{case}, gensim")
        return prepared.words / seconds

    found = paired({"psdevise": ours, "gensim": theirs}, ROUNDS)
    errors = {"psdevise": sum(one.errors for one in learned)}
    rows = Rounds(found.values, errors).rows("words", case, "words_per_second", "words/s", "gensim")
    size = [one.bytes_per_word for one in learned]
    rows.append(
        Row("words", case, "psdevise", "bytes_per_word", float(np.median(size)), min(size), max(size), "bytes/word")
    )
    return rows


def _quality(
    prepared: Prepared,
    pairs: dict[str, list[Pair]],
    workers: tuple[int, ...],
    done: Callable[[str], None],
    on_note: Callable[[str], None],
) -> list[Row]:
    dim, window = QUALITY
    found: dict[str, list[WordVectors]] = {}
    for seed in range(SEEDS):
        path = f"{prepared.folder}/gensim.bin"
        _gensim(prepared, dim, window, 2, "iterable", seed, path)
        found.setdefault("gensim", []).append(word_vectors.load(path))
        done("quality, gensim")
        for count in workers:
            learned = train(prepared, shipped(dim, window), count, seed)
            found.setdefault(f"psdevise W={count}", []).append(learned.vectors)
            done(f"quality, psdevise W={count}")
    return judged.rows(found, pairs, f"quality {dim}d w{window}", on_note)


def shipped(dim: int, window: int) -> LanguageOptions:
    """The defaults, at a size."""
    return LanguageOptions(skipgram=SkipGramOptions(dim=dim, window=window, sample=SAMPLE))


def _faster_mode(trial: Prepared, dim: int, window: int, done: Callable[[str], None]) -> str:
    seconds = {}
    for mode in ("iterable", "corpus_file"):
        seconds[mode] = _gensim(trial, dim, window, 2, mode, 0)
        done(f"trial of gensim, {mode}")
    return min(seconds, key=lambda mode: seconds[mode])


def _gensim(
    prepared: Prepared, dim: int, window: int, threads: int, mode: str, seed: int, vectors: str | None = None
) -> float:
    """Seconds of training, in a process of its own."""
    options = {
        "lines": prepared.lines,
        "mode": mode,
        "dim": dim,
        "window": window,
        "sample": SAMPLE,
        "min_count": MIN_COUNT,
        "threads": threads,
        "seed": seed + 1,  # gensim takes 0 for no seed
        "vectors": vectors,
        "niceness": _niceness(),
    }
    command = [sys.executable, "-m", "psdevise.bench.peers.gensim_words", json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkFailed(done.stderr.strip().splitlines()[-1] if done.stderr else "it died", where="gensim")
    figures = json.loads(done.stdout)
    if figures["terms"] != prepared.vocabulary.size:
        raise BenchmarkFailed(
            f"{figures['terms']} terms, psdevise counted {prepared.vocabulary.size}", where="gensim's vocabulary"
        )
    return float(figures["seconds"])


@cache
def _niceness() -> int:
    connect(ClusterOptions(num_workers=1), "psdevise")
    return worker_niceness()


def _lines(path: str, words: int | None) -> Iterator[list[str]]:
    left = words
    for line in text.lines(path):
        found = tokenizer.words(line)
        for start in range(0, len(found), LINE_WORDS):
            part = found[start : start + LINE_WORDS][:left]
            if part:
                yield part
            if left is not None:
                left -= len(part)
                if left <= 0:
                    return


class _Progress:
    def __init__(self, context: Context, of: int) -> None:
        self._report, self._done, self._of = context.on_progress, 0, of

    def __call__(self, what: str) -> None:
        self._done += 1
        self._report(self._done, self._of, what)
