#!/usr/bin/env python3
"""Stores with awkward obs columns, and the expected rows of their views, by pandas and numpy.

    check_views.py stores DIR                  writes a.h5ad, b.h5ad, c.zarr and filters.toml
    check_views.py filters DIR MOUNT           every view of filters.toml has the rows that DataFrame.query gives
    check_views.py split DIR MOUNT JSON        sides are disjoint; groups are whole; fractions hold
    check_views.py draws DIR MOUNT             balance, weights, class batches, orders
    check_views.py lists DIR                   writes rows.npy, rows.txt and weights.txt
    check_views.py ranks MOUNT                 equal, disjoint, together all but W - 1 batches, for W in 1..64
    check_views.py resume MOUNT PLAN...        `plan --resume` prints what was not consumed

Prints one line and exits 1 at the first difference.
"""
import glob
import json
import os
import pathlib
import sys

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

SIZES = {"a.h5ad": 3000, "b.h5ad": 1234, "c.zarr": 777}

# The expression, and its mask by pandas: a string is a query (None: the same), else a function of the frame.
FILTERS = [
    ('cell_type == "T"', None),
    ("cell_type != 'T'", None),
    ('cell_type in ["T", "B"]', None),
    ('cell_type not in ["T", "B"]', None),
    ('cell_type == ["T", "NK"]', None),
    ('not cell_type == "T"', None),
    ("n_genes > 500", None),
    ("200 <= n_genes < 300", None),
    ("n_genes == 500 or n_genes == 501 and is_primary", None),
    ("score > 0.1", None),
    ("score == 0.1", None),
    ("score != 0.5", None),
    ("score == score", None),
    ("score != score", None),
    ("not (score < 0.5)", None),
    ("score >= -1e-3 and score <= .5", None),
    ("depth < n_genes", None),
    ('stage >= "mid"', None),
    ('stage < "mid"', None),
    ('stage != "mid"', None),
    ("is_primary", None),
    ("~is_primary & n_genes < 600 | cell_type == 'B'", None),
    ("is_primary == False", None),
    ("`pct mito` < 5", None),
    ("`pct mito` is not null", "`pct mito`.notnull()"),
    ("percent.mt <= 3", "`percent.mt` <= 3"),
    ('cell_type == "T" and n_genes > 500 and donor not in ["D1", "D2"]', None),
    ('barcode == "AC-17" or barcode < "AB"', None),
    ('barcode in ["AC-17", "nobody"]', None),
    ("score is null", "score.isnull()"),
    ("cell_type is null or score is not null", "cell_type.isnull() or score.notnull()"),
    ("score.isna()", None),
    ("cell_type.notnull() and stage.isnull()", None),
    ("index == 'cell-5' or _index in ['cell-7', 'cell-3500']", "index == 'cell-5' or index in ['cell-7', 'cell-3500']"),
    ("_store != 1", lambda f: ~f.index.isin([f"cell-{i}" for i in range(3000, 4234)])),
    # pandas does not order plain categories; shufflefs compares them as numbers.
    ("year >= 2020", lambda f: f.year.astype(float) >= 2020),
    ("year in [2019, 2021]", None),
    # pandas' nullable integers drop missing values; shufflefs has one rule for all columns (docs/views.md).
    ("passage > 3", None),
    ("passage != 3", lambda f: f.passage.astype(float) != 3),
    ("passage is null", "passage.isnull()"),
    ("kit == donor_kit", lambda f: f.kit.astype(object) == f.donor_kit.astype(object)),
]


def fail(message):
    print(message)
    sys.exit(1)


def check(holds, message):
    if not holds:
        fail(message)


