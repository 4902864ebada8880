r"""Test for an ordinary differential equation or a stack of layers: the same weights with 2N, 4N and 8N layers.

Refined with constant weights the layers take half the step through the same piecewise constant vector field, and the
outputs converge to the output of its equation. Every stack of layers has such an equation; the question is whether N
layers are near it. With d_1, d_2, d_3 the changes at the three doublings and p the order of the last two, the output of
N layers is about d_1 + d_2 + d_3 + d_3 / (2^p - 1) away from the limit. Where that is a small part of the output, the
network follows the equation, and predictions hardly depend on the number of layers. Where one doubling changes a large
part, the learned function belongs to the layers. Between the two there is no verdict.
"""

from __future__ import annotations

__all__ = ["DepthCheck", "depth_check"]

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from liouville.analysis.precise import precisely
from liouville.analysis.states import require_samples
from liouville.backprop import Stored
from liouville.flow import Flow, flows_of
from liouville.precision import require_floating

Kind = Literal["ODE", "stack", "undecided"]

_NEAR = 0.2  # relative to the output: estimated distances up to it are the error of an equation
_FAR = 0.3  # a larger change makes another function
_SLOWEST = 0.5  # a lower order is no convergence


@dataclass(frozen=True)
class DepthCheck:
    """The effect of refinement; print it for the verdict.

    ``change``, ``next_change`` and ``last_change`` are the largest differences N to 2N, 2N to 4N and 4N to 8N over all
    samples and outputs, relative to the largest output; ``order`` is log2 of the ratio of the last two, NaN where they
    are rounding; ``expected_order`` the lowest ``order_in_depth`` of the schemes. ``distance`` is the distance of N
    layers from the limit by these figures, infinite where they do not converge. ``flips`` is the fraction of
    predictions that change from N to 2N layers, None for a flow. ``kind`` is "ODE", "stack" or "undecided".
    """

    layers: int
    change: float
    next_change: float
    last_change: float
    order: float
    expected_order: int
    distance: float
    flips: float | None
    kind: Kind
    verdict: str

    def __str__(self) -> str:
        return self.verdict


@precisely
@torch.no_grad()
def depth_check(network: nn.Module, x: Tensor, *, tolerance: float = 0.01) -> DepthCheck:
    """Compare the network with itself at 2, 4 and 8 times the layers, the weights held constant over each; in float64.

    It is "an ODE" where the outputs converge, with an order of at least 1/2, and N layers are within 20 % of the output
    from the limit; the equation is resolved if also the fraction of flipped predictions (the relative change, for a
    flow) is at most ``tolerance``. It is "a stack of layers" where one of the doublings changes the output by more than
    30 % of its size, or makes it not finite, whatever the ratio of the changes. Otherwise it is undecided.
    `benchmarks/depth_check.py` measures the error rate of this test.

    Args:
        network: a `Flow`, or any module with flows in it whose output is scores (samples, classes), or one score per
            sample with the threshold 0.
        x: inputs.
        tolerance: the fraction of predictions that may flip.

    Raises:
        ValueError: if the network has no flow, or its output is not finite.

    Examples:
        >>> import liouville as lv
        >>> print(depth_check(lv.zoo.h2(4, layers=64, T=1.0).double(), torch.randn(100, 4).double()).verdict[:7])
        an ODE:
    """
    flows = flows_of(network)
    if not flows:
        raise ValueError(f"expected a Flow or a module that contains one, got {type(network).__name__}.")
    require_samples(x)
    if x.is_floating_point():
        require_floating(x.dtype, "inputs")
    outputs = _outputs(network, x)
    if not bool(outputs[0].isfinite().all()):
        raise ValueError("the output holds a number that is not finite, so nothing can be compared with it.")
    scale = float(outputs[0].abs().max()) or 1.0
    changes = [float((b - a).abs().max()) / scale for a, b in itertools.pairwise(outputs)]
    first, second, third = changes
    N = sum(f.layers for f in flows)
    order, distance = _limit(changes, 100 * N * torch.finfo(outputs[0].dtype).eps)
    expected = min(f.scheme.order_in_depth for f in flows)
    flips = None
    if not isinstance(network, Flow):
        flips = float((_prediction(outputs[0]) != _prediction(outputs[1])).double().mean())
    kind: Kind = "ODE" if distance <= _NEAR else "undecided" if max(changes) <= _FAR else "stack"
    verdict = _verdict(kind, N, changes, distance, order, expected, flips, tolerance)
    return DepthCheck(N, first, second, third, order, expected, distance, flips, kind, verdict)


def _outputs(network: nn.Module, x: Tensor) -> list[Tensor]:
    """The outputs of N, 2N, 4N and 8N layers, in float64 unless a part of the network needs its own dtype."""
    wide = copy.deepcopy(network).double() if x.is_floating_point() else network
    try:
        return [_refined(wide, times)(x.double() if x.is_floating_point() else x) for times in range(4)]
    except RuntimeError:
        return [_refined(network, times)(x) for times in range(4)]


def _refined(network: nn.Module, times: int) -> nn.Module:
    network = copy.deepcopy(network).eval()
    for flow in flows_of(network):
        flow.backprop = Stored()
        for _ in range(times):
            flow.field = flow.field.refined("constant")
    return network


def _limit(changes: Sequence[float], rounding: float) -> tuple[float, float]:
    """The order in depth, NaN where it cannot be measured, and the distance of N layers from the limit."""
    _, second, third = changes
    if not math.isfinite(sum(changes)):
        return math.nan, math.inf
    if third <= rounding:
        return math.nan, sum(changes)
    order = math.log2(second / third) if second > 0 else -math.inf
    return order, sum(changes) + third / (2**order - 1) if order >= _SLOWEST else math.inf


def _prediction(scores: Tensor) -> Tensor:
    return scores.argmax(-1) if scores.dim() > 1 and scores.shape[-1] > 1 else scores >= 0


def _verdict(
    kind: Kind,
    N: int,
    changes: Sequence[float],
    distance: float,
    order: float,
    expected: int,
    flips: float | None,
    tolerance: float,
) -> str:
    first, second, third = (f"{change:.2g}" for change in changes)
    measured = f"{N} to {2 * N} layers change the output by {first} of its size"
    if flips is not None:
        measured += f" and flip {100 * flips:.2g} % of the predictions"
    at = "" if math.isnan(order) else f"; order in depth {order:.2f} (the scheme's: {expected})"
    if kind == "stack":
        return (
            f"a stack of layers: {measured}, the next doublings by {second} and {third}{at}; its function belongs to "
            "the layers, not to a differential equation."
        )
    if kind == "undecided":
        far = "do not converge" if math.isinf(distance) else f"are {distance:.2g} of it from their limit"
        return f"undecided: {measured}, the next doublings by {second} and {third}{at}; the outputs {far}."
    measured += f", against a tolerance of {tolerance:.2g} of the " + ("size" if flips is None else "predictions")
    if (changes[0] if flips is None else flips) <= tolerance:
        return f"an ODE: {measured}{at}."
    return f"an ODE that {N} layers do not resolve: {measured}{at}; train it with more layers, or smoother ones."
