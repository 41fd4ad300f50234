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

wanted_accuracy=0.97
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0

die() {
    printf 'scripts/digits.sh: %s\n' "$*" >&2
    exit 1
}

# A line of the table; a problem at its end fails the script once all is run.
row() { # VARIANT SECONDS ACCURACY HASH [PROBLEM]
    printf '%-38s %7s  %8s  %-16s  %s\n' "$1" "$2" "$3" "${4:0:16}" "${5:-}"
    if [[ -n ${5:-} ]]; then failures=$((failures + 1)); fi
}

# Trains by COMMAND with OPTIONS; sets seconds, accuracy, hash, and problem where it is not the run
# that was asked for: an option without effect, or ranks that know nothing of each other, would
# compare a run with itself.
train() { # RANKS COLLECTIVE "OPTIONS" COMMAND...
    local ranks=$1 collective=$2 options=$3 output steps
    shift 3
    seconds=- accuracy=- hash=- problem=
    # shellcheck disable=SC2086 # a list of words
    if ! output=$(timeout 300 "$@" train examples/digits/run.toml --quiet --overwrite --device cpu \
        --run-dir "$folder/run" $options 2>&1); then
        problem="did not train: ${output//$'\n'/; }"
        return
    fi
    steps=$(sed -n 's/^trained \([0-9]*\) steps in .*/\1/p' <<<"$output")
    seconds=$(sed -n 's/^trained .* steps in \([0-9.]*\) s$/\1/p' <<<"$output")
    accuracy=$(sed -n 's/^test_accuracy  *//p' <<<"$output")
    hash=$(sha256sum <"$folder/run/checkpoints/step-$steps/model.safetensors") || problem="no weights"
    hash=${hash%% *}
    grep -q "\"world\":$ranks,\"collective\":\"$collective\"" "$folder/run/metrics.jsonl" ||
        problem="not $ranks ranks with collective $collective"
}

# Trains a variant, whose weights must be those of the reference.
same() { # VARIANT RANKS COLLECTIVE "OPTIONS" COMMAND...
    local variant=$1
    shift
    train "$@"
    if [[ -z $problem && $hash != "$reference" ]]; then problem='OTHER WEIGHTS'; fi
    row "$variant" "$seconds" "$accuracy" "$hash" "$problem"
}

if [[ $# -gt 0 ]]; then
    implementations=("$@")
    for mpi in "$@"; do
        command -v "mpicc.$mpi" >/dev/null || die "no mpicc.$mpi; see scripts/test.sh --install-only"
    done
else
    implementations=()
    for mpi in openmpi mpich; do
        if command -v "mpicc.$mpi" >/dev/null; then implementations+=("$mpi"); fi
    done
fi

# Threads run the release build; processes the build that scripts/test-mpi.sh has made anyway, so
# that how the compiler optimises is one more thing that must not matter.
cargo build --quiet --locked --release
for mpi in ${implementations[@]+"${implementations[@]}"}; do
    MPICC=mpicc.$mpi cargo build --quiet --locked --features mpi --target-dir "target/$mpi"
done
ringstep=${CARGO_TARGET_DIR:-target}/release/ringstep

printf '%-38s %7s  %8s  %-16s\n' variant seconds accuracy weights
train 1 direct '--ranks 1' "$ringstep"
row '1 thread rank' "$seconds" "$accuracy" "$hash" "$problem"
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
    start=(scripts/mpirun.sh "$mpi")
    process=target/$mpi/debug/ringstep
    for ranks in 1 2 3 4; do
        same "$mpi -n $ranks" "$ranks" direct '' "${start[@]}" "$ranks" "$process"
    done
    for ranks in 2 3 4; do
        same "$mpi -n $ranks, ring" "$ranks" ring '--collective ring' \
            "${start[@]}" "$ranks" "$process"
    done
done

# Seeds: none is lucky, and each is its own run.
seen=
for seed in 0 1 2 3 4; do
    train 4 direct "--set train.seed=$seed" "$ringstep"
    if [[ -z $problem ]]; then
        awk -v got="$accuracy" -v wanted="$wanted_accuracy" 'BEGIN { exit !(got >= wanted) }' ||
            problem="BELOW $wanted_accuracy"
        [[ $seen != *"$hash"* ]] || problem='SAME AS ANOTHER SEED'
        seen+=" $hash"
    fi
    row "seed $seed" "$seconds" "$accuracy" "$hash" "$problem"
done

if [[ $failures -gt 0 ]]; then
    printf '%d of these are wrong\n' "$failures"
    exit 1
fi
printf 'all weights are equal, and every seed reaches %s\n' "$wanted_accuracy"
