"""Trainers and formats side by side in one run: rows/s of what a trainer opens in a mount, and of its own loader on the original store.

usage: trainers.py [--rows 20000] [--genes 2000] [--values 200] [--batch 256] [--passes 3] [--only WORD,...]     (scripts/bench trainers)

SHUFFLEFS names the binary (default: target/release/shufflefs). Makes one uncompressed CSR store below target/bench, mounts it, and reads
whole epochs: one to warm up, then `--passes`; prints a line each with the median, and the ratio to the line that it names. Packages that
are not installed are skipped with a message (tests/trainers.txt has all; numpy, anndata and pyarrow are enough for the first lines).
"""
import argparse
import glob
import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--rows", type=int, default=20_000)
parser.add_argument("--genes", type=int, default=2000)
parser.add_argument("--values", type=int, default=200)
parser.add_argument("--batch", type=int, default=256)
parser.add_argument("--passes", type=int, default=3)
parser.add_argument("--only", default="", help="lines whose names have one of these words")
o = parser.parse_args()

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from mounts import mounted, root, shufflefs

OPTIONS = ["--batch-size", str(o.batch), "--epochs", "1", "--obs", "plate"]


def store():
    path = root / f"target/bench/trainers-{o.rows}-{o.genes}-{o.values}.h5ad"
    if not path.exists():
        rng = np.random.default_rng(0)
        x = sp.random(o.rows, o.genes, o.values / o.genes, "csr", "float32", rng, lambda n: rng.integers(1, 50, n))
        obs = pd.DataFrame({"plate": pd.Categorical(rng.choice(["p1", "p2", "p3"], o.rows))}, index=[f"c{i}" for i in range(o.rows)])
        path.parent.mkdir(parents=True, exist_ok=True)
        adata = anndata.AnnData(x, obs, pd.DataFrame(index=[f"g{i}" for i in range(o.genes)]))
        adata.write_h5ad(path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)
    return path


# Each reads one epoch and returns its number of rows. `epoch` is a number: each pass has a different order.

def batches(mount, epoch, extension, read):
    names = sorted(glob.glob(f"{mount}/epoch-{epoch:04d}/*"))
    return sum(read(name.removesuffix("npz") + extension) for name in names)


def npz(path):
    with np.load(path) as b:
        return sp.csr_matrix((b["data"], b["indices"], b["indptr"]), tuple(b["shape"])).shape[0] + 0 * len(b["obs/plate"])


def record(path):
    b = np.load(path)
    return sp.csr_matrix((b["data"], b["indices"], b["indptr"]), tuple(b["shape"])).shape[0] + 0 * len(b["obs/plate"])


def safetensors(path):
    from safetensors.numpy import load_file

    b = load_file(path)
    return sp.csr_matrix((b["data"], b["indices"], b["indptr"]), (len(b["row"]), o.genes)).shape[0]


def csr_of_table(table):
    genes, values = table["genes"].combine_chunks(), table["expressions"].combine_chunks()
    return sp.csr_matrix((values.values.to_numpy(), genes.values.to_numpy(), genes.offsets.to_numpy()), (len(table), o.genes)).shape[0]


def arrow(path):
    import pyarrow as pa

    with pa.memory_map(path) as file:
        return csr_of_table(pa.ipc.open_file(file).read_all())


def parquet(path):
    import pyarrow.parquet as pq

    return csr_of_table(pq.read_table(path))


def dataset(mount, epoch):
    import datasets

    data = datasets.load_from_disk(f"{mount}/epoch-{epoch:04d}.dataset").with_format("arrow")
    return sum(csr_of_table(table) for table in data.iter(o.batch))


def h5py_in_order(path):
    import h5py

    rows = 0
    with h5py.File(path) as file:
        x, bounds = file["X"], file["X/indptr"][:]
        for at in range(0, o.rows, o.batch):
            end = min(at + o.batch, o.rows)
            cut = slice(bounds[at], bounds[end])
            rows += sp.csr_matrix((x["data"][cut], x["indices"][cut], bounds[at:end + 1] - bounds[at]), (end - at, o.genes)).shape[0]
    return rows


def scdataset(path):
    from scdataset import BlockShuffling, scDataset

    backed = anndata.read_h5ad(path, backed="r")
    fetch = lambda collection, rows: collection[np.sort(rows)].to_memory().X
    loader = scDataset(backed, BlockShuffling(block_size=16), batch_size=o.batch, fetch_factor=16, seed=0,
                       fetch_callback=fetch, batch_callback=lambda fetched, rows: fetched[rows])
    return sum(x.shape[0] for x in loader)


