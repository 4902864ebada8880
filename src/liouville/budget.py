r"""A budget C: weights are rescaled so that sensitivities stay within it, whatever training does.

    theta = t^(1/k) raw theta,        t in (0, 1] the largest number with U(theta) <= C

U is an upper bound as in `liouville.analysis.log_upper_bound`. It depends only on the weights, so the budget holds for
every input. k is 2 where the velocity's derivative is quadratic in K (the Hamiltonian fields), else 1; biases are not
changed (`VectorField.scaling`). For a composition of shears every singular value of every dState_N/dState_j then lies
in [1/C, C].

Where the steps are known (`liouville.multipliers.sectors`) the bound is by *multipliers*, one number for every
activation. They are parameters of the field, trained with the weights (`liouville.multipliers.scaling`). U <= C holds
for any values; good values leave the weights more room. Otherwise the bound is by the *norms* of the weights.
"""

from __future__ import annotations

__all__ = ["BUDGETED", "BudgetedField", "PartitionedBudgetedField", "budgeted"]

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from liouville import fields
from liouville.fields import PartitionedField, VectorField
from liouville.fields.base import Lipschitz, Scaling, Theta, is_closed
from liouville.fields.wrapped import Wrapped
from liouville.flow import Flow, require_flow
from liouville.multipliers.budgets import Budget, fitted, rescaled
from liouville.multipliers.sectors import sectors_of
from liouville.precision import rounding_of, working
from liouville.schemes.base import Scheme
from liouville.schemes.growth import log_growth

Bound = Literal["multipliers", "norms"]
_ROUNDING = 1e-5  # margin in log C: norms in float32 have a smaller error
_STRETCH = 40.0  # the search for log t goes down in steps of this size
_LOWEST = -1400.0  # for weights that are not finite: a run detects these


def budgeted(flow: Flow, budget: float, bound: Bound | None = None) -> Flow:
    """The flow with ||dState_N/dState_j||_2 <= budget for every input and any values of its weights.

    It shares the field, and so the raw weights; its scheme and T are part of the bound.

    Args:
        flow: a flow without a budget.
        budget: C > 1.
        bound: ``"multipliers"`` or ``"norms"``; None: multipliers where they are known, since they leave more room.

    Raises:
        ValueError: if ``budget`` is not above 1, or no such rescaling is known for the field or the scheme.

    Examples:
        >>> import liouville as lv
        >>> flow = lv.budgeted(lv.zoo.h2(4, layers=64, T=4.0), 20.0)
        >>> bool(lv.analysis.log_upper_bound(flow).exp() <= 20)
        True
    """
    flow = require_flow(flow)
    arguments: Any = (flow.field, flow.scheme, flow.T, budget, bound)
    kind = PartitionedBudgetedField if isinstance(flow.field, PartitionedField) else BudgetedField
    return Flow(kind(*arguments), flow.scheme, flow.T, flow.backprop)


