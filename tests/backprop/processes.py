"""What each process of a distributed test runs: importable by a spawned interpreter, and by the test that compares."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import liouville as lv
from backprop.runs import MODES
from measure import generator, randn

ENGINES = {"stored": lv.Stored(), **MODES, "auto-tight": lv.Auto(memory=1)}
BATCH = 8


def model(engine):
    """A lift, two flows, one of a constrained and shared kind, and a head, equal in every process."""
    g = generator(0)
    separable = lv.SeparableHamiltonianField(4, 6, init=lv.Normal(0.5), generator=g).double()
    skew = lv.AntisymmetricField(4, 5, shared=True, init=lv.Normal(0.5), generator=g).double()
    first, second = (
        lv.Flow(separable, lv.SymplecticEuler(), 1.0, engine),
        lv.Flow(skew, lv.LeapfrogMidpoint(), 1.0, engine),
    )
    lift, head = (nn.Linear(n, m, dtype=torch.float64) for n, m in ((3, 4), (4, 2)))
    for i, layer in enumerate((lift, head)):
        with torch.no_grad():
            layer.weight.copy_(randn(*layer.weight.shape, seed=i))
            layer.bias.zero_()
    return nn.Sequential(lift, first, second, head)


def penalty(network):
    """Smoothness in depth and decay, by calls of theta() that no forward pass sees."""
    fields = [part.field for part in network if isinstance(part, lv.Flow)]
    rough = sum(w.diff(dim=0).square().sum() for w in fields[0].theta())
    return 0.1 * rough + 0.05 * fields[1].theta().A.square().sum()


def step(run, network, y, how):
    """The gradients of one step on the rows ``y`` of a batch, whose loss is a mean over the batch."""
    network.zero_grad()
    if how == "accumulated":
        halves = y.chunk(2)
        with run.no_sync() if isinstance(run, DistributedDataParallel) else torch.enable_grad():
            (run(halves[0]).square().mean() / 2).backward()
        (run(halves[1]).square().mean() / 2).backward()
    else:
        loss = run(y).square().mean()
        (loss + penalty(network) if how == "penalty" else loss).backward()
    return [p.grad.clone() for p in network.parameters()]


WAYS = ("plain", "penalty", "accumulated")


def run(rank, world, folder):
    """Every engine and way, wrapped in DDP; the gradients of this process are written to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    found = {}
    for name, engine in ENGINES.items():
        network = model(engine)
        wrapped = DistributedDataParallel(network, gradient_as_bucket_view=name == "reversible")
        mine = randn(BATCH, 3).chunk(world)[rank]
        for how in WAYS:
            found[name, how] = step(wrapped, network, mine, how)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
