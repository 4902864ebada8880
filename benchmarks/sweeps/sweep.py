"""What the sweeps share: seeded random cases, each answered rightly, refused in a sentence, or a finding.

A sweep is a function from a random generator to an `Outcome`; it decides with an oracle of its own, never with the
code under test. Case k of a sweep is drawn from (seed, k) only, so ``--only K`` repeats one alone.
"""

from __future__ import annotations

__all__ = ["Outcome", "run"]

import argparse
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Literal, NamedTuple

FINDINGS = ("wrong", "defect", "traceback")


class Outcome(NamedTuple):
    """How one case ended.

    verdict: "right": the answer is the oracle's; "refused": one clear sentence (exit code 2 at the command line);
        "wrong": an answer that the oracle contradicts, or a refusal of what is sound; "defect": exit code 70 or an
        error that is no refusal.
    case: the case in words, enough to make it again by hand.
    """

    verdict: Literal["right", "refused", "wrong", "defect"]
    case: str


def run(name: str, case: Callable[[random.Random], Outcome], count: int, argv: list[str] | None = None) -> int:
    """Run ``count`` cases unless told otherwise, print the findings and the totals; exit code 1 for a finding."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--count", type=int, default=count, help=f"How many cases to draw (default {count}).")
    parser.add_argument("--seed", type=int, default=0, help="Seed of all cases.")
    parser.add_argument("--only", type=int, help="Repeat this case alone, with its traceback.")
    options = parser.parse_args(argv)
    started, totals = time.perf_counter(), Counter[str]()
    for k in range(options.count) if options.only is None else (options.only,):
        try:
            verdict, words = case(random.Random(f"{options.seed}/{k}"))
        except Exception as error:
            if options.only is not None:
                traceback.print_exc()
            verdict, words = "traceback", f"{type(error).__name__}: {error}"  # type: ignore[assignment]
        totals[verdict] += 1
        if verdict in FINDINGS or options.only is not None:
            print(f"case {k}: {verdict}: {words}", flush=True)
    counts = ", ".join(f"{totals[v]} {v}" for v in ("right", "refused", *FINDINGS))
    print(f"{totals.total()} {name}: {counts}; seed {options.seed}, {time.perf_counter() - started:.0f} s")
    return int(any(totals[v] for v in FINDINGS))
