# shellcheck shell=bash disable=SC2034,SC2154 # its names are shared with the script that sources it
# Sourced by scripts/digits.sh, scripts/census.sh and scripts/gpu-ranks.sh: trains one run in several ways, each of which is a
# row of a table, and counts those that are not what they should be. These say what is trained and seen:
#
#   run        the run file
#   device     cpu or cuda
#   measure    a function that sets `measured`, the column after the seconds, from `output` and the
#              records in $folder/run, and `problem` where that is not good enough

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
passed=0 failures=0

die() {
    printf '%s: %s\n' "$0" "$*" >&2
    exit 1
}

# Builds what is trained with: `ringstep` for threads, and target/MPI/debug/ringstep for each of
# `implementations`, the MPIs that are named or else all that are installed. Threads run the release build;
# processes the build that scripts/test-mpi.sh has made anyway, so that how the compiler optimises is one
# more thing that must not matter.
build() { # [MPI...]
    local mpi
    implementations=()
    for mpi in "$@"; do
        command -v "mpicc.$mpi" >/dev/null || die "no mpicc.$mpi; see scripts/test.sh --install-only"
        implementations+=("$mpi")
    done
    if [[ $# -eq 0 ]]; then
        for mpi in openmpi mpich; do
            if command -v "mpicc.$mpi" >/dev/null; then implementations+=("$mpi"); fi
        done
    fi
    cargo build --quiet --locked --release
    ringstep=${CARGO_TARGET_DIR:-target}/release/ringstep
    for mpi in ${implementations[@]+"${implementations[@]}"}; do
        scripts/build-mpi.sh "$mpi" >/dev/null
    done
}

# Prints the table's head.
head_row() { # MEASURED
    printf '%-38s %7s  %8s  %-16s\n' variant seconds "$1" weights
}

# A line of the table; a problem at its end fails the script once all is run.
row() { # VARIANT
    printf '%-38s %7s  %8s  %-16s  %s\n' "$1" "$seconds" "$measured" "${hash:0:16}" "$problem"
    if [[ -z $problem ]]; then passed=$((passed + 1)); else failures=$((failures + 1)); fi
}

# Trains by COMMAND with OPTIONS; sets seconds, measured, hash, and problem where it is not the run
# that was asked for: an option without effect, or ranks that know nothing of each other, would
# compare a run with itself.
train() { # RANKS COLLECTIVE "OPTIONS" COMMAND...
    local ranks=$1 collective=$2 options=$3 steps metrics=$folder/run/metrics.jsonl
    shift 3
    seconds=- measured=- hash=- problem=
    # shellcheck disable=SC2086 # a list of words
    if ! output=$(timeout 300 "$@" train "$run" --quiet --overwrite --device "$device" \
        --run-dir "$folder/run" $options 2>&1); then
        problem="did not train: ${output//$'\n'/; }"
        return
    fi
    steps=$(sed -n 's/^trained \([0-9]*\) steps in .*/\1/p' <<<"$output")
    seconds=$(sed -n 's/^trained .* steps in \([0-9.]*\) s$/\1/p' <<<"$output")
    hash=$(sha256sum <"$folder/run/checkpoints/step-$steps/model.safetensors") || problem="no weights"
    hash=${hash%% *}
    measure
    grep -q "\"world\":$ranks,\"collective\":\"$collective\"" "$metrics" ||
        problem="not $ranks ranks with collective $collective"
    grep -q "\"device\":\"$device " "$metrics" || problem="not on $device"
}

# Trains a variant, whose weights must be those of the reference.
same() { # VARIANT RANKS COLLECTIVE "OPTIONS" COMMAND...
    local variant=$1
    shift
    train "$@"
    if [[ -z $problem && $hash != "$reference" ]]; then problem='OTHER WEIGHTS'; fi
    row "$variant"
}
