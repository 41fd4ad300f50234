#!/usr/bin/env bash
# Builds and runs the tests of MPI ranks under one MPI, on 1 to 4 ranks.
#
#   scripts/test-mpi.sh openmpi|mpich
#
# Fails if anything does not pass or cannot run; the last line says how many ran.
set -euo pipefail
cd "$(dirname "$0")/.."

implementation=${1:?openmpi or mpich}
target=target/$implementation
passed=0

program=$(scripts/build-mpi.sh "$implementation")

start() { timeout 120 scripts/mpirun.sh "$implementation" "$@"; }

fail() {
    echo "mpi $implementation: $1" >&2
    exit 1
}

for ranks in 1 2 3 4; do
    output=$(start "$ranks" "$program") || fail "failed on $ranks ranks: $output"
    echo "$output"
    count=$(sed -n "s/.* ranks $ranks: \([0-9]*\) passed\$/\1/p" <<<"$output")
    [ "${count:-0}" -gt 0 ] || fail "no test ran on $ranks ranks"
    passed=$((passed + count))
done

# After every step of a run all ranks hold the same bits, and each has computed its share.
for ranks in 2 3 4; do
    for collective in auto ring; do
        for reduce in exact f32; do
            for zero in 0 1; do
                case="$ranks ranks $collective $reduce zero $zero"
                output=$(start "$ranks" "$program" steps "$collective" "$reduce" "$zero" 2>&1) ||
                    fail "$case: $output"
                grep -qx "$case: in step" <<<"$output" || fail "$case: $output"
                passed=$((passed + 1))
            done
        done
    done
done

# Sums of floats: the weights are those of as many thread ranks, bit for bit, with ZeRO-1 as without,
# and those of one rank up to rounding.
for ranks in 2 3 4; do
    for collective in auto ring; do
        for optimizer in adam clipped-adam clipped-lamb; do
            for zero in 0 1; do
                case="$ranks ranks $collective $optimizer zero $zero"
                output=$(start "$ranks" "$program" floats "$collective" "$optimizer" "$zero" 2>&1) ||
                    fail "$case: $output"
                grep -qx "$case: .* from one rank" <<<"$output" || fail "$case: $output"
                passed=$((passed + 1))
            done
        done
    done
done

# A sample that is not finite stops every rank, and each names the rank that had it.
for ranks in 2 3 4; do
    for collective in auto ring; do
        for reduce in exact f32 bf16; do
            for sample in 0 2; do
                case="$ranks $collective $reduce sample $sample: stopped"
                output=$(start "$ranks" "$program" bad-sample "$collective" "$reduce" "$sample" 2>&1) ||
                    fail "$case: $output"
                [ "$(grep -c "^rank [0-9] of $case\$" <<<"$output")" = "$ranks" ] ||
                    fail "$case: $output"
                passed=$((passed + 1))
            done
        done
    done
done

# What happens when a rank fails: `expect NAME RANKS LINES PATTERN` wants so many matching lines
# and an end in time.
expect() {
    local output begun=$SECONDS
    output=$(start "$2" "$program" "$1" 2>&1) || true
    [ $((SECONDS - begun)) -lt 30 ] || fail "$1 on $2 ranks took $((SECONDS - begun)) s"
    [ "$(grep -c "$4" <<<"$output")" -ge "$3" ] || fail "$1 on $2 ranks: $output"
    passed=$((passed + 1))
}
expect abort 3 2 '^rank [01]: rank 2 stopped: disk full'
expect timeout 3 6 '^rank [01]: .*all-reduce: rank 2 did not arrive within 500ms'
expect panic 3 1 'on purpose'

# A rank that is killed leaves nothing: its memory never had a name.
before=$(ls /dev/shm)
start 2 "$program" kill >/dev/null 2>&1 && fail "a killed rank went unnoticed"
left=$(comm -13 <(echo "$before") <(ls /dev/shm) | grep -c ringstep || true)
[ "$left" = 0 ] || fail "$left files left in /dev/shm"
passed=$((passed + 1))

