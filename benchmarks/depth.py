"""Do 1024 layers train without any normalisation, from the first epoch on? Two stable networks beside a plain MLP.

The Swiss roll with noise 0.01, batches of 125, one optimiser for all; the MLP gets three learning rates. Prints the
mean training loss of every epoch and the test accuracy (read once), and draws the losses with --figure.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
from pathlib import Path

import torch
from torch import nn

import liouville as lv
from liouville.train import DivergenceError, Penalty, Settings, fit


def mlp(layers: int, generator: torch.Generator) -> nn.Sequential:
    """4 features throughout, tanh, Glorot-uniform weights: what one would write without thinking of depth."""
    torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
    widths = [2, *(4,) * layers]
    body: list[nn.Module] = []
    for i, o in itertools.pairwise(widths):
        linear = nn.Linear(i, o)
        nn.init.xavier_uniform_(linear.weight, gain=5 / 3)
        body += [linear, nn.Tanh()]
    return nn.Sequential(*body, nn.Linear(4, 1))


def candidates(layers: int) -> dict[str, tuple]:
    """Name -> (builder of a network from a generator, learning rate)."""

    def flow(model: str, T: float):
        return lambda g: lv.classifier(model, inputs=2, classes=2, features=4, layers=layers, T=T, generator=g)

    made = {
        "h2 (symplectic Euler, T = 4)": (flow("h2", 4.0), 0.07),
        "antisymmetric (ms2, forward Euler, T = 10)": (flow("ms2", 10.0), 0.07),
    }
    for lr in (0.07, 0.005, 0.0005):
        made[f"tanh MLP, lr {lr:g}"] = (lambda g: mlp(layers, g), lr)
    return made


def train(name: str, build, lr: float, epochs: int, seed: int) -> dict:
    """One run: loss of every epoch, gradient norm of the first, test accuracy."""
    network = build(torch.Generator().manual_seed(seed))
    settings = Settings(epochs=epochs, batch=125, lr=lr, penalty=Penalty(smoothness=1e-5, decay=1e-3), seed=seed)
    record = {"network": name, "seed": seed, "start": math.log(2)}
    try:
        history = fit(network, lv.data.load("swiss-roll", seed=seed), settings)
    except DivergenceError as error:
        return record | {"loss": [], "gradient": math.nan, "test_accuracy": math.nan, "diverged": str(error)}
    return record | {
        "loss": [epoch.loss for epoch in history.epochs],
        "gradient": history.epochs[0].gradient_norm,
        "test_accuracy": history.metrics["test_accuracy"],
        "seconds": history.metrics["seconds"],
    }


def draw(records: list[dict], layers: int, path: Path) -> None:
    """Loss by epoch, one line per run."""
    from matplotlib.figure import Figure

    start = records[0]["start"]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys(r["network"] for r in records))
    colours = dict(zip(names, ("#0072B2", "#009E73", "#D55E00", "#E69F00", "#CC79A7"), strict=False))
    for r in records:
        label = r["network"] if r["seed"] == records[0]["seed"] else None
        axes.semilogy(range(len(r["loss"]) + 1), [start, *r["loss"]], color=colours[r["network"]], label=label)
    axes.set(xlabel="epoch", ylabel="training loss", title=f"{layers} layers on the Swiss roll, no normalisation")
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the records here")
    parser.add_argument("--figure", type=Path, help="draw the losses here")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)  # a layer of 125 x 4 numbers gains nothing from a second one
    print(
        f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads; {arguments.layers} layers"
    )
    records = []
    for name, (build, lr) in candidates(arguments.layers).items():
        for seed in range(arguments.seeds):
            r = train(name, build, lr, arguments.epochs, seed)
            records.append(r)
            losses = " ".join(f"{x:.3f}" for x in r["loss"]) or "diverged"
            test, gradient = 100 * r["test_accuracy"], r["gradient"]
            print(f"{name:43} seed {seed}  test {test:6.2f} %  |grad| {gradient:.1e}  loss {losses}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1))
    if arguments.figure:
        draw(records, arguments.layers, arguments.figure)


if __name__ == "__main__":
    main()