def frame():
    """obs of all stores, in their order."""
    n = sum(SIZES.values())
    rng = np.random.default_rng(5)
    def labels(names, p=None, missing=0.0, ordered=False):
        values = rng.choice(np.array(names, dtype=object), n, p=p)
        values[rng.random(n) < missing] = None
        return pd.Categorical(values, categories=names, ordered=ordered)
    donors = [f"D{i}" for i in range(23)]
    score = rng.choice(np.array([0.1, 0.5, -0.0005, 0.25, 3, np.nan], dtype=np.float32), n)
    p = rng.random(23) ** 2 + 0.05
    frame = pd.DataFrame(
        {
            "cell_type": labels(["T", "B", "NK", "mono", "DC"], [0.6, 0.2, 0.1, 0.07, 0.03], missing=0.02),
            "donor": labels(donors, p / p.sum()),
            "stage": labels(["early", "mid", "late"], missing=0.1, ordered=True),
            "n_genes": rng.integers(100, 900, n),
            "score": score,
            "depth": rng.random(n) * 1000,
            "is_primary": rng.random(n) < 0.3,
            "pct mito": np.where(rng.random(n) < 0.1, np.nan, rng.random(n) * 10),
            "percent.mt": rng.integers(0, 8, n).astype(np.uint8),
            "year": pd.Categorical(rng.choice([2019, 2020, 2021], n)),
            "passage": pd.array(rng.integers(0, 8, n), dtype="Int64"),
            "kit": labels(["v1", "v2"]),
            "donor_kit": labels(["v2", "v1", "v3"]),
            "weight": rng.choice(np.array([0.0, 1.0, 3.0]), n),
        },
        index=[f"cell-{i}" for i in range(n)],
    )
    frame.loc[rng.random(n) < 0.2, "passage"] = pd.NA
    frame["barcode"] = np.array([f"A{c}-{i % 40}" for i, c in enumerate(rng.choice(list("ABC"), n))], dtype=object)
    # Each donor has one condition.
    frame["condition"] = pd.Categorical([["well", "ill", "ill"][code % 3] for code in frame.donor.cat.codes])
    return frame


def stores(directory):
    whole, start = frame(), 0
    rng = np.random.default_rng(6)
    for name, size in SIZES.items():
        obs = whole.iloc[start : start + size].copy()
        # Not all stores have all donors, or have them in the same order.
        obs["donor"] = obs.donor.cat.remove_unused_categories()
        if name == "b.h5ad":
            obs["donor"] = obs.donor.cat.reorder_categories(obs.donor.cat.categories[::-1])
        x = sp.random(size, 20, 0.2, format="csr", dtype=np.float32, random_state=rng)
        data = anndata.AnnData(X=x, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(20)]))
        path = str(directory / name)
        if name.endswith(".zarr"):
            data.write_zarr(path, convert_strings_to_categoricals=False)
        else:
            data.write_h5ad(path, convert_strings_to_categoricals=False)
        start += size
    views = [f"[view.v{i}]\nwhere = {json.dumps(ours)}\n" for i, (ours, _) in enumerate(FILTERS)]
    (directory / "filters.toml").write_text("batch_size = 512\nobs = ['cell_type']\n" + "\n".join(views), encoding="utf-8")


def batches(epoch):
    return sorted(glob.glob(f"{epoch}/*"))


def rows(epoch):
    """Global rows of an epoch directory, in order."""
    found = [np.load(path)["row"] for path in batches(epoch)]
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def filters(directory, mount):
    whole = frame()
    for i, (ours, theirs) in enumerate(FILTERS):
        mask = theirs(whole) if callable(theirs) else None
        if mask is None:
            wanted = np.flatnonzero(whole.index.isin(whole.query(theirs or ours, engine="python").index))
        else:
            wanted = np.flatnonzero(np.asarray(mask, dtype=bool))
        got = rows(f"{mount}/v{i}/epoch-0000")
        check(len(np.unique(got)) == len(got), f"{ours}: a row twice")
        check(np.array_equal(np.sort(got), wanted), f"{ours}: {len(got)} rows, pandas has {len(wanted)}")
    told = json.load(open(f"{mount}/dataset.json"))
    check(told["views"]["v0"]["view_rows"] == int((whole.cell_type == "T").sum()), "dataset.json: view_rows")
    check([column["name"] for column in told["columns"]] == ["cell_type"], "a column that a view uses is served")


