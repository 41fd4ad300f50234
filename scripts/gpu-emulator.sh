#!/usr/bin/env bash
# Runs a command on the GPU emulator of tests/gpu-emulator: its libcuda.so, libnccl.so and libcublasLt.so,
# and a real NVRTC, stand first in LD_LIBRARY_PATH. Builds and installs them when they are missing or old.
#
#   scripts/gpu-emulator.sh COMMAND...             run COMMAND
#   scripts/gpu-emulator.sh --as NAME COMMAND...   run it in one of the configurations below
#   scripts/gpu-emulator.sh --each COMMAND...      run it in every configuration, one after another
#   scripts/gpu-emulator.sh                        only build; print the value for LD_LIBRARY_PATH
#
# What runs is left open by CUDA in many places. The configurations differ in when streams run, in
# which order blocks and warps do, and in when asynchronous copies land:
#
#   forward   streams eager,    order forward, copies late (also what is used without a name)
#   reverse   streams deferred, order reverse, copies early
#   seed-5    streams ahead,    order random,  copies late
#
# The process sees FAKE_CUDA_DEVICES GPUs, 4 unless that is set. All variables:
# tests/gpu-emulator/README.md.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
workspace=$root/tests/gpu-emulator
build=$root/target/gpu-emulator/build
libraries=$root/target/gpu-emulator/lib

die() {
    printf 'scripts/gpu-emulator.sh: %s\n' "$*" >&2
    exit 2
}

# Built under another name and copied: a libcuda.so in a folder of cargo's would be found by every
# test that cargo starts, also on a machine with a GPU. One file with a link, so that both names are
# the same library to the loader.
install_library() { # BUILT NAME LINK
    if ! cmp -s "$build/release/$1" "$libraries/$2"; then
        cp "$build/release/$1" "$libraries/$2.$$"
        mv -f "$libraries/$2.$$" "$libraries/$2"
    fi
    ln -sfn "$2" "$libraries/$3"
}

use() { # NAME
    case $1 in
    forward) set -- eager forward late ;;
    reverse) set -- deferred reverse early ;;
    seed-5) set -- ahead 5 late ;;
    *) die "no configuration '$1'; there are ${configurations[*]}" ;;
    esac
    export FAKE_CUDA_STREAMS=$1 PTX_EMU_ORDER=$2 PTX_EMU_ASYNC=$3
}
configurations=(forward reverse seed-5)

case ${1:-} in
-h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    exit
    ;;
--as)
    [[ $# -ge 3 ]] || die 'usage: --as NAME COMMAND...'
    use "$2"
    shift 2
    configurations=()
    ;;
--each)
    [[ $# -ge 2 ]] || die 'usage: --each COMMAND...'
    shift
    ;;
-*) die "unknown option '$1'" ;;
*) configurations=() ;;
esac

# From its own folder: cargo reads the workspace's configuration there.
(cd "$workspace" && cargo build --quiet --locked --release --target-dir "$build" \
    -p fake-cuda -p fake-nccl -p fake-cublaslt)
path=$libraries
if [[ ${GPU_EMULATOR_WITHOUT_NVRTC:-0} != 1 ]]; then
    nvrtc=$("$root/scripts/install-cuda-libraries.sh")
    path+=:$nvrtc
fi
mkdir -p "$libraries"
install_library libfake_cuda.so libcuda.so.1 libcuda.so
install_library libfake_nccl.so libnccl.so.2 libnccl.so
install_library libfake_cublaslt.so libcublasLt.so.13 libcublasLt.so

if [[ $# -eq 0 ]]; then
    printf '%s\n' "$path"
    exit
fi
export LD_LIBRARY_PATH=$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export FAKE_CUDA_DEVICES=${FAKE_CUDA_DEVICES:-4}
if [[ ${#configurations[@]} -eq 0 ]]; then exec "$@"; fi
for name in "${configurations[@]}"; do
    printf -- '-- emulator: %s\n' "$name"
    (use "$name" && exec "$@")
done
