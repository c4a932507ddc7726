#!/bin/sh
# What a mount looks like from a shell.   Usage: read.sh MOUNT
set -eu
cd "$1"

ls epoch-0000 | wc -l                               # batches in an epoch
tail -n +2 epoch-0000/batch-000000.tsv | cut -f2 | sort | uniq -c  # labels of one batch (.tsv opens although .npz is listed)
du -b -c epoch-0000/* | tail -n 1                   # bytes of an epoch: exact, and no matrix data is read
grep -n . categories/*.txt | sed -n 1,5p            # labels; code = line number - 1
