"""Times the kernels of a small convolutional network, one thread each, alternating with PyTorch.

Both sides report processor time of their one thread. PyTorch is run with images as it prefers them,
channels first, and as this project stores them, channels last; the better total is its figure.
"""

import argparse
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F

BATCH = 64
aten = torch.ops.aten


def ours(seconds):
    command = ["target/release/examples/bench_conv", str(seconds)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name: float(median) for name, median, _ in (line.split("\t") for line in lines)}


class Network:
    def __init__(self, layout):
        def image(*shape):
            return torch.randn(BATCH, *shape).to(memory_format=layout)

        self.values = [image(1, 28, 28), image(32, 26, 26), image(64, 24, 24), image(64, 12, 12)]
        self.flat = torch.randn(BATCH, 12 * 12 * 64)
        self.hidden = torch.randn(BATCH, 128)
        kernels = [torch.randn(32, 1, 3, 3), torch.randn(64, 32, 3, 3)]
        self.kernels = [kernel.to(memory_format=layout) for kernel in kernels]
        self.biases = [torch.randn(32), torch.randn(64)]
        self.dense = torch.randn(128, 12 * 12 * 64)
        self.dense_bias = torch.randn(128)

    def step(self, times):
        def timed(name, kernel):
            start = time.thread_time()
            result = kernel()
            times.setdefault(name, []).append((time.thread_time() - start) * 1e3)
            return result

        values, kernels = self.values, self.kernels
        for i in (0, 1):
            timed(
                f"convolution {i + 1} forward",
                lambda: F.relu_(F.conv2d(values[i], kernels[i], self.biases[i])),
            )
        _, indices = timed(
            "pooling forward", lambda: aten.max_pool2d_with_indices(values[2], [2, 2], [2, 2])
        )
        timed(
            "dense 1 forward",
            lambda: F.relu_(F.linear(self.flat, self.dense, self.dense_bias)),
        )
        timed("dense 1 relu", lambda: aten.threshold_backward(self.hidden, self.hidden, 0))
        timed("dense 1 bias", lambda: self.hidden.sum(0))
        timed("dense 1 weights", lambda: self.hidden.t() @ self.flat)
        timed("dense 1 input", lambda: self.hidden @ self.dense)
        timed(
            "pooling backward",
            lambda: aten.max_pool2d_with_indices_backward(
                values[3], values[2], [2, 2], [2, 2], [0, 0], [1, 1], False, indices
            ),
        )
        for i in (1, 0):
            y = values[i + 1]
            name = f"convolution {i + 1}"

            def backward(mask):
                return aten.convolution_backward(
                    y, values[i], kernels[i], [self.biases[i].numel()],
                    [1, 1], [0, 0], [1, 1], False, [0, 0], 1, mask,
                )

            timed(f"{name} relu", lambda: aten.threshold_backward(y, y, 0))
            timed(f"{name} bias", lambda: y.sum((0, 2, 3)))
            timed(f"{name} weights", lambda: backward([False, True, False]))
            if i > 0:
                timed(f"{name} input", lambda: backward([True, False, False]))


def theirs(network, seconds):
    times = {}
    until = time.monotonic() + seconds
    with torch.no_grad():
        while time.monotonic() < until or len(times["pooling forward"]) < 5:
            network.step(times)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    layouts = {
        "channels first": Network(torch.contiguous_format),
        "channels last": Network(torch.channels_last),
    }
    rounds = {"ringstep": [], **{name: [] for name in layouts}}
    for _ in range(arguments.rounds):
        rounds["ringstep"].append(ours(arguments.seconds))
        for name, network in layouts.items():
            rounds[name].append(theirs(network, arguments.seconds))
    medians = {
        side: {name: statistics.median(taken[name] for taken in all_taken) for name in all_taken[0]}
        for side, all_taken in rounds.items()
    }
    names = list(medians["channels first"])
    print("| kernel, ms | ringstep | PyTorch channels first | channels last | ratio to the better |")
    print("|---|---|---|---|---|")

    def row(name, figures):
        best = min(figures[1:])
        cells = " | ".join(f"{figure:.2f}" for figure in figures)
        print(f"| {name} | {cells} | {best / figures[0]:.2f} |")

    for name in names:
        row(name, [taken[name] for taken in medians.values()])
    row("sum", [sum(taken[name] for name in names) for taken in medians.values()])


main()
