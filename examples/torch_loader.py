"""Batches of a mount as PyTorch data sets. Each item is one whole batch: use `batch_size=None` in the DataLoader.

    loader = DataLoader(Batches("/mnt/cells", "cell_type"), batch_size=None, num_workers=4)
    for epoch in range(10):
        loader.dataset.epoch = epoch
        for x, y in loader: ...

The order is the epoch's; `shuffle=True` is not needed. To resume, give `start=`: the batch to begin with.
"""
import pathlib

import numpy as np
import safetensors.numpy
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info


def load(path, label, dense=True):
    """(X, codes of `label`) of one file."""
    tensors = safetensors.numpy.load_file(path)
    y = torch.from_numpy(tensors[f"obs/{label}"]).long()
    if "X" in tensors:
        return torch.from_numpy(tensors["X"]), y
    with safetensors.safe_open(path, "numpy") as file:
        rows, genes = (int(n) for n in file.metadata()["shape"].strip("[]").split(","))
    parts = (torch.from_numpy(tensors[name]) for name in ("indptr", "indices", "data"))
    x = torch.sparse_csr_tensor(*parts, size=(rows, genes))
    return (x.to_dense() if dense else x), y


class Batches(Dataset):
    """Item i is batch i of `epoch`; workers take batches in turn."""

    def __init__(self, mount, label, epoch=0, dense=True):
        self.mount, self.label, self.epoch, self.dense = pathlib.Path(mount), label, epoch, dense
        self.count = len(list((self.mount / "epoch-0000").iterdir()))

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return load(self.mount / f"epoch-{self.epoch:04d}/batch-{i:06d}.safetensors", self.label, self.dense)


class Epochs(IterableDataset):
    """Batches of epoch after epoch, without end, from (epoch, start) on; each worker reads every n-th batch."""

    def __init__(self, mount, label, epoch=0, start=0, dense=True):
        self.batches, self.epoch, self.start = Batches(mount, label, epoch, dense), epoch, start

    def __iter__(self):
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        epoch, start = self.epoch, self.start
        while True:
            self.batches.epoch = epoch
            for i in range(start + first, len(self.batches), step):
                yield self.batches[i]
            epoch, start = epoch + 1, 0
