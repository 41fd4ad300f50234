#!/usr/bin/env bash
# Tests and measures ringstep on a machine with an NVIDIA driver; needs neither Rust nor a package
# registry, but the folder that scripts/build-gpu-bundle.sh makes, and NVRTC, which it looks for in CUDA
# toolkits and in the packages of Python environments, as it does for NCCL and cuBLASLt. Runs all CUDA
# tests, `ringstep doctor`, the benchmarks, digits on the GPU against the CPU, and training against
# PyTorch where that can be imported; writes one report and takes at most 8 minutes.
#
#   scripts/gpu-check.sh [--emulated] [--report FILE]
#
# The report goes to docs/gpu/report-DATE.md, or into $OUT where that is a folder. Fails if a part fails
# or runs out of time. BUNDLE names another folder than target/gpu-bundle, PYTHON another interpreter.
# Without --emulated the emulator's devices do not count; with it, everything is small:
#
#   scripts/gpu-emulator.sh scripts/gpu-check.sh --emulated
set -uo pipefail

limit=470 # seconds of all parts together
bundle=${BUNDLE:-target/gpu-bundle}
python=${PYTHON:-python3}
emulated=0
report=
while [[ $# -gt 0 ]]; do
    case $1 in
    --emulated) emulated=1 ;;
    --report)
        report=${2:-}
        shift
        ;;
    *)
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
    shift
done
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

die() {
    printf 'scripts/gpu-check.sh: %s\n' "$*" >&2
    exit 1
}

for file in ringstep cuda-tests; do
    [[ -x $bundle/$file ]] || die "no $bundle/$file; run scripts/build-gpu-bundle.sh where Rust is"
done
export RINGSTEP=$PWD/$bundle/ringstep
[[ $bundle = /* ]] && RINGSTEP=$bundle/ringstep
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Compiled anew, as on a machine that has never seen ringstep.
export XDG_CACHE_HOME=$work/cache
if [[ $emulated == 1 ]]; then unset REQUIRE_REAL_GPU; else export REQUIRE_REAL_GPU=1; fi
if [[ -z $report ]]; then
    report=docs/gpu/report-$(date -u +%F).md
    if [[ -n ${OUT:-} && -d $OUT ]]; then report=$OUT/report-$(date -u +%F).md; fi
fi
mkdir -p "$(dirname "$report")"

# --- libraries --------------------------------------------------------------------------------

# Folders where libraries may be, best first.
folders() {
    tr ':' '\n' <<<"${LD_LIBRARY_PATH:-}"
    "$python" -c 'import glob, site, sys
for folder in dict.fromkeys([*sys.path, *site.getsitepackages(), site.getusersitepackages()]):
    print(*sorted(glob.glob(folder + "/nvidia/*/lib")), sep="\n")' 2>/dev/null
    local environment
    for environment in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; do
        [[ -n $environment ]] && compgen -G "$environment/lib/python3*/site-packages/nvidia/*/lib"
    done
    compgen -G '/usr/local/cuda*/lib64'
    compgen -G '/usr/local/cuda*/targets/*/lib'
    printf '%s\n' /usr/lib/x86_64-linux-gnu /usr/lib64
}

libraries=()
find_libraries() {
    local name folder all
    all=$(folders | grep -v '^$' | awk '!seen[$0]++')
    for name in libnvrtc.so libcublasLt.so libnccl.so; do
        while read -r folder; do
            if compgen -G "$folder/$name.[0-9]*" >/dev/null; then
                libraries+=("$name in $folder")
                case ":${LD_LIBRARY_PATH:-}:" in
                *":$folder:"*) ;;
                *) export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder ;;
                esac
                continue 2
            fi
        done <<<"$all"
        libraries+=("$name not found")
    done
}

# --- parts ------------------------------------------------------------------------------------

table=()
sections=$work/sections
failures=0
: >"$sections"

