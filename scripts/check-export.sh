#!/usr/bin/env bash
# Exports trained models and has them checked and run by programs that know nothing of ringstep:
# onnx's checker, onnxruntime and safetensors, from Python packages in target/export. Prints the largest
# difference between onnxruntime's outputs and those of `ringstep predict` for each.
#
#   scripts/check-export.sh
#
# Fails if a file is not what its format asks for, or an output differs by more than 1e-5. Needs Python 3
# with venv, which root gets from apt where it is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$(scripts/install-environment.sh "$PWD/target/export" 'onnx, onnxruntime, safetensors' \
    onnx==1.23.2 onnxruntime==1.32.0 safetensors==0.8.0 numpy==2.4.6)
cargo build --locked --quiet --bin ringstep
ringstep=$PWD/target/debug/ringstep
digits=$PWD/examples/digits
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# What the shipped example lacks: every layer and activation of images, and an embedding of the pixels.
cat >"$folder/images.toml" <<END
[data]
format = "csv"
train = "$digits/train.csv"
label = "digit"
shape = [8, 8, 1]
scale = 0.1
[model]
loss = "softmax_cross_entropy"
layers = [
    { kind = "conv2d", filters = 8, kernel_size = 3, padding = "same", activation = "gelu" },
    { kind = "residual", layers = [
        "batch_normalization",
        { kind = "conv2d", filters = 8, kernel_size = [2, 3], padding = "same", activation = "silu" },
        { kind = "average_pooling2d", strides = 1, padding = "same" },
    ] },
    { kind = "max_pooling2d", pool_size = 3, strides = 2, padding = "same" },
    { kind = "conv2d", filters = 16, kernel_size = 2, strides = [2, 1], use_bias = false },
    { kind = "leaky_relu", slope = 0.1 },
    { kind = "residual", layers = ["layer_normalization", { kind = "dense", units = 16, activation = "gelu_tanh" }] },
    "max_pooling2d",
    { kind = "activation", function = "tanh" },
    "flatten",
    { kind = "batch_normalization", center = false, scale = false },
    "elu",
    { kind = "dropout", rate = 0.1 },
    { kind = "dense", units = 20, activation = "sigmoid" },
    { kind = "dense", units = 20, activation = "relu" },
    { kind = "dense", units = 10, activation = "softmax" },
]
[train]
global_batch = 64
epochs = 2
device = "cpu"
optimizer = "adam"
END
cat >"$folder/pooled.toml" <<END
[data]
format = "csv"
train = "$digits/train.csv"
label = "digit"
shape = [8, 8, 1]
[model]
loss = "softmax_cross_entropy"
layers = [
    { kind = "conv2d", filters = 12, kernel_size = 3, activation = "elu" },
    { kind = "residual", layers = [{ kind = "conv2d", filters = 12, kernel_size = 3, padding = "same" }, "softmax"] },
    "global_average_pooling2d",
    { kind = "dense", units = 10 },
]
[train]
global_batch = 64
epochs = 2
device = "cpu"
optimizer = "adam"
END
cat >"$folder/embedded.toml" <<END
[data]
format = "csv"
train = "$digits/train.csv"
label = "digit"
[model]
loss = "softmax_cross_entropy"
layers = [
    { kind = "embedding", input_dim = 17, output_dim = 3 },
    "batch_normalization",
    { kind = "dense", units = 4, activation = "leaky_relu" },
    "flatten",
    { kind = "dense", units = 10 },
]
[train]
global_batch = 64
epochs = 2
device = "cpu"
optimizer = "adam"
END

train() { # NAME RUN_FILE INPUT OPTION...
    local name=$1 run_file=$2 input=$3
    shift 3
    "$ringstep" train "$run_file" --quiet --run-dir "$folder/$name" "$@" >/dev/null
    "$ringstep" predict "$folder/$name" --quiet --input "$input" --output "$folder/$name.csv" \
        --encoded "$folder/$name.npy"
    local format
    for format in onnx safetensors; do
        "$ringstep" export "$folder/$name" --quiet --format "$format"
    done
    "$python" scripts/check_export.py "$folder/$name" "$folder/$name.npy" "$folder/$name.csv"
}

train digits "$digits/run.toml" "$digits/test.csv" --device cpu --set train.epochs=5
for name in images pooled embedded; do
    train "$name" "$folder/$name.toml" "$digits/test.csv"
done
# An Estimator of every kind that no shipped example is.
estimator() { # KIND DATA FEATURES LABEL ARGUMENT
    cat >"$folder/$1.toml" <<END
[data]
format = "csv"
train = "$PWD/examples/$2/train.csv"
features = $3
label = "$4"
[estimator]
kind = "$1"
$5
[train]
global_batch = 32
epochs = 2
device = "cpu"
END
    train "$1" "$folder/$1.toml" "examples/$2/test.csv"
}
flowers=(iris '["petal_length", "petal_width"]' species)
cars=(autompg '["cylinders", "acceleration"]' mpg)
estimator linear_classifier "${flowers[@]}" 'n_classes = 3'
estimator dnn_classifier "${flowers[@]}" $'n_classes = 3\nhidden_units = [8, 6]\nbatch_norm = true'
estimator baseline_classifier "${flowers[@]}" 'n_classes = 3'
estimator linear_regressor "${cars[@]}" ''
estimator dnn_regressor "${cars[@]}" 'hidden_units = [8, 6]'
estimator baseline_regressor "${cars[@]}" ''
# Feature columns of a wide and deep Estimator: standardised, bucketized, a vocabulary, an embedding.
train autompg examples/autompg/run.toml examples/autompg/test.csv --device cpu
# Hashed and crossed columns, of two classes.
train census examples/census/run.toml examples/census/test.csv --device cpu --set train.steps=100