def split(directory, mount, job):
    """`job`: fractions; by; stratify; rows (how many there are)."""
    job = json.loads(job)
    whole = frame().iloc[: job.get("rows", sum(SIZES.values()))]
    told = json.load(open(f"{mount}/dataset.json"))
    sides = {name: rows(f"{mount}/{name}/epoch-0000") for name in job["fractions"]}
    together = np.concatenate(list(sides.values()))
    check(len(np.unique(together)) == len(together), "a row is on two sides")
    if sum(job["fractions"].values()) > 0.999:
        check(len(together) == len(whole), "a row is on no side")
    for name, fraction in job["fractions"].items():
        off = abs(len(sides[name]) - fraction * len(whole))
        room = whole[job["by"]].value_counts().max() if job.get("by") else 1
        room = 3 * room if job.get("by") and job.get("stratify") else max(room, 0.011 * len(whole)) if job.get("by") else 1.5
        check(off <= room, f"{name}: {len(sides[name])} rows of {len(whole)}, off by {off}")
        check(told["views"][name]["view_rows"] == len(sides[name]), f"dataset.json: {name}: rows")
    if job.get("by"):
        groups = {name: set(whole[job["by"]].iloc[side]) for name, side in sides.items()}
        names = list(groups)
        for i, a in enumerate(names):
            check(told["views"][a]["groups"] == len(groups[a]), f"dataset.json: {a}: groups")
            for b in names[i + 1 :]:
                check(not groups[a] & groups[b], f"{job['by']} {groups[a] & groups[b]} in {a} and {b}")
    if job.get("stratify"):
        for label, members in whole.groupby(whole[job["stratify"]].astype(object).fillna("(missing)"), observed=True):
            for name, fraction in job["fractions"].items():
                here = whole.iloc[sides[name]]
                here = here[here[job["stratify"]].astype(object).fillna("(missing)") == label]
                told_rows = told["views"][name]["rows_by_label"][job["stratify"]].get(str(label), 0)
                check(told_rows == len(here), f"dataset.json: {name}: {label}: {told_rows}, {len(here)}")
                if job.get("by"):
                    got, of = here[job["by"]].nunique(), members[job["by"]].nunique()
                else:
                    got, of = len(here), len(members)
                check(abs(got - fraction * of) <= 1, f"{label}: {got} of {of} in {name}")


def draws(directory, mount):
    whole = frame()
    n = len(whole)
    counts = lambda name: np.bincount(rows(f"{mount}/{name}/epoch-0000"), minlength=n)
    told = json.load(open(f"{mount}/dataset.json"))["views"]

    balanced = counts("balanced")
    check(balanced.sum() == 20_000 == told["balanced"]["rows_per_epoch"], "samples")
    labels = whole.cell_type.cat.codes.to_numpy()
    each = np.array([balanced[labels == code].sum() for code in range(5)])
    check(balanced[labels == -1].sum() == 0, "a row without a label was drawn")
    # 4 degrees of freedom: beyond 40 once in 2e7.
    check((((each - 4000) ** 2) / 4000).sum() < 40, f"balance: {each}")

    weighted = counts("weighted")
    check(weighted.sum() == n, "weights: as many rows as the view has")
    check(weighted[whole.weight == 0].sum() == 0, "a row of weight 0 was drawn")
    three, one = weighted[whole.weight == 3].sum(), weighted[whole.weight == 1].sum()
    p = 3 * (whole.weight == 3).sum() / whole.weight.sum()
    check(abs(three - n * p) < 6 * np.sqrt(n * p * (1 - p)), f"weights: {three} and {one}")
    check(np.array_equal(counts("weightfile"), weighted), "a file of weights is the column of them")

    for name in ["classes", "classes_drawn"]:
        for path in batches(f"{mount}/{name}/epoch-0000"):
            check(len(set(labels[np.load(path)["row"]])) == 1, f"{path}: more than one class")
    once = counts("classes")
    check(np.array_equal(once, (labels >= 0).astype(int)), "class batches: every row with a class once")

    check(np.array_equal(rows(f"{mount}/stored/epoch-0000"), np.arange(n)), "sequential is not the stored order")
    check(np.array_equal(rows(f"{mount}/stored/epoch-0003"), np.arange(n)), "sequential differs between epochs")
    buffered = rows(f"{mount}/buffered/epoch-0000")
    for start in range(0, n, 256):
        check(sorted(buffered[start : start + 256]) == list(range(start, min(start + 256, n))), "buffered leaves its fetch")
    check(not np.array_equal(buffered, np.arange(n)), "buffered is not shuffled")
    for name in ["random", "train"]:
        got = rows(f"{mount}/{name}/epoch-0000")
        check(len(np.unique(got)) == len(got), f"{name}: a row twice")
    check(len(rows(f"{mount}/random/epoch-0000")) == n, "random: not all rows")
    listed = [1, 5, 4233, 3000 + 2]
    check(sorted(rows(f"{mount}/listed/epoch-0000")) == sorted(listed), "listed rows")
    check(sorted(rows(f"{mount}/array/epoch-0000")) == list(range(0, n, 7)), "rows of an array")


