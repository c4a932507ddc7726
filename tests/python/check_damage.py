#!/usr/bin/env python3
"""A store with one damaged chunk: EIO for exactly the batches that hold rows of it, all others are correct.

Usage: check_damage.py MOUNT GOOD_STORE REPORT     REPORT is the JSON that make_stores.py wrote; one line of JSON
"""
import errno
import json
import os
import pathlib
import sys

import check_epoch

import pandas as pd

EXTENSIONS = ["npz", "safetensors", "npy", "h5ad"]


def main():
    mount, good = pathlib.Path(sys.argv[1]), sys.argv[2]
    bad_rows = set(json.loads(pathlib.Path(sys.argv[3]).read_text())["rows"])
    check = check_epoch.Check(mount, [good])
    epoch = mount / "epoch-0000"
    damaged, right = [], 0
    # Twice: a failure must not affect good batches, and must recur for bad ones.
    for name in sorted(os.listdir(epoch)) + sorted(os.listdir(epoch), reverse=True):
        path = epoch / name
        tsv = path.with_suffix(".tsv")  # obs only: readable whatever happened to X
        rows = set(pd.read_csv(tsv, sep="\t", usecols=["row"], quoting=3, lineterminator="\n")["row"])
        for extension in EXTENSIONS:
            file = path.with_suffix(f".{extension}")
            if rows & bad_rows:
                try:
                    file.read_bytes()
                except OSError as error:
                    assert error.errno == errno.EIO, f"{file.name}: {error}"
                else:
                    raise AssertionError(f"{file.name} holds rows {sorted(rows & bad_rows)[:3]} of the damaged chunk and was read")
                damaged.append(name)
            elif extension == "npz":
                got = check.npz(file)
                assert set(got) == rows, f"{file.name}: other rows than {tsv.name}"
                right += 1
            else:
                file.read_bytes()
        check.tsv(tsv)
    assert damaged, "no batch holds a row of the damaged chunk: the test shows nothing"
    assert right, "every batch holds a row of the damaged chunk: the test shows nothing"
    print(json.dumps({"ok": True, "damaged": sorted(set(damaged)), "right": right}))


if __name__ == "__main__":
    main()
