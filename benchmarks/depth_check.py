"""How often does `analysis.depth_check` err: on networks that follow an equation, and on stacks of random layers?

Every model of the zoo, four features, 100 samples N(0, 1). "smooth": default weights, 64 layers, T = 1, one function of
time; "chaotic": i.i.d. N(0, 9) weights, 8 layers, T = 8; "random": i.i.d. N(0, 1) weights, 16 layers, T = 16. A smooth
network called a stack is an error, and so is a stack called an ODE, resolved or not; "undecided" is counted apart. With
--page the table goes into that page.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import torch

import liouville as lv
from liouville.analysis import depth_check
from tables import markdown, plain, write

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "smooth": ("ODE", {"layers": 64, "T": 1.0}),
    "chaotic": ("stack", {"layers": 8, "T": 8.0, "init": lv.Normal(3.0)}),
    "random": ("stack", {"layers": 16, "T": 16.0, "init": lv.Normal(1.0)}),
}
KINDS = ("ODE", "stack", "undecided")
HEAD = ["family", "it is", "model", *(f'called "{kind}"' for kind in KINDS), "errors"]


def counted(model: str, family: str, seeds: int) -> Counter[str]:
    """The verdicts on ``seeds`` networks."""
    found: Counter[str] = Counter()
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        flow = lv.zoo.MODELS[model](4, generator=generator, **FAMILIES[family][1])
        found[depth_check(flow, torch.randn(100, 4, generator=generator)).kind] += 1
    return found


def row(family: str, model: str, found: Counter[str]) -> list[str]:
    """A line of the table."""
    truth = FAMILIES[family][0]
    wrong = sum(found.values()) - found[truth] - found["undecided"]
    share = f"{100 * wrong / sum(found.values()):.1f} %"
    return [family, truth, model, *(str(found[kind]) for kind in KINDS), share]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="networks of each model and family")
    parser.add_argument("--page", type=Path, help="put the table between the marks of this page")
    arguments = parser.parse_args()
    rows = []
    for family in FAMILIES:
        every: Counter[str] = Counter()
        for model in lv.zoo.MODELS:
            found = counted(model, family, arguments.seeds)
            every += found
            rows.append(row(family, model, found))
            print(*rows[-1], sep="  ", flush=True)
        rows.append(row(family, "all", every))
    print(plain(HEAD, rows))
    if arguments.page:
        write(arguments.page, "depth-check", markdown(HEAD, rows))


if __name__ == "__main__":
    main()
