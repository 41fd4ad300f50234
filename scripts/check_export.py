"""Checks what `ringstep export` wrote: RUN's model.onnx and model.safetensors.

    python check_export.py RUN INPUT PREDICTED

INPUT is the CSV file of which `ringstep predict` said PREDICTED.
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


def encoded(path, encoding):
    """Rows of feature columns, numbers as they stand in the file: what the graph is given."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    width = encoding["columns"][-1]["slots"]["end"]
    features = numpy.zeros((len(rows), width), numpy.float32)
    for column in encoding["columns"]:
        spec = encoding["fitted"][column["name"]]
        values = [row[spec.get("source", column["name"])] for row in rows]
        if spec["kind"] == "numeric":
            values = [float(value) for value in values]
        elif spec["kind"] == "bucketized":
            numbers = [float(value) for value in values]
            values = numpy.searchsorted(spec["boundaries"], numbers, side="right")
        else:
            assert spec["kind"] == "vocabulary", spec
            places = {value: place for place, value in enumerate(spec["values"])}
            values = [places.get(value, -1) for value in values]
        features[:, column["slots"]["start"]] = values
    return features


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
    features = features.reshape(-1, *given.shape[1:])
    largest = 0.0
    for rows in [slice(None), slice(1)]:
        (found,) = session.run(None, {given.name: features[rows]})
        assert found.shape == expected[rows].shape, found.shape
        scale = numpy.maximum(abs(expected[rows]), 1)
        largest = max(largest, float((abs(found - expected[rows]) / scale).max()))
    assert largest <= NEAR, f"outputs differ by {largest}"
    return largest


def main():
    run, given, predicted = map(pathlib.Path, sys.argv[1:])
    model, notes = check_graph(run / "model.onnx")
    parameters = check_weights(model, load_file(run / "model.safetensors"))
    names = [f"probability_{name}" for name in notes.get("classes", [])] or ["prediction"]
    expected = columns(predicted, names)
    if "encoding" in notes:
        features = encoded(given, notes["encoding"])
    else:
        features = columns(given, notes["columns"])
    largest = check_outputs(run / "model.onnx", features, expected)
    nodes = len(model.graph.node)
    print(
        f"{run.name:9} {nodes:3} nodes, {parameters:6} numbers, {len(features)} rows: "
        f"largest difference {largest:.1e}"
    )


main()
