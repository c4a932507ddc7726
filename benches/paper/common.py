"""What the tables of scripts/paper share: mounts that end, data that is made once, tables and plots."""
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
OUT = pathlib.Path(os.environ.get("PAPER_OUT", ROOT / "target/paper"))
BINARY = os.environ.get("SHUFFLEFS", str(ROOT / "target/release/shufflefs"))
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a7a7a"]


@contextlib.contextmanager
def mounted(stores, *options):
    """A mount of stores; its path."""
    place = tempfile.mkdtemp(prefix="paper-")
    subprocess.run([BINARY, "mount", *map(str, options), *map(str, stores), place], check=True)
    try:
        yield pathlib.Path(place)
    finally:
        subprocess.run([BINARY, "umount", place], check=False)
        with contextlib.suppress(OSError):
            os.rmdir(place)


def made(name, make):
    """The path of data that `make(path)` writes, once."""
    path = OUT / "data" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"new-{name}")
        make(new)
        new.rename(path)
    return path


def warm(path):
    """Reads all files at or below a path, so that the page cache has them."""
    files = [path] if pathlib.Path(path).is_file() else [p for p in pathlib.Path(path).rglob("*") if p.is_file()]
    for file in files:
        with open(file, "rb", buffering=0) as handle:
            while handle.read(1 << 22):
                pass


def rate(batches, seconds=4.0):
    """Rows a second of an iterable of batches' row counts, for so long at most; the first batch is not timed."""
    batches = iter(batches)
    next(batches, None)
    rows, start = 0, time.perf_counter()
    for count in batches:
        rows += count
        if time.perf_counter() - start > seconds:
            break
    return rows / max(time.perf_counter() - start, 1e-9)


def files(directory, extension):
    return [os.path.splitext(path)[0] + "." + extension for path in sorted(map(str, pathlib.Path(directory).iterdir()))]


def entropy(values):
    shares = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(shares * np.log2(shares)).sum())


def interval(values):
    """Mean and half of the 95 % interval (Student's t) of the mean."""
    t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 8: 2.36, 10: 2.26}.get(len(values), 2.0)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.mean(values), t * spread / len(values) ** 0.5


def keep(table, results, header, rows, notes=()):
    """Writes TABLE.json and TABLE.md and prints the latter."""
    OUT.mkdir(parents=True, exist_ok=True)
    results = {"binary": subprocess.run([BINARY, "--version"], capture_output=True, text=True).stdout.split("\n")[0],
               "load": os.getloadavg(), "cores": os.cpu_count(), **results}
    (OUT / f"{table}.json").write_text(json.dumps(results, indent=1))
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    lines += ["", f"Load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.", *notes]
    (OUT / f"{table}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


STYLE = """<style>.back{fill:#fff}text{fill:#1b1b1b}.grid{stroke:#ddd}.axis{stroke:#1b1b1b}
@media (prefers-color-scheme: dark){.back{fill:#15181c}text{fill:#e6e6e6}.grid{stroke:#3a3f46}.axis{stroke:#e6e6e6}}</style>"""


def plot(name, title, x_title, y_title, ticks, series, y_max=None, log_y=False):
    """Lines over named ticks, as SVG for light and dark: series are (label, [(tick, y, half interval)])."""
    import math

    width, height, left, top, right, bottom = 720, 400, 70, 56, 16, 56
    values = [y + half for _, points in series for _, y, half in points]
    low = math.floor(math.log10(max(min(y for _, points in series for _, y, _ in points), 1e-9))) if log_y else 0.0
    high = (math.ceil(math.log10(max(values))) if log_y else y_max or max(values) * 1.08) or 1.0
    x = lambda tick: left + (width - left - right) * (ticks.index(tick) + 0.5) / len(ticks)
    scale = (lambda v: math.log10(max(v, 1e-9))) if log_y else (lambda v: v)
    y = lambda v: height - bottom - (height - top - bottom) * (scale(v) - low) / (high - low)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
           f'font-family="sans-serif" font-size="12">{STYLE}<rect class="back" width="100%" height="100%"/>',
           f'<text x="{left}" y="18" font-weight="bold">{title}</text>']
    steps = [10.0**p for p in range(int(low), int(high) + 1)] if log_y else [high / 5 * i for i in range(6)]
    for step in steps:
        out.append(f'<path class="grid" d="M{left} {y(step):.1f}H{width - right}"/>'
                   f'<text x="{left - 6}" y="{y(step) + 4:.1f}" text-anchor="end">{step:,.4g}</text>')
    for tick in ticks:
        out.append(f'<text x="{x(tick):.1f}" y="{height - bottom + 18}" text-anchor="middle">{tick}</text>')
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 14}" text-anchor="middle">{x_title}</text>'
               f'<text transform="translate(16 {height / 2}) rotate(-90)" text-anchor="middle">{y_title}</text>')
    for number, (label, points) in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(f"{x(tick):.1f},{y(v):.1f}" for tick, v, _ in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for tick, v, half in points:
            out.append(f'<circle cx="{x(tick):.1f}" cy="{y(v):.1f}" r="3.5" fill="{colour}"/>')
            if half:
                out.append(f'<path stroke="{colour}" d="M{x(tick):.1f} {y(v - half):.1f}V{y(v + half):.1f}"/>')
        at = left + number * (width - left - right) / max(len(series), 1)
        out.append(f'<circle cx="{at + 5:.0f}" cy="38" r="4" fill="{colour}"/><text x="{at + 14:.0f}" y="42">{label}</text>')
    (ROOT / "docs" / f"papers-{name}.svg").write_text("\n".join(out) + "\n</svg>\n")
