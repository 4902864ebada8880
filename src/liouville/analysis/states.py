r"""One run of a flow for analysis: its frozen weights and its N + 1 states, by parts."""

from __future__ import annotations

__all__ = ["Run", "flat_states", "has_samples", "require_samples", "run_of"]

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.analysis.precise import precisely
from liouville.analysis.separate import is_own, require_separate_layers
from liouville.fields.base import Theta
from liouville.fields.stochastic import StochasticField
from liouville.flow import Flow, require_flow, require_tensor


class Run(NamedTuple):
    """The weights, detached; each part of the states, (N + 1, B, *features); the batch's shape; the features' axis."""

    theta: Theta
    parts: list[Tensor]
    batch: torch.Size
    feature_axis: int

    @property
    def size(self) -> int:
        """n, the number of entries in one sample's state."""
        return sum(x[0, 0].numel() for x in self.parts)

    @property
    def order(self) -> Tensor | None:
        """The positions of one sample's concatenated parts in the flattened state, where parts are side by side along
        the features' axis, like (p, q) in y. None if both orders agree.
        """
        if len(self.parts) == 1 or self.feature_axis == 2 - self.parts[0].dim():
            return None
        sizes = [x[0, 0].numel() for x in self.parts]
        places = torch.arange(self.size).split(sizes)
        shaped = [k.reshape(x.shape[2:]) for k, x in zip(places, self.parts, strict=True)]
        return torch.cat(shaped, self.feature_axis).flatten()


@torch.no_grad()
def run_of(flow: Flow, y: Tensor) -> Run:
    """Run the flow on y by the plain loop, and check that samples are independent.

    Raises:
        ValueError: if the flow draws noise, y is empty or does not fit, the axes of one sample are not stated, or the
            samples are coupled.
    """
    flow = require_flow(flow)
    if isinstance(flow.field, StochasticField) and flow.field.training:
        raise ValueError("a flow in training mode draws new noise in every run; call flow.eval() to analyse it.")
    require_samples(y)
    batch = flow.field.batch_shape(y)
    states = list(flow.states(y.detach()))
    stacked = (torch.stack(part) for part in zip(*states, strict=True))
    parts = [x.flatten(1, len(batch)) if batch else x[:, None] for x in stacked]
    theta = flow.field.theta()
    theta = type(theta)(*(w.detach() for w in theta))
    require_separate_layers(flow, theta, parts, y.shape)
    return Run(theta, parts, batch, flow.field.feature_axis)


def has_samples(flow: Flow, y: Tensor) -> bool:
    """Whether axis 0 of y is known to be an axis of independent samples."""
    if is_own(flow.field):
        return len(flow.field.batch_shape(y)) > 0
    try:
        return len(run_of(copy.deepcopy(flow).eval(), y[:4].detach()).batch) > 0
    except Exception:  # any failure of a user's modules: then independence is not known
        return False


def require_samples(y: Tensor) -> None:
    """Raise a `ValueError` for an input without samples or values, where nothing can be measured."""
    require_tensor(y)
    if y.is_meta:
        raise ValueError("expected an input with values, got a meta tensor; create it on the CPU or a GPU.")
    if not y.numel():
        raise ValueError(f"expected at least one sample, got an input of shape {tuple(y.shape)}.")


@precisely
def flat_states(flow: Flow, y: Tensor) -> Tensor:
    """The N + 1 states, (N + 1, *batch, n): the parts of each side by side along the features' axis, flattened.

    Examples:
        >>> import liouville as lv
        >>> flat_states(lv.zoo.midpoint(3, layers=8, T=1.0), torch.randn(10, 3)).shape
        torch.Size([9, 10, 6])
    """
    run = run_of(flow, y)
    return torch.cat(run.parts, run.feature_axis).reshape(flow.layers + 1, *run.batch, -1)
