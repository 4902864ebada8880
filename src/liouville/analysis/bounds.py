r"""Upper bounds of sensitivities from the weights alone: for every input, also those that no one has tried.

    ||dState_N / dState_j||_2 <= prod_{l >= j} ||A_l||_2 <= U_j

and each factor is bounded by the norms of the layer's weights and s_max >= |sigma'|. For a composition of shears the
inverse of each factor has the same norm as the factor, so *every* singular value lies in [1/U_j, U_j]. The norms are
evaluated in the dtype of the weights, in float32 for 16 bits.
"""

from __future__ import annotations

__all__ = ["log_exponential_bound", "log_layer_bounds", "log_upper_bound"]

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from liouville.fields.base import Lipschitz, VectorField
from liouville.flow import Flow, require_flow
from liouville.precision import require_floating, working
from liouville.schemes import SplittingScheme
from liouville.schemes.growth import log_growth


def log_layer_bounds(flow: Flow) -> Tensor:
    r"""An upper bound of log ||A_j||_2 for every layer, (N,), for all states; see `liouville.schemes.growth`.

    Raises:
        NotImplementedError: if the field states no Lipschitz constants, or no bound is known for the scheme.

    Examples:
        >>> import liouville as lv
        >>> log_layer_bounds(lv.zoo.h2(4, layers=8, T=1.0)).shape
        torch.Size([8])
    """
    flow = require_flow(flow)
    return log_growth(flow.scheme, _lipschitz(flow.field), flow.h).expand(flow.layers)


def log_upper_bound(flow: Flow) -> Tensor:
    r"""log U, with ||dState_N / dState_j||_2 <= U for every j, every sample and every input; differentiable in theta.

    U is the product of the bounds of the layers, each of which is at least 1. Where s_max is infinite, so is U.

    Raises:
        NotImplementedError: as for `log_layer_bounds`.

    Examples:
        >>> import liouville as lv
        >>> flow = lv.zoo.h2(4, layers=64, T=1.0)
        >>> largest = torch.linalg.matrix_norm(lv.analysis.backward_sensitivity(flow, torch.randn(10, 4)), ord=2).max()
        >>> bool(largest.log() <= log_upper_bound(flow))
        True
    """
    return log_layer_bounds(flow).clamp(min=0.0).sum()


def log_exponential_bound(flow: Flow) -> Tensor:
    r"""The plain exponent sum_j h (L_p + L_q), or sum_j h L: log of the bound that needs no structure.

    For the separable field it is h s_max ||X|| sum_j (||K_p||^2 + ||K_q||^2), for forward Euler on the Hamiltonian
    field h s_max sum_j ||J|| ||K||^2. `log_upper_bound` is never larger, and about half or a quarter of it.

    Raises:
        NotImplementedError: if the field states no Lipschitz constants, or for a scheme that this is no bound for.

    Examples:
        >>> import liouville as lv
        >>> log_exponential_bound(lv.zoo.h1(4, layers=8, T=1.0)).shape
        torch.Size([])
    """
    log_layer_bounds(flow)  # the same conditions
    parts = _lipschitz(flow.field).parts
    lengths = [1.0] * len(parts)
    if isinstance(flow.scheme, SplittingScheme):
        stages = flow.scheme.stages
        lengths = [sum(abs(c) for half, c in stages if half == name) for name in "pq"]
    total = torch.stack([c * L for c, L in zip(lengths, parts, strict=True)]).sum(0)
    return flow.h * total.expand(flow.layers).sum()


def _lipschitz(field: VectorField) -> Lipschitz:
    """The field's constants, of the map that its weights define in exact arithmetic; differentiable in them."""
    tensors = {f"field.{name}": t for name, t in (*field.named_parameters(), *field.named_buffers())}
    for name, t in tensors.items():
        if t.is_floating_point() or t.is_complex():
            require_floating(t.dtype, name.removeprefix("field."))
    wide = {name: t.to(working(t.dtype)) for name, t in tensors.items() if t.dtype != working(t.dtype)}
    theta = functional_call(_Theta(field), wide, ()) if wide else field.theta()
    return field.lipschitz(theta)


class _Theta(nn.Module):
    """``theta()`` as a module's forward pass, so that it can be given other parameters."""

    def __init__(self, field: VectorField) -> None:
        super().__init__()
        self.field = field

    def forward(self) -> Any:
        return self.field.theta()
