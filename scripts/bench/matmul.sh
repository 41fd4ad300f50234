#!/bin/sh
# Matrix products of this machine's CPU against oneDNN's and MKL's, one thread each, alternating in
# one run: a table of GFLOP/s and of the ratio of median times. Arguments go to the benchmark, for
# example `avx2` to use that instruction set.
# MKL_LIBRARY names an installed libmkl_rt to use; otherwise it is the one of the other peers
# (scripts/install-peers.sh).
set -eu
case ${1:-} in
-h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac
cd "$(dirname "$0")/../.."

find_library() {
    ldconfig -p | awk -v name="$1" '$1 == name { print $NF; exit }'
}

if [ -z "$(find_library libdnnl.so.2)" ]; then
    if [ "$(id -u)" = 0 ]; then
        apt-get install --yes --no-install-recommends libdnnl-dev
    else
        echo "oneDNN is missing; install it: sudo apt-get install libdnnl-dev" >&2
        exit 1
    fi
fi

mkl=${MKL_LIBRARY:-}
if [ -z "$mkl" ]; then
    libraries=$(dirname "$(scripts/install-peers.sh)")/../lib
    for mkl in "$libraries"/libmkl_rt.so*; do :; done
    if [ ! -e "$mkl" ]; then
        echo "no libmkl_rt in $libraries; install it there (pip install mkl) or set MKL_LIBRARY" >&2
        exit 1
    fi
fi

cargo build --release --example bench_matmul
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 MKL_THREADING_LAYER=SEQUENTIAL
LD_LIBRARY_PATH=$(dirname "$mkl")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
    exec target/release/examples/bench_matmul \
    "onednn=$(find_library libdnnl.so.2)" "mkl=$mkl" "$@"
