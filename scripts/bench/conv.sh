#!/usr/bin/env bash
# The kernels of a small convolutional network against PyTorch's, one thread, alternating.
#
#   scripts/bench/conv.sh [--rounds 5] [--seconds 2]
#
# PEERS=FOLDER names a virtual environment that already has PyTorch; otherwise one is made.
set -euo pipefail
case ${1:-} in
-h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=$(scripts/install-peers.sh)
cargo build --quiet --locked --release --example bench_conv
exec "$python" scripts/bench/conv.py "$@"
