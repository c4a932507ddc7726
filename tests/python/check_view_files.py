#!/usr/bin/env python3
"""Compares files of many batches with the batches themselves, read by numpy and scipy.

Usage: check_view_files.py MOUNT JOB...   where a JOB is FILE=DIRECTORY of batches, or FILE= for a file of all rows in stored order
       check_view_files.py --make FILE    a store with layers, obsm and raw
       check_view_files.py --size FILE    opens it with h5py, prints rows and seconds

Every array, dtype and label of FILE equals that of the batches one after the other; reads at any offset, mapped pages, h5py
slices and backed AnnData agree with it. Prints one line of JSON a job; exits 1 and names the first difference.
"""
import json
import mmap
import os
import pathlib
import random
import sys
import time
import warnings

import numpy as np

warnings.filterwarnings("ignore")

import anndata as ad
import h5py
import pandas as pd
import scipy.sparse as sp


def need(condition, message):
    if not condition:
        raise SystemExit(f"check_view_files: {message}")


def same(got, want, what):
    got, want = np.asarray(got), np.asarray(want)
    need(got.dtype == want.dtype, f"{what}: dtype {got.dtype}, not {want.dtype}")
    need(got.shape == want.shape, f"{what}: shape {got.shape}, not {want.shape}")
    need(np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(want).tobytes(), f"{what}: other bytes")


def matrix(batches, prefix, dense):
    """An element of all batches, one after the other."""
    if dense in batches[0]:
        return np.concatenate([batch[dense] for batch in batches])
    parts = [
        sp.csr_matrix((b[prefix + "data"], b[prefix + "indices"], b[prefix + "indptr"]), shape=tuple(b[prefix + "shape"]))
        for b in batches
    ]
    data = np.concatenate([part.data for part in parts])
    indices = np.concatenate([part.indices for part in parts])
    lengths = np.concatenate([np.diff(part.indptr) for part in parts])
    return data, indices, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), parts[0].shape[1]


def compare(file, got, want, what):
    if isinstance(want, tuple):
        data, indices, indptr, columns = want
        same(got["data"][:], data if data.dtype != np.float16 else data.astype(np.float32), f"{what}/data")
        same(got["indices"][:], indices.astype(got["indices"].dtype), f"{what}/indices")
        same(got["indptr"][:], indptr.astype(got["indptr"].dtype), f"{what}/indptr")
        need(got["indptr"].dtype == got["indices"].dtype, f"{what}: scipy needs one dtype for indices and indptr")
        need(list(got.attrs["shape"]) == [len(indptr) - 1, columns], f"{what}: shape {got.attrs['shape']}")
    else:
        same(got[:], want, what)


def any_offsets(path, size, rng):
    """Reads at any offset, mapped pages and a read of the whole agree; the bytes."""
    whole = pathlib.Path(path).read_bytes()
    need(len(whole) == size, f"{path}: {len(whole)} bytes, stat says {size}")
    with open(path, "rb", buffering=0) as file:
        for _ in range(200):
            start = rng.randrange(size + 10)
            length = rng.choice([1, 7, 100, 4096, 70_000, 1 << 20])
            got = os.pread(file.fileno(), length, start)
            need(got == whole[start : start + length], f"{path}: {length} bytes at {start} differ")
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            for _ in range(100):
                start = rng.randrange(size)
                need(mapped[start : start + 5000] == whole[start : start + 5000], f"{path}: mapped at {start}")
    return whole


def obs(frame, batches, columns):
    for name, column in columns.items():
        values = np.concatenate([batch[f"obs/{name}"] for batch in batches])
        got = frame[name]
        mask = f"obs/{name}/mask"
        if column["kind"] == "categorical":
            same(got.cat.codes.to_numpy(), values.astype(got.cat.codes.dtype), f"obs/{name}")
        elif mask in batches[0]:
            missing = np.concatenate([batch[mask] for batch in batches])
            same(pd.isna(got).to_numpy(), missing, mask)
            need(list(got[~missing].astype(values.dtype)) == list(values[~missing]), f"obs/{name}")
        else:
            need(np.array_equal(np.asarray(got, dtype=values.dtype), values, equal_nan=values.dtype.kind == "f"), f"obs/{name}")


def backed(path, whole, rng):
    """Slices of rows of a backed AnnData are those of the whole."""
    with_backing = ad.read_h5ad(path, backed="r")
    rows = whole.n_obs
    dense = lambda x: x.toarray() if sp.issparse(x) else np.asarray(x)
    for _ in range(8):
        start = rng.randrange(rows)
        stop = start + rng.randrange(1, 60)
        part, want = with_backing[start:stop].to_memory(), whole[start:stop]
        need(list(part.obs_names) == list(want.obs_names), f"{path}: backed rows from {start}")
        same(dense(part.X), dense(want.X), f"{path}: backed rows from {start}")
    picked = sorted(rng.sample(range(rows), min(rows, 20)))
    same(dense(with_backing[picked].to_memory().X), dense(whole[picked].X), f"{path}: backed rows {picked}")
    with_backing.file.close()


def var(adata, mount, dataset, file):
    """Columns of var are those of the first store, if it has all genes."""
    path = dataset["stores"][0]["path"]
    if not path.endswith(".h5ad"):
        return
    with h5py.File(path, "r") as h5:
        want = ad.io.read_elem(h5["var"])
    if not set(adata.var_names) <= set(want.index):
        return
    if want.index.is_unique:
        want = want.loc[adata.var_names]
    need(list(adata.var.columns) == list(want.columns), f"{file}: var has {list(adata.var.columns)}, not {list(want.columns)}")
    for name in want:
        got, value = adata.var[name].astype(object), want[name].astype(object)
        need(got.equals(value), f"{file}: var/{name}")


