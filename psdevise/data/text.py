"""Lines of text from plain or compressed files, a table's column, or a Wikipedia dump; never whole in memory."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from psdevise import store
from psdevise.compression import ERRORS, decompressed
from psdevise.errors import DataError

# As in enwiki-latest-pages-articles.xml.bz2, and in its parts: …articles1.xml-p1p41242.bz2
_DUMP = re.compile(r"\.xml(-p\d+p\d+)?(\.(gz|bz2|xz|zst))?$")
# More than half of the English Wikipedia's pages lead to another; the word itself depends on the language.
_REDIRECT = re.compile(r"\s*#\s*[^\W\d]+\s*:?\s*\[\[")
LONGEST_LINE = 1 << 20  # characters; a text may be a single line, as text8 is


class Text:
    """The records of a text: non-empty lines or, of a Wikipedia dump, the markup of each article. `plain` makes a
    record readable, which for markup is most of the work and so is left to whoever reads in parallel.

    Args:
        path: .txt, .gz, .bz2, .xz or .zst; .parquet, .csv or .jsonl with `column`; a Wikipedia dump
            (…articles….xml, or that compressed). Bytes that are no UTF-8 are replaced by U+FFFD.

    Attributes:
        markup: whether records are Wikipedia's markup.
        times: how often the file was read: 1.5 in the middle of the second time.
    """

    def __init__(self, path: str, column: str | None = None) -> None:
        self.path, self._column = path, column
        self.markup = _DUMP.search(path.lower()) is not None
        self._raw: Any = None
        self._size, self._finished = 1, 0

    @property
    def times(self) -> float:
        if self._raw is None:
            return float(self._finished)
        return self._finished + (1.0 if self._raw.closed else min(1.0, float(self._raw.tell()) / self._size))

    def __iter__(self) -> Iterator[str]:
        """
        Raises:
            DataError: a truncated or broken file, or no such column.
        """
        try:
            with store.open_read(self.path) as self._raw:
                self._size = max(1, self._raw.seek(0, io.SEEK_END))
                self._raw.seek(0)
                if self.markup:
                    yield from self._articles(self._raw)
                elif self.path.lower().endswith((".parquet", ".csv", ".jsonl")):
                    yield from self._cells(self._raw)
                else:
                    with io.TextIOWrapper(decompressed(self.path, self._raw), "utf-8", errors="replace") as file:
                        yield from _lines(file, self.path)
        except (*ERRORS, pa.ArrowException, ValueError) as e:
            raise DataError(f"cut off or broken: {e}", where=self.path, mend="fetch or make the file again") from e
        self._raw, self._finished = None, self._finished + 1

    def _articles(self, raw: IO[bytes]) -> Iterator[str]:
        from xml.etree.ElementTree import ParseError

        try:
            for markup in _pages(decompressed(self.path, raw), self.path):
                if not _REDIRECT.match(markup):
                    yield markup
        except ParseError as e:
            raise DataError(f"not a whole XML dump: {e}", where=self.path, mend="fetch the file again") from e

    def _cells(self, raw: IO[bytes]) -> Iterator[str]:
        if self._column is None:
            mend = "name it: data.text_column, or --column of psdevise data text"
            raise DataError("a table needs the name of its text column", where=self.path, mend=mend)
        for batch in _batches(self.path.lower(), raw):
            if self._column not in batch.schema.names:
                mend = f"columns here: {', '.join(batch.schema.names)}"
                raise DataError(f"no column {self._column!r}", where=self.path, mend=mend)
            kind = batch.schema.field(self._column).type
            if pa.types.is_dictionary(kind):  # as pandas writes categoricals
                kind = kind.value_type
            if not any(is_text(kind) for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)):
                raise DataError(f"column {self._column!r} holds {kind}, not text", where=self.path)
            for value in batch.column(self._column).to_pylist():
                for line in (value or "").splitlines():
                    if stripped := line.strip():
                        yield stripped


def _pages(dump: IO[bytes], path: str) -> Iterator[str]:
    """The markup of a dump's articles (namespace 0). gensim's extract_pages gives the same, but leaves an empty element
    of each page in the root: gigabytes by the end of the English Wikipedia.

    Raises:
        DataError: XML, but of something else.
        xml.etree.ElementTree.ParseError: cut off, or no XML.
    """
    from xml.etree.ElementTree import iterparse

    events = iterparse(dump, ("start", "end"))
    _, root = next(events)
    space = root.tag[: root.tag.rfind("}") + 1]  # it has the format's version in it
    if not space.startswith("{http://www.mediawiki.org/xml/export-"):
        raise DataError(f"no dump of a wiki: <{root.tag}>", where=path, mend="give it as plain text, without its tags")
    for event, element in events:
        if event == "end" and element.tag == f"{space}page":
            if element.findtext(f"{space}ns", "0") == "0":
                yield element.findtext(f"{space}revision/{space}text", "")
            root.clear()


def _lines(file: IO[str], path: str) -> Iterator[str]:
    """Non-empty lines; one longer than LONGEST_LINE is cut between words."""
    rest, first = "", True
    while piece := file.readline(LONGEST_LINE):
        if first and "\0" in piece:  # UTF-16 would be words of one letter
            raise DataError("not UTF-8 text", where=path, mend="iconv -f UTF-16 -t UTF-8 converts it, if it is text")
        first = False
        line, rest = rest + piece, ""
        if len(piece) == LONGEST_LINE and not piece.endswith("\n"):
            line, _, rest = line.rpartition(" ") if " " in piece else (line, "", "")
        if stripped := line.strip():
            yield stripped
    if stripped := rest.strip():
        yield stripped


def plain(record: str, markup: bool) -> str:
    """A record as words that a reader sees; of an article on one line."""
    if not markup:
        return record
    from gensim.corpora.wikicorpus import filter_wiki

    return " ".join(filter_wiki(record).split())


def lines(path: str, column: str | None = None) -> Iterator[str]:
    """Non-empty lines of a text, an article of a Wikipedia dump on each."""
    text = Text(path, column)
    for record in text:
        if found := plain(record, text.markup):
            yield found


def _batches(name: str, raw: IO[bytes]) -> Iterator[Any]:
    if name.endswith(".parquet"):
        table = pq.ParquetFile(raw)
        yield pa.RecordBatch.from_pylist([], schema=table.schema_arrow)  # so that an empty table's columns are known
        yield from table.iter_batches()
        return
    import pyarrow.csv
    import pyarrow.json

    if name.endswith(".csv"):
        yield from pyarrow.csv.open_csv(raw)
    else:
        yield from pyarrow.json.open_json(raw)