# A run's weights depend neither on the number of ranks nor on their being threads or processes.
ringstep=$target/debug/ringstep
run=$(mktemp -d)
own=$(mktemp -d)
trap 'rm -rf "$run" "$own"' EXIT
# All that must not depend on ranks: moving statistics, dropout, a clipped norm, a short last batch.
layers='model.layers=[{kind="conv2d",filters=4,kernel_size=3,activation="relu"},"batch_normalization",
    "max_pooling2d","flatten",{kind="dropout",rate=0.2},{kind="dense",units=10}]'
weights() { # COMMAND...
    # shellcheck disable=SC2086 # a list of words
    "$@" train examples/digits/run.toml --quiet --overwrite --device cpu --run-dir "$run" \
        --set train.epochs=1 --set train.global_batch=100 --set "$layers" \
        --set 'train.clip={ global_norm = 0.5 }' $options >/dev/null || return 1
    sha256sum <"$run/checkpoints/step-15/model.safetensors"
}
options="--ranks 3"
expected=$(weights "$ringstep") || fail "thread ranks did not train"
for options in "--collective auto" "--collective ring" "--zero 1" "--bucket-mib 0.0009765625"; do
    for ranks in 1 2 3 4; do
        found=$(weights start "$ranks" "$ringstep") || fail "$ranks ranks $options did not train"
        [ "$found" = "$expected" ] || fail "$ranks ranks $options: other weights than thread ranks"
        passed=$((passed + 1))
    done
done

# Ranks that were given other run files do not begin.
digits=(train examples/digits/run.toml --quiet --device cpu --set train.global_batch=100 --set train.checkpoint_every=3)
# shellcheck disable=SC2016 # each rank has its own seed
output=$(start 2 sh -c 'seed=${OMPI_COMM_WORLD_RANK:-$PMI_RANK}; exec "$@" --set "train.seed=$seed"' \
    rank "$ringstep" "${digits[@]}" --run-dir "$own/0" --set train.steps=6 2>&1) &&
    fail "trained although ranks have other seeds: $output"
grep -q "rank 1 has another configuration than most: 'seed = 1' on rank 1, 'seed = 0' on rank 0" <<<"$output" ||
    fail "other seeds: $output"
[ ! -e "$own/0" ] || fail "a run was begun although ranks have other seeds"
passed=$((passed + 1))

# Ranks that find other checkpoints, each in a folder of its own as on hosts that share no disk, do not
# go on; they do where the folders hold the same.
resume() { # STEPS
    # shellcheck disable=SC2016 # each rank finds its own folder
    start 2 sh -c 'folder=$1/${OMPI_COMM_WORLD_RANK:-$PMI_RANK}; shift; exec "$@" --run-dir "$folder"' \
        rank "$own" "$ringstep" "${digits[@]}" --resume --set "train.steps=$1" 2>&1
}
"$ringstep" "${digits[@]}" --run-dir "$own/0" --set train.steps=6 >/dev/null || fail "no run to resume"
cp -r "$own/0" "$own/1"
output=$(resume 7) || fail "equal checkpoints did not resume: $output"
passed=$((passed + 1))
refuses() { # WHAT PATTERN
    local before output
    before=$(cd "$own" && find . -type f -exec sha256sum {} + | sort)
    output=$(resume 9) && fail "resumed although rank 1 $1: $output"
    grep -q "rank 1 has another checkpoint to go on from than most: '$2" <<<"$output" || fail "$1: $output"
    [ "$before" = "$(cd "$own" && find . -type f -exec sha256sum {} + | sort)" ] || fail "$1: files changed"
    passed=$((passed + 1))
}
rm -r "$own/1" && cp -r "$own/0" "$own/1"
: >"$own/1/checkpoints/step-7/model.safetensors"
refuses "has a damaged one" "step 6, .*' on rank 1, 'step 7, .*' on rank 0"
rm -r "$own/1/checkpoints"
refuses "has none" "none' on rank 1, 'step 7, .*' on rank 0"
rm -r "$own/1"
"$ringstep" "${digits[@]}" --run-dir "$own/1" --set train.steps=7 --set train.optimizer.epsilon=0.1 \
    >/dev/null || fail "no other run"
refuses "has other weights" "step 7, .*' on rank 1, 'step 7, .*' on rank 0"

echo "mpi $implementation: $passed passed"
