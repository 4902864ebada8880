"""Training runs of `fit` that one process and several must agree on; the same in every process."""

import torch

import liouville as lv
from liouville.train import Penalty, Settings
from measure import generator, randn

BATCH, EPOCHS, STEPS = 16, 2, 4
ENGINES = {
    "stored": lv.Stored(),
    "checkpointed": lv.Checkpointed(),
    "reversible": lv.Reversible(),
    "reversible-exact": lv.Reversible(exact=True),
    "reversible-compensated": lv.Reversible(compensated=True),
    "reversible-anchors": lv.Reversible(anchors=2),
    "fused": lv.Fused(),
    "fused-exact": lv.Fused(exact=True),
    "batch-last": lv.BatchLast(),
    "auto": lv.Auto(),
    "auto-tight": lv.Auto(memory=1),
}
PENALTY = Penalty(smoothness=0.1, decay=0.05, head_decay=0.1, l1=0.02, soft_budget=2.0)
SHARDED = {"the flow by itself": Penalty(), "the network, with a penalty": PENALTY}


def split(kind="vectors"):
    """61 samples, of which 12 are held out: three batches of 16, and one of a single row."""
    shape = {"images": (1, 6, 6)}.get(kind, (3,))
    x, new = randn(61, *shape, seed=1), randn(20, *shape, seed=2)
    if kind == "sequences":
        x, new = (lv.data.Sequences(randn(n, 7, 3, seed=n), torch.arange(n) % 7 + 1) for n in (61, 20))
        y, y_new = (part.x.sum(1).argmax(1) for part in (x, new))
        return lv.data.Split(x, y, new, y_new, name="sums", classes=3)
    if kind == "targets":
        return lv.data.Split(x, x.sin().sum(1), new, new.sin().sum(1), name="sines", classes=0)
    y, y_new = (v.flatten(1)[:, :3].argmax(1) for v in (x, new))
    return lv.data.Split(x, y, new, y_new, name="largest", classes=3)


def dense(engine=lv.Stored(), model="h2", layers=6, **more):
    return lv.classifier(model, 3, 3, 4, layers, 1.5, backprop=engine, generator=generator(0), **more).double()


def images(engine=lv.Stored(), **more):
    conv = lv.zoo.Images(pool=1, **more)
    return lv.classifier("h2", (1, 6, 6), 3, 4, 2, 1.0, conv=conv, backprop=engine, generator=generator(0)).double()


def regression():
    return lv.regressor("ms2", 3, 1, 4, 6, 1.5, generator=generator(0)).double()


def sequences():
    rnn = lv.recurrent.HamiltonianRNN(3, 8, batch_first=True, length=7, bidirectional=True, generator=generator(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return lv.recurrent.SequenceNetwork(rnn, torch.nn.Linear(16, 3)).double()


def settings(**changes):
    return Settings(**{"epochs": EPOCHS, "batch_size": BATCH, "lr": 0.02, "validation": 0.2, **changes})


CASES = {
    **{f"dense, {name}": (dense, {"engine": e}, {"penalty": PENALTY}) for name, e in ENGINES.items()},
    **{
        f"images, {name}": (images, {"engine": e}, {"penalty": Penalty(smoothness=0.1, head_smoothness=0.1)})
        for name, e in ENGINES.items()
        if name != "batch-last"  # which has no convolutions
    },
    "learned lift": (dense, {"lift": "linear"}, {}),
    "forward Euler": (dense, {"model": "antisymmetric", "engine": lv.Fused()}, {"penalty": PENALTY}),
    "two-step": (dense, {"model": "midpoint", "engine": lv.Reversible()}, {}),
    "budget": (dense, {"budget": 2.0}, {}),
    "real targets": (regression, {}, {"batch_size": 15}),  # r2 of a single row is not finite
    "sgd": (dense, {}, {"optimizer": "sgd"}),
    "adamw, average, clipped": (
        dense,
        {},
        {"optimizer": "adamw", "weight_decay": 0.1, "ema_decay": 0.9, "max_grad_norm": 0.01, "schedule": "cosine"},
    ),
    "alternation": (dense, {}, {"alternate": 3, "penalty": PENALTY}),
    "alternation, nothing held out": (dense, {"engine": lv.Fused()}, {"alternate": 3, "validation": 0.0}),
    "shifted and warped": (images, {}, {"shift": 1, "warp": 1.0}),
    "a row per batch": (dense, {}, {"batch_size": 1, "epochs": 1}),
    "sequences of unequal lengths": (sequences, {}, {}),
    "patience": (dense, {}, {"lr": 1.0, "schedule": "constant", "patience": 1, "epochs": 8}),
    "levels": (dense, {"layers": 3}, {"target_score": 0.6, "penalty": PENALTY}),
}


def run(name, processes, nudge=0.0):
    """Train; ``nudge`` is the relative size of a random change of the initial weights."""
    make, how, changes = CASES[name]
    network = nudged(make(**how), nudge)
    sizes = {True: [], False: []}
    seen = network.head if make is sequences else network.lift
    seen.register_forward_pre_hook(lambda _, inputs: sizes[torch.is_grad_enabled()].append(len(inputs[0])))
    kind = {images: "images", regression: "targets", sequences: "sequences"}.get(make, "vectors")
    fit = lv.train.multilevel if name == "levels" else lv.train.fit
    more = {"levels": 2} if name == "levels" else {}
    history = fit(network, split(kind), settings(**changes), processes=processes, **more)
    return network, history, sizes


def nudged(network, nudge):
    """Every weight larger or smaller by this factor, at random."""
    with torch.no_grad():
        for i, w in enumerate(network.parameters()):
            w.mul_(1 + nudge * randn(*w.shape, seed=i).sign())
    return network


def weights(network):
    """All of them in one vector."""
    return torch.cat([w.detach().flatten() for w in network.parameters()])


def record(network, history, sizes):
    """Weights, every number of the history that is no time, and the rows of each pass, with gradients and without."""
    records = [*history.records(), history.metrics]
    numbers = [v for record in records for k, v in record.items() if k != "seconds" and v is not None]
    told = (history.best_epoch, history.stopped, len(history.epochs))
    return {
        "weights": weights(network),
        "numbers": torch.tensor(numbers, dtype=torch.float64),
        "told": told,
        "sizes": sizes,
    }
