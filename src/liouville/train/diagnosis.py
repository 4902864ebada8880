"""When a loss stops being a number: say at which step, by what, in which layer, and how large the steps were."""

from __future__ import annotations

__all__ = ["DivergenceError", "diagnose", "nonfinite"]

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from liouville.analysis import first_nonfinite_layer, margin
from liouville.flow import Flow
from liouville.network import Network
from liouville.sequences import Inputs, numbers


class DivergenceError(ArithmeticError):
    """Training diverged; the network carries the best weights so far."""


@torch.no_grad()
def diagnose(network: nn.Module, x: Inputs, what: str, value: float, at: str) -> DivergenceError:
    """The error that names the step, the layer where the forward pass blows up, and its step-size margin."""
    where = "; ".join(_flows(network, x)) or "the network has no flow to look into"
    first = next(nonfinite(network, x), None)
    named = f"{first}; " if first else ""
    return DivergenceError(
        f"training diverged: the {what} is {value:.4g} at {at}; {named}{where}. Lower the learning "
        "rate, clip the gradient, or lower T, which shortens every step; the best weights so far were kept."
    )


def nonfinite(network: nn.Module, x: Inputs | None = None) -> Iterator[str]:
    """What is not finite, in words: inputs, then weights, then gradients.

    Examples:
        >>> layer = nn.Linear(2, 1)
        >>> layer.weight.data[0, 1] = torch.nan
        >>> list(nonfinite(layer, torch.ones(3, 2)))
        ['the weight weight is not finite in 1 of 2 entries, the first at (0, 1)']
    """
    named = {} if x is None else {"the input of the batch": numbers(x)}
    named |= {f"the weight {name}": p for name, p in network.named_parameters()}
    named |= {f"the gradient of {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    for name, values in named.items():
        bad = ~values.detach().isfinite()
        if bad.any():
            place = tuple(bad.nonzero()[0].tolist())
            yield f"{name} is not finite in {int(bad.sum())} of {bad.numel()} entries, the first at {place}"


def _flows(network: nn.Module, x: Inputs) -> list[str]:
    flows = list(network.flows()) if isinstance(network, Network) else []
    inputs: list[Tensor] = []
    hooks = [flow.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for flow in flows]
    try:
        network(x)
    except ArithmeticError:
        pass  # an implicit layer without a solution; the flows in front of it were seen
    finally:
        for hook in hooks:
            hook.remove()
    return [_sentence(i, flow, y, len(flows)) for i, (flow, y) in enumerate(zip(flows, inputs, strict=False))]


def _sentence(i: int, flow: Flow, y: Tensor, flows: int) -> str:
    name = f"flow {i}: " if flows > 1 else ""
    layer = first_nonfinite_layer(flow, y)
    if layer == -1:
        state = "its input is already not finite"
    elif layer is None:
        later = [torch.stack([part.abs().amax() for part in s]).amax() for s in flow.states(y)][1:]
        states = torch.stack([y.abs().amax(), *later])
        behind = int(states.argmax())
        layer = max(0, behind - 1)
        place = f"after layer {layer}" if behind else "at its input"
        state = f"the forward pass is finite and largest ({float(states.max()):.3g}) {place}"
    else:
        state = f"layer {layer} of {flow.layers} is the first whose output is not finite"
    try:
        margins = margin(flow)
    except NotImplementedError:
        return f"{name}{state}"
    at = "" if layer == -1 else f"{float(margins[layer]):.3g} in layer {layer} and "
    limit = flow.scheme.stability_limit
    of = f" ({type(flow.scheme).__name__} is stable up to {limit:.4g} for imaginary rates)" if limit == limit else ""
    return f"{name}{state}; the margin h x rate is {at}{float(margins.max()):.3g} at its largest{of}"
