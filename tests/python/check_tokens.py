#!/usr/bin/env python3
"""Compares the tokens of an epoch with the published tokenisers, implemented here from their descriptions.

Usage: check_tokens.py MOUNT STORE RECIPE.json

RECIPE.json: {"kind": "rank" or "bins", "tokens": {gene: token}, "medians": {gene: median}, "length": N, "first": token or null, "last": ...,
"pad": token, "pad_value": number, "bins": N, "ties": "last" or "spread", "longer": "cut" or "sample"}

rank: C. V. Theodoris et al., "Transfer learning enables predictions in network biology", Nature 618 (2023), Methods, "Rank value
encoding"; the order of operations is that of its `TranscriptomeTokenizer` (huggingface.co/ctheodoris/Geneformer, tokenizer.py).
bins: H. Cui et al., "scGPT", Nature Methods 21 (2024), Methods, "Value binning"; np.quantile and np.digitize as its preprocess.py has
them (check_scgpt.py compares with the package).
"""
import json
import pathlib
import sys

import anndata
import numpy as np
import scipy.sparse as sp

mount, store, recipe = pathlib.Path(sys.argv[1]), anndata.read_h5ad(sys.argv[2]), json.loads(pathlib.Path(sys.argv[3]).read_text())
special = [t for t in (recipe["first"], recipe["last"]) if t is not None]
room = recipe["length"] - len(special)
x = sp.csr_matrix(store.X)
x.sort_indices()
has = np.array([name in recipe["tokens"] for name in store.var_names])
tokens = np.array([recipe["tokens"][name] for name in store.var_names[has]])
part = sp.csr_matrix(x[:, has]).astype("float64")
part.sort_indices()


def surrounded(ids, values):
    before, after = [[t] if t is not None else [] for t in (recipe["first"], recipe["last"])]
    zero = lambda of: np.zeros(len(of), "float32")
    ids = np.concatenate([before, ids, after]).astype("int64")
    return ids, np.concatenate([zero(before), values, zero(after)]).astype("float32")


def ranked():
    """Tokens and normalised counts of every row; equal ranks by column."""
    n_counts = np.asarray(x.astype("float64").sum(axis=1))
    unscaled = sp.csr_matrix(part.multiply(1 / n_counts)) * 10_000
    medians = np.array([recipe["medians"][name] for name in store.var_names[has]])
    norm = sp.csr_matrix(unscaled.multiply(1 / medians))
    norm.sort_indices(), unscaled.sort_indices()
    for row in range(x.shape[0]):
        order = np.argsort(-norm[row].data, kind="stable")[:room]
        yield surrounded(tokens[norm[row].indices][order], unscaled[row].data[order])


def digits(values, n_bins):
    """The lowest and highest bin that each value may have."""
    edges = np.quantile(values[values != 0], np.linspace(0, 1, n_bins - 1)) if (values != 0).any() else np.zeros(0)
    high, low = np.digitize(values, edges), np.digitize(values, edges, right=True)
    high, low = np.where(values == 0, 0, high), np.where(values == 0, 0, np.minimum(low + 1, high))
    return low, high


class Seen(dict):
    """Rows -> tokens and values, by each format."""

    def add(self, rows, ids, values, lengths):
        for row, ids, values, length in zip(rows, ids, values, lengths):
            assert len(ids) == len(values) == length, f"row {row}: {len(ids)} tokens, {len(values)} values, length {length}"
            assert int(row) not in self, f"row {row} comes twice"
            self[int(row)] = (np.asarray(ids, "int64"), np.asarray(values, "float32"))


def padded(get, what):
    ids, values, lengths = get("input_ids"), get("expressions"), get("length")
    assert ids.shape == values.shape == (len(lengths), recipe["length"]), f"{what}: {ids.shape}"
    for i, n in enumerate(lengths):
        assert (ids[i, n:] == recipe["pad"]).all() and (values[i, n:] == np.float32(recipe["pad_value"])).all(), f"{what}: padding"
    cut = lambda all: [row[:n] for row, n in zip(all, lengths)]
    return get("row"), cut(ids), cut(values), lengths