def annloader(path, shuffle):
    from anndata.experimental import AnnCollection, AnnLoader

    loader = AnnLoader(AnnCollection([anndata.read_h5ad(path, backed="r")]), batch_size=o.batch, shuffle=shuffle)
    return sum(batch.X.shape[0] for batch in loader)


def annbatch(path):
    from annbatch import DatasetCollection, Loader

    loader = Loader(batch_size=o.batch, shuffle=False, preload_to_gpu=False)
    return sum(batch["X"].shape[0] for batch in loader.use_collection(DatasetCollection(path, mode="r")))


def scvi(path, epochs=1):
    import logging
    import scvi

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    adata = anndata.read_h5ad(path)
    scvi.model.SCVI.setup_anndata(adata)
    scvi.model.SCVI(adata, n_hidden=16, n_latent=4).train(epochs, accelerator="cpu", batch_size=o.batch, enable_progress_bar=False, logger=False)
    return o.rows


def mosaicml(path):
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    return sum(1 for _ in StreamingDataset(local=str(path), batch_size=o.batch, shuffle=False))


def litdata(path):
    from litdata import StreamingDataset

    return sum(1 for _ in StreamingDataset(str(path), shuffle=False))


def measure(name, package, run, beside=None):
    """Prints rows/s of `run(epoch)`; `beside`: the line that it is compared with."""
    if o.only and not any(word in name for word in o.only.split(",")):
        return
    try:
        version = importlib.metadata.version(package)
        seconds = []
        for epoch in range(o.passes + 1):
            start = time.perf_counter()
            rows = run(epoch)
            seconds.append(time.perf_counter() - start)
            assert rows == o.rows, f"{rows} rows"
    except (ImportError, importlib.metadata.PackageNotFoundError) as error:
        print(json.dumps({"line": name, "skipped": str(error)}), flush=True)
        return
    found[name] = o.rows / statistics.median(seconds[1:])
    line = {"line": name, "package": f"{package} {version}", "rows_per_second": round(found[name])}
    if beside in found:
        line["ratio"] = {beside: round(found[name] / found[beside], 2)}
    print(json.dumps(line), flush=True)


found = {}
original = store()
with mounted(original, *OPTIONS) as m:
    epoch = lambda number, extension: f"{m}/epoch-{number:04d}.{extension}"
    measure("safetensors", "safetensors", lambda e: batches(m, e, "safetensors", safetensors))
    measure("npz", "numpy", lambda e: batches(m, e, "npz", npz), "safetensors")
    measure("record.npy", "numpy", lambda e: batches(m, e, "record.npy", record), "npz")
    measure("arrow, mapped", "pyarrow", lambda e: batches(m, e, "arrow", arrow), "safetensors")
    measure("parquet", "pyarrow", lambda e: batches(m, e, "parquet", parquet), "safetensors")
    measure("Hugging Face dataset", "datasets", lambda e: dataset(m, e), "safetensors")
    measure("h5py in order, original", "h5py", lambda e: h5py_in_order(original))
    measure("h5py in order, epoch", "h5py", lambda e: h5py_in_order(epoch(e, "h5ad")), "h5py in order, original")
    measure("scDataset, original", "scDataset", lambda e: scdataset(original))
    measure("scDataset, stored.h5ad", "scDataset", lambda e: scdataset(f"{m}/stored.h5ad"), "scDataset, original")
    measure("AnnLoader, original, shuffled", "anndata", lambda e: annloader(original, True))
    measure("AnnLoader, epoch in order", "anndata", lambda e: annloader(epoch(e, "h5ad"), False), "AnnLoader, original, shuffled")
    with tempfile.TemporaryDirectory() as directory:
        copy = f"{directory}/copy.zarr"
        start = time.perf_counter()
        subprocess.run([shufflefs, "shuffle", "--batch-size", str(o.batch), "--obs", "plate", str(original), copy], check=True, stderr=subprocess.DEVNULL)
        print(json.dumps({"line": "writing a pre-shuffled copy", "seconds": round(time.perf_counter() - start, 2)}), flush=True)
        measure("annbatch, pre-shuffled copy", "annbatch", lambda e: annbatch(copy))
    measure("annbatch, epoch", "annbatch", lambda e: annbatch(epoch(e, "zarr")), "annbatch, pre-shuffled copy")
    measure("SCVI, original", "scvi-tools", lambda e: scvi(original))
    measure("SCVI, epoch", "scvi-tools", lambda e: scvi(epoch(e, "h5ad")), "SCVI, original")
    measure("MosaicML Streaming", "mosaicml-streaming", lambda e: mosaicml(epoch(e, "mds")), "safetensors")
    measure("LitData", "litdata", lambda e: litdata(epoch(e, "litdata")), "safetensors")
