"""Gauss-Newton on the Swiss roll where the experiment leaves off: other weights of smoothness, and the two cures.

The antisymmetric network of `liouville reproduce swiss-roll`, at 16 and at 64 layers: alpha = 5e-4, which the first
paper's code has, beside smaller ones; and forward Euler with a damping beside better schemes without. Every case is one
record, written when it is done; a case that has one is not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import liouville as lv
from liouville.experiments.p1.firstpaper import build, trained
from liouville.experiments.p1.swiss_roll import SETTINGS, T, load
from tables import markdown, plain, write

SCHEMES = {"forward Euler": lv.ForwardEuler(), "two-step midpoint": lv.LeapfrogMidpoint(), "RK4": lv.RK4()}


@dataclass(frozen=True)
class Case:
    """One training run; ``gamma`` may be the letter h: h/2, with which forward Euler is stable for eigenvalues i mu
    with |mu| <= 0.9. The seed draws the head's first weights, which elimination forgets but for rounding."""

    part: str
    layers: int
    alpha: float = 5e-5
    scheme: str = "forward Euler"
    gamma: float | str = 1e-4
    seed: int = 0

    @property
    def label(self) -> str:
        """What differs from the part's other rows."""
        if self.part == "alphas":
            return f"alpha = {self.alpha:g}"
        return f"{self.scheme}, gamma = {'h/2' if self.gamma == 'h' else f'{self.gamma:g}'}"


def cases() -> Iterator[Case]:
    """Everything that the page shows."""
    for layers in (16, 64):
        for seed in range(3):
            for alpha in (5e-6, 5e-5, 5e-4):
                yield Case("alphas", layers, alpha=alpha, seed=seed)
            for gamma in (0.0, 1e-4, "h"):
                yield Case("cures", layers, gamma=gamma, seed=seed)
            for scheme in ("two-step midpoint", "RK4"):
                yield Case("cures", layers, scheme=scheme, gamma=0.0, seed=seed)


def run(case: Case) -> dict:
    split, validation = load(0)
    gamma = T / case.layers / 2 if isinstance(case.gamma, str) else case.gamma
    net = build("antisymmetric", "code", 4, case.layers, T, split.classes, case.seed, gamma=gamma)
    net.body.scheme = SCHEMES[case.scheme]
    usual = SETTINGS["antisymmetric"]
    settings = replace(usual, iterations=60, target_score=1.0, penalty=replace(usual.penalty, smoothness=case.alpha))
    return {"case": dataclasses.asdict(case), **trained(net, split, validation, settings), "torch": torch.__version__}


def rows(records: list[dict], part: str) -> tuple[list[str], list[list[str]]]:
    """The table of a part: medians over the seeds, and the range where there is one."""
    head = ["network", "layers", "iterations to 100 %", "best validation", "test", "first gradient", "work"]
    groups: dict[tuple[str, int], list[dict]] = {}
    for r in records:
        case = Case(**r["case"])
        if case.part == part:
            groups.setdefault((case.label, case.layers), []).append(r)
    body = []
    for (label, layers), runs in sorted(groups.items(), key=lambda group: group[0][1]):
        levels = [r["levels"][0] for r in runs]
        counts = sorted((level["best"] < 1, level["iterations"]) for level in levels)
        body.append(
            [
                label,
                str(layers),
                ", ".join("-" if missed else str(k) for missed, k in counts),
                spread([level["best"] for level in levels]),
                spread([r["accuracy"] for r in runs]),
                f"{statistics.median(level['gradient'] for level in levels):.1e}",
                f"{statistics.median(r['work'] for r in runs):.1e}",
            ]
        )
    return head, body


def spread(scores: list[float]) -> str:
    """Median in per cent, and the range."""
    low, middle, high = (100 * choose(scores) for choose in (min, statistics.median, max))
    return f"{middle:.2f} %" if low == high else f"{middle:.2f} % ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="*", default=["alphas", "cures"])
    parser.add_argument("--records", type=Path, default=Path("gauss_newton.jsonl"), help="read, and added to")
    parser.add_argument("--page", type=Path, help="write the tables between the marks of this page")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    lines = arguments.records.read_text().splitlines() if arguments.records.exists() else []
    done = [json.loads(line) for line in lines]
    for case in cases():
        if case.part not in arguments.parts or any(r["case"] == dataclasses.asdict(case) for r in done):
            continue
        print(case, flush=True)
        done.append(run(case))
        with arguments.records.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
    for part in arguments.parts:
        table = rows(done, part)
        print(f"\n{part}\n{plain(*table)}")
        if arguments.page:
            write(arguments.page, f"gauss-newton {part}", markdown(*table))


if __name__ == "__main__":
    main()
