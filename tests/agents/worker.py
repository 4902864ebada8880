"""One process of a test run: it makes the same network as all others, does one pass, and writes what it owns."""

import os
import signal
import sys
import time

import torch
from torch import nn

import liouville as lv
from liouville.agents import spread, to_central
from liouville.agents.transport import AgentFault, Distributed
from liouville.graphs import adjacency
from liouville.processes import LOOPBACK, connect


def network(graph, model, layers, sizes=1, batch=6, outputs=None):
    """A central network and a batch, the same in every process."""
    operator = lv.Graph(graph, sizes)
    n = 2 * sum(operator.sizes)
    g = torch.Generator().manual_seed(1)
    flow = getattr(lv.zoo, model)(
        n, layers, 0.1 * layers, operator=operator, init=lv.Smooth(bias_scale=0.3), generator=g
    )
    head = nn.Linear(n, 2) if outputs is None else lv.NodeHead(operator, n, outputs)
    with torch.no_grad():
        for w in head.parameters():
            w.copy_(torch.randn(w.shape, generator=g))
    made = lv.Network(lv.Lift(n, 2, place=(0, n - 1)), flow, head).double()
    return made, torch.randn(batch, 2, generator=g, dtype=torch.float64)


def loss_of(scores, shared=True):
    if not shared:  # each process has those of its nodes
        return scores.sin().sum()
    return (scores.sin() * torch.tensor([1.0, 2.0], dtype=scores.dtype)).mean()


FIELDS = ("graph", "layer", "pass", "round", "dtype", "shape", "features", "message")


def fail(how):
    sys.stdout.write(f"FAULT {time.time()}\n")
    sys.stdout.flush()
    if how in ("die", "stall"):
        os.kill(os.getpid(), signal.SIGKILL if how == "die" else signal.SIGSTOP)


def misbehave(how, exchange):
    """In the fifth round, or in the head's sum where there is none: die, stall, or send something else to everybody."""
    batch, reduce, count = exchange._batch, exchange._reduce, 0

    def no_sum(total):
        fail(how)
        return reduce(total)

    def wrong(stamp, out, into):
        nonlocal count
        count += 1
        if count == 9:
            fail(how)
            for header in out.values():
                header[FIELDS.index(how)] += 1
        if count == 10 and how == "shape":
            out = {peer: torch.cat((payload, payload[:1])) for peer, payload in out.items()}
        return batch(stamp, out, into)

    exchange._batch, exchange._reduce = wrong, no_sum


def one(case, store, spec):
    exchange = Distributed(
        adjacency(case["S"]), store, timeout=spec.get("timeout", 60), description=case["protocol"] + case["consensus"]
    )
    central, x = network(case["R"], case["model"], case["layers"], case.get("sizes", 1), outputs=case.get("outputs"))
    local = spread(central, exchange, case["protocol"], case["consensus"])
    if exchange.rank == spec.get("victim"):
        misbehave(spec["fault"], exchange)
    scores = local(x)
    loss_of(scores, case.get("outputs") is None).backward()
    mine = central_gradients(central, local, scores.detach())
    counts = {key: tuple(count) for key, count in exchange.traffic.counts.items()}
    found = {"gradients": mine, "scores": scores.detach(), "counts": counts, "hosted": exchange.hosted}
    return found | {"outputs": local.outputs}


def central_gradients(central, local, scores):
    """The gradients of what is hosted, in the places of the central network; NaN elsewhere."""
    for w in central.parameters():
        w.grad = torch.full_like(w, torch.nan)
    to_central(local, central, gradients=True)
    return {name: w.grad for name, w in central.named_parameters()}


def main(spec, rank, port, out):
    """All cases of a spec, one after the other; standard output and error go to a file."""
    log = os.open(f"{out}/{rank}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1), os.dup2(log, 2)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(spec["processes"]), "MASTER_ADDR": LOOPBACK}
    os.environ |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    torch.set_num_threads(1)
    store = connect(timeout=60)
    try:
        results = [one(case, store, spec) for case in spec["cases"]]
    except AgentFault as fault:
        sys.stdout.write(f"STOPPED {time.time()} {fault}\n")
        sys.stdout.flush()
        os._exit(1)
    torch.save(results, f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()
