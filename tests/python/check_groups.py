#!/usr/bin/env python3
"""Sets and bags, judged by the simplest Python that says what they are.

    check_groups.py make DIR            writes the stores of check_views.py and donors.tsv
    check_groups.py sets DIR MOUNT      every view of a mount: its sets, their rows, labels, values and counts
    check_groups.py bags DIR MOUNT      every view of a mount: its bags, draws, donor-level columns, tables

Prints one line and exits 1 at the first thing that is wrong.
"""
import json
import pathlib
import sys

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet
import scipy.sparse as sp

from check_views import SIZES, batches, check, frame, stores


def make(directory):
    stores(directory)
    whole = frame()
    donors = sorted(whole.donor.dropna().unique(), reverse=True)
    lines = ["age\tdonor\tsex\tbmi\tsite"]
    for i, donor in enumerate([*donors, "D99"]):
        lines.append("\t".join([str(20 + i), donor, "FM"[i % 2], "NA" if i == 3 else f"{20 + i / 8}", "" if i == 5 else f"s{i % 3}"]))
    (directory / "donors.tsv").write_text("\n".join(lines) + "\n")


def matrix(directory):
    """X of all stores."""
    read = lambda name: (anndata.read_zarr if name.endswith(".zarr") else anndata.read_h5ad)(str(directory / name)).X
    return sp.vstack([read(name) for name in SIZES]).toarray()


def rows_of(options):
    """The rows of a view."""
    whole = frame()
    mask = np.ones(len(whole), bool)
    if "where" in options:
        mask = whole.index.isin(whole.query(options["where"], engine="python").index)
    return np.flatnonzero(mask)


def views(mount):
    """Name, options and what is told of each view; the directory of its epochs."""
    told = json.load(open(f"{mount}/dataset.json"))
    options = json.load(open(f"{mount}/.shufflefs/options.json"))
    for name, of in told["views"].items():
        own = options["views"][name]
        if "where" in options:
            own = {**own, "where": options["where"]}
        yield name, own, of, f"{mount}/{name}"


def labels_of(whole, by, rows):
    return [tuple(str(whole[column].iloc[row]) for column in by) for row in rows]


def naive_groups(whole, by, rows):
    """Labels -> rows, of rows that have all labels."""
    groups = {}
    for row in rows:
        values = [whole[column].iloc[row] for column in by]
        if not any(pd.isna(value) for value in values):
            groups.setdefault(tuple(map(str, values)), []).append(row)
    return groups