def lists(directory):
    """The files that the views of `draws` name."""
    whole = frame()
    np.save(directory / "rows.npy", np.arange(0, len(whole), 7).astype(">i4"))
    (directory / "rows.txt").write_text("5\na.h5ad:cell-1\n4233\nb.h5ad:cell-3002\n5\n")
    (directory / "weights.txt").write_text("\n".join(str(weight) for weight in whole.weight))


def ranks(mount):
    told = json.load(open(f"{mount}/dataset.json"))
    whole = {tuple(np.load(path)["row"]): number for number, path in enumerate(batches(f"{mount}/epoch-0000"))}
    total = len(whole)
    rule = compile(told["ranks"]["batch_of_step"], "dataset.json", "eval")
    for W in range(1, 65):
        seen = []
        for r in range(W):
            names = batches(f"{mount}/rank-{r}-of-{W}/epoch-0000")
            check(len(names) == total // W, f"rank {r} of {W} has {len(names)} of {total}")
            got = [whole[tuple(np.load(path)["row"])] for path in names]
            variables = {"fetch_factor": told["fetch_factor"], "batches": total, "W": W, "r": r}
            check(got == [eval(rule, {**variables, "s": s}) for s in range(len(got))], f"rank {r} of {W}: the rule of dataset.json")
            seen += got
        check(len(set(seen)) == len(seen), f"{W} ranks share a batch")
        check(total - len(seen) < W, f"{W} ranks leave out {total - len(seen)}")


def resume(mount, *plans):
    told = json.load(open(f"{mount}/dataset.json"))
    total = told["batches"]
    rule = compile(told["ranks"]["batch_of_step"], "dataset.json", "eval")
    for path in plans:
        plan = json.load(open(path))
        variables = {"fetch_factor": told["fetch_factor"], "batches": total, "W": plan["world"]}
        consumed = {eval(rule, {**variables, "s": s, "r": r}) for s in range(plan["step"]) for r in range(plan["world"])}
        left = [f"epoch-{plan['epoch']:04d}/batch-{i:06d}.npz" for i in range(total) if i not in consumed]
        names = [name for rank in plan["ranks"] for name in rank]
        check(len({len(rank) for rank in plan["ranks"]}) == 1, f"{path}: ranks differ in length")
        check(len(set(names)) == len(names) and set(names) <= set(left), f"{path}: names that were consumed")
        check(len(left) == plan["remaining_batches"] and len(left) - len(names) < len(plan["ranks"]), f"{path}: {len(names)} of {len(left)}")
        for name in names:
            check(os.path.exists(f"{mount}/{name}"), name)


if __name__ == "__main__":
    command, first, *rest = sys.argv[1:]
    if command in ("stores", "lists"):
        globals()[command](pathlib.Path(first))
    elif command in ("ranks", "resume"):
        globals()[command](first, *rest)
    else:
        globals()[command](pathlib.Path(first), *rest)
