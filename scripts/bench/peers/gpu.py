"""Training throughput of PyTorch on one GPU: torch.compile, fused Adam, a batch of 64 that stays in the
GPU's memory. In bf16 weights are kept in f32 and products are autocast, as ringstep has it. Prints the
median over windows, called by scripts/gpu-check.sh.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from ddp import MODELS

BATCH = 64
WARM_UP_STEPS = 50
WINDOW_STEPS = 250


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--windows", type=int, default=6)
    options = parser.parse_args()
    # As ringstep's f32: no TF32.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    build, shape = MODELS[options.model]
    model = build().cuda()
    features = torch.rand(BATCH, *shape, device="cuda")
    if len(shape) == 3:
        model = model.to(memory_format=torch.channels_last)
        features = features.contiguous(memory_format=torch.channels_last)
    classes = torch.randint(10, (BATCH,), device="cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    loss = nn.CrossEntropyLoss()
    is_half = options.precision == "bf16"

    @torch.compile
    def forward():
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=is_half):
            outputs = model(features)
        return loss(outputs.float(), classes)

    def step():
        optimizer.zero_grad(set_to_none=True)
        forward().backward()
        optimizer.step()

    for _ in range(WARM_UP_STEPS):
        step()
    rates = []
    for _ in range(options.windows):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(WINDOW_STEPS):
            step()
        torch.cuda.synchronize()
        rates.append(BATCH * WINDOW_STEPS / (time.perf_counter() - start))
    print(
        f"PyTorch {torch.__version__} {options.model} in {options.precision}: {statistics.median(rates):.0f} rows/s, "
        f"median of {len(rates)} on {torch.cuda.get_device_name()}"
    )


if __name__ == "__main__":
    main()
