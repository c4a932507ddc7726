"""The cost of a mount as a function of rows: mounting, listing and `stat` of stores whose values take no disk space.

    benches/scale.py make STORE --rows 1e8 [--nnz 1500]   an h5ad: row bounds and two obs columns are written, and nothing else
    benches/scale.py run STORE...                         mounts each, cold and warm; one JSON line a store
    benches/scale.py plot RESULTS SVG                     those lines as a plot

`data` and `indices` have no allocated chunks, so 1e8 rows take 1.3 GB on the disk and not 1.2 TB; rows have different
lengths, so that file sizes must be computed. Everything else is as in a mount of a full store.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / "target/release/shufflefs"
# Not below /tmp, which other programs search.
PLACE = ROOT / "target/scale"
BATCH, BLOCK, FETCH = 64, 16, 256
STEP = 1 << 22


def make(path, rows, nnz):
    import h5py
    import numpy as np

    genes, labels = 20_000, 100
    text = h5py.string_dtype()

    def encoded(place, kind, version="0.2.0"):
        place.attrs["encoding-type"], place.attrs["encoding-version"] = kind, version
        return place

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        encoded(file, "anndata", "0.1.0")
        x = encoded(file.create_group("X"), "csr_matrix", "0.1.0")
        x.attrs["shape"] = [rows, genes]
        obs = encoded(file.create_group("obs"), "dataframe")
        obs.attrs["_index"] = "_index"
        obs.attrs.create("column-order", ["cell_type", "n_genes"], dtype=text)
        encoded(obs.create_dataset("_index", (rows,), text, chunks=(1 << 16,)), "string-array")
        column = encoded(obs.create_group("cell_type"), "categorical")
        column.attrs["ordered"] = False
        encoded(column.create_dataset("categories", data=[f"type {i}" for i in range(labels)], dtype=text), "string-array")
        bounds = x.create_dataset("indptr", (rows + 1,), "i8")
        codes = encoded(column.create_dataset("codes", (rows,), "i1"), "array")
        counts = encoded(obs.create_dataset("n_genes", (rows,), "i4"), "array")
        total = 0
        for start in range(0, rows, STEP):
            i = np.arange(start, min(start + STEP, rows), dtype=np.uint64)
            length = (nnz // 2 + (i * np.uint64(2654435761) >> np.uint64(7)) % np.uint64(nnz + 1)).astype(np.int64)
            ends = total + np.cumsum(length)
            bounds[start + 1 : start + 1 + len(i)] = ends
            codes[start : start + len(i)] = (i >> np.uint64(10)).astype(np.int64) % labels
            counts[start : start + len(i)] = length
            total = int(ends[-1])
        for name, dtype in [("data", "f4"), ("indices", "i4")]:
            x.create_dataset(name, (total,), dtype, chunks=(min(1 << 16, total),))
        var = encoded(file.create_group("var"), "dataframe")
        var.attrs["_index"] = "_index"
        var.attrs.create("column-order", [], dtype="f8")
        encoded(var.create_dataset("_index", data=[f"gene {i}" for i in range(genes)], dtype=text), "string-array")
        for name in ["layers", "obsm", "varm", "obsp", "varp", "uns"]:
            encoded(file.create_group(name), "dict", "0.1.0")


class Mount:
    def __init__(self, store, index):
        self.place = tempfile.mkdtemp(prefix="mnt-", dir=PLACE)
        options = ["--index-dir", index, "--batch-size", str(BATCH), "--block-size", str(BLOCK), "--fetch-factor", str(FETCH)]
        options += ["--memory", "128MiB"]
        start = time.perf_counter()
        if subprocess.run([BINARY, "mount", *options, store, self.place]).returncode != 0:
            os.rmdir(self.place)
            sys.exit(3)
        self.seconds = time.perf_counter() - start
        self.pid = json.loads(self.read(".shufflefs/options.json"))["pid"]

    def read(self, path):
        return Path(self.place, path).read_bytes()

    def status(self, field):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run([BINARY, "umount", self.place], check=True)
        os.rmdir(self.place)


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def open_file(path, row=None):
    """Opens a whole epoch as one file; with `row` it reads the values of that row."""
    import h5py

    with h5py.File(path, "r") as file:
        file["X"].attrs["shape"]
        if row is not None:
            start, end = file["X/indptr"][row : row + 2]
            assert len(file["X/data"][start:end]) == len(file["X/indices"][start:end]) == end - start


def measure(store, repeats):
    PLACE.mkdir(parents=True, exist_ok=True)
    index = tempfile.mkdtemp(prefix="shufflefs-index-", dir=Path(store).parent)
    result = {"store": os.path.basename(store)}
    try:
        with Mount(store, index) as mount:
            result["cold_s"] = mount.seconds
            result["cold_peak_mb"] = mount.status("VmHWM")
        result["index_bytes"] = sum(os.path.getsize(os.path.join(index, name)) for name in os.listdir(index))
        warm, rss, first, sizes, listed, stats, peak = [], [], [], [], [], [], []
        opened, first_row = [], []
        for _ in range(repeats):
            with Mount(store, index) as mount:
                warm.append(mount.seconds)
                rss.append(mount.status("VmRSS"))
                told = json.loads(mount.read("dataset.json"))
                batches, result["rows"] = told["batches"], told["rows_per_epoch"]
                width = max(6, len(str(batches - 1)))
                name = lambda epoch, batch: f"{mount.place}/epoch-{epoch:04d}/batch-{batch:0{width}d}.npz"
                # Far into an epoch that was not accessed before.
                first.append(timed(lambda: mount.read(name(77, batches // 3))))
                planned = [timed(lambda: os.stat(name(5 + i, batches * i // 20))) for i in range(20)]
                sizes.append(statistics.median(planned))
                listed.append(timed(lambda: subprocess.run(["ls", f"{mount.place}/epoch-0002"], stdout=subprocess.DEVNULL,
                                                           env={**os.environ, "LC_ALL": "C"}, check=True)))
                opened.append(timed(lambda: open_file(f"{mount.place}/epoch-0078.h5ad")))
                first_row.append(timed(lambda: open_file(f"{mount.place}/epoch-0079.h5ad", row=0)))
                # `ls -l`, `find -size`, `du`: one pass over names and sizes.
                some = min(batches, 300_000)

                def walk():
                    with os.scandir(f"{mount.place}/epoch-0003") as entries:
                        for _, entry in zip(range(some), entries):
                            entry.stat()

                stats.append(some / timed(walk))
                peak.append(mount.status("VmHWM"))
        middle = lambda values: round(statistics.median(values), 5)
        result |= {"batches": batches, "warm_s": middle(warm), "rss_mb": middle(rss), "first_batch_s": middle(first),
                   "file_open_s": middle(opened), "file_first_row_s": middle(first_row), "random_stat_s": middle(sizes), "ls_s": middle(listed), "stat_per_s": middle(stats), "peak_mb": middle(peak)}
    finally:
        shutil.rmtree(index)
    print(json.dumps(result), flush=True)


# ---------------------------------------------------------------- the plot, in plain SVG

PANELS = [
    ("mount, seconds", [("cold_s", "first"), ("warm_s", "later")]),
    ("resident, MB", [("rss_mb", "mounted"), ("peak_mb", "peak, all of this")]),
    ("one size or batch, seconds", [("random_stat_s", "stat, any batch"), ("first_batch_s", "read, any batch")]),
    ("stat a second; ls, seconds", [("stat_per_s", "stat a second"), ("ls_s", "ls of an epoch")]),
]
COLOURS = ["#0b6e99", "#c4511d"]


def plot(results, out):
    import math

    rows = sorted((json.loads(line) for line in Path(results).read_text().splitlines() if line), key=lambda r: r["rows"])
    width, height, left, top = 380, 250, 62, 34
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * width}" height="{2 * height}" font-family="sans-serif" '
           f'font-size="11"><rect width="100%" height="100%" fill="white"/>']
    for number, (title, series) in enumerate(PANELS):
        x0, y0 = (number % 2) * width + left, (number // 2) * height + top
        w, h = width - left - 20, height - top - 40
        values = [r[key] for r in rows for key, _ in series if key in r]
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        lows, highs = math.log10(rows[0]["rows"]), math.log10(rows[-1]["rows"])
        x = lambda n: x0 + w * (math.log10(n) - lows) / max(highs - lows, 1e-9)
        y = lambda v: y0 + h * (high - math.log10(v)) / max(high - low, 1)
        svg.append(f'<text x="{x0}" y="{y0 - 14}" font-weight="bold">{title}</text>')
        for power in range(low, high + 1):
            at, label = y(10.0**power), f"{10.0 ** power:g}"
            svg.append(f'<path d="M{x0} {at:.1f}h{w}" stroke="#ddd"/><text x="{x0 - 6}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
        for r in rows:
            svg.append(f'<text x="{x(r["rows"]):.1f}" y="{y0 + h + 16}" text-anchor="middle">{r["rows"]:.0e}</text>')
        svg.append(f'<text x="{x0 + w / 2}" y="{y0 + h + 31}" text-anchor="middle">rows</text>')
        for (key, label), colour in zip(series, COLOURS):
            points = [(x(r["rows"]), y(r[key])) for r in rows if key in r]
            line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            svg.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
            svg += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
            above = 6 + 13 * [key for key, _ in series].index(key)
            svg.append(f'<text x="{x0 + 8}" y="{y0 + above + 6}" fill="{colour}">{label}</text>')
    svg.append("</svg>")
    Path(out).write_text("\n".join(svg) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("make")
    command.add_argument("store")
    command.add_argument("--rows", type=lambda text: int(float(text)), required=True)
    command.add_argument("--nnz", type=int, default=1500)
    command = commands.add_parser("run")
    command.add_argument("stores", nargs="+")
    command.add_argument("--repeats", type=int, default=3)
    command = commands.add_parser("plot")
    command.add_argument("results")
    command.add_argument("svg")
    args = parser.parse_args()
    if args.command == "make":
        make(args.store, args.rows, args.nnz)
    elif args.command == "run":
        for store in args.stores:
            measure(store, args.repeats)
    else:
        plot(args.results, args.svg)


if __name__ == "__main__":
    sys.exit(main())
