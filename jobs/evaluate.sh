#!/bin/sh
# Evaluation only, as a job of the cluster: the results of a finished run, made anew where an option has changed.
#   export RAY_API_SERVER_ADDRESS=http://HEAD:8265
#   sh jobs/evaluate.sh /shared/runs/cifar100 --set 'evaluate.hit_k=[1,5]'
# What follows is given to `psdevise evaluate`; the run lies where the head finds it.
exec ray job submit --working-dir "$(dirname "$0")" -- python submitted.py evaluate "$@"