# Adds a line to the table of results.
result() { # NAME RESULT SECONDS
    table+=("| $1 | $2 | $3 |")
    printf '%-28s %s, %s s\n' "$1" "$2" "$3" >&2
}

skip() { # NAME WHY
    result "$1" "skipped: $2" 0
}

# Runs a part for at most SECONDS, or what is left, and shows its last lines in the report.
part() { # NAME SECONDS COMMAND...
    local name=$1 seconds=$2 start=$SECONDS left=$((limit - SECONDS)) status
    shift 2
    if [[ $left -lt 5 ]]; then
        failures=$((failures + 1))
        result "$name" 'FAILED: no time was left' 0
        return
    fi
    if [[ $seconds -gt $left ]]; then seconds=$left; fi
    timeout --kill-after 5 "$seconds" "$@" >"$work/out" 2>&1
    status=$?
    {
        printf '\n## %s\n\n```\n' "$name"
        grep -v 'this is a cubin or fatbin' "$work/out" | tail -n 120
        printf '```\n'
    } >>"$sections"
    case $status in
    0) result "$name" passed $((SECONDS - start)) ;;
    124 | 137)
        failures=$((failures + 1))
        result "$name" "FAILED: more than $seconds s" $((SECONDS - start))
        ;;
    *)
        failures=$((failures + 1))
        result "$name" "FAILED: status $status" $((SECONDS - start))
        ;;
    esac
}

# A run of the digits, on the CPU and on the GPU: their accuracies must not differ by 0.03.
digits() {
    local device accuracy other=
    for device in cpu cuda; do
        # shellcheck disable=SC2086 # a list of words
        "$RINGSTEP" train examples/digits/run.toml --quiet --overwrite --run-dir "$work/digits" \
            --ranks 1 --device $device $digits_options >"$work/digits.txt" || return 1
        accuracy=$(sed -n 's/^test_accuracy  *//p' "$work/digits.txt")
        printf '%-5s %s\n' "$device" "$(tr '\n' ' ' <"$work/digits.txt")"
        [[ -n $accuracy ]] || return 1
        if [[ -n $other ]]; then
            awk "BEGIN { d = $accuracy - ($other); exit !(d < 0.03 && d > -0.03) }" || return 1
        fi
        other=$accuracy
    done
}

# Each number as a byte.
bytes() {
    # shellcheck disable=SC2059 # the format is made here
    printf "$(printf '\\x%02x' "$@")"
}

# Random images with random classes in IDX, whose content does not matter.
images() { # ROWS EXTENT
    local count=(0 0 $(($1 / 256)) $(($1 % 256))) side=(0 0 0 "$2")
    bytes 0 0 8 3 "${count[@]}" "${side[@]}" "${side[@]}" >"$work/images"
    head -c $(($1 * $2 * $2)) /dev/urandom >>"$work/images"
    bytes 0 0 8 1 "${count[@]}" >"$work/labels"
    LC_ALL=C tr -dc '\000-\011' </dev/urandom | head -c "$1" >>"$work/labels"
}

# Rows per second of a model in training on one GPU, the median of what is logged.
throughput() { # MODEL
    local layers
    case $1 in
    mlp) layers='"flatten", {kind="dense",units=512,activation="relu"}, {kind="dense",units=512,activation="relu"}' ;;
    cnn) layers='{kind="conv2d",filters=32,kernel_size=3,activation="relu"}, {kind="conv2d",filters=64,kernel_size=3,activation="relu"}, "max_pooling2d", "flatten", {kind="dense",units=128,activation="relu"}' ;;
    esac
    cat >"$work/$1.toml" <<RUN
