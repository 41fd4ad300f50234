#!/usr/bin/env bash
# Trains a small convolutional network on emulated GPUs, by threads and under MPI, summed by NCCL and
# through the host, and prints a table: what was varied, seconds, largest difference of a loss from
# the CPU's over twenty steps, SHA-256 of the weights.
#
#   scripts/gpu-ranks.sh [openmpi|mpich ...]   under these MPIs, which must be installed
#
# Fails if a loss is further than 1e-4 from the CPU's, if exact sums give other weights than one GPU
# has, or if a run was not what it was asked to be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

allowed=1e-4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
passed=0 failures=0
implementations=("$@")

head -n 97 examples/digits/train.csv >"$folder/train.csv"
cat >"$folder/run.toml" <<'RUN'
[data]
format = "csv"
train = "train.csv"
label = "digit"
shape = [8, 8, 1]
scale = 0.0625

[model]
loss = "softmax_cross_entropy"
layers = [
    { kind = "conv2d", filters = 4, kernel_size = 3, activation = "relu" },
    "batch_normalization",
    "max_pooling2d",
    "flatten",
    { kind = "dropout", rate = 0.2 },
    { kind = "dense", units = 10 },
]

[train]
global_batch = 16
micro_batch = 4
steps = 20
log_every = 1
checkpoint_every = 0
optimizer = { kind = "adam", learning_rate = 0.01 }
clip = { global_norm = 1.0 }
RUN

# Trains by COMMAND with OPTIONS; sets seconds, far, hash, and problem where it is not the run that
# was asked for.
train() { # RANKS COLLECTIVE "OPTIONS" COMMAND...
    local ranks=$1 collective=$2 options=$3 output
    shift 3
    seconds=- far=- hash=- problem=
    # shellcheck disable=SC2086 # a list of words
    if ! output=$(timeout 300 "$@" train "$folder/run.toml" --quiet --overwrite \
        --run-dir "$folder/run" $options 2>&1); then
        problem="did not train: ${output//$'\n'/; }"
        return
    fi
    seconds=$(sed -n 's/^trained .* steps in \([0-9.]*\) s$/\1/p' <<<"$output")
    hash=$(sha256sum <"$folder/run/checkpoints/step-20/model.safetensors") || problem="no weights"
    hash=${hash%% *}
    sed -n 's/.*"kind":"train".*"loss":\([^,]*\),.*/\1/p' "$folder/run/metrics.jsonl" >"$folder/losses"
    [[ -e $folder/cpu ]] || cp "$folder/losses" "$folder/cpu"
    far=$(paste "$folder/cpu" "$folder/losses" | awk '
        NF == 2 { d = $1 - $2; if (d < 0) d = -d; if (d > far) far = d; rows++ }
        END { if (rows != 20) print "nan"; else printf "%.1e\n", far }')
    awk -v far="$far" -v allowed="$allowed" 'BEGIN { exit !(far <= allowed) }' ||
        problem="TOO FAR FROM THE CPU"
    [[ $far != nan ]] || problem="not twenty steps"
    grep -q "\"world\":$ranks,\"collective\":\"$collective\"" "$folder/run/metrics.jsonl" ||
        problem="not $ranks ranks with collective $collective"
    local device=cuda
    [[ $options != *'--device cpu'* ]] || device=cpu
    grep -q "\"device\":\"$device " "$folder/run/metrics.jsonl" || problem="not on $device"
}

# Trains a variant; where WEIGHTS is "same", they must be those of the reference.
variant() { # NAME WEIGHTS RANKS COLLECTIVE "OPTIONS" COMMAND...
    local name=$1 weights=$2
    shift 2
    train "$@"
    if [[ -z $problem && $weights == same && $hash != "$reference" ]]; then problem='OTHER WEIGHTS'; fi
    if [[ -z $problem ]]; then passed=$((passed + 1)); else failures=$((failures + 1)); fi
    printf '%-36s %7s  %8s  %-16s  %s\n' "$name" "$seconds" "$far" "${hash:0:16}" "$problem"
}

cargo build --quiet --locked --release
for mpi in ${implementations[@]+"${implementations[@]}"}; do
    MPICC=mpicc.$mpi cargo build --quiet --locked --features mpi --target-dir "target/$mpi"
done
ringstep=${CARGO_TARGET_DIR:-target}/release/ringstep
LD_LIBRARY_PATH=$(scripts/gpu-emulator.sh)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH FAKE_CUDA_DEVICES=4

exact='--device cuda --set train.reduce=exact'
printf '%-36s %7s  %8s  %-16s\n' variant seconds loss weights
variant '1 CPU rank' any 1 direct '--device cpu' "$ringstep"
variant '1 GPU' any 1 direct "$exact" "$ringstep"
reference=$hash
for ranks in 2 3; do
    for collective in staged=direct nccl=nccl; do
        options="--collective ${collective%=*}"
        recorded=${collective#*=}
        variant "$ranks threads, ${collective%=*}" same "$ranks" "$recorded" \
            "$exact $options --ranks $ranks" "$ringstep"
        variant "$ranks threads, ${collective%=*}, f32" any "$ranks" "$recorded" \
            "--device cuda $options --ranks $ranks" "$ringstep"
        for mpi in ${implementations[@]+"${implementations[@]}"}; do
            start=(scripts/mpirun.sh "$mpi" "$ranks" "target/$mpi/debug/ringstep")
            variant "$mpi -n $ranks, ${collective%=*}" same "$ranks" "$recorded" \
                "$exact $options" "${start[@]}"
            variant "$mpi -n $ranks, ${collective%=*}, f32, zero 1" any "$ranks" "$recorded" \
                "--device cuda $options --zero 1" "${start[@]}"
        done
    done
done
variant '3 threads, ring through the host' same 3 ring "$exact --collective ring --ranks 3" "$ringstep"

printf 'GPU ranks: %d passed, %d failed\n' "$passed" "$failures"
[[ $failures -eq 0 ]]
