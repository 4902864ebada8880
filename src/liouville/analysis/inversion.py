r"""How well a flow can be inverted in its own arithmetic: measured layer by layer."""

from __future__ import annotations

__all__ = ["reconstruction_error"]

import torch
from torch import Tensor

from liouville.analysis.states import require_samples
from liouville.backprop import Reversible, layer
from liouville.backprop.arithmetic import Part
from liouville.flow import Flow, require_flow


@torch.no_grad()
def reconstruction_error(flow: Flow, y: Tensor) -> Tensor:
    r"""The error of each state when it is rebuilt from the last one, (N + 1,), relative to its largest entry.

    Entry j is max |rebuilt state_j - state_j| / max |state_j| over the whole batch; entry N is 0. It is the error in
    the backward pass of `Reversible`: of the flow's engine if it is a `Reversible`, with its arithmetic and anchors,
    else of ``Reversible()``. All N states are kept for the comparison.

    Raises:
        ValueError: if the scheme has no inverse.

    Examples:
        >>> import liouville as lv
        >>> flow = lv.zoo.h2(4, layers=64, T=1.0, backprop=lv.Reversible(exact=True))
        >>> float(reconstruction_error(flow, torch.randn(10, 4)).max())
        0.0
    """
    flow = require_flow(flow)
    require_samples(y)
    engine = flow.backprop if isinstance(flow.backprop, Reversible) else Reversible()
    theta = flow.field.theta()
    run, state = flow.start(y, theta)
    layers = engine.layers(flow.scheme, run, state, flow.h)
    kept: list[list[Part]] = []
    while not kept or not layers.arithmetic.in_range(lambda: layers.reach(state, theta)):
        parts, kept = layers.enter(state), []
        for j in range(flow.layers):
            kept.append([tuple(x.clone() for x in part) for part in parts])
            parts = layers.forward(parts, j, layer(theta, j))
    errors = y.new_zeros(flow.layers + 1, dtype=torch.float64)
    for j in reversed(range(flow.layers)):
        parts = layers.inverse(parts, j, layer(theta, j))
        errors[j] = _relative(layers.leave(parts), layers.leave(kept[j]))
        if engine.anchors and j % engine.anchors == 0:
            parts = kept[j]
    return errors


def _relative(rebuilt: tuple[Tensor, ...], true: tuple[Tensor, ...]) -> Tensor:
    size = torch.stack([x.abs().max() for x in true]).max().double()
    off = torch.stack([(a.double() - b.double()).abs().max() for a, b in zip(rebuilt, true, strict=True)]).max()
    return off / size.clamp(min=torch.finfo(torch.float64).tiny)
