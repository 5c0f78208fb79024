"""Candidate sets around the seen classes: the paper's 2-hop, 3-hop and all of ImageNet (Frome et al. 2013, 4.2).

The published "k-hop" is k − 1 is-a edges from a seen class: up to a common ancestor and down again. `published` gives
the published lists exactly; `readings` counts what else the word may mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from psdevise.errors import LabelError
from psdevise.labels.hierarchy import Hierarchy
from psdevise.labels.space import read_tsv, refuse_repeats

Hops = Literal["2", "3", "all"]
ANIMAL = "n00015388"
# Plant, geological formation, natural object, sport, artifact, fungus, person, animal: the tops of ImageNet's tree.
TOPS = ("n00017222", "n09287968", "n00019128", "n00523513", "n00021939", "n12992868", "n00007846", ANIMAL)
RELATIONS = ("hypernym", "instance")
MISC = "Misc"  # the extra parent of listed synsets that descend from none of them


@dataclass(frozen=True)
class IsA:
    """Parents and children by one kind of edge, or by several."""

    parents: Mapping[str, Sequence[str]]
    children: Mapping[str, Sequence[str]]

    @staticmethod
    def of(edges: Iterable[tuple[str, str]]) -> IsA:
        parents: dict[str, list[str]] = {}
        children: dict[str, list[str]] = {}
        for child, parent in edges:
            parents.setdefault(child, []).append(parent)
            children.setdefault(parent, []).append(child)
        return IsA(parents, children)

    def above(self, nodes: Iterable[str]) -> set[str]:
        return {p for n in nodes for p in self.parents.get(n, ())}

    def below(self, nodes: Iterable[str]) -> set[str]:
        return {c for n in nodes for c in self.children.get(n, ())}

    def descendants(self, nodes: Iterable[str], depth: int | None = None) -> set[str]:
        """With `nodes` themselves; down to `depth` edges, or all."""
        found, shell = set(nodes), set(nodes)
        while shell and depth != 0:
            shell = self.below(shell) - found
            found |= shell
            depth = None if depth is None else depth - 1
        return found

    def within(self, nodes: Iterable[str], edges: int) -> set[str]:
        """What lies at most so many edges away, `nodes` themselves too: up to a common ancestor, then down."""
        found: set[str] = set()
        up = set(nodes)
        for climbed in range(edges + 1):
            found |= self.descendants(up, edges - climbed)
            up = self.above(up)
        return found

    def around(self, nodes: Iterable[str], edges: int) -> set[str]:
        """The same in any direction at every edge."""
        found, shell = set(nodes), set(nodes)
        for _ in range(edges):
            shell = (self.above(shell) | self.below(shell)) - found
            found |= shell
        return found


@dataclass(frozen=True)
class Lists:
    """The seen classes, all classes, and the is-a edges (child, parent, relation) of a `hops` question."""

    seen: tuple[str, ...]
    every: tuple[str, ...]
    edges: tuple[tuple[str, str, str], ...]

    @staticmethod
    def read(seen: str, every: str, is_a: str) -> Lists:
        """
        Raises:
            LabelError: no wnid in a list, or one twice; one that is nowhere; a cycle; a relation of another name.
        """
        rows = read_tsv(is_a, ("child", "parent"))
        edges = tuple((r["child"], r["parent"], r.get("relation") or RELATIONS[0]) for r in rows)
        unknown = sorted({relation for _, _, relation in edges} - {*RELATIONS})
        if unknown:
            raise LabelError(
                f"{unknown[0]!r} is no relation", where=is_a, mend=f"{' or '.join(RELATIONS)}, or leave the column out"
            )
        hierarchy = Hierarchy([(child, parent) for child, parent, _ in edges], is_a)
        lists = Lists(_wnids(seen), _wnids(every), edges)
        for path, wnids in ((seen, lists.seen), (every, lists.every)):
            unknown = [w for w in wnids if w not in hierarchy]
            if unknown:
                raise LabelError(
                    f"{len(unknown)} wnids are not in the is-a table: {', '.join(unknown[:5])}",
                    where=path,
                    mend=f"add their edges to {is_a}, or take them out",
                )
        return lists

    @property
    def unseen(self) -> list[str]:
        """All but the seen, in the order of the list."""
        seen = set(self.seen)
        return [w for w in self.every if w not in seen]

    def graph(self, *relations: str) -> IsA:
        return IsA.of((c, p) for c, p, relation in self.edges if not relations or relation in relations)

    def with_misc(self) -> IsA:
        """Hypernym edges, and one extra parent over every listed synset that descends from none of `TOPS`."""
        plain = [(c, p) for c, p, relation in self.edges if relation == "hypernym"]
        graph = IsA.of(plain)
        tops = [t for t in TOPS if t in graph.parents or t in graph.children]
        if not tops:  # a hierarchy of the user's own
            return graph
        inside = graph.descendants(tops)
        outside = [w for w in dict.fromkeys([*self.every, *self.seen]) if w not in inside]
        return IsA.of([*plain, *((w, MISC) for w in outside)])


def published(lists: Lists, hops: Hops) -> list[str]:
    """The unseen wnids of the published list, in the order of `every`: 1,549 (2), 7,860 (3) or 20,842 (all) of
    ImageNet 2011's 21,841 around ILSVRC 2012's 1,000."""
    if hops == "all":
        return lists.unseen
    edges = int(hops) - 1
    near = lists.with_misc().within(lists.seen, edges) | lists.graph("hypernym").descendants([ANIMAL], edges - 1)
    return [w for w in lists.unseen if w in near]


def readings(lists: Lists, hops: Hops) -> dict[str, int]:
    """What else "k-hop" may mean → how many unseen wnids it gives."""
    if hops == "all":
        return {"all that are listed, less the seen": len(lists.unseen), "the list's length": len(lists.every)}
    k, found = int(hops), {"published": set(published(lists, hops))}
    for edges in (k - 1, k):
        found[f"≤ {edges} edges, up then down, hypernyms"] = lists.graph("hypernym").within(lists.seen, edges)
        found[f"≤ {edges} edges, up then down, hypernyms and Misc"] = lists.with_misc().within(lists.seen, edges)
        found[f"≤ {edges} edges, up then down, with instances"] = lists.graph().within(lists.seen, edges)
        found[f"≤ {edges} edges, any direction, hypernyms"] = lists.graph("hypernym").around(lists.seen, edges)
        found[f"≤ {edges} edges, any direction, with instances"] = lists.graph().around(lists.seen, edges)
    return {name: _among(lists.unseen, near) for name, near in found.items()}


def _among(wnids: Iterable[str], near: Collection[str]) -> int:
    return sum(w in near for w in wnids)


def _wnids(path: str) -> tuple[str, ...]:
    wnids = [row["wnid"] for row in read_tsv(path, ("wnid",))]
    refuse_repeats(wnids, path)
    return tuple(wnids)
