#!/usr/bin/env python3
"""Writes a store with more rows than are read without an index, and little in each.

Usage: large_store.py PATH [--rows N] [--seed S] [--other] [--dense] [--layer] [--shift N] [--bad WHAT]

--layer: a layer whose rows are not as long as those of X; --shift: its genes begin with number N; --other: the
categories of one column in another order, and other dtypes; --bad codes|bounds: damaged afterwards.
"""
import argparse

import collection  # noqa: F401  silences warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--rows", type=int, default=1_200_003)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--other", action="store_true")
    parser.add_argument("--dense", action="store_true")
    parser.add_argument("--layer", action="store_true")
    parser.add_argument("--shift", type=int, default=0)
    parser.add_argument("--bad", choices=["codes", "bounds"])
    args = parser.parse_args()
    rows, genes = args.rows, 7
    random = np.random.default_rng(args.seed)
    lengths = random.integers(0, 3, rows)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    # Two different columns of each row at most, in order.
    first = random.integers(0, genes - 1, rows)
    starts = bounds[:-1]
    columns = np.zeros(bounds[-1], np.int32)
    columns[starts[lengths > 0]] = first[lengths > 0]
    columns[starts[lengths > 1] + 1] = first[lengths > 1] + 1
    values = random.integers(1, 100, bounds[-1]).astype(np.float32)
    matrix = sp.csr_matrix((values, columns, bounds), shape=(rows, genes))
    if args.dense:
        matrix = matrix.toarray()
    few = [f"type {i}" for i in range(5)]
    some = few[::-1] if args.other else few
    obs = pd.DataFrame(
        {
            "few": pd.Categorical.from_codes(random.integers(-1, 5, rows), some),
            "same": pd.Categorical.from_codes(random.integers(-1, 5, rows), few, ordered=True),
            "many": pd.Categorical.from_codes(random.integers(-1, 300, rows), [f"donor {i}" for i in range(300)]),
            "score": random.normal(size=rows).astype(np.float64 if args.other else np.float32),
            "count": random.integers(-(2**40), 2**40, rows),
            "flag": random.integers(0, 2, rows).astype(bool),
            "maybe": pd.array(random.integers(0, 9, rows), dtype="Int16"),
        },
        index=np.arange(rows).astype(str),
    )
    obs.loc[obs.index[::17], "maybe"] = pd.NA
    store = ad.AnnData(matrix, obs=obs, var=pd.DataFrame(index=[f"gene {args.shift + i}" for i in range(genes)]))
    if args.layer:
        # Each row is that of X some rows further on.
        store.layers["other"] = matrix[np.roll(np.arange(rows), -4321)] * 2
    if args.path.endswith(".zarr"):
        store.write_zarr(args.path)
    else:
        store.write_h5ad(args.path, compression="gzip", compression_opts=1)
    if args.bad:
        with h5py.File(args.path, "r+") as file:
            if args.bad == "codes":
                file["obs/many/codes"][rows // 2] = 300
            else:
                file["X/indptr"][rows // 2] = file["X/indptr"][rows // 2 + 1] + 1


if __name__ == "__main__":
    main()
