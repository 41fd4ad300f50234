#!/usr/bin/env bash
# A large CSV file by this machine: one core reads 336,776 rows of 19 columns (scripts/datasets.sh flights), encodes
# eight of them and takes a step on them. Prints MB of file a second of processor time, best of five, without what a
# run on its first 1,000 rows takes, and the most memory that was held; fails below 200 MB/s or above twice the file.
set -euo pipefail
case ${1:-} in
-h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac
cd "$(dirname "$0")/../.."

[[ -e data/flights/flights.csv ]] || scripts/datasets.sh flights
cargo build --release --bin ringstep
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/run.toml" <<RUN
[data]
format = "csv"
train = "$PWD/data/flights/flights.csv"
label = "distance"

[columns]
month = "numeric"
hour = "numeric"
sched_dep_time = "numeric"
carrier = "vocabulary"
origin = "vocabulary"
dest = { kind = "hash", buckets = 1000 }
tailnum = { kind = "hash", buckets = 10000 }
origin_X_dest = { kind = "crossed", keys = ["origin", "dest"], buckets = 10000 }

[estimator]
kind = "dnn_linear_combined_regressor"
linear_feature_columns = ["carrier", "origin", "dest", "tailnum", "origin_X_dest"]
dnn_feature_columns = ["month", "hour", "sched_dep_time", { kind = "embedding", column = "dest", dimension = 8 }]
dnn_hidden_units = [64, 32]

[train]
device = "cpu"
global_batch = 256
micro_batch = 128
steps = 1
checkpoint_every = 0
loss_reduction = "mean"
RUN
python3 - target/release/ringstep "$folder" data/flights/flights.csv <<'PYTHON'
import os
import sys

program, folder, data = sys.argv[1:]
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
program = os.path.abspath(program)
few = f"{folder}/few.csv"
with open(data, "rb") as rows, open(few, "wb") as file:
    file.writelines(rows.readline() for _ in range(1001))


def run(path):
    """Seconds of processor time, and bytes of memory."""
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        start = f"{program} train run.toml --ranks 1 --overwrite --quiet --set".split()
        os.execv(program, [*start, f'data.train="{path}"'])
    _, status, usage = os.wait4(child, 0)
    if status != 0:
        sys.exit(f"the run failed: {status}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


size, data = os.path.getsize(data), os.path.abspath(data)
rounds = [(run(few), run(data)) for _ in range(5)]
seconds = min(all_of_it[0] for _, all_of_it in rounds) - min(a_part[0] for a_part, _ in rounds)
rate = (size - os.path.getsize(few)) / 1e6 / seconds
held = max(all_of_it[1] for _, all_of_it in rounds)
print(f"{size / 1e6:.1f} MB of CSV: {rate:.0f} MB/s on one core, {held / 1e6:.0f} MB of memory at most")
sys.exit(rate < 200 or held > 2 * size)
PYTHON
