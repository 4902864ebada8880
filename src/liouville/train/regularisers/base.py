r"""The base class of regularisers, and convex ones: alpha c sum_k rho(r_k), with residuals r linear in the weights.

The curvature of such a term is J^T rho'' J with J = dr/dweights. It is the Hessian, exactly, where r is linear: theta,
its differences in depth, the head. Where a field's constraint makes r nonlinear it is the Gauss-Newton part. It is
positive semidefinite at every point, since rho is convex, as Newton's method requires.
"""

from __future__ import annotations

__all__ = ["ConvexRegulariser", "Regulariser", "Term"]

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from liouville.precision import in_working_precision


class Regulariser(ABC):
    """A part of the objective that depends only on the weights: value, gradient and, where it has one, curvature.

    Examples:
        >>> import liouville as lv
        >>> network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=8, T=1.0)
        >>> term = lv.train.Smoothness(1e-3)
        >>> gradient = term.gradient(network)
        >>> product = term.curvature(network, gradient)
        >>> product.keys() == dict(network.named_parameters()).keys()
        True
    """

    @abstractmethod
    def value(self, network: nn.Module) -> Tensor:
        """The value for the weights of ``network``, a scalar that autograd differentiates."""

    def gradient(self, network: nn.Module) -> dict[str, Tensor]:
        """The gradient by the name of each trained parameter."""
        weights = _trained(network)
        with torch.enable_grad():
            value = self.value(network)
        if not value.requires_grad:
            return {name: torch.zeros_like(w) for name, w in weights.items()}
        gradient = torch.autograd.grad(value, list(weights.values()), materialize_grads=True)
        return dict(zip(weights, gradient, strict=True))

    def curvature(self, network: nn.Module, direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The product of a positive semidefinite curvature with a direction.

        Args:
            network: the network with the weights.
            direction: by name of some or all of the trained parameters; the rest is zero.

        Returns:
            The entries of the product for the same parameters.

        Raises:
            NotImplementedError: if the term states no curvature.
            ValueError: if a name or a shape does not fit the network.
        """
        raise NotImplementedError(f"{type(self).__name__} has a value and a gradient, but states no curvature.")

    def __call__(self, network: nn.Module) -> Tensor:
        return self.value(network)


class Term(NamedTuple):
    """c sum rho(r): rho(r) = r^2 where ``width`` is None, else sqrt(r^2 + width^2) - width, |r| without its corner."""

    residuals: Sequence[Tensor]
    c: float
    width: float | None = None

    def value(self) -> Tensor:
        """c sum rho(r)."""
        return self.c * _total([self._summed(in_working_precision(r).flatten()) for r in self.residuals])

    def bend(self, r: Tensor) -> Tensor:
        """c rho''(r), >= 0."""
        if self.width is None:
            return torch.full_like(r, 2 * self.c)
        return self.c * self.width**2 * (r.square() + self.width**2).pow(-1.5)

    def _summed(self, r: Tensor) -> Tensor:
        if self.width is None:
            return torch.dot(r, r)
        square = r.square()
        return (square / ((square + self.width**2).sqrt() + self.width)).sum()  # avoids cancellation


@dataclass(frozen=True)
class ConvexRegulariser(Regulariser):
    """weight * (the sum of the terms): a subclass gives the residuals and inherits value, gradient and curvature.

    Args:
        weight: alpha >= 0.

    Raises:
        ValueError: if the weight is negative or not finite.
    """

    of_head: ClassVar[bool] = False  # whether it depends on nothing but the head

    weight: float = 1.0

    def __post_init__(self) -> None:
        require_weight(type(self).__name__, self.weight)

    @abstractmethod
    def terms(self, network: nn.Module) -> list[Term]:
        """The terms, without empty ones."""

    def value(self, network: nn.Module) -> Tensor:
        values = [term.value() for term in self.terms(network)]
        return self.weight * _total(values) if values else torch.zeros(())

    def curvature(self, network: nn.Module, direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = _named(network, direction)
        with torch.enable_grad():
            terms = self.terms(network)
            residuals = [r for term in terms for r in term.residuals]
            moved = iter(_pushed(residuals, weights, list(direction.values())))
        bent = [self.weight * term.bend(r.detach()) * next(moved) for term in terms for r in term.residuals]
        # detached, because the zeros that torch 2.6 fills in require gradients
        pulled = (product.detach() for product in _pulled(residuals, weights, bent))
        return dict(zip(direction, pulled, strict=True))


def _total(values: Sequence[Tensor]) -> Tensor:
    return functools.reduce(torch.add, values)


def require_weight(name: str, weight: float) -> None:
    """Raise a `ValueError` unless 0 <= weight < inf."""
    if not 0 <= weight < math.inf:
        raise ValueError(f"the {name} weight must be >= 0 and finite, got {weight}.")


def _trained(network: nn.Module) -> dict[str, Tensor]:
    return {name: w for name, w in network.named_parameters() if w.requires_grad}


def _named(network: nn.Module, direction: Mapping[str, Tensor]) -> list[Tensor]:
    weights = _trained(network)
    for name, v in direction.items():
        if name not in weights:
            raise ValueError(f"the network trains no parameter {name!r}; it has {', '.join(weights)}.")
        if v.shape != weights[name].shape:
            raise ValueError(
                f"the direction of {name} must have the shape {tuple(weights[name].shape)}, got {tuple(v.shape)}."
            )
    return [weights[name] for name in direction]


def _pulled(residuals: Sequence[Tensor], weights: Sequence[Tensor], by: Sequence[Tensor]) -> list[Tensor]:
    """J^T u: residuals that depend on no weight do not count."""
    reached = [(r, u) for r, u in zip(residuals, by, strict=True) if r.requires_grad]
    if not reached or not weights:
        return [torch.zeros_like(w) for w in weights]
    r, u = zip(*reached, strict=True)
    create = any(t.requires_grad for t in u)
    return list(torch.autograd.grad(r, list(weights), u, create_graph=create, materialize_grads=True))


def _pushed(residuals: Sequence[Tensor], weights: Sequence[Tensor], along: Sequence[Tensor]) -> list[Tensor]:
    """J v, as the derivative of u -> v^T J^T u."""
    u = [torch.zeros_like(r, requires_grad=True) for r in residuals]
    pulled = _pulled(residuals, weights, u)
    reached = [(p, v) for p, v in zip(pulled, along, strict=True) if p.requires_grad]
    if not reached:
        return [torch.zeros_like(r) for r in residuals]
    p, v = zip(*reached, strict=True)
    return list(torch.autograd.grad(p, u, v, retain_graph=True, materialize_grads=True))