def load(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def values(batch):
    return sp.csr_matrix((batch["data"], batch["indices"], batch["indptr"]), shape=batch["shape"]).toarray()


def sets(directory, mount):
    whole, x = frame(), matrix(directory)
    number = dict(enumerate(open(f"{mount}/categories/set.txt").read().splitlines()))
    for name, options, told, place in views(mount):
        by, size, short = options["set_by"], options["set_size"], options["set_short"]
        rows = rows_of(options)
        groups = naive_groups(whole, by, rows)
        count = {key: len(of) // size if short == "drop" else -(-len(of) // size) for key, of in groups.items()}
        want = {"groups": len(groups), "sets": sum(count.values()), "set_size": size}
        want["rows_without_group"] = len(rows) - sum(map(len, groups.values()))
        kept = sum(min(len(of), count[key] * size) for key, of in groups.items())
        want["rows_in_short_sets_dropped"] = sum(map(len, groups.values())) - kept
        want["rows_of_padding" if short == "pad" else "rows_repeated"] = want["sets"] * size - kept
        check(told["sets"] == want, f"{name}: dataset.json has {told['sets']}, counted {want}")
        compositions = []
        for epoch in ["epoch-0000", "epoch-0003"]:
            paths = batches(f"{place}/{epoch}")
            all_rows, all_sets, real = [], [], []
            for at, path in enumerate(paths):
                batch = load(path)
                n = len(batch["row"])
                check(n == options["batch_size"] or at + 1 == len(paths) and n % size == 0, f"{path}: {n} rows")
                is_real = batch["row"] >= 0
                check(is_real.all() or short == "pad", f"{path}: a row is -1")
                check(np.array_equal(values(batch)[is_real], x[batch["row"][is_real]]), f"{path}: X")
                all_rows += batch["row"].tolist()
                all_sets += batch["obs/set"].tolist()
                real += is_real.tolist()
            check(len(all_rows) == want["sets"] * size, f"{name}: {len(all_rows)} rows an epoch")
            seen = {key: [] for key in groups}
            met, in_order = {key: 0 for key in groups}, []
            for start in range(0, len(all_rows), size):
                own = [row for row, is_real in zip(all_rows[start : start + size], real[start : start + size]) if is_real]
                keys = set(labels_of(whole, by, own))
                check(len(keys) == 1, f"{name}: a set of {len(keys)} groups")
                key = keys.pop()
                check(set(all_sets[start : start + size]) == {all_sets[start]}, f"{name}: obs/set differs in a set")
                label = "|".join(key)
                check(number[all_sets[start]] == label, f"{name}: obs/set is {number[all_sets[start]]}, not {label}")
                check(real[start : start + size] == [True] * len(own) + [False] * (size - len(own)), "padding is not last")
                met[key] += 1
                seen[key] += own
                in_order.append(key)
            check(met == count, f"{name}: sets of each group")
            for key, of in groups.items():
                times = np.unique(seen[key], return_counts=True)
                check(set(times[0]) <= set(of), f"{name}: a row of no group")
                if short in ("drop", "pad"):
                    check((times[1] == 1).all(), f"{name}: a row twice")
                if short != "drop":
                    check(set(times[0]) == set(of), f"{name}: a row of {key} in no set")
                if len(of) <= size and short == "repeat":
                    check(times[1].max() - times[1].min() <= 1, f"{name}: repeats are uneven")
            if len(in_order) > 30:
                same = sum(a == b for a, b in zip(in_order, in_order[1:])) / (len(in_order) - 1)
                expected = sum((n / len(in_order)) ** 2 for n in count.values())
                check(same < 3 * expected + 0.2, f"{name}: sets of a group follow one another: {same}, {expected}")
            compositions.append(sorted(tuple(sorted(all_rows[at : at + size])) for at in range(0, len(all_rows), size)))
        if any(len(of) > 2 * size for of in groups.values()):
            check(compositions[0] != compositions[1], f"{name}: the same sets in two epochs")
        first = load(paths[0])
        frame_of = pyarrow.parquet.read_table(paths[0].replace(".npz", ".parquet")).to_pandas()
        check(frame_of["row"].tolist() == first["row"].tolist(), f"{name}: row in .parquet")
        check(frame_of["set"].tolist() == [number[code] for code in first["obs/set"]], f"{name}: set in .parquet")
        obs = anndata.read_h5ad(paths[0].replace(".npz", ".h5ad")).obs
        check(obs["set"].cat.codes.tolist() == first["obs/set"].tolist(), f"{name}: set in .h5ad")
    table = pd.read_csv(f"{mount}/categories/sets.tsv", sep="\t", keep_default_na=False, dtype=str)
    groups = naive_groups(whole, by, range(len(whole)))
    check({tuple(line[column] for column in by): int(line["rows"]) for _, line in table.iterrows()}
          == {key: len(of) for key, of in groups.items()}, "sets.tsv")
    check(table["set"].tolist() == [str(i) for i in range(len(table))], "sets.tsv: numbers")


def bags(directory, mount):
    whole, x = frame(), matrix(directory)
    donors = pd.read_csv(directory / "donors.tsv", sep="\t", dtype={"site": str}).set_index("donor")
    number = open(f"{mount}/categories/bag.txt").read().splitlines()
    sites = open(f"{mount}/categories/site.txt").read().splitlines()
    for name, options, told, place in views(mount):
        groups = naive_groups(whole, options["bag_by"], rows_of(options))
        most = options["bag_max"] or len(whole)
        size = {key: min(len(of), most) for key, of in groups.items()}
        want = {"bags": len(groups), "smallest_bag": min(size.values()), "largest_bag": max(size.values())}
        want["bags_cut"] = sum(len(of) > most for of in groups.values())
        want["rows_without_group"] = len(rows_of(options)) - sum(map(len, groups.values()))
        want["rows_not_drawn_of_bags_cut"] = sum(map(len, groups.values())) - sum(size.values())
        check(told["bags"] == want, f"{name}: dataset.json has {told['bags']}, counted {want}")
        orders, drawn = [], {key: np.zeros(len(whole), int) for key in groups}
        epochs = 30 if name == "cut" else 2
        for epoch in range(epochs):
            met = []
            for path in batches(f"{place}/epoch-{epoch:04}"):
                batch = load(path)
                rows = batch["row"]
                keys = set(labels_of(whole, options["bag_by"], rows))
                check(len(keys) == 1, f"{path}: a batch of {len(keys)} bags")
                key = keys.pop()
                check(len(rows) == size[key] == len(set(rows.tolist())), f"{path}: {len(rows)} rows of {key}")
                check(set(rows.tolist()) <= set(groups[key]), f"{path}: rows")
                check({number[code] for code in batch["obs/bag"]} == {"|".join(key)}, f"{path}: obs/bag")
                if epoch == 0:
                    check(np.array_equal(values(batch), x[rows]), f"{path}: X")
                    donor = donors.loc[key[0]]
                    check((batch["obs/age"] == donor.age).all() and batch["obs/age"].dtype.kind == "i", f"{path}: age")
                    check(np.array_equal(batch["obs/bmi"], np.full(len(rows), donor.bmi), equal_nan=True), f"{path}: bmi")
                    site = {None if code < 0 else sites[code] for code in batch["obs/site"]}
                    check(site == {None if pd.isna(donor.site) else donor.site}, f"{path}: site")
                    if len(rows) > 20:
                        check(rows.tolist() != sorted(rows.tolist()), f"{path}: in stored order")
                drawn[key][rows] += 1
                met.append(key)
            check(sorted(met) == sorted(groups), f"{name}: every bag once")
            orders.append(met)
        check(orders[0] != orders[1], f"{name}: bags in one order")
        if name == "cut":
            for key, of in groups.items():
                if len(of) > most:
                    p, times = most / len(of), drawn[key][of]
                    # Draws of a row are independent between epochs; of all rows of a bag the sum is fixed.
                    apart = ((times - epochs * p) ** 2).mean() / (epochs * p * (1 - p))
                    check(0.6 < apart < 1.6, f"{name}: {key}: rows are drawn unevenly: {apart}")
        many = anndata.read_h5ad(f"{place}/epoch-0000.h5ad")
        rows = np.concatenate([load(path)["row"] for path in batches(f"{place}/epoch-0000")])
        check(many.obs_names.astype(int).tolist() == rows.tolist(), f"{name}: epoch-0000.h5ad: rows")
        check(np.array_equal(many.X.toarray(), x[rows]), f"{name}: epoch-0000.h5ad: X")
        check(many.obs["bag"].tolist() == whole.donor.iloc[rows].tolist(), f"{name}: epoch-0000.h5ad: bag")
    table = pd.read_csv(f"{mount}/categories/bags.tsv", sep="\t", dtype={"site": str}).set_index("donor")
    groups = naive_groups(whole, ["donor"], range(len(whole)))
    check(table["rows"].to_dict() == {key[0]: len(of) for key, of in groups.items()}, "bags.tsv: rows")
    for column in ["age", "sex", "bmi", "site"]:
        pd.testing.assert_series_equal(table[column], donors[column].loc[table.index], check_dtype=False)
    # All cells of a donor are of one condition, and nothing else is alike in all.
    check(list(table.columns) == ["bag", "rows", "condition", "age", "sex", "bmi", "site"], f"bags.tsv: {list(table.columns)}")
    condition = whole.groupby("donor", observed=True).condition.first().astype(str)
    check(table["condition"].to_dict() == condition.to_dict(), "bags.tsv: condition")


if __name__ == "__main__":
    command, directory, *rest = sys.argv[1:]
    {"make": make, "sets": sets, "bags": bags}[command](pathlib.Path(directory), *rest)
