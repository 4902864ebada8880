"""Common tools of the checks: separate random numbers, given weights, Jacobians of a field, a step and a flow."""

from __future__ import annotations

__all__ = [
    "LINEAR",
    "field_matrix",
    "fill",
    "float64",
    "flow_matrix",
    "four_norms",
    "generator",
    "largest_real_part",
    "order",
    "radius",
    "step_matrix",
]

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from liouville.activations import Activation
from liouville.backprop import layer
from liouville.fields import VectorField
from liouville.flow import Flow
from liouville.schemes import Scheme
from liouville.testing.measure import jacobian

LINEAR = Activation("linear", lambda x: x, lambda x: 0.5 * x.square(), torch.ones_like, lipschitz=1.0, monotone=True)
"""sigma(x) = x, so that D = I everywhere."""


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Use float64 as torch's default inside the block, and restore the default afterwards."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def generator(seed: int = 0) -> torch.Generator:
    """A random generator for one check."""
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def fill(field: VectorField, **weights: Tensor | float) -> VectorField:
    """The field with the given parameters, and zero biases unless given."""
    for name, raw in field.named_parameters():
        if name in weights:
            raw.copy_(torch.as_tensor(weights[name]).expand_as(raw))
        elif name.startswith(("b", "c")):
            raw.zero_()
    return field


def field_matrix(field: VectorField, y: Tensor, j: int = 0) -> Tensor:
    """df/dy of layer j at one point y (n,), numerator layout, by autograd."""
    theta_j = layer(field.theta(), j)
    return jacobian(lambda x: (field(x, theta_j),), (y[None],))


def step_matrix(scheme: Scheme, field: VectorField, y: Tensor, h: float, j: int = 0) -> Tensor:
    """dstate_{j+1}/dstate_j of layer j, at the initial state of one point y (n,)."""
    theta_j = layer(field.theta(), j)
    with torch.no_grad():
        state = scheme.init(field, y[None], theta_j, h)
    return jacobian(lambda *s: scheme.step(field, s, theta_j, h), state)


def flow_matrix(flow: Flow, y: Tensor) -> Tensor:
    """dy_N/dy_0 at one point y (n,), by autograd through all layers at once."""
    return jacobian(lambda x: (flow(x),), (y[None],))


def four_norms(A: Tensor) -> Tensor:
    """The 1, 2, infinity and Frobenius norms of a stack of matrices, (4, ...)."""
    return torch.stack([torch.linalg.matrix_norm(A, ord=p) for p in (1, 2, torch.inf, "fro")])


def radius(A: Tensor) -> Tensor:
    """The spectral radius of each matrix of a stack."""
    return torch.linalg.eigvals(A).abs().amax(-1)


def largest_real_part(A: Tensor) -> Tensor:
    """max_i Re lambda_i of each matrix of a stack."""
    return torch.linalg.eigvals(A).real.amax(-1)


def order(error: Callable[[int], float], layers: int) -> float:
    """The measured order: the power of two by which the error falls when the layers are doubled."""
    return math.log2(error(layers) / error(2 * layers))
