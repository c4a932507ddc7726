"""The modelled figures of docs/scale.md: 1e9 cells on 64 nodes, from S3 and from Lustre.

usage: scale_model.py      (prints the tables; every input is a constant here, with its source)
"""

ROWS, NODES, RANKS = 1_000_000_000, 64, 8
BATCH = 256
# Measured (benches/scale.py, peers' data): decoded bytes of a row of 1,500 values, float32 and int32.
DECODED = 12_000
# Measured on this repository's generated cells, `shuffle --compress lz4` (see docs/scale.md).
STORED = 5_900
# Published by AWS: GETs a second of one prefix; dollars a million GETs; modelled in shared/REMOTE.md: one connection.
PREFIX, PRICE = 5_500, 0.4
# Of each node: network, bytes a second, and measured decoding of lz4 (docs/performance.md: 163,079 rows/s on 2 cores), rows a second a core.
NETWORK = {"10 Gbit/s": 1.15e9, "25 Gbit/s": 2.9e9, "100 Gbit/s": 11e9}
CORES, DECODE = 32, 80_000
# Assumed for Lustre: all storage targets together, bytes a second; reads a second of one target of disks and of flash; targets.
LUSTRE, TARGETS, DISK, FLASH = 100e9, 64, 1_200, 60_000


def fetch(block):
    """--fetch-factor auto: k = 1024, lowered to no less than 256 while a fetch exceeds 1 GiB."""
    k = 1024
    while k > 256 and k * block * DECODED > 1 << 30:
        k //= 2
    return k, max(1, k * block // BATCH)


def main():
    print("| block | k | fetch, decoded | memory a mount (4 fetches) | requests an epoch | bytes a request | dollars an epoch |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for block in (16, 64, 256, 1024):
        k, factor = fetch(block)
        rows = factor * BATCH
        requests = 2 * ROWS // block
        print(f"| {block} | {k} | {rows * DECODED / 1e9:.2f} GB | {4 * rows * DECODED / 1e9:.1f} GB | {requests / 1e6:.1f} M | "
              f"{block * STORED / 2 / 1e3:,.0f} kB | {requests / 1e6 * PRICE:.2f} |")
    print()
    print("| network of a node | block | rows/s a node: network, decoding (32 cores) | GETs/s of all nodes | prefixes for that | epoch | with 1 prefix |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, bandwidth in NETWORK.items():
        for block in (16, 256):
            network, decode = bandwidth / STORED, CORES * DECODE
            rate = min(network, decode)
            gets = NODES * rate / block * 2
            alone = min(rate, PREFIX * block / 2 / NODES)
            print(f"| {name} | {block} | {network / 1e3:,.0f} k, {decode / 1e3:,.0f} k | {gets / 1e3:,.0f} k | {gets / PREFIX:,.0f} | "
                  f"{ROWS / NODES / rate:,.0f} s | {ROWS / NODES / alone / 60:,.0f} min |")
    print()
    print("| Lustre | block | reads/s of all targets for 100 GB/s | reads/s of disks | reads/s of flash | epoch at 100 GB/s | on disks |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for block in (16, 256, 1024):
        size = block * STORED / 2
        wanted = LUSTRE / size
        bytes_ = ROWS * STORED
        disks = min(LUSTRE, TARGETS * DISK * size)
        print(f"| {TARGETS} targets | {block} | {wanted / 1e3:,.0f} k | {TARGETS * DISK / 1e3:,.0f} k | {TARGETS * FLASH / 1e3:,.0f} k | "
              f"{bytes_ / LUSTRE:,.0f} s | {bytes_ / disks:,.0f} s |")
    print()
    print("| ranks | block | fetches | fetches left over | read by | more bytes an epoch |")
    print("| --- | --- | --- | --- | --- | --- |")
    for ranks, block in ((NODES, 256), (NODES * RANKS, 256), (NODES * RANKS, 16)):
        _, factor = fetch(block)
        fetches = -(-ROWS // (factor * BATCH))
        left = fetches % ranks
        # A fetch that is dealt batch by batch is loaded by each node that has a rank with a batch of it.
        more = left * (min(NODES, factor) - 1) / fetches
        print(f"| {ranks} | {block} | {fetches:,} | {left} | {min(NODES, factor)} nodes | {100 * more:.0f} % |")


if __name__ == "__main__":
    main()
