#!/usr/bin/env bash
# Training throughput on CPU ranks against PyTorch's DistributedDataParallel: an MLP 784-512-512-10
# and a network of two convolutions on 28 x 28 images, Adam, 64 samples a rank, one thread a rank.
#
#   scripts/bench/training.sh [--rounds 7] [--seconds 4] [--models mlp,cnn] [--json FILE]
#       [--collective auto|ring|direct|hierarchical] [--mpi openmpi|mpich]
#
# Two ranks are threads of one process, or with --mpi the processes of that MPI.
# PEERS=FOLDER names a virtual environment that already has PyTorch; otherwise one is made.
# Run it on a machine that does nothing else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=$(scripts/install-peers.sh)
exec "$python" scripts/bench/training.py "$@"
