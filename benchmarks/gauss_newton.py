"""How well does Gauss-Newton with variable projection train the first paper's planar problems, and at which depth?

Swiss roll: T = 20, 513 training points, the 513 points between them for validation (which chooses the iteration, as in
the paper), and 513 fresh ones as the test. Peaks: 5 classes, width 8, T = 5. Every case is one record, written when it
is done; a case that has one is not run again, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import platform
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import liouville as lv
from liouville.train import DivergenceError, GaussNewton, History, Penalty, gauss_newton
from tables import markdown, plain, write

ZERO = lv.Smooth(scale=0.0, mean=0.0)
ONE = lv.Smooth(scale=0.0, mean=1.0)


@dataclass(frozen=True)
class Case:
    """One training run, or a cascade of them: ``layers`` first, then doubled until ``last``.

    ``gamma`` may be the letter h: h/2, with which forward Euler is stable for eigenvalues i mu with |mu| <= 0.9. The
    seed draws the head's first weights, which elimination forgets but for rounding, and random starts.
    """

    part: str
    model: str = "verlet"
    layers: int = 16
    last: int = 0
    data: str = "swiss-roll"
    features: int = 4
    T: float = 20.0
    smoothness: float = 5e-3
    head: float = 1e-3
    scheme: str = "its own"
    gamma: float | str = 0.0
    start: str = "Meganet.m"
    safeguard: str = "armijo"
    iterations: int = 60
    refine: str = "linear"
    seed: int = 0


VERLET = functools.partial(Case, model="verlet", smoothness=5e-3, head=1e-4, safeguard="trust-region")
ANTI = functools.partial(Case, model="antisymmetric", smoothness=5e-5, gamma=1e-4)
RESNET = functools.partial(Case, model="resnet", smoothness=5e-3)
PEAKS = functools.partial(Case, "peaks", data="peaks", features=8, T=5.0, smoothness=5e-6, head=1e-6, start="random")


def cases() -> Iterator[Case]:
    """Everything that the page shows."""
    for seed in range(5):
        for layers in (16, 64):
            yield VERLET("swiss", layers=layers, seed=seed)
            yield ANTI("swiss", layers=layers, seed=seed)
    for layers in (16, 64):
        yield ANTI("swiss", layers=layers, smoothness=5e-4)
    for seed in range(3):
        for layers in (16, 64):
            for start in ("Meganet.m", "random"):
                yield RESNET("resnet", layers=layers, start=start, seed=seed)
    for seed in range(3):
        for layers in (16, 64):
            for gamma in (0.0, 1e-4, "h"):
                yield ANTI("cures", layers=layers, gamma=gamma, seed=seed)
            for scheme in ("midpoint", "rk4"):
                yield ANTI("cures", layers=layers, gamma=0.0, scheme=scheme, seed=seed)
    for seed in range(3):
        for model in ("verlet", "antisymmetric", "resnet"):
            yield PEAKS(model=model, seed=seed)
    for seed in range(3):
        for refine in ("linear", "constant"):
            yield VERLET("cascade", last=1024, refine=refine, seed=seed)
            yield ANTI("cascade", last=1024, refine=refine, seed=seed)
    yield RESNET("cascade", last=1024)
    yield RESNET("cascade", last=1024, start="random")


def flow(case: Case) -> Callable[..., lv.Flow]:
    """The model with the start of Meganet.m's drivers: K = I, W = 0, K = -I/100; or smooth random weights."""
    generator = torch.Generator().manual_seed(case.seed)
    init = lv.Smooth() if case.start == "random" else {"verlet": ONE}.get(case.model, ZERO)
    options: dict = {"init": init, "generator": generator, "backprop": lv.Auto()}
    if case.model == "antisymmetric":
        h = case.T / case.layers
        options |= {"gamma": h / 2 if case.gamma == "h" else case.gamma, "factor": 1.0}
    if case.model == "resnet":
        options |= {"scalar_bias": True}

    def build(features: int, layers: int, T: float, **rest: object) -> lv.Flow:
        made = lv.zoo.MODELS[case.model](features, layers, T, **{**rest, **options})
        if case.model == "resnet" and case.start == "Meganet.m":
            with torch.no_grad():
                made.field.K.copy_((-torch.eye(features) / 100).expand_as(made.field.K))
        scheme = {"midpoint": lv.Midpoint(), "rk4": lv.RK4()}.get(case.scheme, made.scheme)
        return lv.Flow(made.field, scheme, T, made.backprop)

    return build


