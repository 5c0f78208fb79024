"""WordNet 3.0's own database of nouns, as Debian's package wordnet-base installs it: /usr/share/wordnet/data.noun.

A line is (wndb(5WN)): offset, file number, type, number of words in hex, as many pairs of word and id, number of
pointers, as many quadruples of symbol, offset, type and number, a bar, the gloss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psdevise import store
from psdevise.errors import LabelError

RELATIONS = {"@": "hypernym", "@i": "instance"}


@dataclass(frozen=True)
class WordNet:
    """
    Attributes:
        terms: wnid (n and the eight digits of the offset) → its terms, the preferred one first.
        glosses: wnid → definition.
        edges: child, parent, relation (hypernym or instance).
    """

    terms: Mapping[str, tuple[str, ...]]
    glosses: Mapping[str, str]
    edges: tuple[tuple[str, str, str], ...]

    @staticmethod
    def read(path: str) -> WordNet:
        """
        Args:
            path: data.noun, or the folder that holds it.

        Raises:
            LabelError: a line of another form, or a parent that is not there (both named).
        """
        path = path if path.endswith(".noun") else store.join(path, "data.noun")
        terms: dict[str, tuple[str, ...]] = {}
        glosses: dict[str, str] = {}
        edges = []
        for number, line in enumerate(store.read_text(path).splitlines(), 1):
            if not line.strip() or line.startswith("  "):  # the licence stands in front
                continue
            try:
                fields, _, gloss = line.partition(" | ")
                parts = fields.split()
                wnid, words = f"n{int(parts[0]):08d}", int(parts[3], 16)
                pointers = parts[5 + 2 * words :]
                if len(pointers) != 4 * int(parts[4 + 2 * words]):
                    raise ValueError("pointers are missing")
                terms[wnid] = tuple(word.replace("_", " ") for word in parts[4 : 4 + 2 * words : 2])
                glosses[wnid] = gloss.strip()
                for symbol, offset, kind, _ in zip(*[iter(pointers)] * 4, strict=True):
                    if symbol in RELATIONS and kind == "n":
                        edges.append((wnid, f"n{int(offset):08d}", RELATIONS[symbol]))
            except (IndexError, ValueError) as e:
                raise LabelError(f"line {number} is not one of WordNet's: {e}", where=path) from e
        unknown = next((edge for edge in edges if edge[1] not in terms), None)
        if unknown is not None:
            raise LabelError(f"{unknown[0]} has the parent {unknown[1]}, which is not here", where=path)
        return WordNet(terms, glosses, tuple(edges))

    def above(self, wnids: Sequence[str]) -> WordNet:
        """Only these synsets and all that they descend from.

        Raises:
            LabelError: one of them is not in WordNet.
        """
        unknown = [wnid for wnid in wnids if wnid not in self.terms]
        if unknown:
            raise LabelError(f"{len(unknown)} wnids are not in WordNet: {', '.join(unknown[:5])}", where="wordnet")
        parents: dict[str, list[str]] = {}
        for child, parent, _ in self.edges:
            parents.setdefault(child, []).append(parent)
        kept, waiting = set(wnids), list(wnids)
        while waiting:
            further = [p for p in parents.get(waiting.pop(), ()) if p not in kept]
            kept.update(further)
            waiting += further
        return WordNet(
            {wnid: terms for wnid, terms in self.terms.items() if wnid in kept},
            {wnid: gloss for wnid, gloss in self.glosses.items() if wnid in kept},
            tuple(edge for edge in self.edges if edge[0] in kept),
        )
