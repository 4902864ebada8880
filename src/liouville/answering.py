r"""Networks that know their data: raw inputs in, answers out."""

from __future__ import annotations

__all__ = ["Answering", "evaluation_mode", "outputs_of"]

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from liouville.facts import Facts
from liouville.sequences import Inputs

_AT_ONCE = 1000  # samples per batch in the evaluation of a whole set


class Answering(nn.Module):
    """A module of scores or predictions that may carry the `facts` of its data."""

    facts: Facts | None = None

    def transform(self, raw: Any) -> Inputs:
        """Raw inputs converted for the network: scaled like its training data, on its device and in its dtype.

        Args:
            raw: (samples, *shape), a tensor or anything that `torch.as_tensor` takes; or `liouville.data.Sequences`.

        Raises:
            ValueError: for samples of another shape, or a network without `facts`.
        """
        return self._known().transformed(raw).to(next(self.parameters()))

    def predict(self, raw: Any) -> list[Any] | Tensor:
        """Answers to raw inputs: the name of a class for each sample, or real targets (samples, targets) in their unit.

        Computed in evaluation mode; raw inputs are as in `transform`.

        Raises:
            ValueError: as for `transform`, or for outputs that do not fit the facts or are not finite.

        Examples:
            >>> import liouville as lv
            >>> split = lv.data.load("swiss-roll", points=200)
            >>> net = lv.classifier("h2", inputs=2, classes=2, features=4, layers=8, T=1.0)
            >>> net.facts = split.facts()
            >>> set(net.predict([[0.1, 0.2], [0.5, -1.0]])) <= {"outer spiral", "inner spiral"}
            True
        """
        return self._known().answers(outputs_of(self, self.transform(raw)))

    def _known(self) -> Facts:
        if self.facts is None:
            raise ValueError(
                "this network does not know its data, so it cannot scale raw inputs; set network.facts = "
                "split.facts() before it is saved, or call it with inputs scaled as in training."
            )
        return self.facts


@torch.no_grad()
def outputs_of(network: nn.Module, x: Inputs, before: int = 0) -> Tensor:
    """The outputs of a network for a whole set, (samples, outputs) in float64, in evaluation mode.

    Args:
        network: whichever.
        x: the samples.
        before: how many samples came before these, for the row that an error names.

    Raises:
        ValueError: for inputs that the network does not accept, or an output that is not finite; the row is named.
    """
    if not len(x):
        raise ValueError(f"expected at least one sample, got inputs of shape {tuple(x.shape)}.")
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
