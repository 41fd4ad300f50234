#!/usr/bin/env bash
# Tests and measures ringstep on a machine with an NVIDIA driver; needs neither Rust nor a package
# registry, but the folder that scripts/build-gpu-bundle.sh makes, and NVRTC, which it looks for in CUDA
# toolkits and in the packages of Python environments, as it does for NCCL and cuBLASLt. Runs all CUDA
# tests, `ringstep doctor`, the benchmarks, digits on the GPU against the CPU and on two ranks, a trace of
# sums beside backward, and training against PyTorch where that can be imported; writes one report, which
# judges the targets, and takes at most 8 minutes.
#
#   scripts/gpu-check.sh [--emulated] [--report FILE]
#
# The report goes to docs/gpu/report-DATE.md, or into $OUT where that is a folder. Fails if a part fails
# or runs out of time. BUNDLE names another folder than target/gpu-bundle, PYTHON another interpreter.
# Without --emulated the emulator's devices do not count; with it, everything is small:
#
#   scripts/gpu-emulator.sh scripts/gpu-check.sh --emulated
set -uo pipefail

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
# Seconds of all parts together; their own limits, and that of looking for PyTorch, add up to as many. The
# emulator, which interprets kernels, has more.
slowness=$((1 + 4 * emulated))
limit=$((470 * slowness))

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
mkdir "$work/parts"

# Adds a line to the table of results.
result() { # NAME RESULT SECONDS
    table+=("| $1 | $2 | $3 |")
    printf '%-28s %s, %s s\n' "$1" "$2" "$3" >&2
}

skip() { # NAME WHY
    result "$1" "skipped: $2" 0
}