def network(case: Case, classes: int) -> lv.Network:
    """In float64; the data lies in front, and for Verlet in q, which alone is classified."""
    verlet = case.model == "verlet"
    body = flow(case)(case.features, case.layers, case.T)
    width = case.features // 2 if verlet else case.features
    outputs = 1 if classes == 2 else classes
    torch.manual_seed(case.seed)
    if case.data == "peaks":
        lift: torch.nn.Module = torch.nn.Sequential(torch.nn.Linear(2, case.features), torch.nn.Tanh())
        head: torch.nn.Module = torch.nn.Linear(case.features, outputs)
        return lv.Network(lift, body, head).double()
    lift = lv.Lift(case.features, 2, place="q" if verlet else "front")
    linear = torch.nn.Linear(width, outputs)
    head = torch.nn.Sequential(lv.network.Half("q"), linear) if verlet else linear
    return lv.Network(lift, body, head).double()


def load(case: Case) -> tuple[lv.data.Split, tuple[torch.Tensor, torch.Tensor]]:
    """Training points with fresh test points, and validation points."""
    if case.data == "peaks":
        split = lv.data.load("peaks", dtype=torch.float64)
        other = lv.data.load("peaks", seed=1, dtype=torch.float64)
        return split, (other.x_test, other.y_test)
    made = functools.partial(lv.data.load, "swiss-roll", version="meganet", noise=0.0, dtype=torch.float64)
    between = made(test="interleaved")
    return made(test="fresh"), (between.x_test, between.y_test)


def run(case: Case, say: Callable[[str], None]) -> Iterator[dict]:
    """A record for every level."""
    split, validation = load(case)
    net = network(case, split.classes)
    while True:
        N = net.body.layers
        before = lv.train.evaluate(net, *validation, lv.train.task_of(net, split))["accuracy"]
        penalty = Penalty(smoothness=case.smoothness, head=case.head)
        settings = GaussNewton(
            iterations=case.iterations,
            target=1.0,
            safeguard=case.safeguard,
            penalty=penalty,
        )
        seen: list[History] = []
        error = ""

        def on_epoch(history: History, N: int = N, seen: list[History] = seen) -> None:
            seen[:] = [history]
            e = history.epochs[-1]
            say(f"  {N} layers, iteration {e.epoch}: loss {e.loss:.4f}, validation {e.validation_score:.4f}")

        try:
            history = gauss_newton(net, split, settings, validation=validation, on_epoch=on_epoch)
        except DivergenceError as problem:
            error, history = str(problem), seen[0] if seen else History("accuracy")
        yield record(case, N, before, history, error)
        if case.last <= N or error:
            return
        net = lv.Network(net.lift, net.body.refined(case.refine), net.head)


