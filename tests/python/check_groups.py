#!/usr/bin/env python3
"""Sets and bags, compared with the simplest Python that defines them.

    check_groups.py make DIR            writes the stores of check_views.py and donors.tsv
    check_groups.py sets DIR MOUNT [PLAIN]   every view of a mount: its sets, their rows, labels, values and counts; PLAIN: a mount
                                        of the same views without sets, which has their rows
    check_groups.py bags DIR MOUNT      every view of a mount: its bags, draws, donor-level columns, tables
    check_groups.py random DIR SEED KIND     prints a configuration with views of random sets or bags
    check_groups.py padded DIR MOUNT    padding has row -1 in every format, and the values of rows of the group
    check_groups.py paired DIR MOUNT PLAIN   sets are those of PLAIN, and each row has a control with its labels

Prints one line and exits 1 at the first difference.
"""
import json
import os
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


def rows_of(options, plain=None):
    """The rows of a view; `plain`: where the view of a mount without groups is, which serves each once."""
    whole = frame()
    if plain:
        found = np.concatenate([np.load(path)["row"] for path in batches(f"{plain}/epoch-0000")])
        check(len(found) == len(set(found.tolist())), f"{plain}: a row twice")
        return np.sort(found)
    mask = np.ones(len(whole), bool)
    if "where" in options:
        mask = whole.index.isin(whole.query(options["where"], engine="python").index)
    return np.flatnonzero(mask)


def views(mount):
    """Name, options and documents of each view; the directory of its epochs."""
    told = json.load(open(f"{mount}/dataset.json"))
    options = json.load(open(f"{mount}/.shufflefs/options.json"))
    for name, of in told["views"].items():
        own = options["views"][name]
        if "where" in options:
            own = {**own, "where": options["where"]}
        yield name, own, of, f"{mount}/{name}"


def labels_of(whole, by, rows):
    labels = [whole[column].to_numpy(object) for column in by]
    return [tuple(str(of[row]) for of in labels) for row in rows]


def naive_groups(whole, by, rows):
    """Labels -> rows, of rows that have all labels."""
    groups = {}
    labels = [whole[column].to_numpy(object) for column in by]
    for row in rows:
        values = [of[row] for of in labels]
        if not any(pd.isna(value) for value in values):
            groups.setdefault(tuple(map(str, values)), []).append(row)
    return groups


def load(path):
    whole = path.replace(".npz", ".record.npy")
    if os.path.exists(whole):
        record = np.load(whole)
        return {name: record[name] for name in record.dtype.names}
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def values(batch):
    return sp.csr_matrix((batch["data"], batch["indices"], batch["indptr"]), shape=batch["shape"]).toarray()


def sets(directory, mount, plain=None):
    whole, x = frame(), matrix(directory)
    number = dict(enumerate(open(f"{mount}/categories/set.txt").read().splitlines()))
    for name, options, told, place in views(mount):
        by, size, short = options["set_by"], options["set_size"], options["set_short"]
        rows = rows_of(options, plain and f"{plain}/{name}")
        groups, key_of = naive_groups(whole, by, rows), labels_of(whole, by, range(len(whole)))
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
                keys = {key_of[row] for row in own}
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


def random(directory, seed, kind):
    rng = np.random.default_rng(int(seed))
    pick = lambda *choices: choices[rng.integers(len(choices))]
    by = [["donor"], ["cell_type"], ["condition", "cell_type"], ["donor", "condition", "cell_type"]]
    lines = [f"set_by = {by[int(seed) % 4]}" if kind == "sets" else "bag_by = 'donor'", f"seed = {seed}"]
    lines.append("obs = ['donor', 'condition', 'cell_type']")
    if kind == "bags":
        lines.append(f"bag_table = '{directory / 'donors.tsv'}'")
    for number in range(3):
        lines.append(f"[view.v{number}]")
        if kind == "sets":
            size = int(rng.integers(1, 40))
            # Of three columns few groups have that many rows.
            short = pick("repeat", "pad", "drop") if size < 8 else pick("repeat", "pad")
            lines += [f"set_size = {size}", f"set_short = '{short}'", f"batch_size = {size * (1 + int(rng.integers(80, 400)) // size)}"]
        elif number % 2 == 0:
            lines.append(f"bag_max = {rng.integers(1, 200)}")
        lines += [f"block_size = {rng.integers(1, 100)}", f"fetch_factor = {rng.integers(1, 9)}"]
        if number % 3 == 2:
            lines.append(f"where = 'n_genes > {rng.integers(300, 900)}'")
    print("\n".join(lines))


