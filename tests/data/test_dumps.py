"""Wikipedia dumps: the same articles as gensim finds, in bounded memory."""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import lzma
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest
import zstandard
from gensim.corpora.wikicorpus import extract_pages, filter_wiki

from psdevise.data import counting, text, tokenizer
from psdevise.data.text import Text
from psdevise.data.vocabulary import VocabularyOptions
from psdevise.errors import DataError


def test_a_compressed_dump_gives_words(tmp_path: Path) -> None:
    body = "The '''pickup''' [[truck]] is old."
    page = f"<page><title>T</title><ns>0</ns><id>1</id><revision><text>{body}</text></revision></page>"
    xml = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{page}</mediawiki>'
    path = tmp_path / "wiki-pages-articles.xml.bz2"
    path.write_bytes(bz2.compress(xml.encode()))
    assert [tokenizer.words(line) for line in text.lines(str(path))] == [["the", "pickup", "truck", "is", "old"]]


@pytest.mark.parametrize(
    "name",
    ["w.xml", "w.xml.bz2", "w.xml.gz", "w.xml.xz", "W.XML.ZST", "enwiki-latest-pages-articles1.xml-p1p41242.bz2"],
)
def test_a_dump_is_one_however_it_is_compressed_and_redirects_are_none_of_its_articles(
    tmp_path: Path, name: str
) -> None:
    bodies = [
        "#REDIRECT [[Truck]]",
        "#WEITERLEITUNG [[Truck]]",
        "# redirect: [[Truck]]",
        "#1 [[truck]] of all",
        "A cat.",
    ]
    pages = "".join(
        f"<page><title>T</title><ns>0</ns><id>1</id><revision><text>{b}</text></revision></page>" for b in bodies
    )
    xml = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{pages}</mediawiki>'.encode()
    compress = {".bz2": bz2.compress, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}
    (tmp_path / name).write_bytes(compress.get(Path(name).suffix.lower(), bytes)(xml))
    cut = [tokenizer.words(line) for line in text.lines(str(tmp_path / name))]
    assert cut == [["1", "truck", "of", "all"], ["a", "cat"]]


def page(body: str, namespace: int = 0, more: str = "") -> str:
    return (
        f"<page><title>T</title><ns>{namespace}</ns><id>1</id>{more}"
        f"<revision><id>2</id><contributor><ip>x</ip></contributor><text>{body}</text></revision></page>\n"
    )


PAGES = [
    page("{{Infobox|name=Truck|{{nested|a}}}} The '''pickup''' [[truck]]&lt;ref>a book&lt;/ref> is old.\n* Zoë"),
    page("#REDIRECT [[Truck]]"),
    page("Talk about it", 1),
    page("{{Template}} of templates", 10),
    page(""),
    page("Moved", more='<redirect title="Truck" />'),
    page("the newer", more="<revision><id>3</id><text>the older</text></revision>"),
    page(
        "{| class=x\n|-\n| a table\n|}\n[[File:a.png|thumb|a picture]] [http://x.org a site] &amp; &lt;math>x&lt;/math>"
    ),
    "<page><title>T</title><ns>0</ns><id>1</id><revision><text bytes='0' /></revision></page>",
]


SPACE = 'xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11"'


def test_a_dumps_articles_are_those_that_gensim_extracts(tmp_path: Path) -> None:
    site = "<siteinfo><sitename>W</sitename><namespaces><namespace key='0' /></namespaces></siteinfo>"
    path = tmp_path / "wiki-pages-articles.xml"
    path.write_text(f"<mediawiki {SPACE}>{site}{''.join(PAGES)}</mediawiki>")
    with path.open("rb") as file:
        theirs = [markup for _, markup, _ in extract_pages(file, filter_namespaces=("0",)) if markup]
    with path.open("rb") as file:
        ours = [markup for markup in text._pages(file, str(path)) if markup]
    assert ours == theirs
    assert len(ours) == 5
    articles = [markup for markup in theirs if not markup.startswith("#REDIRECT")]
    assert list(text.lines(str(path))) == [" ".join(filter_wiki(markup).split()) for markup in articles]


def test_xml_that_is_no_dump_is_named(tmp_path: Path) -> None:
    path = tmp_path / "book.xml"
    path.write_text("<book><page><text>words</text></page></book>")
    with pytest.raises(DataError, match="no dump of a wiki: <book>"):
        list(text.lines(str(path)))


def test_pages_are_let_go_as_they_are_read() -> None:
    def alive() -> int:
        return sum(type(one) is Element for one in gc.get_objects())

    before = alive()
    dump = io.BytesIO(f"<mediawiki {SPACE}>{page('A cat.') * 5000}</mediawiki>".encode())
    for number, _ in enumerate(text._pages(dump, "dump"), 1):
        if number in (2500, 5000):
            assert alive() - before < 2000, "those of the block that is being read"
    assert number == 5000


@pytest.mark.parametrize("processes", [1, 2])
def test_a_dump_is_cleaned_where_it_is_counted(tmp_path: Path, processes: int) -> None:
    pages = "".join(
        f"<page><title>T{i}</title><ns>{ns}</ns><id>{i}</id><revision><text>'''Pickup''' [[truck]]s {i}</text>"
        "</revision></page>"
        for i, ns in enumerate([0, 0, 4, 0])
    )
    path = tmp_path / "wiki-pages-articles.xml"
    path.write_text(f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{pages}</mediawiki>')
    source = Text(str(path))
    found = counting.count(source, VocabularyOptions(min_count=2, processes=processes))
    assert dict(zip(found.terms, found.counts.tolist(), strict=True)) == {"pickup": 3, "trucks": 3}
    path.write_text(path.read_text()[:-60])
    with pytest.raises(DataError, match="XML"):
        list(text.lines(str(path)))
