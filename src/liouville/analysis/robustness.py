r"""Certified robustness: how far an input may move, in the 2-norm, before the predicted class can change.

A score difference s_a - s_b has the Lipschitz constant ||w_a - w_b|| U L, U the upper bound of the flows and L that of
the lift and of what lies between them. So the class cannot change within

    r(x) = min_b (s_a(x) - s_b(x)) / (||w_a - w_b|| U L),        a the predicted class.

With a budget C the constant is known before training. The radius is in the units of the network's input.
"""

from __future__ import annotations

__all__ = ["certified_radius", "lipschitz_bound"]

import torch
from torch import Tensor, nn

from liouville.analysis.bounds import log_upper_bound
from liouville.analysis.precise import precisely
from liouville.analysis.routes import plain_field
from liouville.fields import SecondOrderField
from liouville.flow import Flow
from liouville.network import ChannelsLast, Connector, Half, Lift, Network
from liouville.operators import Conv, spectral_norm
from liouville.schemes import Midpoint

_NON_EXPANSIVE = (Lift, Half, ChannelsLast, nn.Identity, nn.Flatten, nn.Dropout, nn.ReLU, nn.Tanh)


@precisely
@torch.no_grad()
def certified_radius(network: Network, x: Tensor) -> Tensor:
    """r(x) of every sample, (B,), in evaluation mode; one score means two classes with the threshold 0.

    Raises:
        NotImplementedError: if a part of the network has no known Lipschitz constant.

    Examples:
        >>> import liouville as lv
        >>> network = lv.classifier("h2", 2, 2, 4, layers=64, T=4.0, budget=20.0).eval()
        >>> certified_radius(network, torch.randn(5, 2)).shape
        torch.Size([5])
    """
    *before, last = list(network.head) if isinstance(network.head, nn.Sequential) else [network.head]
    if not isinstance(last, nn.Linear):
        raise NotImplementedError(f"the head must end in a linear map, got {type(last).__name__}.")
    bound = lipschitz_bound(nn.Sequential(network.lift, network.body, *before))
    scores, W = network(x).double(), last.weight.double()
    if scores.shape[-1] == 1:
        return scores.abs().squeeze(-1) / (W.norm() * bound)
    top = scores.argmax(-1)
    gaps = scores.gather(-1, top[:, None]) - scores
    slopes = (W[top][:, None] - W[None]).norm(dim=-1) * bound
    return torch.where(slopes > 0, gaps / slopes, torch.inf).min(-1).values


@precisely
def lipschitz_bound(module: nn.Module) -> float:
    """A Lipschitz constant of a module in the 2-norm, from its weights; of a flow from y_0 to y_N.

    Raises:
        NotImplementedError: for a module that is not known here.

    Examples:
        >>> lipschitz_bound(nn.Sequential(Lift(4), nn.Tanh()))
        1.0
    """
    if isinstance(module, nn.Sequential):
        return float(torch.tensor([lipschitz_bound(part) for part in module], dtype=torch.float64).prod())
    if isinstance(module, Flow):
        return _entry(module) * float(log_upper_bound(module).double().exp())
    if isinstance(module, Connector):
        return lipschitz_bound(module.map)  # pooling without overlap and zero features stretch nothing
    if isinstance(module, nn.MaxPool2d) and module.kernel_size == module.stride and module.padding == 0:
        return 1.0  # every pixel is seen once
    if isinstance(module, nn.Linear):
        return float(spectral_norm(module.weight.double()))
    if isinstance(module, nn.Conv2d) and _is_plain(module):
        return float(Conv(1).norm(module.weight.double()))
    if type(module) in _NON_EXPANSIVE:
        return 1.0
    raise NotImplementedError(f"no Lipschitz constant is known for {type(module).__name__}.")


def _is_plain(layer: nn.Conv2d) -> bool:
    """A sum of shifted matrices, which the norm of a stencil bounds."""
    return layer.stride == (1, 1) and layer.groups == 1 and layer.padding_mode == "zeros"


def _entry(flow: Flow) -> float:
    """Of y_0 -> State_0; reading y_N from State_N is a projection."""
    field = plain_field(flow.field)
    L = flow.h * flow.field.lipschitz(flow.field.theta()).parts[0].double()[0]
    if isinstance(flow.scheme, Midpoint):  # (y - h f(y), y)
        return float((1 + (1 + L).square()).sqrt())
    if isinstance(field, SecondOrderField) and field.start == "half":  # (-h f(y) / 2, y)
        return float((1 + (0.5 * L).square()).sqrt())
    return 1.0
