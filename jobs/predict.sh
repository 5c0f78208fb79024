#!/bin/sh
# Bulk prediction, as a job that is spread over the cluster: names every picture of a Parquet data set.
#   export RAY_API_SERVER_ADDRESS=http://HEAD:8265
#   sh jobs/predict.sh /shared/runs/cifar100 s3://bucket/pictures --out s3://bucket/names.parquet --workers 16
# What follows is given to `psdevise predict`; run, pictures and output lie where all nodes find them. A worker that
# dies is replaced, and the same command goes on with a job that was stopped.
exec ray job submit --working-dir "$(dirname "$0")" -- python submitted.py predict "$@"
