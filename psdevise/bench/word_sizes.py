"""The sizes of word vectors, as Frome et al. 2013 (section 3.1) looked at them: speed and Spearman's ρ by dimension.

100 to 2,000 dimensions on the text's first two million words, two workers, the shipped options; with `--full` the
whole text up to 1,000. WordSim-353 and MEN come from the folder words/ in PSDEVISE_DATA.
"""

from __future__ import annotations

import tempfile

from psdevise.bench import judged, words
from psdevise.bench.table import Context, Row
from psdevise.errors import ConfigError
from psdevise.phases.language import LanguageOptions

SIZES, ON_A_SLICE = (100, 200, 500, 1000), 2000
WINDOW = LanguageOptions().skipgram.window


def run(context: Context) -> list[Row]:
    if context.text is None:
        raise ConfigError("this benchmark needs a text", where="--text", mend="psdevise bench word_sizes --text FILE")
    pairs = words.pair_sets()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        part = words.prepare(context.text, words.SLICE_WORDS, f"{folder}/slice", context.seed)
        whole = words.prepare(context.text, None, f"{folder}/whole", context.seed) if context.full else part
        for done, dim in enumerate((*SIZES, ON_A_SLICE)):
            prepared = part if dim == ON_A_SLICE else whole
            learned = words.train(prepared, words.shipped(dim, WINDOW), 2, context.seed)
            figures = {"words_per_second": (learned.words_per_second, "words/s")}
            case = f"{dim}d w{WINDOW} W=2, {'slice' if prepared is part else 'whole text'}"
            for name, scores in pairs.items():
                value = judged.spearman(learned.vectors, scores, f"{case}: {name}", context.on_note)
                if value is not None:
                    figures[f"{name}_spearman"] = (value, "1")
            for metric, (figure, unit) in figures.items():
                errors = learned.errors
                rows.append(Row("word_sizes", case, "psdevise", metric, figure, figure, figure, unit, errors=errors))
            context.on_progress(done + 1, len(SIZES) + 1, case)
    return rows
