#!/usr/bin/env bash
# Times our all-reduce of 1, 25 and 100 MB of floats on 2 and 4 ranks of this machine against the
# bound of shared memory, against MPI_Allreduce in place and against PyTorch over gloo, taking
# turns, and prints medians and ratios.
#
#   scripts/bench/all-reduce.sh [ROUNDS]
#
# MPIs that are not installed are left out. PyTorch is installed under target/peers when it is not
# there; PEERS names another Python environment to use, PROFILE another profile of cargo's.
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=${1:-3}
profile=${PROFILE:-release}
built=${profile/dev/debug}/examples/bench_all_reduce
programs=target/bench
results=$programs/all-reduce.txt
mkdir -p "$programs"
: >"$results"

gcc -O3 -march=native scripts/bench/all_reduce_bound.c -o "$programs/bound"
cargo build --profile "$profile" --example bench_all_reduce
mpis=()
for mpi in openmpi mpich; do
    command -v "mpicc.$mpi" >/dev/null || { echo "no $mpi: left out" >&2; continue; }
    mpis+=("$mpi")
    "mpicc.$mpi" -O2 scripts/bench/all_reduce_mpi.c -o "$programs/mpi-$mpi"
    MPICC=mpicc.$mpi cargo build --profile "$profile" --features mpi --target-dir "target/$mpi" \
        --example bench_all_reduce
done
peers=${PEERS:-target/peers}
if [ ! -x "$peers/bin/python" ]; then
    python3 -m venv "$peers"
    "$peers/bin/pip" install --quiet torch numpy
fi

# `run NAME COMMAND...` files the command's lines under a name.
run() {
    local name=$1
    shift
    timeout 300 "$@" 2>/dev/null | sed -n "s/^[0-9]* [0-9]* [0-9.]*\$/$name &/p" >>"$results"
}

for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds" >&2
    for ranks in 2 4; do
        run bound "$programs/bound" $ranks
        run threads "target/$built" $ranks
        run threads-ring "target/$built" $ranks ring
        for mpi in "${mpis[@]}"; do
            ours=target/$mpi/$built
            run "$mpi-ours" scripts/mpirun.sh "$mpi" $ranks "$ours" 0
            run "$mpi-ours-ring" scripts/mpirun.sh "$mpi" $ranks "$ours" 0 ring
            run "$mpi-allreduce" scripts/mpirun.sh "$mpi" $ranks "$programs/mpi-$mpi"
        done
        run gloo "$peers/bin/python" scripts/bench/all_reduce_gloo.py $ranks
    done
done

# Medians over the rounds; the last column of each group is the ratio to the bound.
sort -k2,2n -k3,3n -k1,1 -k4,4g "$results" | awk '
    { key = $2 " " $3 " " $1; n[key]++; value[key, n[key]] = $4; if (!(key in seen)) { seen[key] = 1; keys[++count] = key } }
    END {
        for (i = 1; i <= count; i++) { key = keys[i]; median[key] = value[key, int((n[key] + 1) / 2)] }
        printf "%5s %4s  %-18s %10s %10s\n", "ranks", "MB", "what", "median ms", "to bound"
        for (i = 1; i <= count; i++) {
            split(keys[i], part, " ")
            bound = median[part[1] " " part[2] " bound"]
            printf "%5d %4d  %-18s %10.3f %10.2f\n", part[1], part[2], part[3], median[keys[i]], median[keys[i]] / bound
        }
    }'
