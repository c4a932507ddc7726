"""Prints the mean entropy of an obs column within the full batches of epoch 0 of a mount, and that of perfect shuffling, in bits.

usage: check_entropy.py MOUNT COLUMN BATCH_SIZE
"""
import glob
import sys

import numpy as np

mount, column, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
paths = sorted(glob.glob(f"{mount}/epoch-0000/*"))


def codes(path):
    path = path.rsplit(".", 1)[0] + ".npz"
    with np.load(path) as file:
        return file[f"obs/{column}"]


def entropy(values):
    shares = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(shares * np.log2(shares)).sum())


batches = [codes(path) for path in paths]
everything = np.concatenate(batches)
rng = np.random.default_rng(0)
perfect = [entropy(rng.choice(everything, size, replace=False)) for _ in range(4000)]
print(np.mean([entropy(batch) for batch in batches if len(batch) == size]), np.mean(perfect))
