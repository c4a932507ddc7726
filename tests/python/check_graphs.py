#!/usr/bin/env python3
"""Stores with graphs, and the expected neighbourhoods of batches, by scipy.

    check_graphs.py make DIR                     writes near.h5ad, near.zarr (CSC), and stores whose graphs are wrong
    check_graphs.py check MOUNT JSON STORE...    every batch of two epochs

JSON: graph, hops, fanout (null: all), x (whether X is compared). Prints the edges of both epochs. Exits 1 at the first difference.
"""
import glob
import json
import pathlib
import sys

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from safetensors.numpy import load_file


def graph(n, seed, dtype):
    """Neighbours in a plane: weights fall with distance; some rows have none, one has very many."""
    rng = np.random.default_rng(seed)
    at = rng.random((n, 2))
    distance = ((at[:, None] - at[None]) ** 2).sum(-1)
    weights = np.where((distance < 0.008) & (rng.random((n, n)) < 0.8), np.exp(-distance * 50), 0).astype(dtype)
    weights[3] = 0
    weights[7] = rng.random(n)
    return sp.csr_matrix(weights)


def make(directory):
    directory = pathlib.Path(directory)
    for seed, (name, n) in enumerate([("near.h5ad", 300), ("near.zarr", 180)]):
        rng = np.random.default_rng(seed)
        x = sp.random(n, 20, 0.3, "csr", np.float32, rng)
        data = anndata.AnnData(x, pd.DataFrame({"kind": pd.Categorical(rng.choice(["a", "b"], n))}, index=[f"{seed}-{i}" for i in range(n)]))
        weights = graph(n, seed, [np.float64, np.float32][seed])
        data.obsp["connectivities"] = weights if name.endswith("h5ad") else sp.csc_matrix(weights)
        if name.endswith(".zarr"):
            data.write_zarr(directory / name)
        else:
            data.write_h5ad(directory / name, compression="gzip")
            data.obsp["dense"] = weights.toarray()
            data.write_h5ad(directory / "odd.h5ad")
            with h5py.File(directory / "odd.h5ad", "a") as file:
                file["obsp/connectivities/indices"][5:8] = [300, 9999, -1]
                file.copy("obsp/connectivities", "obsp/other")
                file["obsp/other"].attrs["shape"] = [300, 299]


def check(holds, message):
    if not holds:
        print(message)
        sys.exit(1)


def run(mount, options, stores):
    mount = pathlib.Path(mount)
    tables = [anndata.read_zarr(path) if path.endswith(".zarr") else anndata.read_h5ad(path) for path in stores]
    whole = sp.csr_matrix(sp.block_diag([table.obsp[options["graph"].removeprefix("obsp/")] for table in tables], "csr"))
    x = sp.vstack([sp.csr_matrix(table.X) for table in tables]).toarray() if options.get("x", True) else None
    fanout = options["fanout"]
    drawn, total = {}, 0
    for path in sorted(glob.glob(str(mount / "epoch-000[12]/*.npz"))):
        batch = dict(np.load(path))
        rows, beside = batch["row"], batch["neighbours/row"]
        nodes = np.concatenate([rows, beside])
        (source, target), weight = batch["edge_index"], batch["edge_weight"]
        check(len(set(beside)) == len(beside) and not set(beside) & set(rows), "a neighbour is in the batch, or twice")
        check(batch["edge_index"].shape == (2, len(weight)), "the shape of edge_index")
        # Each edge equals the graph's exactly.
        check(not len(weight) or np.array_equal(np.asarray(whole[nodes[target], nodes[source]]).ravel().astype(weight.dtype), weight), "a weight is not the graph's")
        # Hop by hop: each row of the frontier, in order, has as many neighbours as possible, none twice.
        frontier, known, at = np.arange(len(rows)), len(rows), 0
        for _ in range(options["hops"]):
            for place in frontier:
                of = whole.indices[whole.indptr[nodes[place]]:whole.indptr[nodes[place] + 1]]
                count = len(of) if fanout is None else min(fanout, len(of))
                mine = slice(at, at + count)
                check((target[mine] == place).all() and len(set(source[mine])) == count, f"the neighbours of place {place}")
                check(set(nodes[source[mine]]) <= set(of) if fanout else set(nodes[source[mine]]) == set(of), "others than the graph's")
                at += count
            found = source[:at][source[:at] >= known]
            frontier = np.array(sorted(set(found)), int)
            check(np.array_equal(frontier, np.arange(known, known + len(frontier))), "places of neighbours")
            known += len(frontier)
        check(at == len(weight) and known == len(nodes), "edges or nodes that no hop has found")
        # The result equals scipy's product with the same draw.
        sampled = sp.csr_matrix((weight, (target, source)), shape=(len(nodes), len(nodes)))
        check(np.allclose(sampled.sum(axis=1).A1 if hasattr(sampled.sum(axis=1), "A1") else np.asarray(sampled.sum(axis=1)).ravel(), np.bincount(target, weight, len(nodes))), "sums")
        if x is not None:
            got = sp.csr_matrix((batch["neighbours/data"], batch["neighbours/indices"], batch["neighbours/indptr"]), batch["neighbours/shape"]).toarray()
            check(np.array_equal(got, x[beside]), "X of the neighbours")
        for other in (load_file(path.replace(".npz", ".safetensors")), np.load(path.replace(".npz", ".record.npy"))):
            for name in ("edge_index", "edge_weight", "neighbours/row"):
                check(np.array_equal(other[name], batch[name]), f"{name} in another format")
        total += len(weight)
        for place, row in enumerate(rows):
            drawn.setdefault((int(row), "epoch-0001" in path), set(nodes[source[target == place]]))
    if fanout:
        changed = [row for row, first in drawn if first and drawn.get((row, False), drawn[row, True]) != drawn[row, True]]
        check(len(changed) > 10, "two epochs have the same draw")
    print(total)


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    make(rest[0]) if command == "make" else run(rest[0], json.loads(rest[1]), rest[2:])
