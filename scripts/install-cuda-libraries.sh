#!/usr/bin/env bash
# Installs NVRTC, the compiler of CUDA kernels, into target/cuda; it needs no GPU and no driver.
# Prints the folder of its libraries, for LD_LIBRARY_PATH. Quick when it is there already.
#
#   scripts/install-cuda-libraries.sh
#   CUDA_LIBRARIES=FOLDER scripts/...    use the libraries in FOLDER, and install nothing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# No newer than the oldest driver to be served: a driver refuses the PTX of a newer toolkit, and
# those of the 580 series know CUDA 13.0.
version=13.0.88

die() {
    printf 'scripts/install-cuda-libraries.sh: %s\n' "$*" >&2
    exit 1
}

if [[ -n ${CUDA_LIBRARIES:-} ]]; then
    compgen -G "$CUDA_LIBRARIES/libnvrtc.so*" >/dev/null || die "no libnvrtc.so in $CUDA_LIBRARIES"
    printf '%s\n' "$CUDA_LIBRARIES"
    exit
fi

library=$(scripts/install-package.sh nvidia-cuda-nvrtc "$version" "$PWD/target/cuda" \
    nvidia/cu13/lib/libnvrtc.so.13)
libraries=${library%/*}
# A second build of the same compiler, of which the loader needs one.
rm -f "$libraries"/*.alt.so*
printf '%s\n' "$libraries"
