r"""One run of a flow for analysis: its frozen weights and its N + 1 states, part by part."""

from __future__ import annotations

__all__ = ["Run", "flat_states", "require_samples", "run_of"]

from typing import NamedTuple

import torch
from torch import Tensor

from liouville.analysis.precise import precisely
from liouville.fields.base import StochasticField, Theta
from liouville.flow import Flow


class Run(NamedTuple):
    """The weights, detached; each part of the states, (N + 1, B, *features); and the shape of the batch."""

    theta: Theta
    parts: list[Tensor]
    batch: torch.Size

    @property
    def size(self) -> int:
        """n: numbers in one sample's state."""
        return sum(x[0, 0].numel() for x in self.parts)


@torch.no_grad()
def run_of(flow: Flow, y: Tensor) -> Run:
    """Run the flow on y by the plain loop.

    Raises:
        ValueError: if the flow draws noise or y is empty or does not fit.
    """
    if isinstance(flow.field, StochasticField) and flow.field.training:
        raise ValueError("a flow in training mode draws new noise in every run; call flow.eval() to analyse it.")
    require_samples(y)
    states = list(flow.states(y.detach()))
    batch = y.shape[: flow.field.feature_axis]
    stacked = (torch.stack(part) for part in zip(*states, strict=True))
    parts = [x.flatten(1, len(batch)) if batch else x[:, None] for x in stacked]
    theta = flow.field.theta()
    return Run(type(theta)(*(w.detach() for w in theta)), parts, batch)


def require_samples(y: Tensor) -> None:
    """Raise a `ValueError` for an empty input: nothing can be measured over no samples."""
    if not y.numel():
        raise ValueError(f"expected at least one sample, got an input of shape {tuple(y.shape)}.")


@precisely
def flat_states(flow: Flow, y: Tensor) -> Tensor:
    """The N + 1 states, (N + 1, *batch, n): all parts of each flattened, one behind the other.

    Examples:
        >>> import liouville as lv
        >>> flat_states(lv.zoo.midpoint(3, layers=8, T=1.0), torch.randn(10, 3)).shape
        torch.Size([9, 10, 6])
    """
    run = run_of(flow, y)
    return torch.cat([x.flatten(2) for x in run.parts], -1).reshape(flow.layers + 1, *run.batch, -1)
