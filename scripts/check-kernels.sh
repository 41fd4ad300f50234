#!/usr/bin/env bash
# Compiles every kernel to machine code for compute capabilities 8.0, 9.0 and 10.0 with the real
# compiler, which needs no GPU, and prints a table for each: threads of a block, registers of a
# thread, static shared memory of a block in bytes, stack and spills in bytes, blocks and warps that
# a multiprocessor runs at a time, and for products how many instructions of which unit (FFMA; HMMA
# and HGMMA are the tensor cores').
#
#   scripts/check-kernels.sh
#
# Fails on a warning, on stack or spills, and where a product's instructions are not in its machine
# code. Installs NVRTC and nvdisasm into target where they are missing; NVDISASM=FILE names another.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=13.2.51
folder=$PWD/target/nvdisasm
libraries=$(scripts/install-cuda-libraries.sh)
if [[ -z ${NVDISASM:-} ]]; then
    NVDISASM=$folder/nvidia/cu13/bin/nvdisasm
    if [[ ! -e $folder/nvidia_cuda_nvdisasm-$version.dist-info || ! -x $NVDISASM ]]; then
        echo "installing nvdisasm $version into $folder" >&2
        # Put in place whole, so that an interrupted download leaves nothing that looks complete.
        temporary=$(mktemp -d target/nvdisasm.XXXXXX)
        trap 'rm -rf "$temporary"' EXIT
        python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
            --only-binary :all: --no-deps --target "$temporary/nvdisasm" \
            "nvidia-cuda-nvdisasm==$version" >&2
        chmod +x "$temporary/nvdisasm/nvidia/cu13/bin/nvdisasm"
        rm -rf "$folder"
        mv "$temporary/nvdisasm" "$folder"
    fi
fi
export NVDISASM

tables=${CARGO_TARGET_DIR:-target}/tmp
rm -f "$tables"/kernels-*.txt
status=0
LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
    cargo test --locked --test kernels --quiet -- --test-threads 2 || status=$?
for capability in 8.0 9.0 10.0; do
    if [[ -e $tables/kernels-$capability.txt ]]; then
        echo
        cat "$tables/kernels-$capability.txt"
    fi
done
exit "$status"
