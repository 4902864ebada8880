"""A network in evaluation mode, and its outputs for a whole set."""

from __future__ import annotations

__all__ = ["evaluation_mode", "outputs_of"]

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_AT_ONCE = 1000  # samples per batch in the evaluation of a whole set


@torch.no_grad()
def outputs_of(network: nn.Module, x: Tensor, before: int = 0) -> Tensor:
    """The outputs of a network for a whole set, (samples, outputs) in float64, in evaluation mode.

    Args:
        network: whichever.
        x: the samples.
        before: how many samples came before these, for the row that an error names.

    Raises:
        ValueError: for inputs that the network does not accept, or an output that is not finite; the row is named.
    """
    like = next(network.parameters())
    try:
        with evaluation_mode(network):
            outputs = torch.cat([network(part.to(like)) for part in x.split(_AT_ONCE)])
    except RuntimeError as error:
        raise ValueError(f"the network does not accept inputs of shape {tuple(x.shape[1:])}: {error}.") from error
    outputs = outputs.reshape(len(x), -1).double()
    if not outputs.isfinite().all():
        row = before + int((~outputs.isfinite()).any(1).nonzero()[0]) + 1
        raise ValueError(f"the network's output is not finite for row {row} (counted from 1); are the inputs raw?")
    return outputs


@contextlib.contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; each sub-module's own mode is restored afterwards."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