# Runs a part for at most SECONDS, on the emulator for as many times more as that is slower, or what is left,
# and shows its last lines in the report; all of them stay in $work/parts.
part() { # NAME SECONDS COMMAND...
    local name=$1 seconds=$(($2 * slowness)) start=$SECONDS left=$((limit - SECONDS)) status
    shift 2
    if [[ $left -lt 5 ]]; then
        failures=$((failures + 1))
        result "$name" 'FAILED: no time was left' 0
        return
    fi
    if [[ $seconds -gt $left ]]; then seconds=$left; fi
    timeout --kill-after 5 "$seconds" "$@" >"$work/out" 2>&1
    status=$?
    cp "$work/out" "$work/parts/$name"
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

# Exact sums of two ranks on one GPU, through the host, against one rank's.
two_ranks() {
    local ranks
    for ranks in 1 2; do
        # shellcheck disable=SC2086 # a list of words
        "$RINGSTEP" train examples/digits/run.toml --quiet --overwrite --run-dir "$work/ranks-$ranks" \
            --ranks $ranks --device cuda:0 --collective staged --set train.reduce=exact $digits_options || return 1
        sha256sum "$work/ranks-$ranks"/checkpoints/step-*/model.safetensors | tail -n 1 | cut -d ' ' -f 1 |
            tee "$work/ranks-$ranks.sum"
        [[ -s $work/ranks-$ranks.sum ]] || return 1
    done
    cmp "$work/ranks-1.sum" "$work/ranks-2.sum" && echo 'the same weights'
}

# The trace of rank 0's last step, of two that sum through the host, and how many of its buckets were
# summed, on the host, before its device was through with backward. In one bucket, which leaves when backward
# is over, there is none: the control.
overlap() { # BUCKET-MIB
    model cnn f32 "$large" "$overlap_steps" "$overlap_steps"
    "$RINGSTEP" train "$work/cnn.toml" -vv --overwrite --run-dir "$work/overlap" --ranks 2 --device cuda \
        --collective staged --set "train.bucket_mib=$1" >/dev/null 2>"$work/trace" || return 1
    awk '!/ rank-0/ { next }
        / step [0-9]+ begins$/ { lines = ""; early = late = is_over = 0 }
        / backward is over$/ { is_over = 1 }
        / all-reduce .* ends$/ { if (is_over) late++; else early++ }
        { lines = lines $0 "\n" }
        END {
            printf "%s", lines
            printf "buckets summed before backward was over: %d of %d\n", early, early + late
        }' "$work/trace"
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

# Writes the run file of a model.
model() { # MODEL PRECISION BATCH STEPS EVERY
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
global_batch = $3
micro_batch = $((large == $3 ? large / 2 : $3))
precision = "$2"
steps = $4
log_every = $5
evaluate_every = 0
checkpoint_every = 0
device = "cuda"
optimizer = {kind="adam",learning_rate=0.001}
RUN
}

# Rows per second of a model in training on one GPU, the median of what is logged.
throughput() { # MODEL PRECISION
    model "$1" "$2" "$batch" "$steps" "$every"
    "$RINGSTEP" train "$work/$1.toml" --quiet --overwrite --run-dir "$work/$1" --ranks 1 || return 1
    sed -n 's/.*"samples_per_second":\([0-9.]*\).*/\1/p' "$work/$1/metrics.jsonl" | sort -n |
        awk -v model="$1 in $2" '{ rates[NR] = $1 } END {
            if (!NR) exit 1
            printf "ringstep %s: %.0f rows/s, median of %d\n", model, rates[int((NR + 1) / 2)], NR
        }'
}

# --- targets ----------------------------------------------------------------------------------

targets=()

# Adds a line to the table of targets: whether MEASURED, nothing where it was not, is so.
judge() { # TARGET MEASURED CONDITION-ON-x
    local met='not met'
    if [[ -z $2 ]]; then
        met='not measured'
    elif [[ $emulated == 1 ]]; then
        met='not judged on the emulator'
    elif awk -v "x=$2" "BEGIN { exit !($3) }"; then
        met=met
    fi
    targets+=("| $1 | ${2:-} | $met |")
}

# Own kernels' speed as a percentage of cuBLASLt's on operands of that precision, the last column: the least of the
# products whose rows match.
share() { # PRECISION PATTERN [NUMBER-OF-THE-ROW]
    local title=' own/cuBLASLt'
    if [[ $1 == bf16 ]]; then title+=' of bf16'; fi
    awk -v number="${3:-0}" -v pattern="$2" -v title="$title" '
        /^product / { is_compared = substr($0, length($0) - length(title) + 1) == title }
        is_compared && $0 ~ pattern && ++row && (!number || row == number) && $NF == "%" {
            if (least == "" || $(NF - 1) < least) least = $(NF - 1)
        }
        END { print least }' "$work/parts/bench matmul, $1" 2>/dev/null
}

# Rows per second that a part has said.
rate() { # PART
    sed -n 's/.*: \([0-9]*\) rows\/s.*/\1/p' "$work/parts/$1" 2>/dev/null
}

judge_all() {
    local model precision ours theirs part beside
    judge 'bf16, 4096 cubed: at least 80 % of cuBLASLt of bf16' "$(share bf16 '^square ' 3)" 'x >= 80'
    judge 'bf16, 8192 cubed: at least 80 % of cuBLASLt of bf16' "$(share bf16 '^square ' 4)" 'x >= 80'
    judge 'bf16, every product with its epilogue: at least 100 %' "$(share bf16 ' \\+ bias')" 'x >= 100'
    judge 'f32, every square product: at least 90 % of cuBLASLt' "$(share f32 '^square ')" 'x >= 90'
    for model in mlp cnn; do
        for precision in f32 bf16; do
            ours=$(rate "training: $model, $precision") theirs=$(rate "PyTorch: $model, $precision")
            [[ -n $ours && -n $theirs ]] && ours=$(awk "BEGIN { printf \"%.2f\", $theirs / $ours }") || ours=
            judge "$model in $precision: a step takes at most 0.8 of compiled PyTorch's" "$ours" 'x <= 0.8'
        done
    done
    for part in 'overlap' 'overlap, control'; do
        beside=$(sed -n 's/^buckets summed before .*: \([0-9]*\) of .*/\1/p' "$work/parts/$part" 2>/dev/null)
        case $part in
        overlap) judge 'buckets summed beside backward: at least one' "$beside" 'x >= 1' ;;
        *) judge 'the same in one bucket, the control: none' "$beside" 'x == 0' ;;
        esac
    done
    judge 'two ranks on one GPU, through the host: lines that say "the same weights"' \
        "$(grep -c '^the same weights$' "$work/parts/two ranks" 2>/dev/null)" 'x == 1'
}