class BudgetedField(Wrapped):
    r"""A field that rescales all K together in `theta`, so that N steps of ``scheme`` over [0, T] have U <= budget.

    A run sees the inner field and the rescaled weights, so every engine and kernel that fits the field fits this one.
    Where the raw weights keep the budget, they are not changed.

    Args:
        field: a separable or general Hamiltonian, pair, antisymmetric (gamma = 0) or residual field, or one of your own
            that states `VectorField.lipschitz` and `VectorField.scaled`.
        scheme: the only scheme that may step through it.
        T: the final time of the flow.
        budget: C > 1.
        bound: as for `budgeted`.

    Raises:
        ValueError: if an argument does not fit.
    """

    multipliers: nn.Parameter | None
    degrees = Wrapped.degrees  # the factor that keeps a budget is the same in all units

    def __init__(self, field: VectorField, scheme: Scheme, T: float, budget: float, bound: Bound | None = None) -> None:
        super().__init__(field)
        if not 1 < budget < math.inf:
            raise ValueError(f"the budget must be above 1 and finite (it bounds singular values), got {budget}.")
        if _scaling(field) is None and not is_closed(field, "scaled"):
            known = ", ".join(name for name, kind in vars(fields).items() if getattr(kind, "scaling", None) is not None)
            raise ValueError(
                f"a budget needs one of {known}, with gamma = 0, or a field of your own that states "
                f"scaled(theta, factor); got {type(field).__name__}."
            )
        self.scheme, self.T, self.budget = scheme, float(T), float(budget)
        try:
            lipschitz = field.lipschitz(field.theta())
            norms = self._log_bound(lipschitz, lipschitz.one_sided.new_zeros(()))
        except NotImplementedError as error:
            raise ValueError(f"a budget needs an upper bound, but {error}") from error
        if not norms.isfinite():
            raise ValueError("a budget needs an activation with a bounded derivative.")
        self.bound = self._bound(bound)
        self.register_parameter("multipliers", self._fitted() if self.bound == "multipliers" else None)

    def theta(self) -> Theta:
        """The field's weights, K rescaled so that U <= budget."""
        theta = self.field.theta()
        scaling = _scaling(self.field)
        if self.multipliers is not None and scaling:  # the class of an object can be changed
            if self.multipliers.is_meta:
                return theta
            return rescaled(self.field, self._kept(scaling), theta, self.multipliers)
        t = self._factor(_finite(self.field, theta))
        if t is None:
            return theta
        if scaling is None:
            return self.field.scaled(theta, t)
        return theta._replace(**{name: _scaled(getattr(theta, name), t, scaling.power) for name in scaling.weights})

    def in_run(self, seed: int | None = None) -> VectorField:
        """The inner field: in a run the weights are given."""
        return self.field.in_run(seed)

    def check_scheme(self, scheme: Scheme) -> None:
        if scheme != self.scheme:
            raise ValueError(f"this field keeps its budget only with {self.scheme}, got {scheme}; make one for that.")
        self.field.check_scheme(scheme)

    def extra_repr(self) -> str:
        return f"budget={self.budget:g}, scheme={self.scheme}, T={self.T:g}"

    def _kept(self, scaling: Scaling) -> Budget:
        return Budget(self.scheme, self.T / self.layers, self.budget, scaling.weights, scaling.power)

    def _bound(self, asked: Bound | None) -> Bound:
        if asked not in (None, "multipliers", "norms"):
            raise ValueError(f'bound must be "multipliers", "norms" or None, got {asked!r}.')
        if asked == "norms":
            return "norms"
        try:
            sectors_of(self.field, self.scheme, self.field.theta(), self.T / self.layers)
        except NotImplementedError as error:
            if asked is None:
                return "norms"
            raise ValueError(f'bound="multipliers" needs known steps, but {error}') from error
        return "multipliers"

    @torch.no_grad()
    def _fitted(self) -> nn.Parameter:
        """Multipliers for the present weights, rescaled to keep the budget by their norms."""
        theta = self.field.theta()
        scale = self._factor(_finite(self.field, theta))
        scaling = _scaling(self.field)
        assert scaling is not None  # their steps are known
        values = fitted(self.field, self._kept(scaling), theta, 1.0 if scale is None else float(scale))
        return nn.Parameter(values.to(theta[0]))

    def _factor(self, lipschitz: Lipschitz) -> Tensor | None:
        """t, differentiable by the implicit function theorem; None where the raw weights keep the budget."""
        limit, device = math.log(self.budget) * (1 - _ROUNDING), lipschitz.one_sided.device
        if device.type == "meta":  # weights without values have no bound
            return None
        log_t = _largest(lambda s: self._log_bound(_detached(lipschitz), s), limit, device)
        if log_t is None or not torch.is_grad_enabled():
            return None if log_t is None else log_t.exp()
        at = log_t.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self._log_bound(_detached(lipschitz), at), at)
        value = self._log_bound(lipschitz, log_t)
        return (log_t - (value - value.detach()) / slope.clamp(min=1e-12)).exp()

    def _log_bound(self, lipschitz: Lipschitz, log_t: Tensor) -> Tensor:
        """log U with all constants multiplied by t, for every entry of ``log_t``; in float64."""
        parts, one_sided = lipschitz
        t = log_t.double().exp()[..., None]
        scaled = Lipschitz(tuple(t * L.double() for L in parts), t * one_sided.double())
        layers = log_growth(self.scheme, scaled, self.T / self.layers)
        return layers.expand(*log_t.shape, self.layers).sum(-1)


class PartitionedBudgetedField(BudgetedField, PartitionedField):
    """A budgeted field that splits into (p, q); with shears every singular value lies in [1/budget, budget]."""


BUDGETED = (BudgetedField, PartitionedBudgetedField)
"""The classes of budgeted fields, for code that checks exact types."""


def _scaling(field: VectorField) -> Scaling | None:
    """The scaling that the field's own class states; a subclass without its own statement may compute anything."""
    return field.scaling if "scaling" in vars(type(field)) else None


def _scaled(K: Tensor, t: Tensor, power: int) -> Tensor:
    """t^(1/power) K; 16-bit K is rounded once, with the margin that this needs, ||dK||_F <= u ||K||_F."""
    dtype = working(K.dtype)
    root = (t ** (1.0 / power)).to(dtype)  # of t itself, which may have no digits in float32
    if K.dtype == root.dtype:
        return root * K
    rank = min(K.shape[1:3])
    return (root / (1 + rounding_of(K.dtype) * rank**0.5) * K.to(root.dtype)).to(K.dtype)


def _finite(field: VectorField, theta: Theta) -> Lipschitz:
    """The field's constants; in float64 where they overflow in float32."""
    lipschitz = field.lipschitz(theta)
    if lipschitz.one_sided.device.type == "meta" or bool(torch.cat(lipschitz.parts).isfinite().all()):
        return lipschitz
    return field.lipschitz(type(theta)(*(w.double() for w in theta)))


def _detached(lipschitz: Lipschitz) -> Lipschitz:
    return Lipschitz(tuple(L.detach() for L in lipschitz.parts), lipschitz.one_sided.detach())


@torch.no_grad()
def _largest(bound: Callable[[Tensor], Tensor], limit: float, device: torch.device) -> Tensor | None:
    """The largest log t <= 0 with bound(log t) <= limit, to 1e-3 and from below; None if it is 0.

    The bound grows with t: four grids of 16 points, each between two points of the previous grid. The host reads the
    device once: whether t = 1 is kept, and whether the first grid begins low enough.
    """
    low, high = torch.linspace(-_STRETCH, 0.0, 2, dtype=torch.float64, device=device)
    kept, enough = (bound(torch.stack((high, low))) <= limit).tolist()
    if kept:
        return None
    while not enough and low > _LOWEST:
        low, high = low - _STRETCH, low
        enough = bool(bound(low[None]) <= limit)
    unit = torch.linspace(0.0, 1.0, 16, dtype=torch.float64, device=device)
    beside = torch.arange(-1, 1, device=device)
    for _ in range(4):
        points = torch.lerp(low, high, unit)
        inside = (bound(points) <= limit).sum()
        low, high = points.gather(0, (inside + beside).clamp_(0, 15))
    return low
