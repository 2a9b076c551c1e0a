#!/usr/bin/env bash
# Every measurement on one GPU, in under eight minutes. Usage:
#
#   benchmarks/gpu/run.sh [--dry] [--out=FOLDER] [--seconds=N] [PART ...]
#
# --dry runs the same parts at toy sizes on a CPU. In a folder of pack.py the wheels that it carries
# are unpacked first, into a folder that is removed again; torch and the rest are those of python3.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
path=$root
if [ -f "$root/wheels.tar.xz" ]; then
    mkdir "$scratch/site"
    tar -xJf "$root/wheels.tar.xz" -C "$scratch/site" ||
        python3 -m tarfile -e "$root/wheels.tar.xz" "$scratch/site"
    path=$scratch/site:$root
fi
export PYTHONPATH="$path${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=1 WANDB_MODE=disabled RECSYS_CACHE="$scratch/cache" GPU_SCRATCH="$scratch"
exec_python=${PYTHON:-python3}
"$exec_python" "$root/benchmarks/gpu/run.py" "$@"
