#!/usr/bin/env bash
# Builds target/MPI/debug/ringstep and the program of tests/mpi for one MPI, and prints the latter's path.
#
#   scripts/build-mpi.sh openmpi|mpich
set -euo pipefail
cd "$(dirname "$0")/.."

implementation=${1:?openmpi or mpich}
# The binding is generated from the headers of one MPI: each has its own target folder.
target=target/$implementation
MPICC=mpicc.$implementation
command -v "$MPICC" >/dev/null || MPICC=mpicc
export MPICC

# All other dependencies are the same under every MPI: what is built already is copied.
built=${CARGO_TARGET_DIR:-target}/debug
if [ ! -e "$target/debug" ] && [ -e "$built/deps" ]; then
    mkdir -p "$target/debug/deps"
    cp -a "$built/.fingerprint" "$built/build" "$target/debug/"
    cp -a "$built"/deps/lib* "$target/debug/deps/"
    rm -rf "$target"/debug/{.fingerprint,build}/{mpi,ringstep}-*
fi

# Both by one command: `cargo build` gives dependencies other features than tests do, and builds anew.
program=$(cargo test --quiet --locked --features mpi --target-dir "$target" --test mpi --no-run \
    --message-format json | sed -n 's/.*"executable":"\([^"]*\/mpi-[^"]*\)".*/\1/p' | tail -n 1)
[ -x "$program" ] || { echo "the MPI test did not build" >&2; exit 1; }
printf '%s\n' "$program"
