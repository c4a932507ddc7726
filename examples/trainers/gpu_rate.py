#!/usr/bin/env python3
"""Whether a GPU waits for data: rows/s that a model on the device can process, and rows/s that it gets from a mount.

Usage: gpu_rate.py MOUNT [--label COLUMN] [--hidden 512] [--seconds 20]

The model is a perceptron of log counts; replace it in `model`. The first figure trains repeatedly on one batch that is already on
the device; the second reads each batch from the epoch, one thread ahead of the step, as a trainer does.
"""
import argparse
import concurrent.futures
import pathlib
import time

import torch
from safetensors.torch import load_file

parser = argparse.ArgumentParser()
parser.add_argument("mount", type=pathlib.Path)
parser.add_argument("--label", default="cell_type")
parser.add_argument("--hidden", type=int, default=512)
parser.add_argument("--seconds", type=float, default=20.0)
arguments = parser.parse_args()
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
files = [path.with_suffix(".safetensors") for path in sorted((arguments.mount / "epoch-0000").iterdir())]
labels = len((arguments.mount / f"categories/{arguments.label}.txt").read_text().splitlines())
genes = sum(1 for _ in open(arguments.mount / "var.tsv")) - 1


def read(path):
    """A batch on the host, in memory from which the device can copy while it computes."""
    tensors = load_file(path)
    names = [name for name in ("X", "data", "indices", "indptr") if name in tensors]
    batch = {name: tensors[name] for name in [*names, f"obs/{arguments.label}"]}
    return {name: tensor.pin_memory() if device.type == "cuda" else tensor for name, tensor in batch.items()}


def moved(batch):
    """X (rows x genes, float32) and labels (rows, int64) on the device; CSR is made dense there, where that is cheap."""
    batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    y = batch[f"obs/{arguments.label}"].long()
    if "X" in batch:
        return batch["X"].float(), y
    rows = torch.repeat_interleave(torch.arange(len(y), device=device), batch["indptr"].diff().long())
    x = torch.zeros((len(y), genes), device=device)
    x[rows, batch["indices"].long()] = batch["data"].float()
    return x, y


model = torch.nn.Sequential(torch.nn.Linear(genes, arguments.hidden), torch.nn.ReLU(), torch.nn.Linear(arguments.hidden, labels)).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


def step(batch):
    x, y = moved(batch)
    loss = torch.nn.functional.cross_entropy(model(x.log1p()), y.clamp(min=0))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return len(y)


def rate(batches):
    batches = iter(batches)
    step(next(batches))  # kernels are chosen at the first step
    rows, start = 0, time.perf_counter()
    for batch in batches:
        rows += step(batch)
        if time.perf_counter() - start > arguments.seconds:
            break
    if device.type == "cuda":
        torch.cuda.synchronize()
    return rows / (time.perf_counter() - start)


def ahead():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        coming = pool.submit(read, files[0])
        for path in files[1:]:
            batch, coming = coming.result(), pool.submit(read, path)
            yield batch
        yield coming.result()


first = read(files[0])
takes = rate(first for _ in iter(int, 1))
gives = rate(ahead())
name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
print(f"{name}: the model takes {takes:,.0f} rows/s, with the mount {gives:,.0f} rows/s: {gives / takes:.2f} of it")
