"""Training throughput of PyTorch on CPUs: one process, or DistributedDataParallel over gloo.

Every rank has one thread, a batch of its own that stays in memory, and fused Adam. The last line
printed is one JSON object:

    {"samples_per_second": 13800.0, "parameters": 669706}

The rate is that of all ranks together: the median over windows of a quarter of a second or more.
"""

import argparse
import json
import os
import socket
import statistics
import time

# Read by the math libraries when they are loaded.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import torch
import torch.distributed as distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

WARM_UP_STEPS = 5
WINDOW_SECONDS = 0.25


def mlp():
    """784-512-512-10."""
    return nn.Sequential(
        nn.Linear(784, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def cnn():
    """Two convolutions on 28 x 28 images of one channel, without padding."""
    return nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=3),
        nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 12 * 12, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


MODELS = {"mlp": (mlp, (784,)), "cnn": (cnn, (1, 28, 28))}


def steps_per_window(step, rank, world):
    """How many steps fill a window; rank 0 decides."""
    start = time.perf_counter()
    for _ in range(WARM_UP_STEPS):
        step()
    seconds = (time.perf_counter() - start) / WARM_UP_STEPS
    count = torch.tensor([max(1, round(WINDOW_SECONDS / seconds))])
    if world > 1:
        distributed.broadcast(count, 0)
    return int(count)


def rank_main(rank, options, port):
    torch.manual_seed(rank)
    torch.set_num_threads(1)
    world = options.ranks
    if world > 1:
        os.environ.update(
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo"
        )
        distributed.init_process_group("gloo", rank=rank, world_size=world)
    build, shape = MODELS[options.model]
    model = build()
    parameters = sum(tensor.numel() for tensor in model.parameters())
    if world > 1:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    features = torch.rand(options.batch, *shape)
    if options.channels_last and len(shape) == 3:
        model = model.to(memory_format=torch.channels_last)
        features = features.contiguous(memory_format=torch.channels_last)
    classes = torch.randint(10, (options.batch,))
    loss = nn.CrossEntropyLoss()

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss(model(features), classes).backward()
        optimizer.step()

    for _ in range(WARM_UP_STEPS):
        step()
    steps = steps_per_window(step, rank, world)
    rates = []
    end = time.perf_counter() + options.seconds
    again = torch.ones(1)
    while again.item():
        start = time.perf_counter()
        for _ in range(steps):
            step()
        now = time.perf_counter()
        rates.append(steps * options.batch * world / (now - start))
        again.fill_(float(now < end))
        if world > 1:
            distributed.broadcast(again, 0)
    if rank == 0:
        rate = statistics.median(rates)
        print(json.dumps({"samples_per_second": rate, "parameters": parameters}), flush=True)
    if world > 1:
        distributed.barrier()
        distributed.destroy_process_group()
        # Gloo's threads sometimes abort the process while Python takes itself down.
        os._exit(0)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64, help="samples of a rank")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()
    if options.ranks == 1:
        rank_main(0, options, None)
    else:
        torch.multiprocessing.spawn(
            rank_main, args=(options, free_port()), nprocs=options.ranks
        )


if __name__ == "__main__":
    main()
