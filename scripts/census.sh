#!/usr/bin/env bash
# Trains the census example, wide and deep, on threads and processes, and prints a table: what was varied,
# seconds, accuracy and area under the curve on the test data, SHA-256 of the weights.
#
#   scripts/census.sh [openmpi|mpich ...]   under these MPIs, which must be installed;
#                                           without a name under every one that is
#
# Fails if the weights of one way differ from those of one rank, if one stays below an accuracy of 0.855 or
# an area of 0.91, if four ranks take 30 seconds, or if a run was not what it was asked to be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/training-table.sh
source scripts/training-table.sh

run=examples/census/run.toml
device=cpu

measure() {
    measured=$(sed -n 's/^test_accuracy  *//p; s/^test_auc  *//p' <<<"$output" | paste -s -d ' ')
    awk -v got="$measured" 'BEGIN { split(got, m, " "); exit !(m[1] >= 0.855 && m[2] >= 0.91) }' ||
        problem='TOO FEW ARE RIGHT'
}

build "$@"
head_row 'accuracy AUC'
train 1 direct '--ranks 1' "$ringstep"
row '1 thread rank'
[[ -z $problem ]] || exit 1
reference=$hash
for ranks in 2 3; do
    same "$ranks thread ranks" "$ranks" direct "--ranks $ranks" "$ringstep"
done
train 4 direct '--ranks 4' "$ringstep"
[[ -n $problem || $hash == "$reference" ]] || problem='OTHER WEIGHTS'
[[ -n $problem ]] || awk -v seconds="$seconds" 'BEGIN { exit !(seconds < 30) }' || problem='TOO SLOW'
row '4 thread ranks'
for mpi in ${implementations[@]+"${implementations[@]}"}; do
    same "$mpi -n 3" 3 direct '' scripts/mpirun.sh "$mpi" 3 "target/$mpi/debug/ringstep"
done

if [[ $failures -gt 0 ]]; then
    printf '%d of these are wrong\n' "$failures"
    exit 1
fi
printf 'all weights are equal\n'
