r"""One step down an objective: a Gauss-Newton direction, made safe by a line search or by a trust region."""

from __future__ import annotations

__all__ = ["LineSearch", "Step", "TrustRegion"]

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.train.newton import Direction, armijo, steihaug
from liouville.train.objective import Expansion, Objective

Product = Callable[[Tensor], Tensor]


class Step(NamedTuple):
    """The new w and its value, and what it took; ``length`` is the factor of the direction, 0 where none was taken."""

    w: Tensor
    value: float
    length: float
    products: int
    tries: int


class LineSearch:
    r"""p by conjugate gradients, then the first of t, t/2, t/4 ... with F(w + t p) < F(w) + decrease t g^T p (Armijo).

    From there t is halved on as long as that lowers F: a sweep more, where a direction costs dozens. No entry of p
    exceeds ``max_step``; the first t is 1, and later twice the last one, 1 at most.

    Args:
        products, tolerance: of the conjugate gradients.
        decrease, tries, max_step: of the search.
    """

    def __init__(self, products: int, tolerance: float, decrease: float, tries: int, max_step: float) -> None:
        self.products, self.tolerance, self.decrease, self.tries = products, tolerance, decrease, tries
        self.max_step, self.first = max_step, 1.0

    def state(self) -> dict[str, float]:
        """What the next step depends on."""
        return {"first": self.first}

    def restore(self, state: dict[str, float]) -> None:
        """Take back what `state` gave."""
        self.first = state["first"]

    def step(self, objective: Objective, w: Tensor, at: Expansion, precondition: Product) -> Step:
        """The step from w, or one of length 0."""
        p, products, _ = steihaug(
            at.product, at.gradient, precondition, tolerance=self.tolerance, iterations=self.products
        )
        p = p * min(1.0, self.max_step / max(float(p.abs().max()), 1e-300))

        def value(t: float) -> float:
            return value_or_infinity(objective, w + t * p)

        found = armijo(
            value,
            at.value,
            float(at.gradient @ p),
            decrease=self.decrease,
            tries=self.tries,
            step=self.first,
        )
        if found is None:
            self.first = 1.0
            return Step(w, at.value, 0.0, products, self.tries)
        length, best, tries = found
        while tries < self.tries:
            shorter, tries = value(length / 2), tries + 1
            if not shorter < best:
                break
            length, best = length / 2, shorter
        self.first = min(2 * length, 1.0)
        return Step(w + length * p, best, length, products, tries)


class TrustRegion:
    r"""p by conjugate gradients within ||p||_M <= radius, taken if F falls by enough of what the model says.

    A step that achieves less than a tenth of the model's decrease shrinks the radius to half its length, one that
    achieves half of it at the boundary makes the radius three times larger: bolder than usual, since the model leaves
    out the curvature of the flow. The first step has no bound. Both decreases are taken to be larger by what rounding
    can hide, so that steps near a saddle, which change little, are not refused for noise.

    Args:
        products, tolerance: of the conjugate gradients.
        decrease: share of the predicted decrease that a step must achieve.
        tries: how often the radius may shrink in one step.

    Reference: Nocedal & Wright 2006, algorithm 4.1; Steihaug 1983; Conn, Gould & Toint 2000, sec. 17.4.
    """

    def __init__(self, products: int, tolerance: float, decrease: float, tries: int) -> None:
        self.products, self.tolerance, self.decrease, self.tries = products, tolerance, decrease, tries
        self.radius = math.inf

    def state(self) -> dict[str, float]:
        """What the next step depends on."""
        return {"radius": self.radius}

    def restore(self, state: dict[str, float]) -> None:
        """Take back what `state` gave."""
        self.radius = state["radius"]

    def step(self, objective: Objective, w: Tensor, at: Expansion, precondition: Product) -> Step:
        """The step from w, or one of length 0."""
        products = 0
        for k in range(1, self.tries + 1):
            direction = self._direction(at, precondition)
            products += direction.products + 1
            predicted = -float(at.gradient @ direction.p + 0.5 * direction.p @ at.product(direction.p))
            value = value_or_infinity(objective, w + direction.p)
            noise = 10 * torch.finfo(w.dtype).eps * abs(at.value)
            ratio = (at.value - value + noise) / (predicted + noise) if predicted > 0 else -math.inf
            if not ratio >= 0.1:
                self.radius = direction.norm / 2
            elif ratio > 0.5 and direction.norm >= self.radius:
                self.radius *= 3
            if ratio > self.decrease:
                return Step(w + direction.p, value, 1.0, products, k)
        return Step(w, at.value, 0.0, products, self.tries)

    def _direction(self, at: Expansion, precondition: Product) -> Direction:
        return steihaug(
            at.product,
            at.gradient,
            precondition,
            tolerance=self.tolerance,
            iterations=self.products,
            radius=self.radius,
        )


def value_or_infinity(objective: Objective, w: Tensor) -> float:
    """F(w), or infinity where a layer has no solution there or the value is no number."""
    try:
        value = objective.value(w)
    except ArithmeticError:
        return math.inf
    return value if math.isfinite(value) else math.inf