def epoch(number):
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq
    import safetensors.numpy
    import webdataset

    found = {name: Seen() for name in ("npz", "safetensors", "arrow", "parquet", "tar", "dataset")}
    directory = mount / f"epoch-{number:04d}"
    for path in sorted(directory.iterdir()):
        with np.load(path.with_suffix(".npz")) as batch:
            names = set(batch.files)
            assert {"input_ids", "expressions", "length", "row"} <= names and not names & {"data", "indices", "shape", "format"}, names
            found["npz"].add(*padded(batch.__getitem__, "npz"))
            assert np.array_equal(np.load(path.with_suffix(".npy"), mmap_mode="r"), batch["input_ids"]), ".npy differs"
            record = np.load(path.with_suffix(".record.npy"))
            assert set(record.dtype.names) == names and all(np.array_equal(record[name], batch[name]) for name in names), ".record.npy differs"
        tensors = safetensors.numpy.load_file(path.with_suffix(".safetensors"))
        found["safetensors"].add(*padded(tensors.__getitem__, "safetensors"))
        with pa.memory_map(str(path.with_suffix(".arrow"))) as file:
            table = pa.ipc.open_file(file).read_all()
            records(found["arrow"], table)
        records(found["parquet"], pq.read_table(path.with_suffix(".parquet")))
        for sample in webdataset.WebDataset([str(path.with_suffix(".tar"))], shardshuffle=False, empty_check=False).decode():
            told = sample["json"]
            found["tar"].add([told["row"]], [sample["input_ids.npy"]], [sample["expressions.npy"]], [told["length"]])
        for extension in ("tfrecord", "mds", "litdata", "tsv"):
            other = path.with_suffix(f".{extension}")
            assert len(other.read_bytes()) == other.stat().st_size, other
    data = datasets.load_from_disk(str(directory.with_suffix(".dataset"))).with_format("arrow")[:]
    records(found["dataset"], data)
    first = found.pop("npz")
    assert sorted(first) == list(range(store.n_obs)), "an epoch has each row once"
    for name, other in found.items():
        for row, (ids, values) in first.items():
            assert np.array_equal(ids, other[row][0]) and np.array_equal(values, other[row][1]), f"{name}: row {row} differs from .npz"
    return first


def records(seen, table):
    rows = {name: table[name].to_pylist() for name in ("row", "input_ids", "expressions", "length")}
    seen.add(rows["row"], rows["input_ids"], rows["expressions"], rows["length"])


found = [epoch(number) for number in (0, 1)]
if recipe["kind"] == "rank":
    for row, want in enumerate(ranked()):
        for got in found:
            assert np.array_equal(got[row][0], want[0]), f"row {row}: tokens {got[row][0]}, not {want[0]}"
            assert np.array_equal(got[row][1], want[1]), f"row {row}: values {got[row][1]}, not {want[1]}"
else:
    drawn = both = 0
    for row in range(store.n_obs):
        values, columns = part[row].data, part[row].indices
        low, high = digits(values, recipe["bins"])
        for got in found:
            ids, bins = got[row]
            ids, bins = ids[recipe["first"] is not None:][:room], bins[recipe["first"] is not None:][:room]
            place = {token: at for at, token in enumerate(tokens[columns])}
            at = np.array([place[token] for token in ids], dtype=int)
            assert len(at) == min(len(values), room) and (np.diff(at) > 0).all(), f"row {row}: tokens {ids}"
            if recipe["longer"] == "cut":
                assert np.array_equal(at, np.arange(len(at))), f"row {row}: not the first genes"
            if recipe["ties"] == "last":
                assert np.array_equal(bins, high[at]), f"row {row}: bins {bins}, not {high[at]}"
            else:
                assert ((low[at] <= bins) & (bins <= high[at])).all(), f"row {row}: bins {bins} outside {low[at]} to {high[at]}"
                both, drawn = both + (low[at] < high[at]).sum(), drawn + ((low[at] < bins) & (bins < high[at])).sum()
            whole = surrounded(ids, bins)
            assert np.array_equal(got[row][0], whole[0]) and np.array_equal(got[row][1], whole[1]), f"row {row}: special tokens"
    if recipe["ties"] == "spread":
        assert drawn > both / 10, f"{drawn} of {both} equal values are between their bins"
        same = sum(np.array_equal(found[0][row][1], found[1][row][1]) for row in found[0])
        assert same < store.n_obs / 2, f"{same} rows are drawn alike in two epochs"
print(f"{2 * store.n_obs} rows agree")
