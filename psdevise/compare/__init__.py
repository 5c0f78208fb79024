"""The systems of the papers side by side: on identical features, over class splits, in paired comparisons.

`psdevise compare NAME --out DIR` keeps every finished cell (a system on a split, a pair of classes) in DIR, so that the
same command goes on where it was stopped, and writes `tables.md`, `results.json` and figures there.
"""
