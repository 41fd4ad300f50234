#!/usr/bin/env bash
# Installs what the benchmarks compare against, PyTorch for CPUs and MKL, into target/peers.
# Nothing but the benchmarks needs it. PyTorch's package brings GPU libraries along: about 6 GB.
#
#   scripts/install-peers.sh         prints the path of the Python to run the peers with
#   PEERS=FOLDER scripts/...         use the virtual environment in FOLDER instead
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec scripts/install-environment.sh "${PEERS:-$PWD/target/peers}" 'torch, numpy' \
    torch==2.15.0 numpy mkl
