#!/usr/bin/env bash
# Trains a small convolutional network and a perceptron on emulated GPUs under MPI, summed by NCCL and
# through the host, and prints a table: what was varied, seconds, largest difference of a loss from the CPU's
# over twenty steps, SHA-256 of the weights. Ranks that are threads do the same in tests/cuda/training.rs.
# Ranks on one GPU have to be refused by NCCL's communicator, by name.
#
#   scripts/gpu-ranks.sh [openmpi|mpich ...]   under these MPIs, which must be installed;
#                                              without a name under every one that is
#
# Fails if a loss is further from the CPU's than 1e-4, or 1e-2 where products are rounded, if exact sums
# give other weights than one GPU has, or if a run was not what it was asked to be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/training-table.sh
source scripts/training-table.sh

allowed=1e-4
run=$folder/run.toml

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

# The largest difference of a loss from the first run's, which is the CPU's.
measure() {
    sed -n 's/.*"kind":"train".*"loss":\([^,]*\),.*/\1/p' "$folder/run/metrics.jsonl" >"$folder/losses"
    [[ -e $folder/cpu ]] || cp "$folder/losses" "$folder/cpu"
    measured=$(paste "$folder/cpu" "$folder/losses" | awk '
        NF == 2 { d = $1 - $2; if (d < 0) d = -d; if (d > far) far = d; rows++ }
        END { if (rows != 20) print "nan"; else printf "%.1e\n", far }')
    awk -v far="$measured" -v allowed="$allowed" 'BEGIN { exit !(far <= allowed) }' ||
        problem="TOO FAR FROM THE CPU"
    [[ $measured != nan ]] || problem="not twenty steps"
}

build "$@"
LD_LIBRARY_PATH=$(scripts/gpu-emulator.sh)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH FAKE_CUDA_DEVICES=4

# Trains on the CPU, for its losses, and on one GPU, for its weights.
references() { # PRECISION
    rm -f "$folder/cpu"
    device=cpu
    train 1 direct "--precision $1" "$ringstep"
    row "1 CPU rank, $1"
    device=cuda
    train 1 direct "$exact --precision $1" "$ringstep"
    row "1 GPU, $1"
    reference=$hash
}

exact='--set train.reduce=exact'
head_row loss
references f32
for mpi in ${implementations[@]+"${implementations[@]}"}; do
    for ranks in 1 2 3; do
        start=(scripts/mpirun.sh "$mpi" "$ranks" "target/$mpi/debug/ringstep")
        for collective in staged=direct nccl=nccl; do
            name="$mpi -n $ranks, ${collective%=*}" options="--collective ${collective%=*}"
            same "$name" "$ranks" "${collective#*=}" "$exact $options" "${start[@]}"
            # A rank alone has neither sums in f32 nor shards.
            [[ $ranks -gt 1 ]] || continue
            train "$ranks" "${collective#*=}" "$options --zero 1" "${start[@]}"
            row "$name, f32, zero 1"
        done
    done
    same "$mpi -n 3, ring through the host" 3 ring "$exact --collective ring" "${start[@]}"
done

mlp='--set model.layers=["flatten",{kind="dense",units=16,activation="tanh"},{kind="dense",units=10}]'
references "f32 $mlp"
for mpi in ${implementations[@]+"${implementations[@]}"}; do
    for ranks in 1 2 3; do
        start=(scripts/mpirun.sh "$mpi" "$ranks" "target/$mpi/debug/ringstep")
        for collective in staged=direct nccl=nccl; do
            same "$mpi -n $ranks, ${collective%=*}, MLP" "$ranks" "${collective#*=}" \
                "$exact --collective ${collective%=*} $mlp" "${start[@]}"
        done
    done
    train 3 nccl "--collective nccl $mlp" "${start[@]}"
    row "$mpi -n 3, nccl, MLP, f32"
done

# What differs in the last place of an f32 may be rounded the other way: half a unit of eight bits, which
# Adam's first steps turn to whole steps.
allowed=1e-2
for precision in bf16 f16; do
    references "$precision"
    for mpi in ${implementations[@]+"${implementations[@]}"}; do
        for ranks in 2 3; do
            same "$mpi -n $ranks, nccl, $precision" "$ranks" nccl \
                "$exact --collective nccl --precision $precision" \
                scripts/mpirun.sh "$mpi" "$ranks" "target/$mpi/debug/ringstep"
        done
    done
done

# Processes that have been put on one GPU are named, with what to do, before NCCL is asked.
for mpi in ${implementations[@]+"${implementations[@]}"}; do
    device=cuda:0 train 2 nccl '--collective nccl' \
        scripts/mpirun.sh "$mpi" 2 "target/$mpi/debug/ringstep"
    case $problem in
    *'ranks 0 and 1 are on the same GPU; '*'--collective staged'*) problem= ;;
    *) problem="two ranks on one GPU: ${problem:-nobody was refused}" ;;
    esac
    row "$mpi -n 2, nccl, both on GPU 0"
done

printf 'GPU ranks: %d passed, %d failed\n' "$passed" "$failures"
[[ $failures -eq 0 ]]
