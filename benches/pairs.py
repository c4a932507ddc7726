"""Compares pairs, sets and neighbourhoods with plain batches and with cell-load, in one run: rows/s of whole epochs.

usage: pairs.py [--rows 200000] [--genes 2000] [--values 200] [--gzip] [--batch 1024] [--set 64] [--passes 3] [--secs 20]     (scripts/bench pairs)

SHUFFLEFS names the binary (default: target/release/shufflefs). Makes one CSR store of a screen below target/bench, sorted by cell line and
perturbation as cell-load requires, and mounts it once for each side. In every pass each side reads an epoch, one after the other, so that
the machine is the same for all; the first pass warms up. `files` are the bytes of .safetensors; `arrays` what a model gets: dense
float32 rows, including controls. Only rows of batches are counted: with a control each, twice as many are read. cell-load
(PerturbationDataModule, a sentence of --set cells, a random control of the cell line each, no workers) is left out if it is not
installed (tests/trainers.txt); it is stopped after --secs.

Targets: pairs 0.45 and sets 0.9 of plain rows/s, and 10 times cell-load's.
"""
import argparse
import contextlib
import glob
import json
import logging
import statistics
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--rows", type=int, default=200_000)
parser.add_argument("--genes", type=int, default=2000)
parser.add_argument("--values", type=int, default=200)
parser.add_argument("--gzip", action="store_true")
parser.add_argument("--batch", type=int, default=1024)
parser.add_argument("--set", type=int, default=64)
parser.add_argument("--passes", type=int, default=3)
parser.add_argument("--secs", type=float, default=20)
o = parser.parse_args()

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from safetensors.numpy import load_file

from mounts import mounted, root

OPTIONS = ["--batch-size", str(o.batch), "--format", "safetensors", "--obs", "gem_group"]
CONTROL = "non-targeting"
PAIRS = ["--pair-with", f"gene == '{CONTROL}'", "--match", "cell_type", "--unmatched", "drop"]
SETS = ["--set-by", "cell_type,gene", "--set-size", str(o.set)]
# Each side: its options, the side that its rows/s are compared with, and the target ratio.
SIDES = {
    "plain": ([], None, None),
    "pairs": (PAIRS, "plain", 0.45),
    "sets": (SETS, "plain", 0.9),
    "sets and pairs": ([*SETS, *PAIRS], "plain", None),
    "neighbours": (["--neighbours", "obsp/connectivities", "--fanout", "5"], "plain", None),
}


def store():
    path = root / f"target/bench/pairs-{o.rows}-{o.genes}-{o.values}{'-gzip' if o.gzip else ''}.h5ad"
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    lines = rng.choice([f"line{i}" for i in range(4)], o.rows)
    genes = rng.choice([CONTROL] * 10 + [f"gene{i}" for i in range(150)], o.rows)
    order = np.lexsort((genes, lines))
    obs = pd.DataFrame(
        {"cell_type": pd.Categorical(lines[order]), "gene": pd.Categorical(genes[order]), "gem_group": pd.Categorical(rng.choice(["1", "2"], o.rows))},
        index=[f"c{i}" for i in range(o.rows)],
    )
    # As many values a row as drawn, less columns drawn twice; in ascending order, as in real stores.
    columns = np.sort(rng.integers(0, o.genes, (o.rows, o.values), dtype=np.int32), axis=1).ravel()
    x = sp.csr_matrix((rng.integers(1, 50, len(columns)).astype(np.float32), columns, np.arange(o.rows + 1) * o.values), (o.rows, o.genes))
    x.sum_duplicates()
    adata = anndata.AnnData(x, obs, pd.DataFrame(index=[f"g{i}" for i in range(o.genes)]))
    # Neighbours within a few hundred rows, as in sorted stores.
    to = np.sort((np.arange(o.rows)[:, None] + rng.integers(1, 300, (o.rows, 15))) % o.rows, axis=1).ravel()
    graph = sp.csr_matrix((np.ones(len(to), np.float32), to, np.arange(o.rows + 1) * 15), (o.rows, o.rows))
    graph.sum_duplicates()
    adata.obsp["connectivities"] = graph
    path.parent.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(path.with_suffix(".new"), compression="gzip" if o.gzip else None)
    path.with_suffix(".new").rename(path)
    return path


def dense(batch, below):
    matrix = sp.csr_matrix((batch[below + "data"], batch[below + "indices"], batch[below + "indptr"]), (len(batch[below + "row"]), o.genes))
    return matrix.toarray()


def epoch(mount, number, arrays):
    """Rows/s of one epoch."""
    rows, began = 0, time.perf_counter()
    for path in sorted(glob.glob(f"{mount}/epoch-{number:04d}/*")):
        if arrays:
            batch = load_file(path)
            rows += len(dense(batch, ""))
            for below in ("control/", "neighbours/"):
                if below + "row" in batch:
                    dense(batch, below)
        else:
            with open(path, "rb", buffering=0) as file:
                while file.read(16 << 20):
                    pass
    seconds = time.perf_counter() - began
    return (rows if arrays else json.load(open(mount / "dataset.json"))["rows_per_epoch"]) / seconds


def cell_load(path):
    """Rows/s of one pass of cell-load, or of what it does in `--secs`."""
    from cell_load.data_modules import PerturbationDataModule

    logging.disable(logging.WARNING)
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as toml:
        toml.write(f'[datasets]\nscreen = "{path}"\n[training]\nscreen = "train"\n')
        toml.flush()
        module = PerturbationDataModule(
            toml_config_path=toml.name, batch_size=o.batch // o.set, num_workers=0, pert_col="gene", batch_col="gem_group",
            cell_type_key="cell_type", control_pert=CONTROL, embed_key=None, output_space="all", cell_sentence_len=o.set,
            basal_mapping_strategy="random", is_log1p=False,
        )
        module.setup()
        rows, began = 0, time.perf_counter()
        for cells in module.train_dataloader():
            rows += cells["pert_cell_emb"].reshape(-1, o.genes).shape[0]
            if time.perf_counter() - began > o.secs:
                break
        return rows / (time.perf_counter() - began)


path = store()
with contextlib.ExitStack() as stack:
    mounts = {side: stack.enter_context(mounted(path, *OPTIONS, *options)) for side, (options, _, _) in SIDES.items()}
    rates = {}
    for number in range(o.passes + 1):
        for side, mount in mounts.items():
            for kind in ("files", "arrays"):
                # A different epoch each, so that no side reads data cached by another pass.
                rate = epoch(mount, 2 * number + (kind == "arrays"), kind == "arrays")
                if number:
                    rates.setdefault((side, kind), []).append(rate)
try:
    rates["cell-load", "arrays"] = [cell_load(path)]
except ImportError as error:
    print(json.dumps({"side": "cell-load", "skipped": str(error)}))
medians = {key: statistics.median(of) for key, of in rates.items()}
for (side, kind), rate in medians.items():
    told = {"side": side, "kind": kind, "rows_per_second": round(rate), "runs": [round(one) for one in rates[side, kind]]}
    _, base, target = SIDES.get(side, (None, None, None))
    if base:
        told[f"to {base}"] = round(rate / medians[base, kind], 3)
    if target:
        told["target"] = target
    if kind == "arrays" and side == "sets and pairs" and ("cell-load", kind) in medians:
        told["to cell-load"], told["target to cell-load"] = round(rate / medians["cell-load", kind], 2), 10
    print(json.dumps(told))
