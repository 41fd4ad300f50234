#!/usr/bin/env bash
# Builds what scripts/gpu-check.sh needs on a machine without Rust, into target/gpu-bundle: the release
# program and the CUDA tests, both stripped. Copy that folder with the tracked files of the repository;
# together they have to stay below 55 MiB.
#
#   scripts/build-gpu-bundle.sh [FOLDER]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

most=$((55 << 20))
bundle=${1:-target/gpu-bundle}

die() {
    printf 'scripts/build-gpu-bundle.sh: %s\n' "$*" >&2
    exit 1
}

cargo build --locked --release --quiet
built=$(cargo test --locked --release --quiet --test cuda --no-run --message-format json |
    sed -n 's/.*"kind":\["test"\].*"executable":"\([^"]*\)".*/\1/p')
[[ -x $built ]] || die 'cargo did not say where the CUDA tests are'
rm -rf "$bundle"
mkdir -p "$bundle"
strip -o "$bundle/ringstep" "${CARGO_TARGET_DIR:-target}/release/ringstep"
strip -o "$bundle/cuda-tests" "$built"
git rev-parse HEAD >"$bundle/commit"

size=$(du -sb "$bundle" | cut -f 1)
tracked=$(git ls-files -z | xargs -0 stat -c %s | awk '{ sum += $1 } END { print sum }')
printf '%s: %.1f MiB, and %.1f MiB of tracked files\n' "$bundle" \
    "$(awk "BEGIN { print $size / 1048576 }")" "$(awk "BEGIN { print $tracked / 1048576 }")"
[[ $((size + tracked)) -lt $most ]] || die "bundle and tracked files take 55 MiB or more"
