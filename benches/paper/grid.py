"""scDataset's table: block size x fetch factor x workers, rows/s and entropy of the plate: `scripts/paper grid`.

Uncompressed .h5ad, 14 plates one after the other, about 1,500 values a row of 20,000 genes, batches of 64. Ours: numpy on `.safetensors`, in
one process, and in two that take every second file. scDataset (where it can be imported): an AnnCollection of backed files, sparse rows.
The expected entropy is that of a batch of 64 from k blocks of one plate each: analytic.
"""
import multiprocessing
import sys
import time

import numpy as np

from common import OUT, entropy, files, keep, made, mounted, plot, rate, warm

CELLS, GENES, NNZ, PLATES, BATCH, SECONDS = 42_000, 20_000, 1500, 14, 64, 3.0
BLOCKS, FETCHES, WORKERS = [4, 16, 64, 256], [1, 16, 64, 256], [0, 2]


def store(path):
    import anndata as ad
    import pandas as pd
    import scipy.sparse as sp

    rng, parts = np.random.default_rng(1), []
    for start in range(0, CELLS, 3000):
        # Distinct sorted columns without sorting 20,000 numbers a row: a random step from a random start.
        steps = rng.integers(1, 2 * GENES // NNZ - 1, (3000, NNZ))
        columns = np.cumsum(steps, axis=1) % GENES
        columns.sort(axis=1)
        values = rng.geometric(0.6, columns.shape).astype("f4")
        x = sp.csr_matrix((values.ravel(), columns.ravel().astype("i4"), np.arange(3001) * NNZ), shape=(3000, GENES))
        x.sum_duplicates()
        parts.append(x)
    plate = pd.Categorical.from_codes(np.arange(CELLS) * PLATES // CELLS, [f"plate{i:02}" for i in range(PLATES)])
    ad.AnnData(sp.vstack(parts, format="csr"), obs=pd.DataFrame({"plate": plate}, index=[str(i) for i in range(CELLS)])).write_h5ad(path)


def expected(block, fetch):
    """Expected entropy of a batch whose k blocks are of one plate each: blocks of a plate are binomial, rows of these in the batch
    hypergeometric, and entropy is a sum over plates."""
    from scipy.stats import binom, hypergeom

    k = BATCH * fetch // block
    x = np.arange(1, BATCH + 1)
    part = -(x / BATCH) * np.log2(x / BATCH)
    chances = binom.pmf(np.arange(k + 1), k, 1 / PLATES)
    return float(PLATES * sum(p * (hypergeom.pmf(x, k * block, blocks * block, BATCH) * part).sum() for blocks, p in enumerate(chances) if p > 1e-12))


def read(path):
    from safetensors.numpy import load_file

    t = load_file(path)
    return t["indptr"], t["data"], t["indices"], t["obs/plate"]


def worker(paths, seconds, out):
    rows, start = 0, time.perf_counter()
    for path in paths:
        rows += len(read(path)[3])
        if time.perf_counter() - start > seconds:
            break
    out.put(rows / (time.perf_counter() - start))


def ours(cells, block, fetch, workers):
    with mounted([cells], "--batch-size", BATCH, "--block-size", block, "--fetch-factor", fetch, "--obs", "plate", "--memory", "1GiB") as place:
        paths = files(place / "epoch-0001", "safetensors")
        if workers:
            queue = multiprocessing.Queue()
            started = [multiprocessing.Process(target=worker, args=(paths[i::workers], SECONDS, queue)) for i in range(workers)]
            [process.start() for process in started]
            speed = sum(queue.get() for _ in started)
            [process.join() for process in started]
            return speed, None
        plates = []

        def batches():
            for path in paths:
                codes = read(path)[3]
                plates.append(codes)
                yield len(codes)

        return rate(batches(), SECONDS), float(np.mean([entropy(codes) for codes in plates if len(codes) == BATCH]))


def scdataset(cells):
    """A function as `ours`, or why there is none."""
    try:
        import anndata as ad
        from anndata.experimental import AnnCollection
        from scdataset import BlockShuffling, scDataset
        from torch.utils.data import DataLoader
    except ImportError as error:
        return None, str(error)
    collection = AnnCollection([ad.read_h5ad(cells, backed="r")])

    def fetched(batch):
        adata = batch.to_adata()
        return adata.X, adata.obs["plate"].cat.codes.to_numpy()

    def run(block, fetch, workers):
        data = scDataset(collection, BlockShuffling(block_size=block), batch_size=BATCH, fetch_factor=fetch, seed=0,
                         fetch_transform=fetched, batch_callback=lambda data, at: (data[0][at], data[1][at]))
        if workers:
            data = DataLoader(data, batch_size=None, num_workers=workers, prefetch_factor=fetch + 1, collate_fn=lambda x: x)
        plates = []

        def batches():
            for x, codes in data:
                plates.append(np.asarray(codes))
                yield x.shape[0]

        return rate(batches(), SECONDS), float(np.mean([entropy(codes) for codes in plates if len(codes) == BATCH]))

    return run, None


def main():
    cells = made("grid.h5ad", store)
    warm(cells)
    peer, why = scdataset(cells)
    rows, results = [], []
    for block in BLOCKS:
        for fetch in FETCHES:
            k = BATCH * fetch / block
            if k < 1:
                continue
            for workers in WORKERS:
                mine, mixed = ours(cells, block, fetch, workers)
                theirs, their = peer(block, fetch, workers) if peer else (None, None)
                results.append(dict(block=block, fetch=fetch, workers=workers, k=k, ours=mine, entropy=mixed, scdataset=theirs,
                                    scdataset_entropy=their, expected=expected(block, fetch)))
                show = lambda value, form: "" if value is None else format(value, form)
                rows.append([block, fetch, f"{k:g}", workers, f"{mine:,.0f}", show(theirs, ",.0f"), f"{mine / theirs:.1f}x" if theirs else "",
                             show(mixed, ".2f"), show(their, ".2f"), f"{results[-1]['expected']:.2f}"])
                print(rows[-1], file=sys.stderr, flush=True)
    notes = [f"scDataset is not measured: {why}."] if why else []
    keep("grid", {"results": results, "cells": CELLS},
         ["block", "fetch", "k", "workers", "ours, rows/s", "scDataset", "ratio", "entropy, ours", "scDataset", "expected"], rows, notes)
    one = [r for r in results if r["workers"] == 0]
    series = [(f"ours, block {b}", [(str(r["fetch"]), r["ours"], 0) for r in one if r["block"] == b]) for b in BLOCKS]
    if peer:
        series += [(f"scDataset, {b}", [(str(r["fetch"]), r["scdataset"], 0) for r in one if r["block"] == b]) for b in (16, 256)]
    plot("grid", "rows a second by block size and fetch factor (one process, batches of 64)", "fetch factor", "rows a second",
         [str(f) for f in FETCHES], series, log_y=True)


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    main()
