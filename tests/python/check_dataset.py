#!/usr/bin/env python3
"""An epoch as a Hugging Face dataset against the batches of the same epoch: check_dataset.py DATASET EPOCH_DIRECTORY

DATASET is `epoch-0000.dataset`; every column, in the order of the batches, by `datasets.load_from_disk`, and rows from anywhere.
"""
import pathlib
import sys

import datasets
import numpy as np
import pyarrow as pa


def flat(column):
    """Values of all rows."""
    values = pa.concat_arrays(column.chunks)
    while hasattr(values.type, "value_type"):
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False)


def same(got, want, what):
    got = np.asarray(got).reshape(want.shape)
    if got.dtype.kind in "Mm":
        got = got.view("int64")
    assert np.array_equal(got.astype(want.dtype), want, equal_nan=want.dtype.kind == "f"), f"{what}: {got}, not {want}"


def main():
    dataset = datasets.load_from_disk(sys.argv[1]).with_format("arrow")  # numpy would round float64
    at, starts = 0, []
    for path in sorted(pathlib.Path(sys.argv[2]).iterdir()):
        with np.load(path.with_suffix(".npz")) as batch:
            names = set(batch.files) - {"shape", "format"}
            rows = dataset[at : at + len(batch["row"])]
            for name in names - {"indices", "data", "indptr"}:
                same(flat(rows[name.removeprefix("obs/")]), batch[name], f"{path.name}: {name}")
            if "indptr" in names:
                same(flat(rows["expressions"]), batch["data"], f"{path.name}: expressions")
                same(flat(rows["genes"]), batch["indices"], f"{path.name}: genes")
                same([len(row) for row in rows["genes"]], np.diff(batch["indptr"]), f"{path.name}: lengths")
            starts.append((at, batch["row"][0]))
            at += len(batch["row"])
    assert len(dataset) == at, f"{len(dataset)} rows, not {at}"
    for place, row in reversed(starts):
        assert dataset[place]["row"][0].as_py() == row
    print(f"{at} rows, {len(dataset.features)} columns")


if __name__ == "__main__":
    main()