def record(case: Case, N: int, before: float, history: History, error: str) -> dict:
    """What the tables need, and the history."""
    perfect = 0 if before == 1.0 else next((e.epoch for e in history.epochs if e.validation_score == 1.0), None)
    return {
        "case": dataclasses.asdict(case),
        "layers": N,
        "validation_before": before,
        "validation_accuracy": history.metrics.get("validation_accuracy"),
        "test_accuracy": history.metrics.get("test_accuracy"),
        "train_accuracy": history.metrics.get("train_accuracy"),
        "best_iteration": history.best_epoch,
        "first_perfect": perfect,
        "iterations": len(history.epochs),
        "gradient": [e.gradient_norm for e in history.epochs],
        "objective": [e.loss + e.penalty for e in history.epochs],
        "validation": [e.validation_score for e in history.epochs],
        "work": history.metrics.get("work"),
        "seconds": history.metrics.get("seconds"),
        "stopped": error or history.stopped,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def rows(records: list[dict], part: str) -> tuple[list[str], list[list[str]]]:
    """The table of a part: medians over the seeds, and the range where there is one."""
    groups: dict[tuple[str, int], list[dict]] = {}
    for r in records:
        if r["case"]["part"] == part:
            groups.setdefault((label(r["case"]), r["layers"]), []).append(r)
    head = ["network", "layers", "iterations to 100 %", "best validation", "test", "first gradient", "work"]
    if part == "cascade":
        head.insert(2, "on arrival")
    body = []
    for (name, layers), runs in groups.items():
        perfect = sorted(math.inf if r["first_perfect"] is None else r["first_perfect"] for r in runs)
        row = [
            name,
            str(layers),
            ", ".join("-" if k == math.inf else str(k) for k in perfect),
            spread([r["validation_accuracy"] for r in runs]),
            spread([r["test_accuracy"] for r in runs]),
            f"{statistics.median(r['gradient'][0] if r['gradient'] else math.nan for r in runs):.1e}",
            f"{statistics.median(r['work'] or math.nan for r in runs):.1e}",
        ]
        if part == "cascade":
            row.insert(2, spread([r["validation_before"] for r in runs]))
        body.append(row)
    return head, body


def spread(scores: list[float | None]) -> str:
    """Median in per cent, and the range; a run without a score diverged, and counts as 0."""
    known = [100 * (score or 0.0) for score in scores]
    middle = f"{statistics.median(known):.2f} %"
    return middle if min(known) == max(known) else f"{middle} ({min(known):.2f} to {max(known):.2f})"


def label(case: dict) -> str:
    """A short name: what differs from the part's other rows."""
    name = {"verlet": "Verlet", "antisymmetric": "antisymmetric", "resnet": "ResNet"}[case["model"]]
    if case["part"] == "cures":
        scheme = {"midpoint": "two-step midpoint", "rk4": "RK4"}.get(case["scheme"], "forward Euler")
        gamma = "h/2" if case["gamma"] == "h" else f"{case['gamma']:g}"
        return f"{scheme}, gamma = {gamma}"
    if case["model"] == "resnet" and case["part"] != "peaks":
        return "ResNet from K = -I/100" if case["start"] == "Meganet.m" else "ResNet from smooth random weights"
    interpolation = f", {case['refine']}" if case["part"] == "cascade" else ""
    return f"{name}, alpha = {case['smoothness']:g}{interpolation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="*", default=["swiss", "resnet", "cures", "peaks", "cascade"])
    parser.add_argument("--records", type=Path, default=Path("gauss_newton.jsonl"), help="read, and added to")
    parser.add_argument("--page", type=Path, help="write the tables between the marks of this page")
    parser.add_argument("--verbose", action="store_true", help="a line per iteration")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    done = (
        [json.loads(line) for line in arguments.records.read_text().splitlines()] if arguments.records.exists() else []
    )
    for case in cases():
        if case.part not in arguments.parts or any(r["case"] == dataclasses.asdict(case) for r in done):
            continue
        print(f"{case}", flush=True)
        made = list(run(case, lambda line: print(line, flush=True) if arguments.verbose else None))
        done += made
        with arguments.records.open("a") as file:
            file.writelines(json.dumps(r) + "\n" for r in made)
    for part in arguments.parts:
        head, body = rows(done, part)
        if body:
            print(f"\n{part}\n{plain(head, body)}")
        if body and arguments.page:
            write(arguments.page, f"gauss-newton {part}", markdown(head, body))


if __name__ == "__main__":
    main()
