#!/usr/bin/env bash
# Installs what the benchmarks compare against, PyTorch for CPUs and MKL, into target/peers.
# Nothing but the benchmarks needs it. PyTorch's package brings GPU libraries along: about 6 GB.
#
#   scripts/install-peers.sh         prints the path of the Python to run the peers with
#   PEERS=FOLDER scripts/...         use the virtual environment in FOLDER instead
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
peers=${PEERS:-$PWD/target/peers}

has_peers() { "$peers/bin/python" -c 'import torch, numpy' >/dev/null 2>&1; }

if ! has_peers; then
    if ! python3 -c 'import venv, ensurepip' >/dev/null 2>&1; then
        if [[ $(id -u) -ne 0 ]]; then
            echo "run: sudo apt-get install -y --no-install-recommends python3-venv" >&2
            exit 1
        fi
        apt-get update -qq >&2
        apt-get install -y -qq --no-install-recommends python3-venv >&2
    fi
    echo "installing PyTorch into $peers" >&2
    python3 -m venv "$peers"
    "$peers/bin/pip" install --quiet torch==2.15.0 numpy mkl >&2
    has_peers
fi
printf '%s\n' "$peers/bin/python"
