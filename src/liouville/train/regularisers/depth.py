r"""Regularisers in depth: quadratures over [0, T] of a density of theta(t) or theta'(t), summed over all flows."""

from __future__ import annotations

__all__ = ["L1", "Decay", "Scaling", "Smoothness", "Variation", "decay", "smoothness"]

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from liouville.fields.base import degrees_of
from liouville.fields.once import once, theta_of
from liouville.flow import Flow, flows_of
from liouville.names import lookup
from liouville.train.regularisers.base import ConvexRegulariser, Term

Scaling = Literal["depth", "hdnn", "sum"]


@dataclass(frozen=True)
class _InDepth(ConvexRegulariser):
    """Of the weights of all flows, in their units or as they are."""

    units: bool = field(default=False, repr=False, kw_only=True)

    def _parts(self, network: nn.Module) -> list[_Weights]:
        return [_Weights(flow, self.units) for flow in flows_of(network)]


@dataclass(frozen=True)
class Smoothness(_InDepth):
    r"""Smoothness in depth: c sum_{j=1}^{N-1} ||theta_j - theta_{j-1}||^2 over all weights.

    Args:
        weight: alpha.
        units: of theta / s over [0, s^r T], s the unit of a flow's matrices (`VectorField.weight_unit`); False: of
            theta over [0, T].
        scaling: ``"depth"``: c = 1/(2h), the quadrature of 1/2 int |theta'|^2 dt (Haber & Ruthotto, 1705.03341);
            ``"hdnn"``: c = h/2 (2104.13166, eq. (13); 2105.13205); ``"sum"``: c = 1/2.

    Examples:
        >>> import liouville as lv
        >>> float(Smoothness()(lv.zoo.h2(4, layers=8, T=1.0, init=lv.Smooth(modes=1)))) < 1e-9
        True
    """

    scaling: Scaling = "depth"

    def terms(self, network: nn.Module) -> list[Term]:
        return [Term(part.jumps(), _factor(0.5 / part.h, part, self.scaling)) for part in self._parts(network)]


@dataclass(frozen=True)
class Decay(_InDepth):
    r"""Weight decay: c sum_j ||theta_j||^2; c = h/2 for ``"depth"`` and ``"hdnn"``, 1/2 for ``"sum"``.

    Examples:
        >>> import liouville as lv
        >>> float(Decay(1e-3)(lv.zoo.h2(4, layers=8, T=1.0))) > 0
        True
    """

    scaling: Scaling = "depth"

    def terms(self, network: nn.Module) -> list[Term]:
        return [Term(part.layers(), _factor(0.5 * part.h, part, self.scaling)) for part in self._parts(network)]


@dataclass(frozen=True)
class Variation(_InDepth):
    r"""Total variation in depth, int |theta'| dt summed over the entries: weights constant except for some jumps.

        h sum_j (sqrt(r_j^2 + e^2) - e),        r_j = (theta_{j+1} - theta_j) / h

    Smoothed: ``smoothing`` e > 0 rounds the corner of |r| at 0, so that there is a Hessian, at most 1/e there. The
    value is below sum_j |theta_{j+1} - theta_j|, by at most e T for each entry.

    Args:
        weight: alpha.
        smoothing: e, in units of theta'.

    Raises:
        ValueError: if ``smoothing`` is not positive.

    Examples:
        >>> import liouville as lv
        >>> bool(Variation()(lv.zoo.h2(4, layers=8, T=1.0)) > Variation()(lv.zoo.h2(4, layers=8, T=1.0, shared=True)))
        True
    """

    smoothing: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_smoothing(self.smoothing)

    def terms(self, network: nn.Module) -> list[Term]:
        parts = self._parts(network)
        return [Term([jump / part.h for jump in part.jumps()], part.h, self.smoothing) for part in parts]


@dataclass(frozen=True)
class L1(_InDepth):
    r"""The l1 norm in depth, int |theta| dt summed over the entries: h sum_j (sqrt(theta_j^2 + e^2) - e).

    Smoothed like `Variation`, and below h sum_j |theta_j| by at most e T for each entry.

    Args:
        weight: alpha.
        smoothing: e, in units of theta.

    Raises:
        ValueError: if ``smoothing`` is not positive.

    Examples:
        >>> import liouville as lv
        >>> float(L1()(lv.zoo.h2(4, layers=8, T=1.0))) > 0
        True
    """

    smoothing: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_smoothing(self.smoothing)

    def terms(self, network: nn.Module) -> list[Term]:
        return [Term(part.layers(), part.h, self.smoothing) for part in self._parts(network)]


def smoothness(flow: Flow, scaling: Scaling = "depth") -> Tensor:
    """The value of `Smoothness` for one flow."""
    return Smoothness(scaling=scaling).value(flow)


def decay(flow: Flow, scaling: Scaling = "depth") -> Tensor:
    """The value of `Decay` for one flow."""
    return Decay(scaling=scaling).value(flow)


class _Weights:
    """The weights of one flow and its step: counted in their units, or as they are."""

    def __init__(self, flow: Flow, units: bool) -> None:
        own = degrees_of(flow.field) if units else None
        self.flow, self.h, self.unit = flow, flow.h, 1.0
        self.matrices: tuple[str, ...] = ()
        if own is not None and flow.field.weight_unit != 1.0:
            self.unit, self.matrices = flow.field.weight_unit, own.weights
            self.h *= self.unit**own.rate

    def jumps(self) -> list[Tensor]:
        return [self._rows()[0].diff(dim=0)]

    def layers(self) -> list[Tensor]:
        """Weights that all layers share count once for each layer."""
        own, shared = self._rows()
        return [rows for rows in (own, shared.expand(self.flow.layers, -1)) if rows.numel()] or [own]

    def _rows(self) -> tuple[Tensor, Tensor]:
        """All entries of the weights of single layers, (N, entries), and of those that all layers share, (1, ...).

        There is one tensor of each kind, because the time of a small penalty is the number of its operations.
        """

        def made() -> tuple[Tensor, Tensor]:
            weights = [w / self.unit if name in self.matrices else w for name, w in _weights(self.flow)]
            rows = ([w.flatten(1) for w in weights if (len(w) > 1) == own] for own in (True, False))
            own, shared = (torch.cat(some, 1) if some else weights[0].new_zeros(1, 0) for some in rows)
            return own, shared

        return once(("rows", self.flow, self.unit), made)


def _factor(in_depth: float, part: _Weights, scaling: Scaling) -> float:
    return lookup({"depth": in_depth, "hdnn": 0.5 * part.h, "sum": 0.5}, scaling, "scaling")


def _weights(flow: Flow) -> list[tuple[str, Tensor]]:
    """theta without buffers and J, which are not trained; a scalar bias counts once, though theta() expands it."""
    fixed = {*flow.field.constants, *(() if getattr(flow.field, "train_J", True) else ("J",))}
    theta = theta_of(flow.field)
    weights = [(name, w) for name, w in zip(theta._fields, theta, strict=True) if name not in fixed]
    once = [(name, w[..., :1] if w.dim() > 1 and w.stride(-1) == 0 else w) for name, w in weights]
    return list({(w.data_ptr(), w.shape): (name, w) for name, w in once}.values())  # a pair's b and c may be one number


def _require_smoothing(smoothing: float) -> None:
    if not 0 < smoothing < float("inf"):
        raise ValueError(
            f"smoothing must be positive and finite, got {smoothing}; |r| has no derivative at 0, and 0.01 is close."
        )
