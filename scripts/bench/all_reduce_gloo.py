"""All-reduce of floats by PyTorch over gloo: `all_reduce_gloo.py RANKS`.

Prints "ranks megabytes median-ms" for each size."""

import os
import socket
import statistics
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

SIZES = [(1, 60), (25, 25), (100, 12)]


def measure(rank, ranks, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    for megabytes, repeats in SIZES:
        values = torch.empty(megabytes * 1_000_000 // 4)
        times = []
        for repeat in range(repeats):
            values.fill_(float(repeat))
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(values)
            times.append((time.perf_counter() - start) * 1e3)
        if rank == 0:
            print(ranks, megabytes, f"{statistics.median(times[2:]):.3f}", flush=True)
    dist.barrier()
    dist.destroy_process_group()
    # Gloo's threads sometimes abort the process while Python takes itself down.
    os._exit(0)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    mp.spawn(measure, args=(int(sys.argv[1]), free_port()), nprocs=int(sys.argv[1]))
