"""One process of several that train together: it finds the others as the command does, and writes what it got."""

import os
import warnings

import torch
import torch.distributed as dist
from torch import nn

import liouville as lv
from liouville import processes as group
from liouville import runs
from liouville.processes import LOOPBACK
from measure import generator, randn
from parallel import cases
from runs import own


def main(rank, processes, port, folder):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    group.join()
    together = group.share(cases.dense())
    found = {name: cases.record(*cases.run(name, together)) for name in cases.CASES}
    found["dropout"] = [dropout(together) for _ in range(2)]
    found["refused"] = refused(together)
    found["shards"] = {
        (name, how): sharded(engine, penalty)
        for name, engine in cases.ENGINES.items()
        for how, penalty in cases.SHARDED.items()
    }
    found["trainer"] = trainer()
    found["run"] = kept(together, f"{folder}/run")
    torch.save(found, f"{folder}/{rank}.pt")
    group.leave()


def dropout(together):
    """Weights after training with masks in the flow and in front of the head, and this process's own stream."""
    network = cases.dense(dropout_rate=0.3)
    network.head = nn.Sequential(nn.Dropout(0.3), network.head).double()
    lv.train.fit(network, cases.split(), cases.settings(), processes=together)
    return cases.weights(network), together.seed(5)


def kept(together, out):
    """A run into a folder, called in every process alike: the weights, and where they were written."""
    run = runs.train(own.PLAN.changed(dtype="float64"), own.split(), out, processes=together)
    return cases.weights(run.network()), run.path and str(run.path), run.metrics["processes"]


def refused(together):
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    try:
        lv.train.fit(network, cases.split(), cases.settings(), processes=together)
    except ValueError as error:
        return str(error)
    return ""


def sharded(engine, penalty):
    """FSDP2, three steps on this process's rows: the flow by itself, or with a penalty the network as one unit."""
    from torch.distributed.fsdp import fully_shard

    network, (x, y), size = cases.dense(engine), fsdp_batch(), dist.get_world_size()
    mesh = dist.init_device_mesh("cpu", (size,))
    if not penalty.parts():
        fully_shard(network.body, mesh=mesh)
    fully_shard(network, mesh=mesh)
    fsdp_steps(network, x.chunk(size)[dist.get_rank()], y.chunk(size)[dist.get_rank()], penalty)
    kept = max(w.to_local().numel() / w.numel() for w in network.body.parameters())
    return torch.cat([w.full_tensor().detach().flatten() for w in network.parameters()]), kept


def fsdp_batch():
    return randn(12, 3, seed=3), torch.randint(3, (12,), generator=generator(4))


def fsdp_steps(network, x, y, penalty):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        (nn.functional.cross_entropy(network(x), y) + penalty.value(network)).backward()
        optimizer.step()


def trainer():
    """Lightning's own Trainer on the process group that there is, each process on its rows of every batch."""
    from parallel.module import train

    return train(dist.get_world_size(), dist.get_rank())