def job(mount, file, directory):
    rng = random.Random(5)
    path = str(mount / file)
    dataset = json.loads((mount / "dataset.json").read_text())
    columns = {column["name"]: column for column in dataset["columns"]}
    size = os.stat(path).st_size
    raw = any_offsets(path, size, rng)
    adata = ad.read_h5ad(path)
    if sp.issparse(adata.X):
        adata.X.sum(axis=1)  # Fails where scipy does not like the arrays.
    if directory.startswith("by:"):
        return by(mount, file, adata, directory[3:])
    if directory:
        batches = [dict(np.load(batch)) for batch in sorted((mount / directory).glob("*.npz"))]
        rows = np.concatenate([batch["row"] for batch in batches])
        need([int(name) for name in adata.obs_names] == list(rows), f"{file}: other rows than {directory}")
        with h5py.File(path, "r") as h5:
            x = matrix(batches, "", "X")
            if getattr(x, "ndim", 2) > 2:
                compare(file, h5["obsm/X"], x, "obsm/X")
            else:
                compare(file, h5["X"], x, "X")
                group = h5["X/data"] if isinstance(x, tuple) else h5["X"]
                want = x[0] if isinstance(x, tuple) else x
                for _ in range(30):
                    start = rng.randrange(max(1, len(want)))
                    stop = start + rng.randrange(1, 5000)
                    got = group[start:stop]
                    need(np.array_equal(got, want[start:stop], equal_nan=True), f"{file}: X from {start} to {stop}")
            for element in dataset["with"]:
                name = element["element"]
                compare(file, h5[name], matrix(batches, name + "/", name), name)
        obs(adata.obs, batches, columns)
    else:
        rows = np.array([int(name) for name in adata.obs_names])
        need(np.all(np.diff(rows) > 0), f"{file}: not in stored order")
    for name, column in columns.items():
        if column["kind"] == "categorical":
            labels = (mount / "categories" / f"{name.replace('/', '_')}.txt").read_text().splitlines()
            need(len(adata.obs[name].cat.categories) == len(labels), f"{file}: categories of {name}")
    need(list(adata.var_names) == [line.split("\t")[1] for line in (mount / "var.tsv").read_text().splitlines()[1:]], "var")
    var(adata, mount, dataset, file)
    if adata.X is not None:
        backed(path, adata, rng)
    print(json.dumps({"file": file, "rows": len(rows), "distinct": len(set(rows.tolist())), "bytes": len(raw)}), flush=True)


def by(mount, file, adata, column):
    """Rows are grouped by label; the file of a label has its group; values equal those of stored.h5ad."""
    codes = adata.obs[column].cat.codes.to_numpy().astype(int)
    order = np.where(codes < 0, codes.max() + 1, codes)
    need(np.all(np.diff(order) >= 0), f"{file}: not grouped")
    rows = np.array([int(name) for name in adata.obs_names])
    need(np.any(np.diff(rows[order == order[0]]) < 0), f"{file}: not shuffled within a label")
    stored = ad.read_h5ad(mount / "stored.h5ad")[adata.obs_names]
    dense = lambda x: x.toarray() if sp.issparse(x) else np.asarray(x)
    same(dense(adata.X), dense(stored.X), f"{file}: X")
    for name in adata.obs:
        # A subset of an AnnData loses unused categories.
        got, want = adata.obs[name].astype(object), stored.obs[name].astype(object)
        need(got.equals(want), f"{file}: obs/{name}")
    labels = adata.obs[column].cat.categories
    directory = mount / file.removesuffix(".h5ad")
    for code, label in enumerate(labels):
        part = ad.read_h5ad(directory / f"{label}.h5ad")
        want = adata[order == code]
        need(list(part.obs_names) == list(want.obs_names), f"{label}: other rows")
        same(dense(part.X), dense(want.X), f"{label}: X")
    done = {"file": file, "rows": len(rows), "distinct": len(set(rows.tolist())), "labels": len(labels)}
    print(json.dumps(done), flush=True)


def main():
    if sys.argv[1] == "--make":
        rng = np.random.default_rng(3)
        sparse = lambda columns: sp.random(700, columns, 0.2, "csr", np.float32, rng)
        x = sparse(40)
        some = np.asarray(x[:, :10].sum(axis=1)).ravel()
        kind = pd.Categorical(np.where(some > np.median(some), "a", "b"))
        adata = ad.AnnData(x, pd.DataFrame({"kind": kind}))
        adata.obs_names, adata.var_names = [f"r{i}" for i in range(700)], [f"g{i}" for i in range(40)]
        adata.raw = ad.AnnData(sparse(60), adata.obs)
        adata.var["ensembl_id"] = [f"ENSG{i:05d}" for i in range(40)]
        adata.var["mean"] = rng.random(40)
        adata.var["variable"] = rng.random(40) < 0.5
        adata.var["biotype"] = pd.Categorical(rng.choice(["coding", "other"], 40))
        adata.var["length"] = pd.array([None, *range(39)], dtype="Int32")
        adata.layers["spliced"] = sparse(40)
        adata.layers["whole"] = rng.random((700, 40))
        adata.obsm["X_pca"] = rng.random((700, 5)).astype(np.float32)
        adata.write_h5ad(sys.argv[2])
        return
    if sys.argv[1] == "--size":
        start = time.monotonic()
        with h5py.File(sys.argv[2], "r") as h5:
            shape = h5["X"].attrs["shape"]
            h5["X/data"][:10]
        print(json.dumps({"rows": int(shape[0]), "seconds": time.monotonic() - start}))
        return
    mount = pathlib.Path(sys.argv[1])
    for each in sys.argv[2:]:
        file, _, directory = each.partition("=")
        job(mount, file, directory)


if __name__ == "__main__":
    main()
