#!/bin/sh
# The steps of docker/Dockerfile in a clean Debian root, where no container engine runs. As root, outside CI:
#   apt-get install debootstrap
#   sh docker/chroot.sh /var/tmp/psdevise-root [--find-links … and other options of pip]
# Takes four minutes and 2.4 GB with PyTorch's wheel without CUDA, more with the one that PyPI has; ends with a run of
# the embedded default as the image's user, whose health check succeeds.
# What differs from the image: Debian bookworm's own Python 3.11 in place of python:3.11-slim-bookworm's, no layers,
# no entry point; the network and the devices are the machine's own.
set -eu
root=${1:?where the root is made: sh docker/chroot.sh FOLDER [options of pip]}
shift
source=$(cd "$(dirname "$0")/.." && pwd)
command -v debootstrap >/dev/null || { echo "needs Debian's package debootstrap" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "needs root, for chroot and mount" >&2; exit 1; }
[ ! -e "$root" ] || { echo "$root is there already: give another folder, or remove it" >&2; exit 1; }

# A folder of wheels, where PIP_FIND_LINKS names one, is seen in the root as well.
wheels=
case ${PIP_FIND_LINKS:-} in /*) if [ -d "$PIP_FIND_LINKS" ]; then wheels=$PIP_FIND_LINKS; fi ;; esac

in_root() { chroot "$root" env PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 "$@"; }
run=
ended() {
  if [ -n "$run" ]; then kill "$run" 2>/dev/null || true; fi
  for place in dev/shm sys proc "${wheels#/}"; do
    if [ -n "$place" ]; then umount "$root/$place" 2>/dev/null || true; fi
  done
}
trap ended EXIT INT TERM

debootstrap --variant=minbase --include=python3,python3-venv,wget,ca-certificates bookworm "$root"
cp /etc/resolv.conf "$root/etc/resolv.conf"
# Where a machine names a registry or a certificate of its own, the root needs to know them too.
for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
  if [ -e "$file" ]; then cp "$file" "$root$file"; fi
done
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mkdir -p "$root/dev/shm"
mount -t tmpfs -o size=2g tmpfs "$root/dev/shm"
if [ -n "$wheels" ]; then
  mkdir -p "$root$wheels"
  mount --bind -o ro "$wheels" "$root$wheels"
fi

# FROM … AS build
in_root python3 -m venv /opt/psdevise
mkdir "$root/source"
for name in constraints.txt setup.cfg pyproject.toml README.md psdevise; do cp -r "$source/$name" "$root/source/$name"; done
in_root /opt/psdevise/bin/python -m pip install --constraint /source/constraints.txt "$@" setuptools
in_root sh -c 'cd /source && exec "$@"' sh \
  /opt/psdevise/bin/python -m pip install --constraint constraints.txt "$@" --no-build-isolation .
rm -r "$root/source"

# The image itself
in_root useradd --create-home --uid 1000 psdevise
in_root install -d -o psdevise -g psdevise /app /runs
cp -r "$source/jobs" "$root/app/jobs"
as_user() {
  chroot --userspec=1000:1000 "$root" env -i PATH=/opt/psdevise/bin:/usr/bin:/bin HOME=/home/psdevise \
    PYTHONUNBUFFERED=1 "$@"
}
as_user psdevise --version
as_user sh -c 'cd /app && exec psdevise run jobs/quickstart.yaml --set folder=/runs' &
run=$!
# The command of HEALTHCHECK, until it succeeds.
until as_user wget --tries=1 --timeout=4 -q -O /dev/null http://127.0.0.1:9464/metrics; do
  kill -0 $run
  sleep 1
done
echo "healthy"
wait $run
test -s "$root/runs/quickstart/results.json"
echo "built and run in $root"
