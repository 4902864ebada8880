r"""Weights as one flat vector, and the derivative J of an output with respect to it, never formed.

J v goes forwards through the layers with the values (forward mode) and stores nothing, so no engine is involved;
J^T r goes backwards on the flow's own engine. Both cost a few passes through the network, whatever its depth.
"""

from __future__ import annotations

__all__ = ["Evaluation", "Jacobian", "Weights"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.autograd.forward_ad as forward_mode
from torch import Tensor, nn
from torch.func import functional_call

from liouville.answering import evaluation_mode
from liouville.backprop import Stored
from liouville.flow import flows_of

Named = dict[str, Tensor]


class Weights:
    """Some of a module's parameters, those called ``names``, as one flat vector and back.

    Examples:
        >>> weights = Weights(nn.Linear(2, 1), ["weight", "bias"])
        >>> weights.size, [tuple(w.shape) for w in weights.named(torch.zeros(3)).values()]
        (3, [(1, 2), (1,)])
    """

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        self.parameters = {name: module.get_parameter(name) for name in names}
        self.size = sum(w.numel() for w in self.parameters.values())

    def vector(self) -> Tensor:
        """A copy of the parameters, (size,)."""
        return self.flat({name: w.detach() for name, w in self.parameters.items()})

    def flat(self, named: Named) -> Tensor:
        """Tensors shaped like the parameters -> (size,)."""
        return torch.cat([named[name].flatten() for name in self.parameters])

    def named(self, vector: Tensor) -> Named:
        """(size,) -> views shaped like the parameters."""
        parts = vector.split([w.numel() for w in self.parameters.values()])
        return {name: part.view(w.shape) for (name, w), part in zip(self.parameters.items(), parts, strict=True)}

    @torch.no_grad()
    def assign(self, vector: Tensor) -> None:
        """Write a vector into the module."""
        for name, part in self.named(vector).items():
            self.parameters[name].copy_(part)


class Evaluation:
    """Functions of a network in evaluation mode, at weights that the network does not hold.

    Args:
        network: it is never changed.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._frame = _Frame(network)

    def __call__(self, named: Named, function: Callable[..., Any], *inputs: Any) -> Any:
        """``function(network, *inputs)`` with the parameters in ``named`` in the places of the network's own."""
        with evaluation_mode(self.network):
            return functional_call(
                self._frame, {f"network.{name}": w for name, w in named.items()}, (function, *inputs)
            )


class Jacobian:
    """J = d outputs / d w at one point w, for outputs = function(network, x).

    Args:
        evaluation: of the network.
        weights: which parameters w stands for.
        point: w, (size,).
        function: (network, x) -> outputs.
        x: inputs.

    ``outputs`` are those at w, detached.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        weights: Weights,
        point: Tensor,
        function: Callable[[Any, Tensor], Tensor],
        x: Tensor,
    ) -> None:
        self.evaluation, self.weights, self.function, self.x = evaluation, weights, function, x
        self.leaves = {name: w.detach().requires_grad_() for name, w in weights.named(point).items()}
        with torch.enable_grad():
            self._outputs = evaluation(self.leaves, function, x)
        self.outputs = self._outputs.detach()

    @torch.no_grad()
    def forward(self, v: Tensor) -> Tensor:
        """J v, shaped like the outputs, by forward mode through the plain loop."""
        with _plain_loop(self.evaluation.network), forward_mode.dual_level():
            duals = {
                name: forward_mode.make_dual(self.leaves[name].detach(), t) for name, t in self.weights.named(v).items()
            }
            tangent = forward_mode.unpack_dual(self.evaluation(duals, self.function, self.x)).tangent
        return torch.zeros_like(self.outputs) if tangent is None else tangent

    def transpose(self, r: Tensor) -> Tensor:
        """J^T r, (size,), by reverse mode."""
        leaves = list(self.leaves.values())
        if not self._outputs.requires_grad:
            return r.new_zeros(self.weights.size)
        gradients = torch.autograd.grad(self._outputs, leaves, r, retain_graph=True, materialize_grads=True)
        return self.weights.flat(dict(zip(self.leaves, gradients, strict=True)))


class _Frame(nn.Module):
    """Lets `functional_call` run any function of a network, not only its forward."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, function: Callable[..., Any], *inputs: Any) -> Any:
        return function(self.network, *inputs)


@contextmanager
def _plain_loop(network: nn.Module) -> Iterator[None]:
    """Inside, every flow runs on `Stored`, which keeps nothing where no gradient is asked for."""
    flows = flows_of(network)
    engines = [flow.backprop for flow in flows]
    try:
        for flow in flows:
            flow.backprop = Stored()
        yield
    finally:
        for flow, engine in zip(flows, engines, strict=True):
            flow.backprop = engine
