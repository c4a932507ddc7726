"""Compares the rates that `shufflefs tune` models with those of a reader of real mounts, store by store.

usage: tune.py NAME=STORE... [--settings 4] [--seconds 3] [--formats safetensors]     (SHUFFLEFS: the binary; PYTHON: the reader's)
For each store, evenly spread settings of the front are mounted one after the other, and a whole epoch (or --seconds of it) is read as trainers read;
prints a table, and how many are within 25 %.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = os.environ.get("SHUFFLEFS", str(ROOT / "target/release/shufflefs"))


def reader(name):
    import numpy as np

    if name == "npz":
        def read(path):
            with np.load(path) as file:
                return [file[key] for key in file.files]
        return read
    if name == "npy":
        return np.load
    from safetensors.numpy import load_file
    return load_file


def measured(store, one, seconds):
    """Rows a second of an epoch that was not read before, from its second fetch on."""
    place = tempfile.mkdtemp(prefix="tune-")
    options = ["--batch-size", one["batch_size"], "--block-size", one["block_size"], "--fetch-factor", one["fetch_factor"],
               "--threads", one["threads"], "--memory", f"{(one['memory'] + (1 << 20) - 1) >> 20}MiB"]
    subprocess.run([BINARY, "mount", *map(str, options), *store, place], check=True)
    try:
        read = reader(one["format"])
        names = sorted(os.listdir(f"{place}/epoch-0000"))
        paths = [f"{place}/epoch-0000/" + name.rsplit(".", 1)[0] + "." + one["format"] for name in names]
        first = min(one["fetch_factor"], max(len(paths) // 4, 1))
        for path in paths[:first]:
            read(path)
        files, start = 0, time.perf_counter()
        # To the end of a fetch.
        for path in paths[first:]:
            read(path)
            files += 1
            if time.perf_counter() - start > seconds and (first + files) % one["fetch_factor"] == 0:
                break
        return files * one["batch_size"] / (time.perf_counter() - start)
    finally:
        subprocess.run([BINARY, "umount", place], check=False)
        os.rmdir(place)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", help="NAME=STORE; several with one name are one collection")
    parser.add_argument("--settings", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--formats", default="safetensors")
    args = parser.parse_args()
    stores = {}
    for text in args.stores:
        name, path = text.split("=", 1)
        stores.setdefault(name, []).append(path)
    print("| store | tune took | block | fetch | threads | format | modelled, rows/s | measured | model / measured |\n" + "|" + " --- |" * 9)
    within = total = 0
    for name, store in stores.items():
        line = [BINARY, "tune", "--json", "--formats", args.formats, "--python", os.environ.get("PYTHON", sys.executable), *store]
        told = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout)
        # Settings without room for decoded chunks, as in a first epoch.
        candidates, seen = [], set()
        for one in sorted(told["modelled"], key=lambda one: (one["memory"], -one["threads"])):
            key = (one["block_size"], one["fetch_factor"], one["format"])
            if key not in seen and one["threads"] == told["threads"] and one["later_rows_per_second"] <= one["rows_per_second"] * 1.01:
                seen.add(key)
                candidates.append(one)
        candidates.sort(key=lambda one: one["rows_per_second"])
        step = max(1, (len(candidates) - 1) // max(args.settings - 1, 1))
        for one in candidates[::step][: args.settings]:
            speed = measured(store, one, args.seconds)
            ratio = one["rows_per_second"] / speed
            within, total = within + (0.75 <= ratio <= 1.25), total + 1
            print(f"| {name} | {told['seconds']:.0f} s | {one['block_size']} | {one['fetch_factor']} | {one['threads']} | {one['format']} | "
                  f"{one['rows_per_second']:,.0f} | {speed:,.0f} | {ratio:.2f} |", flush=True)
    print(f"\n{within} of {total} within 25 %; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
