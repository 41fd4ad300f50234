#!/usr/bin/env bash
# The kernels of a small convolutional network against PyTorch's, one thread, alternating.
#
#   scripts/bench/conv.sh [--rounds 5] [--seconds 2]
#
# PEERS=FOLDER names a virtual environment that already has PyTorch; otherwise one is made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=$(scripts/install-peers.sh)
cargo build --quiet --locked --release --example bench_conv
exec "$python" scripts/bench/conv.py "$@"
