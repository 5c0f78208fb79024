"""A simulated host: the objects that train, under a clock, a network and a disk that are drawn from a seed.

Reading order: `clock` (events in order of time) → `disk` (an fsspec file system that can fail) → `faults` (what
goes wrong, and when) → `network` (calls that are late, lost or doubled) → `worker` (serves a loop's effects) →
`cluster` (the supervisor's hands) → `training` (one phase from snapshot to parameters).

For `psdevise simulate` the same cluster runs on hosts with measured costs: `options` → `hardware` (cores, memory,
cards, queues) → `sizes` (bytes of the real model) → `one_host`, `many_hosts` (calls and what they take) → `smallmodel`
(what is really computed) → `meter` → `scale` (one cluster's figures) → `calibrate` (costs from a benchmark).

Nothing here is random but for one `random.Random`, and nothing waits: a seed gives the same run every time.
"""