[data]
format = "idx"
train_images = "images"
train_labels = "labels"
scale = 0.00390625
[model]
loss = "softmax_cross_entropy"
layers = [$layers, {kind="dense",units=10}]
[train]
global_batch = $batch
micro_batch = $batch
steps = $steps
log_every = $every
evaluate_every = 0
checkpoint_every = 0
device = "cuda"
optimizer = {kind="adam",learning_rate=0.001}
RUN
    "$RINGSTEP" train "$work/$1.toml" --quiet --overwrite --run-dir "$work/$1" --ranks 1 || return 1
    sed -n 's/.*"samples_per_second":\([0-9.]*\).*/\1/p' "$work/$1/metrics.jsonl" | sort -n |
        awk -v model="$1" '{ rates[NR] = $1 } END {
            if (!NR) exit 1
            printf "ringstep %s: %.0f rows/s, median of %d\n", model, rates[int((NR + 1) / 2)], NR
        }'
}

# --- what runs --------------------------------------------------------------------------------

find_libraries
if [[ $emulated == 1 ]]; then
    sums=(--sizes "1KiB,64KiB" --repeats 2) products=(--divide 256 --seconds 0.0001)
    digits_options='--set train.steps=3' batch=4 extent=8 rows=64 steps=2 every=1
else
    sums=() products=(--seconds 0.03)
    digits_options='' batch=64 extent=28 rows=4096 steps=1500 every=250
fi
export work digits_options batch steps every
export -f digits throughput
images "$rows" "$extent"

if command -v nvidia-smi >/dev/null; then
    part 'nvidia-smi' 10 nvidia-smi
else
    skip 'nvidia-smi' 'there is none'
fi
part 'ringstep doctor' 30 "$RINGSTEP" doctor
gpus=$(grep -c '^ok  *GPU .*, runs kernels' "$work/out")
if [[ $gpus -eq 0 ]]; then
    failures=$((failures + 1))
    result 'GPUs' 'FAILED: none runs kernels' 0
fi
# Tests that need cuBLASLt, NCCL, more than one GPU, or faults of the emulator's, have it in their names.
skipped=()
case "${libraries[*]}" in *'libcublasLt.so not found'*) skipped+=(cublaslt choice::) ;; esac
case "${libraries[*]}" in *'libnccl.so not found'*) skipped+=(nccl::) ;; esac
if [[ $emulated == 0 ]]; then skipped+=(_by_faults); fi
for needed in 2 3; do
    if [[ $gpus -lt $needed ]]; then skipped+=("_on_${needed}_gpus"); fi
done
part 'CUDA tests' 220 "$bundle/cuda-tests" "${skipped[@]/#/--skip=}"
if [[ ${#skipped[@]} -gt 0 ]]; then
    skip "CUDA tests: ${skipped[*]}" "they need cuBLASLt, NCCL, the emulator, or more GPUs than $gpus"
fi
part 'bench all-reduce' 45 "$RINGSTEP" bench all-reduce "${sums[@]}"
for precision in f32 bf16; do
    part "bench matmul, $precision" $((40 + 50 * emulated)) \
        "$RINGSTEP" bench matmul --device cuda --precision $precision "${products[@]}"
done
part 'digits, GPU against CPU' 60 bash -c digits
for model in mlp cnn; do
    part "training: $model" 30 bash -c "throughput $model"
done
if [[ $emulated == 1 ]]; then
    skip PyTorch 'it does not run on the emulator'
elif "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    for model in mlp cnn; do
        part "PyTorch: $model" 60 "$python" scripts/bench/peers/gpu.py --model "$model"
    done
else
    skip PyTorch "$python cannot import it with a GPU"
fi

{
    if [[ $emulated == 1 ]]; then
        printf '# GPU check on the emulator\n\nTimes and rates mean nothing here.\n'
    else
        printf '# GPU check\n'
    fi
    printf '\n%s UTC, commit %s, %s\n\n' "$(date -u '+%F %H:%M')" "$(cat "$bundle/commit")" \
        "$("$RINGSTEP" --version)"
    printf -- '- %s\n' "${libraries[@]}"
    printf '\n| part | result | seconds |\n|---|---|---|\n'
    printf '%s\n' "${table[@]}"
    cat "$sections"
} >"$report"
printf '%s, %d s\n' "$report" "$SECONDS" >&2
[[ $failures -eq 0 ]]