# --- what runs --------------------------------------------------------------------------------

find_libraries
if [[ $emulated == 1 ]]; then
    sums=(--sizes "1KiB,64KiB" --repeats 2) products=(--divide 256 --seconds 0.0001)
    digits_options='--set train.steps=3' batch=4 extent=8 rows=64 steps=2 every=1
    large=16 overlap_steps=3 bucket_mib=0.03
else
    sums=() products=(--seconds 0.03)
    digits_options='' batch=64 extent=28 rows=4096 steps=1500 every=250
    large=2048 overlap_steps=20 bucket_mib=0.5
fi
export work digits_options batch steps every large overlap_steps
export -f digits two_ranks model throughput overlap
images "$rows" "$extent"

if command -v nvidia-smi >/dev/null; then
    part 'nvidia-smi' 5 nvidia-smi
else
    skip 'nvidia-smi' 'there is none'
fi
part 'ringstep doctor' 20 "$RINGSTEP" doctor
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
part 'CUDA tests' 130 "$bundle/cuda-tests" "${skipped[@]/#/--skip=}"
if [[ ${#skipped[@]} -gt 0 ]]; then
    skip "CUDA tests: ${skipped[*]}" "they need cuBLASLt, NCCL, the emulator, or more GPUs than $gpus"
fi
for model in mlp cnn; do
    for precision in f32 bf16; do
        part "training: $model, $precision" 10 bash -c "throughput $model $precision"
    done
done
if [[ $emulated == 1 ]]; then
    skip PyTorch 'it does not run on the emulator'
elif timeout --kill-after 5 20 "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    for model in mlp cnn; do
        for precision in f32 bf16; do
            part "PyTorch: $model, $precision" 35 "$python" scripts/bench/peers/gpu.py --model "$model" \
                --precision $precision
        done
    done
else
    skip PyTorch "$python cannot import it with a GPU"
fi
part 'bench all-reduce' 20 "$RINGSTEP" bench all-reduce "${sums[@]}"
for precision in f32 bf16; do
    part "bench matmul, $precision" 20 \
        "$RINGSTEP" bench matmul --device cuda --precision $precision "${products[@]}"
done
part 'digits, GPU against CPU' 20 bash -c digits
part 'two ranks' 15 bash -c two_ranks
part 'overlap' 10 bash -c "overlap $bucket_mib"
part 'overlap, control' 10 bash -c 'overlap 1024'
judge_all

{
    if [[ $emulated == 1 ]]; then
        printf '# GPU check on the emulator\n\nTimes and rates mean nothing here.\n'
    else
        printf '# GPU check\n'
    fi
    printf '\n%s UTC, commit %s, %s\n\n' "$(date -u '+%F %H:%M')" "$(cat "$bundle/commit")" \
        "$("$RINGSTEP" --version)"
    printf -- '- %s\n' "${libraries[@]}"
    printf '\n| target | measured | met |\n|---|---|---|\n'
    printf '%s\n' "${targets[@]}"
    printf '\n| part | result | seconds |\n|---|---|---|\n'
    printf '%s\n' "${table[@]}"
    cat "$sections"
} >"$report"
printf '%s, %d s\n' "$report" "$SECONDS" >&2
[[ $failures -eq 0 ]]
