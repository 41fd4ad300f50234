#!/usr/bin/env bash
# Trains the digits example as it ships, all its steps, in every way that must not matter, and
# prints a table: what was varied, seconds, accuracy on the test data, SHA-256 of the weights.
#
#   scripts/digits.sh [openmpi|mpich ...]   under these MPIs, which must be installed;
#                                           without a name under every one that is
#
# Fails if the weights of one way differ from those of one rank, if a seed stays below 97 %, or if
# a run was not what it was asked to be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/training-table.sh
source scripts/training-table.sh

wanted_accuracy=0.97
run=examples/digits/run.toml
device=cpu

measure() {
    measured=$(sed -n 's/^test_accuracy  *//p' <<<"$output")
}

build "$@"
head_row accuracy
train 1 direct '--ranks 1' "$ringstep"
row '1 thread rank'
[[ -z $problem ]] || exit 1
reference=$hash

for ranks in 2 3 4 5 8; do
    same "$ranks thread ranks" "$ranks" direct "--ranks $ranks" "$ringstep"
done
for ranks in 2 3 4; do
    same "$ranks thread ranks, ring" "$ranks" ring "--ranks $ranks --collective ring" "$ringstep"
    same "$ranks thread ranks, zero 1" "$ranks" direct "--ranks $ranks --zero 1" "$ringstep"
done
for bucket in '1 KiB=0.0009765625' '64 KiB=0.0625' '25 MiB=25'; do
    same "3 thread ranks, bucket ${bucket%=*}" 3 direct "--ranks 3 --bucket-mib ${bucket#*=}" "$ringstep"
done
same '3 thread ranks, ring, zero 1, 64 KiB' 3 ring \
    '--ranks 3 --collective ring --zero 1 --bucket-mib 0.0625' "$ringstep"
for mpi in ${implementations[@]+"${implementations[@]}"}; do
    process=target/$mpi/debug/ringstep
    for ranks in 1 2 3 4; do
        same "$mpi -n $ranks" "$ranks" direct '' scripts/mpirun.sh "$mpi" "$ranks" "$process"
    done
    for ranks in 2 3 4; do
        same "$mpi -n $ranks, ring" "$ranks" ring '--collective ring' \
            scripts/mpirun.sh "$mpi" "$ranks" "$process"
    done
done

# Seeds: none is lucky, and each is its own run.
seen=
for seed in 0 1 2 3 4; do
    train 4 direct "--set train.seed=$seed" "$ringstep"
    if [[ -z $problem ]]; then
        awk -v got="$measured" -v wanted="$wanted_accuracy" 'BEGIN { exit !(got >= wanted) }' ||
            problem="BELOW $wanted_accuracy"
        [[ $seen != *"$hash"* ]] || problem='SAME AS ANOTHER SEED'
        seen+=" $hash"
    fi
    row "seed $seed"
done

if [[ $failures -gt 0 ]]; then
    printf '%d of these are wrong\n' "$failures"
    exit 1
fi
printf 'all weights are equal, and every seed reaches %s\n' "$wanted_accuracy"
