"""gensim's Word2Vec over a file of lines, as a process of its own: JSON options in, JSON figures out.

{"lines": FILE, "mode": "iterable" | "corpus_file", "dim", "window", "sample", "min_count", "threads", "seed",
 "vectors": FILE or null, "niceness"}  →  {"seconds": of training alone, "terms": …}
"""

from __future__ import annotations

import json
import os
import sys
import time

from gensim.models import Word2Vec
from gensim.models.word2vec import LineSentence


def main() -> None:
    options = json.loads(sys.argv[1])
    os.nice(max(0, options["niceness"] - os.nice(0)))  # as Ray's workers have it
    model = Word2Vec(
        vector_size=options["dim"],
        window=options["window"],
        sample=options["sample"],
        min_count=options["min_count"],
        workers=options["threads"],
        seed=options["seed"],
        sg=1,
        hs=1,
        negative=0,
    )
    lines = options["lines"]
    if options["mode"] == "iterable":
        # Each line has at most 1,000 words: nothing is cut at gensim's limit of 10,000.
        source = {"corpus_iterable": LineSentence(lines)}
        model.build_vocab(**source)
    else:
        source = {"corpus_file": lines}
        model.build_vocab(**source)
    begin = time.perf_counter()
    model.train(**source, total_examples=model.corpus_count, total_words=model.corpus_total_words, epochs=1)
    seconds = time.perf_counter() - begin
    if options["vectors"]:
        model.wv.save_word2vec_format(options["vectors"], binary=True)
    print(json.dumps({"seconds": seconds, "terms": len(model.wv)}))


if __name__ == "__main__":
    main()
