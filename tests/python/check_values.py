"""Compares the rows of mounts' first epochs with given values; one job for each mount.

Usage: check_values.py '{"mount": ..., "name": ..., "x": [...], "shape": [...], "dtype": ...}' ..."""
import json
import pathlib
import sys

import numpy as np

import check_epoch

wrong = []
for job in map(json.loads, sys.argv[1:]):
    try:
        x = check_epoch.served(pathlib.Path(job["mount"]), 0)
        x = x.toarray() if hasattr(x, "toarray") else x
        want = np.array(job["x"], dtype=job["dtype"]).reshape(job["shape"])
        assert x.dtype == want.dtype and x.shape == want.shape, (x.dtype, x.shape, want.dtype, want.shape)
        assert np.array_equal(x, want, equal_nan=True), np.argwhere(x != want)[:5]
    except Exception as error:
        wrong.append(f"{job['name']}: {type(error).__name__}: {error}")
sys.exit("\n".join(wrong) or 0)
