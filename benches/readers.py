"""Reads a mount as a trainer would and prints rows/s: the measuring harness is that of the peers (../shared/peers/common.py).

usage: readers.py MOUNT --reader {safetensors,npz,record.npy,npy,torch,anndata} [--batch 64] [--workers 0] [--secs 10] [--runs 3] [--name NAME]
The mount must list an epoch for every run, and one for warming up; `plate` must be served. Every reader returns what the
peers' benchmarks return: a scipy CSR (or a dense array) and the plate of each row.
"""
import argparse, glob, os, sys

parser = argparse.ArgumentParser()
parser.add_argument("mount")
parser.add_argument("--reader", default="safetensors")
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--workers", type=int, default=0)
parser.add_argument("--secs", type=float, default=10)
parser.add_argument("--runs", type=int, default=3)
parser.add_argument("--name", default="shufflefs")
o = parser.parse_args()

here = os.path.dirname(os.path.abspath(__file__))
os.environ.setdefault("PEERS", "/nonexistent")
sys.path[:0] = [here, os.path.join(here, "../../shared/peers")]
import numpy as np
import scipy.sparse as sp
from common import measure

EXTENSION = {"torch": "safetensors", "anndata": "h5ad"}.get(o.reader, o.reader)


def read_safetensors(path):
    from safetensors.numpy import load_file
    t = load_file(path)
    if "X" in t:
        return t["X"], t["obs/plate"]
    n = len(t["row"])
    return sp.csr_matrix((t["data"], t["indices"], t["indptr"]), shape=(n, GENES)), t["obs/plate"]


def read_npz(path):
    with np.load(path) as z:
        return sp.csr_matrix((z["data"], z["indices"], z["indptr"]), shape=tuple(z["shape"])), z["obs/plate"]


def read_record(path):
    b = np.load(path)
    # The harness keeps the plates; without a copy each would keep its whole batch.
    return sp.csr_matrix((b["data"], b["indices"], b["indptr"]), shape=tuple(b["shape"])), b["obs/plate"].copy()


def read_npy(path):
    return np.load(path), None


def read_anndata(path):
    import anndata
    a = anndata.read_h5ad(path)
    return a.X, a.obs["plate"].cat.codes.to_numpy()


READERS = {"safetensors": read_safetensors, "npz": read_npz, "record.npy": read_record, "npy": read_npy, "anndata": read_anndata}
READ = READERS[EXTENSION if o.reader == "torch" else o.reader]
GENES = sum(1 for _ in open(os.path.join(o.mount, "var.tsv"))) - 1


class Files:
    """A map-style dataset for torch: one item is one file."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        return READ(self.paths[i])


def paths(run):
    epoch = min(run, o.runs)  # the warm-up run is number 99
    found = sorted(glob.glob(f"{o.mount}/epoch-{epoch:04d}/*"))
    return [os.path.splitext(p)[0] + "." + EXTENSION for p in found]


def iterate(run):
    if o.reader == "torch" or o.workers:
        from torch.utils.data import DataLoader
        return DataLoader(Files(paths(run)), batch_size=None, num_workers=o.workers, collate_fn=lambda x: x)
    return map(READ, paths(run))


def get(batch):
    x, plate = batch
    return x.shape[0], plate


measure(f"{o.name} {o.reader} w={o.workers}", iterate, get, o.batch, mode=o.reader, secs=o.secs, runs=o.runs)
