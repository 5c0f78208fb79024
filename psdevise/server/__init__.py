"""A parameter server for any PyTorch model, without threads, clocks or the network.

Reading order: `layout` (which shard holds what) → `protocol` (the messages) → `optimizer` (Adagrad) →
`shard` (pull, push, snapshot) → `ledger` (slices and leases) → `pace` and `rounds` (staleness) →
`coordinator` (what workers ask) → `snapshot` (files).
"""