def padded(directory, mount):
    from check_epoch import shard_value  # which needs more packages

    import crc32c  # noqa: F401
    import pyarrow as pa
    import safetensors.numpy
    import tarfile
    import tfrecord.example_pb2

    def examples(path):
        raw, at = open(path, "rb").read(), 0
        while at < len(raw):
            n = int.from_bytes(raw[at : at + 8], "little")
            example = tfrecord.example_pb2.Example()
            example.ParseFromString(raw[at + 12 : at + 12 + n])
            yield example.features.feature["row"].int64_list.value[0]
            at += 16 + n

    def samples(path, kind):
        raw = open(path, "rb").read()
        index = json.load(open(f"{mount}/epoch-0000.{kind}/index.json"))
        if kind == "mds":
            names, encodings = index["shards"][0]["column_names"], index["shards"][0]["column_encodings"]
        else:
            names, encodings = json.loads(json.loads(index["config"]["data_spec"])[1]["context"]), index["config"]["data_format"]
        count = int.from_bytes(raw[:4], "little")
        at = names.index("row")
        for begin in np.frombuffer(raw, "<u4", count, 4).tolist():
            lengths = np.frombuffer(raw, "<u4", len(names), begin).tolist()
            start = begin + 4 * len(names) + sum(lengths[:at])
            yield int(shard_value(encodings[at], raw[start : start + lengths[at]]))

    def tar(path):
        with tarfile.open(path) as file:
            return [json.load(file.extractfile(member))["row"] for member in file if member.name.endswith(".json")]

    readers = {
        "npz": lambda path: np.load(path)["row"].tolist(),
        "safetensors": lambda path: safetensors.numpy.load_file(path)["row"].tolist(),
        "record.npy": lambda path: np.load(path)["row"].tolist(),
        "tsv": lambda path: pd.read_csv(path, sep="\t", quoting=3)["row"].tolist(),
        "arrow": lambda path: pa.ipc.open_file(pa.memory_map(path)).read_all()["row"].to_pylist(),
        "parquet": lambda path: pyarrow.parquet.read_table(path)["row"].to_pylist(),
        "tar": tar,
        "tfrecord": lambda path: list(examples(path)),
        "mds": lambda path: list(samples(path, "mds")),
        "litdata": lambda path: list(samples(path, "litdata")),
        "h5ad": lambda path: anndata.read_h5ad(path).obs_names.astype(int).tolist(),
    }
    epoch, x, whole = [], matrix(directory), frame()
    rows_of_values = {}
    for row, of in enumerate(x):
        rows_of_values.setdefault(of.tobytes(), []).append(row)
    for path in batches(f"{mount}/epoch-0000"):
        batch = load(path)
        rows, size = batch["row"].tolist(), json.load(open(f"{mount}/dataset.json"))["sets"]["set_size"]
        epoch += rows
        for kind, read in readers.items():
            if "000000" in path:
                check(read(path.replace(".npz", f".{kind}")) == rows, f"row in .{kind}")
        for start in range(0, len(rows), size):
            group = {whole.donor.iloc[row] for row in rows[start : start + size] if row >= 0}
            check(len(group) == 1, f"{path}: groups {group}")
            for at in range(start, start + size):
                if rows[at] < 0:
                    donors = {whole.donor.iloc[row] for row in rows_of_values.get(values(batch)[at].tobytes(), [])}
                    check(group <= donors, f"{path}: padding is of {donors}, its set of {group}")
    check(-1 in epoch, "nothing is padded")
    names = anndata.read_h5ad(f"{mount}/epoch-0000.h5ad").obs_names.astype(int).tolist()
    check(names == epoch, "names in epoch-0000.h5ad")


def paired(directory, mount, plain):
    whole = frame()
    told = json.load(open(f"{mount}/dataset.json"))
    seen = 0
    for path, other in zip(batches(f"{mount}/epoch-0001"), batches(f"{plain}/epoch-0001"), strict=True):
        batch, alone = load(path), load(other)
        for name, values_of in alone.items():
            check(batch[name].tobytes() == values_of.tobytes(), f"{path}: {name} is other than without pairs")
        controls = batch["control/row"].reshape(len(batch["row"]), 2)
        check((controls >= 0).all(), f"{path}: a control is -1")
        check((whole.condition.iloc[controls.ravel()] == "well").all(), f"{path}: a control is none")
        label = whole.cell_type.iloc[controls.ravel()].cat.codes.to_numpy().reshape(controls.shape)
        want = {label: code for code, label in enumerate(whole.cell_type.cat.categories)}
        sets = open(f"{mount}/categories/set.txt").read().splitlines()
        own = np.array([want[sets[code]] for code in batch["obs/set"]])
        check((label == own[:, None]).all(), f"{path}: a control is of another cell type")
        check(np.array_equal(batch["control/obs/set"].reshape(controls.shape), batch["obs/set"][:, None].repeat(2, 1)), f"{path}: control/obs/set")
        seen += len(own)
    check(seen == told["rows_per_epoch"] > 0, f"{seen} rows")


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
    # All cells of a donor have one condition, and nothing else in common.
    check(list(table.columns) == ["bag", "rows", "condition", "age", "sex", "bmi", "site"], f"bags.tsv: {list(table.columns)}")
    condition = whole.groupby("donor", observed=True).condition.first().astype(str)
    check(table["condition"].to_dict() == condition.to_dict(), "bags.tsv: condition")


if __name__ == "__main__":
    command, directory, *rest = sys.argv[1:]
    {"make": make, "sets": sets, "bags": bags, "random": random, "padded": padded, "paired": paired}[command](pathlib.Path(directory), *rest)
