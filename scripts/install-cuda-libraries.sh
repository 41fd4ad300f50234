#!/usr/bin/env bash
# Installs NVRTC, the compiler of CUDA kernels, into target/cuda; it needs no GPU and no driver.
# Prints the folder of its libraries, for LD_LIBRARY_PATH. Quick when it is there already.
#
#   scripts/install-cuda-libraries.sh
#   CUDA_LIBRARIES=FOLDER scripts/...    use the libraries in FOLDER, and install nothing
#
# Needs Python 3 with pip, which root gets from apt where they are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# No newer than the oldest driver to be served: a driver refuses the PTX of a newer toolkit, and
# those of the 580 series know CUDA 13.0.
version=13.0.88
folder=$PWD/target/cuda
libraries=$folder/nvidia/cu13/lib

die() {
    printf 'scripts/install-cuda-libraries.sh: %s\n' "$*" >&2
    exit 1
}

if [[ -n ${CUDA_LIBRARIES:-} ]]; then
    compgen -G "$CUDA_LIBRARIES/libnvrtc.so*" >/dev/null || die "no libnvrtc.so in $CUDA_LIBRARIES"
    printf '%s\n' "$CUDA_LIBRARIES"
    exit
fi

if [[ ! -e $folder/nvidia_cuda_nvrtc-$version.dist-info || ! -e $libraries/libnvrtc.so.13 ]]; then
    if ! python3 -m pip --version >/dev/null 2>&1; then
        [[ $(id -u) -eq 0 ]] ||
            die 'pip is missing; run: sudo apt-get install -y --no-install-recommends python3-pip'
        apt-get update -qq >&2
        apt-get install -y -qq --no-install-recommends python3 python3-pip >&2
    fi
    echo "installing NVRTC $version into $folder" >&2
    # Put in place whole, so that an interrupted download leaves nothing that looks complete.
    mkdir -p target
    temporary=$(mktemp -d target/cuda.XXXXXX)
    trap 'rm -rf "$temporary"' EXIT
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --only-binary :all: --no-deps --target "$temporary/cuda" "nvidia-cuda-nvrtc==$version" >&2
    # A second build of the same compiler, of which the loader needs one.
    rm -f "$temporary"/cuda/nvidia/cu13/lib/*.alt.so*
    rm -rf "$folder"
    mv "$temporary/cuda" "$folder"
    [[ -e $libraries/libnvrtc.so.13 ]] || die "the package holds no $libraries/libnvrtc.so.13"
fi
printf '%s\n' "$libraries"
