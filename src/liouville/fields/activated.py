"""Fields made of linear maps and one activation: their weights, initial weights and bounds."""

from __future__ import annotations

__all__ = ["ActivatedField", "quarter_turn", "weighted"]

import torch
from torch import Tensor, nn

from liouville.activations import Activation, activation
from liouville.fields.base import Spectrum, VectorField
from liouville.fields.initial import Initial
from liouville.operators import Dense, Operator


class ActivatedField(VectorField):
    """A field made of one family of linear maps and one activation: the base class of the papers' fields.

    Args:
        features: n.
        layers: N.
        operator: the family of linear maps; `Dense` for vectors, `Conv` for signals and images.
        activation: sigma, by name or as an `Activation`.
        shared: one weight for all layers (the papers' time-invariant networks).
        init: how initial weights are drawn.
    """

    def __init__(
        self,
        features: int,
        layers: int,
        operator: Operator,
        activation_: str | Activation,
        shared: bool,
        init: Initial,
    ) -> None:
        super().__init__(features, layers)
        self.operator = operator
        self.activation = activation(activation_)
        self.shared = shared
        self.init = init

    @property
    def feature_axis(self) -> int:  # type: ignore[override]
        return self.operator.feature_axis

    def _where_monotone(self, spectrum: Spectrum) -> Spectrum:
        """``spectrum``, which D A has for every D = diag(sigma') >= 0, if sigma is monotone; else "any"."""
        return spectrum if self.activation.monotone else "any"

    @property
    def sample_ndim(self) -> int:  # type: ignore[override]
        """1 for vectors, 1 + dims for signals, images and volumes, as the operator states."""
        return -self.feature_axis

    def energy_density(self, x: Tensor) -> Tensor:
        """1^T sigma_int(x), summed over features and positions: one number per sample."""
        return self.activation.primitive(x).sum(tuple(range(-self.sample_ndim, 0)))

    def skewed(self, size: Tensor) -> Tensor:
        """A bound of ||D A - A^T D|| / 2 for 0 <= D <= sigma' and ||s_max A|| <= size: it is size / 2.

        D lies around its centre s_max/2. Without sigma' >= 0 there is no such centre, and the bound is ``size``.
        """
        return 0.5 * size if self.activation.monotone else size

    def slope(self, K: Tensor, y: Tensor, b: Tensor) -> Tensor:
        """sigma'(K y + b), (..., B, m), at y (..., B, n), for matrices K (..., m, n)."""
        return self.activation.derivative(y @ K.mT + b.unsqueeze(-2))

    def _weight(self, outputs: int, inputs: int, generator: torch.Generator | None) -> nn.Parameter:
        shape = self.operator.weight_shape(outputs, inputs)
        layers = 1 if self.shared else self.layers
        self.init.require_memory(layers, shape)
        return nn.Parameter(self._constrained(self.init.weight(layers, shape, self._mean(outputs, inputs), generator)))

    def _constrained(self, raw: Tensor) -> Tensor:
        """The operator's constraint, for ``theta()``: a raw entry outside a mask is zero and has no gradient."""
        return self.operator.constrain(raw)

    def _mean(self, outputs: int, inputs: int) -> Tensor | None:
        """The mean of the initial weights, a matrix; see `Smooth`."""
        return torch.eye(outputs, inputs)

    def _bias(self, outputs: int, generator: torch.Generator | None) -> nn.Parameter:
        layers = 1 if self.shared else self.layers
        self.init.require_memory(layers, (outputs,))
        return nn.Parameter(self.init.bias(layers, (outputs,), generator))

    def extra_repr(self) -> str:
        parts = [super().extra_repr()]
        if self.operator != Dense():
            parts.append(f"operator={self.operator}")
        if self.activation.name != "tanh":
            parts.append(f"activation={self.activation.name!r}")
        if self.shared:
            parts.append("shared=True")
        return ", ".join(parts)


def quarter_turn(features: int) -> Tensor:
    """[[0, -I], [I, 0]], which turns all but the middle feature where their number is odd."""
    half = features // 2
    turn = torch.diag(torch.ones(half), features - half)
    return turn.mT - turn


def weighted(left: Tensor, slope: Tensor, right: Tensor) -> Tensor:
    """left diag(slope) right of every sample, (..., B, l, r), from (..., l, m), (..., B, m) and (..., m, r)."""
    rows = (left.unsqueeze(-3) * slope.unsqueeze(-2)).flatten(-3, -2)  # one product per layer, not one per sample
    return (rows @ right).unflatten(-2, (slope.shape[-2], left.shape[-2]))
