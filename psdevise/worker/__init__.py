"""The Downpour worker, without threads, clocks or the network: it asks its host for every effect.

Reading order: `task` (what a phase gives the loop) → `replica` (the local copy) → `effects` (what the
host is asked for) → `client` (pull and push over all shards) → `downpour` (Algorithm 1).
"""
