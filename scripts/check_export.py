"""Checks what `ringstep export` wrote: RUN's model.onnx and model.safetensors.

    python check_export.py RUN ENCODED PREDICTED

Of the same rows `ringstep predict --encoded` wrote ENCODED and said PREDICTED.
"""

import csv
import json
import pathlib
import sys

import numpy
import onnx
import onnxruntime
from safetensors.numpy import load_file

# Other software adds in another order.
NEAR = 1e-5


def columns(path, names):
    with open(path, newline="") as file:
        rows = [[float(row[name]) for name in names] for row in csv.DictReader(file)]
    return numpy.array(rows, numpy.float32)


def check_graph(path):
    """A file that the format's own checker accepts, shapes and all; returns it with its notes."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 17, model.opset_import
    for value in [*model.graph.input, *model.graph.output]:
        batch = value.type.tensor_type.shape.dim[0]
        assert batch.dim_param == "batch", value
    notes = {note.key: json.loads(note.value) for note in model.metadata_props}
    return model, notes


def check_weights(model, tensors):
    """The tensors of the safetensors file are those of the graph, bit for bit."""
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, tensor in tensors.items():
        if tensor.ndim == 4:
            tensor = tensor.transpose(3, 2, 0, 1)
        assert numpy.array_equal(stored[name], tensor), name
    return sum(tensor.size for tensor in tensors.values())


def check_outputs(path, features, expected):
    """onnxruntime's outputs for all rows at once, and for one alone; returns the largest difference."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert features.shape[1:] == tuple(given.shape[1:]), features.shape
    largest = 0.0
    for rows in [slice(None), slice(1)]:
        (found,) = session.run(None, {given.name: features[rows]})
        assert found.shape == expected[rows].shape, found.shape
        scale = numpy.maximum(abs(expected[rows]), 1)
        largest = max(largest, float((abs(found - expected[rows]) / scale).max()))
    assert largest <= NEAR, f"outputs differ by {largest}"
    return largest


def main():
    run, encoded, predicted = map(pathlib.Path, sys.argv[1:])
    model, notes = check_graph(run / "model.onnx")
    parameters = check_weights(model, load_file(run / "model.safetensors"))
    names = [f"probabilities_{name}" for name in notes.get("classes", [])] or ["predictions"]
    # One output for two classes is the probability of the second.
    outputs = model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    expected = columns(predicted, names[-outputs:])
    features = numpy.load(encoded)
    assert features.dtype == numpy.float32, features.dtype
    largest = check_outputs(run / "model.onnx", features, expected)
    nodes = len(model.graph.node)
    print(
        f"{run.name:9} {nodes:3} nodes, {parameters:6} numbers, {len(features)} rows: "
        f"largest difference {largest:.1e}"
    )


main()
