#!/usr/bin/env bash
# Everything that must hold before a change lands: installs what is missing, then checks formatting,
# lints, documentation and dependencies, and runs all tests: kernels through the real compiler by
# scripts/check-kernels.sh, the GPU emulator and on it the CUDA tests, which need no GPU, ranks as processes
# under OpenMPI and under MPICH, and such ranks on emulated GPUs by scripts/gpu-ranks.sh.
# scripts/check-export.sh has exported models run by onnxruntime. Last, scripts/digits.sh and scripts/census.sh
# train shipped examples in every way.
#
#   scripts/test.sh                 all of it
#   scripts/test.sh --install-only  only the system packages
#
# A check that cannot run has failed: nothing is skipped. All checks run even when one fails; the
# last line counts tests and checks, and the exit status says whether all passed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
root=$PWD

export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
logs=$root/target/test-logs
cargo_deny_version=0.20.2

say() { printf '\n== %s\n' "$*"; }
die() {
    printf 'scripts/test.sh: %s\n' "$*" >&2
    exit 1
}

# --- what is needed ---------------------------------------------------------------------------

# libclang and the headers of its compiler, which generating the MPI bindings needs.
has_libclang() {
    [[ -n ${LIBCLANG_PATH:-} ]] && return
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null &&
        compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' >/dev/null
}

# Names of the Debian packages that are missing, one per line.
missing_packages() {
    command -v gcc >/dev/null || printf '%s\n' gcc libc6-dev
    command -v mpicc.openmpi >/dev/null || printf '%s\n' libopenmpi-dev
    command -v mpirun.openmpi >/dev/null || printf '%s\n' openmpi-bin
    command -v mpicc.mpich >/dev/null || printf '%s\n' libmpich-dev
    command -v mpirun.mpich >/dev/null || printf '%s\n' mpich
    python3 -m pip --version >/dev/null 2>&1 || printf '%s\n' python3 python3-pip
    python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || printf '%s\n' python3-venv
    if ! has_libclang; then
        # The smallest set has the compiler's version in its names.
        local version
        for version in 14 16 17 18 19 20 21; do
            if [[ -n $(apt-cache madison "libclang-common-$version-dev" 2>/dev/null) ]]; then
                printf '%s\n' "libclang1-$version" "libclang-common-$version-dev"
                return
            fi
        done
        printf '%s\n' libclang-dev
    fi
}

install_packages() {
    local missing
    missing=$(missing_packages)
    [[ -z $missing ]] && return
    command -v apt-get >/dev/null ||
        die "these are missing, under the names of their Debian packages: ${missing//$'\n'/ }"
    if [[ $(id -u) -ne 0 ]]; then
        die "packages are missing; run: sudo apt-get update && sudo apt-get install -y" \
            "--no-install-recommends ${missing//$'\n'/ }"
    fi
    say "installing ${missing//$'\n'/ }"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || die "apt-get update failed"
    # Asked again: the lists of a fresh machine are empty, and the names come from them.
    missing=$(missing_packages)
    # shellcheck disable=SC2086 # a list of words
    apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
        die "apt-get install failed for: ${missing//$'\n'/ }"
    missing=$(missing_packages)
    [[ -z $missing ]] || die "installed, but still not found: ${missing//$'\n'/ }"
}

require_rust() {
    command -v cargo >/dev/null || die "cargo is not in PATH; install Rust from https://rustup.rs"
    local tool
    for tool in fmt clippy; do
        cargo "$tool" --version >/dev/null 2>&1 && continue
        rustup component add rustfmt clippy ||
            die "cargo $tool is missing; run: rustup component add rustfmt clippy"
    done
}

# Built without optimisation: it takes a fraction of the time, and the check is instant anyway.
install_cargo_deny() {
    command -v cargo-deny >/dev/null && return
    say "installing cargo-deny $cargo_deny_version"
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
        cargo install --quiet --locked "cargo-deny@$cargo_deny_version"
}

# --- checks and tests -------------------------------------------------------------------------

passed=0
failed=0
table=()

record() { # NAME PASSED FAILED SECONDS
    passed=$((passed + $2))
    failed=$((failed + $3))
    table+=("$(printf '%-28s %5d passed %5d failed %6d s' "$@")")
}

# One check: passes or fails as a whole.
check() { # NAME COMMAND...
    local name=$1 start=$SECONDS
    shift
    say "$name"
    if "$@"; then record "$name" 1 0 $((SECONDS - start)); else
        record "$name" 0 1 $((SECONDS - start))
    fi
}

