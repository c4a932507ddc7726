"""1, 2, 4, 8 processes on one mount, each reading every n-th file of an epoch: `scripts/paper processes`."""
import multiprocessing
import sys
import time

from common import OUT, files, keep, made, mounted, plot, warm
from grid import BATCH, read, store

SECONDS = 4.0


def reader(paths, start, out):
    rows = 0
    while time.time() < start:
        pass
    for path in paths:
        rows += len(read(path)[3])
        if time.time() > start + SECONDS:
            break
    out.put((rows, time.time()))


def measured(cells, processes, epochs):
    with mounted([cells], "--batch-size", BATCH * 4, "--block-size", 16, "--fetch-factor", 16, "--obs", "plate", "--memory", "4GiB") as place:
        # The same epoch for all, or a different one for each.
        paths = [files(place / f"epoch-{epoch:04d}", "safetensors") for epoch in (range(processes) if epochs else [0])]
        mine = [paths[i] if epochs else paths[0][i::processes] for i in range(processes)]
        queue, start = multiprocessing.Queue(), time.time() + 0.5
        started = [multiprocessing.Process(target=reader, args=(part, start, queue)) for part in mine]
        [process.start() for process in started]
        found = [queue.get() for _ in started]
        [process.join() for process in started]
        return sum(rows for rows, _ in found) / (max(end for _, end in found) - start)


def main():
    cells = made("grid.h5ad", store)
    warm(cells)
    rows, results = [], {}
    for processes in (1, 2, 4, 8):
        shared, own = measured(cells, processes, False), measured(cells, processes, True)
        results[processes] = {"one epoch": shared, "an epoch each": own}
        rows.append([processes, f"{shared:,.0f}", f"{own:,.0f}"])
        print(rows[-1], file=sys.stderr, flush=True)
    keep("processes", {"results": results}, ["processes", "rows/s together, one epoch dealt", "rows/s together, an epoch each"], rows)
    plot("processes", "rows a second of several processes on one mount", "processes", "rows a second, together", [str(p) for p in results],
         [(name, [(str(p), of[name], 0) for p, of in results.items()]) for name in ("one epoch", "an epoch each")])


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    main()
