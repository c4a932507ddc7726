#!/usr/bin/env python3
"""Under torchrun: ranks train from one mount with DistributedDataParallel over gloo; what must hold is asserted.

    train_ddp.py MOUNT ROWS
"""
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import shufflefs

mount, rows = shufflefs.attach(sys.argv[1]), int(sys.argv[2])
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
genes = mount.dataset["genes"]
torch.manual_seed(rank)  # DDP starts all ranks from the weights of rank 0
model = DistributedDataParallel(torch.nn.Linear(genes, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
seen = []
for batch in DataLoader(mount.torch(epoch=0), batch_size=None, num_workers=2):
    x = torch.sparse_csr_tensor(batch["indptr"], batch["indices"], batch["data"], tuple(batch["shape"].tolist())).to_dense()
    x = torch.nan_to_num(x).clamp(0, 10)  # the store holds NaN, which no weights are equal after
    optimizer.zero_grad()
    model(torch.log1p(x)).square().mean().backward()
    optimizer.step()
    seen.append(batch["row"])
weights = [torch.zeros_like(model.module.weight) for _ in range(world)]
dist.all_gather(weights, model.module.weight.detach())
assert all(torch.equal(weights[0], other) for other in weights), "gradients are averaged, so weights are equal"
mine = torch.cat(seen)
all_rows = [torch.zeros_like(mine) for _ in range(world)]
dist.all_gather(all_rows, mine)
assert torch.equal(torch.cat(all_rows).sort().values, torch.arange(rows)), "each row once"
if rank == 0:
    print(f"{world} ranks, {len(seen)} steps, each row once")
dist.destroy_process_group()
