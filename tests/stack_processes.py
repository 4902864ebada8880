"""What each process of a distributed test of stacks runs, and the test that compares."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import liouville as lv
from measure import randn
from stacks import residual_mlp

STACKS = {
    "momentum": ("momentum", lv.Reversible(exact=True, compensated=True)),
    "coupled": ("coupled", lv.Reversible()),
    "checkpointed": ("momentum", lv.Checkpointed()),
}
WAYS = ("plain", "accumulated", "a layer unused")
BATCH = 8


class Model(nn.Module):
    """A stack between an embedding and a head; ``upto``: of the first layers only."""

    def __init__(self, scheme, engine):
        super().__init__()
        self.embed, self.layers, self.head = nn.Linear(3, 8), residual_mlp(), nn.Linear(8, 2)
        self.double()
        for part in (self.embed, self.head):
            for i, w in enumerate(part.parameters()):
                nn.init.constant_(w, 0.1 * (i + 1))
        self.layers = lv.reversible(self.layers, scheme, backprop=engine)

    def forward(self, x, upto=None):
        x = self.embed(x)
        for layer in self.layers[:upto]:
            x = layer(x)
        return self.head(x)


def inputs():
    return randn(BATCH, 3)


def step(run, x, way):
    """The gradients of a loss that is a mean over the batch; zeros for what takes no part."""
    run.zero_grad()
    upto = 4 if way == "a layer unused" else None
    parts = x.chunk(2) if way == "accumulated" else [x]
    for i, part in enumerate(parts):
        alone = isinstance(run, DistributedDataParallel) and i < len(parts) - 1
        with run.no_sync() if alone else torch.enable_grad():
            (run(part, upto).square().mean() / len(parts)).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in run.parameters()]


def run(rank, world, folder):
    """Every stack and way, wrapped in DDP; the gradients of this process are written to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    found, mine = {}, inputs().chunk(world)[rank]
    for name, (scheme, engine) in STACKS.items():
        for way in WAYS:
            wrapped = DistributedDataParallel(Model(scheme, engine), find_unused_parameters=way == "a layer unused")
            found[name, way] = step(wrapped, mine, way)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
