"""Shuffles stores on the workers of a Dask cluster: each writes a part, without communication; then one makes the whole.

usage: dask_shuffle.py SHUFFLEFS PARTS OUT.zarr STORE...

With `dask.distributed.Client(...)` before `compute`, the parts are written on its workers; all of them must see stores and OUT. A
task that Dask runs twice, because a worker was lost, writes the same bytes, or finds them written.
"""
import subprocess
import sys

import dask


def main():
    binary, parts, out, *stores = sys.argv[1:]

    @dask.delayed
    def write(part):
        return subprocess.run([binary, "shuffle", "--part", f"{part}/{parts}", *stores, out], check=True, capture_output=True, text=True).stdout

    # The first task twice, as after the loss of a worker.
    tasks = [write(part) for part in range(int(parts))]
    dask.compute(*tasks, scheduler="threads", num_workers=2)
    dask.compute(write(0), scheduler="threads")
    subprocess.run([binary, "shuffle", "--finish", parts, *stores, out], check=True)
    print(f"{parts} parts are {out}")


if __name__ == "__main__":
    main()
