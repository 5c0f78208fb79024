"""Benchmarks: each side by side in one run, in the form of `table.Row`; `psdevise bench NAME` runs them."""
