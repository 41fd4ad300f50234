#!/usr/bin/env bash
# Compiles every kernel to machine code for compute capabilities 7.5, 8.0, 9.0 and 10.0 with the real
# compiler, which needs no GPU, and prints a table for each: threads of a block, registers of a
# thread, shared memory of a block in bytes, stack and spills in bytes, blocks and warps that
# a multiprocessor runs at a time, and for products how many instructions of which unit (FFMA; HMMA
# and HGMMA are the tensor cores').
#
#   scripts/check-kernels.sh
#
# Fails on a warning, on stack or spills, and where a product's instructions are not in its machine
# code. Installs NVRTC and nvdisasm into target where they are missing; NVDISASM=FILE names another.
# Where nvcc is found (NVCC=FILE, on PATH, or in /usr/local/cuda), it compiles the same files for the same
# architectures too, and may neither fail nor warn.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

libraries=$(scripts/install-cuda-libraries.sh)
if [[ -z ${NVDISASM:-} ]]; then
    NVDISASM=$(scripts/install-package.sh nvidia-cuda-nvdisasm 13.2.51 "$PWD/target/nvdisasm" \
        nvidia/cu13/bin/nvdisasm)
fi
export NVDISASM

tables=${CARGO_TARGET_DIR:-target}/tmp
rm -f "$tables"/kernels-*.txt "$tables"/compiled-*.txt
status=0
LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
    cargo test --locked --test kernels --quiet -- --test-threads 2 || status=$?
for capability in 7.5 8.0 9.0 10.0; do
    if [[ -e $tables/kernels-$capability.txt ]]; then
        echo
        cat "$tables/kernels-$capability.txt"
    fi
done

nvcc=${NVCC:-$(PATH=$PATH:/usr/local/cuda/bin command -v nvcc || true)}
if [[ -z $nvcc ]]; then
    printf '\nnvcc: there is none here, so NVRTC alone has compiled the kernels\n'
    exit "$status"
fi
count=0
known=$("$nvcc" --list-gpu-code)
for capability in 7.5 8.0 9.0 10.0; do
    architecture=sm_${capability/./}
    # What is of 9.0 alone.
    if [[ $capability == 9.0 ]]; then architecture=sm_90a; fi
    if ! grep -qx "${architecture%a}" <<<"$known"; then
        printf '\nnvcc: this one does not know %s\n' "$architecture"
        continue
    fi
    while read -r file precision; do
        defined=()
        if [[ $precision != - ]]; then defined=("--define-macro=PRECISION=$precision"); fi
        if ! said=$("$nvcc" --cubin --std=c++17 --fmad=false "--gpu-architecture=$architecture" \
            ${defined[@]+"${defined[@]}"} --output-file "$tables/nvcc.cubin" "kernels/$file" 2>&1) ||
            [[ -n $said ]]; then
            printf 'nvcc, %s, %s, %s:\n%s\n' "$file" "$precision" "$architecture" "$said"
            status=1
        fi
        count=$((count + 1))
    done <"$tables/compiled-$capability.txt"
done
printf '\nnvcc, %s: %d files compiled\n' "$("$nvcc" --version | sed -n 's/.*\(release [0-9.]*\).*/\1/p')" "$count"
exit "$status"
