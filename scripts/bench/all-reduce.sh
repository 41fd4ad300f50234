#!/usr/bin/env bash
# Times our all-reduce of 1, 25 and 100 MB of floats on 2, 3 and 4 ranks of this machine against the
# bound of shared memory, against MPI_Allreduce in place and against PyTorch over gloo, taking
# turns, and prints medians, ratios and whether each target is met; fails if one is not.
#
#   scripts/bench/all-reduce.sh [ROUNDS [RANKS...]]
#
# MPIs that are not installed are left out. PEERS=FOLDER names a virtual environment that already has
# PyTorch; otherwise one is made. PROFILE names another profile of cargo's.
set -euo pipefail
case ${1:-} in
-h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac
cd "$(dirname "$0")/../.."

rounds=${1:-3}
worlds=("${@:2}")
[ ${#worlds[@]} -gt 0 ] || worlds=(2 3 4)
profile=${PROFILE:-release}
built=${profile/dev/debug}/ringstep
programs=target/bench
results=$programs/all-reduce.txt
mkdir -p "$programs"
: >"$results"

python=$(scripts/install-peers.sh)
gcc -O3 -march=native scripts/bench/all_reduce_bound.c -o "$programs/bound"
cargo build --quiet --locked --profile "$profile"
mpis=()
for mpi in openmpi mpich; do
    command -v "mpicc.$mpi" >/dev/null || { echo "no $mpi: left out" >&2; continue; }
    mpis+=("$mpi")
    "mpicc.$mpi" -O2 scripts/bench/all_reduce_mpi.c -o "$programs/mpi-$mpi"
    MPICC=mpicc.$mpi cargo build --quiet --locked --profile "$profile" --features mpi \
        --target-dir "target/$mpi"
done

# `run NAME COMMAND...` files the command's lines under a name and the round.
run() {
    local name=$1
    shift
    if ! timeout 300 "$@" >"$programs/output.txt" 2>"$programs/errors.txt" ||
        ! grep -q '^[0-9]* [0-9]* [0-9.]*$' "$programs/output.txt"; then
        echo "$name failed: $*" >&2
        cat "$programs/output.txt" "$programs/errors.txt" >&2
        exit 1
    fi
    sed -n "s/^[0-9]* [0-9]* [0-9.]*\$/$round $name &/p" "$programs/output.txt" >>"$results"
}

# Ours on threads or under a launcher: lines `ranks megabytes median-ms` of the collective.
ours() { # COLLECTIVE OPTIONS PROGRAM...
    local collective=$1 options=$2
    shift 2
    # shellcheck disable=SC2086 # a list of words
    "$@" bench all-reduce --collective "$collective" $options --sizes 1MB,25MB,100MB --repeats 25 \
        --json |
        "$python" -c 'import json, sys
for row in json.load(sys.stdin):
    print(row["ranks"], row["bytes"] // 1000000, "%.3f" % (row["seconds"] * 1e3))'
}
export -f ours
export python

for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds" >&2
    for ranks in "${worlds[@]}"; do
        run bound "$programs/bound" "$ranks"
        run threads bash -c 'ours "$@"' - auto "--ranks $ranks" "target/$built"
        run threads-ring bash -c 'ours "$@"' - ring "--ranks $ranks" "target/$built"
        for mpi in "${mpis[@]}"; do
            under=(scripts/mpirun.sh "$mpi" "$ranks" "target/$mpi/$built")
            run "$mpi" bash -c 'ours "$@"' - auto "" "${under[@]}"
            run "$mpi-ring" bash -c 'ours "$@"' - ring "" "${under[@]}"
            run "$mpi-allreduce" scripts/mpirun.sh "$mpi" "$ranks" "$programs/mpi-$mpi"
        done
        run gloo "$python" scripts/bench/all_reduce_gloo.py "$ranks"
    done
done
exec "$python" scripts/bench/all_reduce_table.py "$results"
