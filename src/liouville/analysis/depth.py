r"""Is it an ordinary differential equation, or a stack of layers? The same weights with 2N and 4N layers tell.

Refined with constant weights the layers take half the step through the same piecewise constant vector field. If the
network follows that equation, the change from N to 2N layers is 2^p times the one from 2N to 4N, p the order of its
scheme, and no prediction cares; if N layers are far from it, the function learned is the layers' own.
"""

from __future__ import annotations

__all__ = ["DepthCheck", "depth_check"]

import copy
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from liouville.analysis.precise import precisely
from liouville.analysis.states import require_samples
from liouville.flow import Flow


@dataclass(frozen=True)
class DepthCheck:
    """What refinement changes; print it for the verdict.

    ``change`` and ``next_change`` are the largest differences N to 2N and 2N to 4N over all samples and outputs,
    relative to the largest output; ``order`` is log2 of their ratio, NaN where they are rounding; ``expected_order``
    the lowest of the schemes'. ``flips`` is the share of predictions that change from N to 2N layers, None for a flow.
    """

    layers: int
    change: float
    next_change: float
    order: float
    expected_order: int
    flips: float | None
    verdict: str

    def __str__(self) -> str:
        return self.verdict


@precisely
@torch.no_grad()
def depth_check(network: nn.Module, x: Tensor, *, tolerance: float = 0.01) -> DepthCheck:
    """Compare the network with itself at twice and four times the layers, the weights held constant over each.

    A verdict needs an order within 0.5 of the scheme's, or a change that is only rounding. It is "an ODE" if besides
    the share of flipped predictions (the relative change, for a flow) is at most ``tolerance``.

    Args:
        network: a `Flow`, or any module with flows in it whose output is scores (samples, classes), or one score per
            sample with the threshold 0.
        x: inputs.
        tolerance: how many predictions may flip.

    Raises:
        ValueError: if the network has no flow.

    Examples:
        >>> import liouville as lv
        >>> print(depth_check(lv.zoo.h2(4, layers=64, T=1.0).double(), torch.randn(100, 4).double()).verdict[:7])
        an ODE:
    """
    flows = [m for m in network.modules() if isinstance(m, Flow)]
    if not flows:
        raise ValueError(f"expected a Flow or a module that contains one, got {type(network).__name__}.")
    require_samples(x)
    outputs = [_refined(network, times)(x) for times in (0, 1, 2)]
    scale = float(outputs[0].abs().max()) or 1.0
    change, after = (float((b - a).abs().max()) / scale for a, b in itertools.pairwise(outputs))
    N, rounding = sum(f.layers for f in flows), torch.finfo(x.dtype).eps
    resolved = change <= 100 * N * rounding
    order = math.log2(change / after) if after > 100 * N * rounding and math.isfinite(change) else math.nan
    expected = min(f.scheme.order for f in flows)
    flips = None
    if not isinstance(network, Flow):
        flips = float((_prediction(outputs[0]) != _prediction(outputs[1])).double().mean())
    verdict = _verdict(N, change, order, expected, flips, resolved, tolerance)
    return DepthCheck(N, change, after, order, expected, flips, verdict)


def _refined(network: nn.Module, times: int) -> nn.Module:
    network = copy.deepcopy(network).eval()
    for flow in [m for m in network.modules() if isinstance(m, Flow)]:
        for _ in range(times):
            flow.field = flow.field.refined("constant")
    return network


def _prediction(scores: Tensor) -> Tensor:
    return scores.argmax(-1) if scores.dim() > 1 and scores.shape[-1] > 1 else scores >= 0


def _verdict(
    N: int, change: float, order: float, expected: int, flips: float | None, resolved: bool, tolerance: float
) -> str:
    measured = f"{N} to {2 * N} layers change the output by {change:.2g} of its size"
    if flips is not None:
        measured += f" and flip {100 * flips:.2g} % of the predictions"
    at = "" if math.isnan(order) else f"; order in depth {order:.2f} (the scheme's: {expected})"
    if not resolved and not order >= expected - 0.5:
        return f"a stack of layers: {measured}{at}, so it does not converge to a differential equation at this step."
    measured += f", against a tolerance of {tolerance:.2g} of the " + ("size" if flips is None else "predictions")
    if (change if flips is None else flips) <= tolerance:
        return f"an ODE: {measured}{at}."
    return f"an ODE that {N} layers do not resolve: {measured}{at}; train it with more layers, or smoother ones."
