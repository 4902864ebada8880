r"""Certified robustness: how far an input may move, in the 2-norm, before the predicted class can change.

Two methods. ``"local"`` encloses the image of a ball around the input (`liouville.analysis.local`); its radius is
usually a third to two thirds of the distance to the nearest input with another class. ``"global"`` needs only the
upper bound of the flows: a score difference s_a - s_b has the Lipschitz constant ||w_a - w_b|| U L, L the constant of
the lift and of the modules between the flows, so the class cannot change within

    r(x) = min_b (s_a(x) - s_b(x)) / (||w_a - w_b|| U L),        a the predicted class,

for the network in exact arithmetic: only the local radius includes the rounding of float32.

With a budget C that constant is known before training; without one U is usually so large that r is of no use. Both
radii are in the units of the network's input.
"""

from __future__ import annotations

__all__ = ["certified_radius", "lipschitz_bound"]

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn

from liouville.activations import ACTIVATIONS
from liouville.analysis.bounds import proved_bound
from liouville.analysis.local import local_radius
from liouville.analysis.precise import precisely
from liouville.analysis.proofs.assumptions import activation_of, is_shipped
from liouville.analysis.proofs.untouched import FIELDS, require_untouched
from liouville.answering import evaluation_mode
from liouville.flow import Flow, flows_of, require_tensor
from liouville.network import ChannelsLast, Connector, Half, Lift, Network
from liouville.norms import spectral_norm
from liouville.operators import Conv
from liouville.precision import name_of, working

_NON_EXPANSIVE = (Lift, Half, ChannelsLast, nn.Identity, nn.Flatten, nn.Dropout, nn.ReLU, nn.Tanh)
_KNOWN = (
    *(Network, nn.Sequential, Flow, nn.Linear, Connector),
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(*_NON_EXPANSIVE, *FIELDS),
)


@torch.no_grad()
def certified_radius(network: Network, x: Tensor, method: Literal["local", "global"] | None = None) -> Tensor:
    """r(x) of every sample, (B,), in evaluation mode; one score means two classes with the threshold 0.

    Args:
        network: a classifier.
        x: inputs.
        method: ``"local"`` or ``"global"``; None: local where it is known, else global.

    Raises:
        NotImplementedError: if a part of the network is not known to the method: a subclass, a hook, a method replaced
            on an object, a module of another library. The message names it.
        ValueError: for an unknown method, an input that does not fit, or a number that is not finite.
        ArithmeticError: if the network's scores contradict the enclosure of the local method.

    Examples:
        >>> import liouville as lv
        >>> network = lv.classifier("h2", 2, 2, 4, layers=64, T=4.0).eval()
        >>> certified_radius(network, torch.randn(5, 2)).shape
        torch.Size([5])
    """
    if not isinstance(network, Network):
        raise ValueError(f"a radius is for a Network, got {type(network).__name__}; it needs the head's scores.")
    require_tensor(x)
    dtypes = {working(t.dtype) for t in (*network.parameters(), x)}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        got = " and ".join(sorted({name_of(t.dtype) for t in (*network.parameters(), x)}))
        raise ValueError(f"the weights and the inputs must have one floating-point dtype, got {got}; use .to(dtype).")
    if method not in (None, "local", "global"):
        raise ValueError(f'method must be "local", "global" or None, got {method!r}.')
    with evaluation_mode(network):
        if method != "global":
            try:
                return local_radius(network, x)
            except NotImplementedError:
                if method == "local":
                    raise
        return _global_radius(network, x)


@precisely
def _global_radius(network: Network, x: Tensor) -> Tensor:
    require_untouched(network, _KNOWN)
    *before, last = list(network.head) if type(network.head) is nn.Sequential and len(network.head) else [network.head]
    if type(last) is not nn.Linear:
        raise NotImplementedError(f"the head must end in a linear map, got {type(last).__name__}.")
    for flow in flows_of(network):
        sigma = activation_of(flow.field)
        if sigma is not None and not is_shipped(sigma):
            raise NotImplementedError(f"a radius is known for {', '.join(ACTIVATIONS)}; nothing is proved for {sigma}.")
    bound = lipschitz_bound(nn.Sequential(network.lift, network.body, *before))
    scores, W = copy.deepcopy(network).double()(x.double()), last.weight.double()
    if not bool(scores.isfinite().all()):
        raise ValueError("a score is not a finite number, so no input has a radius.")
    if scores.shape[-1] == 1:
        return scores.abs().squeeze(-1) / (W.norm() * bound)
    top = scores.argmax(-1)
    gaps = scores.gather(-1, top[..., None]) - scores
    slopes = (W[top][..., None, :] - W).norm(dim=-1) * bound
    return torch.where(slopes > 0, gaps / slopes, torch.inf).min(-1).values


@precisely
@torch.no_grad()
def lipschitz_bound(module: nn.Module) -> float:
    """A Lipschitz constant of a module in the 2-norm, in evaluation mode, from its weights in float64; for a flow, from
    y_0 to y_N.

    Raises:
        NotImplementedError: for a module that is not known here, by its exact type and without hooks.

    Examples:
        >>> lipschitz_bound(nn.Sequential(Lift(4), nn.Tanh()))
        1.0
    """
    require_untouched(module, _KNOWN)
    return _bound(copy.deepcopy(module).double().eval())


def _bound(module: nn.Module) -> float:
    if type(module) is nn.Sequential:
        return float(torch.tensor([_bound(part) for part in module], dtype=torch.float64).prod())
    if type(module) is Flow:
        return _entry(module) * math.exp(min(proved_bound(module).log_u, 709.0))
    if type(module) is Connector:
        return _bound(module.map)  # pooling without overlap and zero features amplify nothing
    if isinstance(module, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d) and _sees_once(module):
        return 1.0
    if type(module) is nn.Linear:
        return float(spectral_norm(module.weight.double()))
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and _is_plain(module):
        return float(Conv(1, module.weight.dim() - 2).norm(module.weight.double()))
    if type(module) is Lift and _keeps_samples(module):
        return module.scale
    if type(module) in _NON_EXPANSIVE and _keeps_samples(module):
        return 1.0
    raise NotImplementedError(f"no Lipschitz constant is known for {module}.")


def _keeps_samples(module: nn.Module) -> bool:
    """Whether the settings of the module keep axis 0 as the axis of samples."""
    return getattr(module, "axis", -1) != 0 and getattr(module, "start_dim", 1) == 1


def _sees_once(pool: nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d) -> bool:
    """Whether every pixel lies in one window at most."""
    if type(pool) not in (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d) or pool.return_indices:
        return False
    return _all(pool.padding, 0) and _all(pool.dilation, 1) and pool.kernel_size == pool.stride


def _all(setting: int | tuple[int, ...], value: int) -> bool:
    return setting == value or (isinstance(setting, tuple) and set(setting) == {value})


def _is_plain(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    """A sum of shifted matrices, which the norm of a stencil bounds."""
    if type(layer) not in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        return False
    once = set(layer.stride) == {1} and set(layer.dilation) == {1}
    return once and layer.groups == 1 and layer.padding_mode == "zeros"


def _entry(flow: Flow) -> float:
    """The Lipschitz constant of y_0 -> State_0; reading y_N from State_N is a projection."""
    constants = flow.field.lipschitz(flow.field.theta())
    return float(flow.scheme.entry(flow.field, constants, flow.h)[0])
