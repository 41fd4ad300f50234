#!/usr/bin/env bash
# Training throughput on CPU ranks against PyTorch's DistributedDataParallel: an MLP 784-512-512-10
# and a network of two convolutions on 28 x 28 images, Adam, 64 samples a rank, one thread a rank.
#
#   scripts/bench/training.sh [--rounds 7] [--seconds 4] [--models mlp,cnn] [--json FILE]
#       [--ranks 2,3,4] [--collective auto|ring|direct|hierarchical] [--mpi openmpi|mpich]
#
# Several ranks are threads of one process, or with --mpi the processes of that MPI. Targets are for one
# rank and for two.
# PEERS=FOLDER names a virtual environment that already has PyTorch; otherwise one is made.
# Run it on a machine that does nothing else.
set -euo pipefail
case ${1:-} in
-h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=$(scripts/install-peers.sh)
exec "$python" scripts/bench/training.py "$@"
