"""The hosts of training: Ray actors, and the same objects in one process. Threads and clocks live here.

Reading order: `job` (what is to be trained, and where) → `reader` (reading ahead) → `inprocess` (the
smallest host) → `actors` (shard, worker, coordinator on Ray) → `cluster` (starting and asking Ray) →
`training` (one phase from snapshot to parameters, restarts included).
"""
