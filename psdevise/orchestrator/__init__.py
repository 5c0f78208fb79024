"""A run: its configuration, its phases in order, its artifacts, and how it goes on where it stopped.

Reading order: `options` → `graph` (phases and keys) → `plan` (which phases a run has) → `prepare`, `train`
and `judge` (what each does) → `run`.
"""