# A run of tests: counted from what it prints. One that fails without naming a failed test (it did
# not build, say), or that ran no test, counts as one failure.
tests() { # NAME COMMAND...
    local name=$1 start=$SECONDS log=$logs/${1// /-}.log status ok bad
    shift
    say "$name"
    "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    read -r ok bad < <(count "$log")
    if [[ $status -ne 0 && $bad -eq 0 ]]; then bad=1; fi
    if [[ $ok -eq 0 && $bad -eq 0 ]]; then
        printf 'no test ran\n'
        bad=1
    fi
    record "$name" "$ok" "$bad" $((SECONDS - start))
}

# Passed and failed tests in a log of `cargo test`, `cargo nextest`, scripts/test-mpi.sh or gpu-ranks.sh.
count() { # LOG
    awk '
        /^test result:/ || /^(mpi (openmpi|mpich)|GPU ranks): [0-9]+ passed/ {
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^passed/) ok += $(i - 1)
                if ($i ~ /^failed/) bad += $(i - 1)
            }
        }
        # Summary [   1.2s] 10 tests run: 9 passed (1 slow), 1 failed, 0 skipped
        # One for each run; it counts the tests whose own output may stand above it.
        $1 == "Summary" {
            summaries++
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^passed/) nextest_ok += $(i - 1)
                if ($i ~ /^(failed|timed)/) nextest_bad += $(i - 1)
            }
        }
        END {
            if (summaries) { ok = nextest_ok; bad = nextest_bad }
            print ok + 0, bad + 0
        }
    ' "$1"
}

# The GPU emulator is a workspace of its own; from its folder cargo reads its configuration.
in_emulator() { # COMMAND...
    (cd tests/gpu-emulator && "$@")
}

main() {
    if [[ ${1:-} == --install-only ]]; then
        install_packages
        exit
    fi
    require_rust
    install_packages
    mkdir -p "$logs"
    # For clippy: what runs is built by scripts/build-mpi.sh, for each MPI in a folder of its own.
    export MPICC=mpicc.openmpi

    check format cargo fmt --all --check
    check clippy cargo clippy --locked --all-targets --quiet -- -D warnings
    check "clippy with mpi" \
        cargo clippy --locked --all-targets --features mpi --quiet -- -D warnings
    # Not among all targets, because they need a driver or a compiler to run.
    check "clippy of cuda tests" \
        cargo clippy --locked --test cuda --test kernels --quiet -- -D warnings
    RUSTDOCFLAGS="-D warnings" check documentation cargo doc --locked --no-deps --quiet
    check "cargo-deny present" install_cargo_deny
    check dependencies cargo deny --log-level error check bans licenses sources

    if cargo nextest --version >/dev/null 2>&1; then
        tests "tests" cargo nextest run --locked --no-fail-fast --status-level slow \
            --final-status-level fail
    else
        tests "tests" cargo test --locked --all-targets --no-fail-fast --quiet
    fi
    tests "documentation tests" cargo test --locked --doc --quiet

    check "emulator format" in_emulator cargo fmt --all --check
    check "emulator clippy" in_emulator \
        cargo clippy --locked --release --all-targets --quiet -- -D warnings
    check "emulator dependencies" in_emulator \
        cargo deny --log-level error --config "$root/deny.toml" check bans licenses sources
    check "NVRTC present" bash scripts/install-cuda-libraries.sh
    tests "kernels to machine code" scripts/check-kernels.sh
    unset GPU_EMULATOR_WITHOUT_NVRTC
    tests "emulator" in_emulator cargo test --locked --release --no-fail-fast --quiet
    tests "cuda on the emulator" scripts/gpu-emulator.sh --each \
        cargo test --locked --test cuda --no-fail-fast --quiet

    local mpi
    for mpi in openmpi mpich; do
        tests "ranks under $mpi" bash scripts/test-mpi.sh "$mpi"
    done
    tests "ranks on emulated GPUs" bash scripts/gpu-ranks.sh openmpi mpich
    check "exported models" bash scripts/check-export.sh
    check "digits in every way" bash scripts/digits.sh openmpi mpich
    check "census, wide and deep" bash scripts/census.sh openmpi mpich

    say "summary, $((SECONDS / 60)) min $((SECONDS % 60)) s"
    printf '%s\n' "${table[@]}"
    printf '%d passed, %d failed\n' "$passed" "$failed"
    [[ $failed -eq 0 ]]
}

main "$@"
