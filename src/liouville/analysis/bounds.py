r"""Upper bounds of sensitivities that need only the weights: for every input, tried or not.

    ||dState_N / dState_j||_2 <= prod_{l >= j} ||A_l||_2 <= U_j

and each factor is bounded by the norms of the layer's weights and s_max >= |sigma'|. For a composition of shears the
inverse of each factor has the same norm as the factor, so *every* singular value lies in [1/U_j, U_j]. The norms are
evaluated in the dtype of the weights, in float32 for 16 bits; `rounding_of_norms` bounds their rounding. A bound by
multipliers is proved with its rounding, so `proved_bound` adds nothing to it.
"""

from __future__ import annotations

__all__ = [
    "ProvedBound",
    "log_exponential_bound",
    "log_inverse_bound",
    "log_layer_bounds",
    "log_upper_bound",
    "proved_bound",
    "rounding_of_norms",
]

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from liouville.analysis.proofs.untouched import require_stated
from liouville.analysis.slopes import log_multiplier_bound
from liouville.fields.base import Lipschitz, VectorField
from liouville.fields.once import theta_of
from liouville.fields.wrapped import unwrapped
from liouville.flow import Flow, require_flow
from liouville.multipliers.budgets import needs_inverse
from liouville.precision import require_floating, working
from liouville.schemes import ShearScheme, SplittingScheme
from liouville.schemes.growth import log_growth


def log_layer_bounds(flow: Flow) -> Tensor:
    r"""An upper bound of log ||A_j||_2 for every layer, (N,), for all states; see `liouville.schemes.growth`.

    Raises:
        NotImplementedError: if the field states no Lipschitz constants of its computation, or the scheme no bound of
            its step: a subclass that changed either, a hook, an attribute replaced on an object, an activation that is
            steeper than it states. Statements of a class of your own are trusted here, but not by `certify`.

    Examples:
        >>> import liouville as lv
        >>> log_layer_bounds(lv.zoo.h2(4, layers=8, T=1.0)).shape
        torch.Size([8])
    """
    flow = require_flow(flow)
    require_stated(flow)
    return log_growth(flow.scheme, _lipschitz(flow.field), flow.h).expand(flow.layers)


def log_upper_bound(flow: Flow, steps: int | None = None) -> Tensor:
    r"""log U, with ||dState_N / dState_j||_2 <= U for every j, sample and input; differentiable in theta.

    The smaller of two bounds. By norms, U is the product of the bounds of the layers, each of which is at least 1;
    where s_max is infinite, so is U. By multipliers (`liouville.multipliers.recursion`), for splitting schemes on
    separable and pair fields and forward Euler on Hamiltonian, antisymmetric and residual ones, dense or on a graph,
    with tanh, relu, softplus or logistic: a number that is proved with its rounding, usually far smaller.
    It is for objects that are exactly of these classes; others have the bound by norms.

    Args:
        flow: a flow.
        steps: how many multipliers are tried; each gives a bound, the least is taken. None: 100, or as many as about a
            second allows. 0: only the bound by norms.

    Raises:
        NotImplementedError: as for `log_layer_bounds`.
        ValueError: if ``steps`` is not a whole number of at least 0.

    Examples:
        >>> import liouville as lv
        >>> flow = lv.zoo.h2(4, layers=64, T=1.0)
        >>> largest = torch.linalg.matrix_norm(lv.analysis.backward_sensitivity(flow, torch.randn(10, 4)), ord=2).max()
        >>> bool(largest.log() <= log_upper_bound(flow) <= log_upper_bound(flow, steps=0))
        True
    """
    return _smaller(flow, steps, backwards=False)


def log_inverse_bound(flow: Flow, steps: int | None = None) -> Tensor:
    r"""log U' of the inverse of a composition of shears: every singular value of every dState_N/dState_j is >= 1/U'.

    By norms U' is U: a shear and its inverse have the same norm. For products of shears this does not hold in general,
    except for a separable field with X = c Q, Q orthogonal, where A^-1 = J^-1 A^T J. Arguments and errors are as in
    `log_upper_bound`.

    Raises:
        NotImplementedError: also for a scheme that is not a composition of shears.

    Examples:
        >>> import liouville as lv
        >>> flow = lv.zoo.ms1(4, layers=16, T=2.0)
        >>> least = torch.linalg.svdvals(lv.analysis.backward_sensitivity(flow, torch.randn(10, 4))).min()
        >>> bool(least.log() >= -log_inverse_bound(flow))
        True
    """
    flow = require_flow(flow)
    return _smaller(flow, steps, backwards=_inverse_is_apart(flow))


class ProvedBound(NamedTuple):
    """log U with all roundings of its evaluation, and their share relative to U.

    Args:
        log_u: rounded up.
        way: ``"norms"`` or ``"multipliers"``.
        rounding: the amount added to log U; 0 by multipliers, whose proof includes rounding.
    """

    log_u: float
    way: Literal["norms", "multipliers"]
    rounding: float


@torch.no_grad()
def proved_bound(flow: Flow, backwards: bool = False) -> ProvedBound:
    """The smaller of the two bounds of `log_upper_bound`, or of `log_inverse_bound`, each rounded up.

    Raises:
        NotImplementedError: as for these.

    Examples:
        >>> import liouville as lv
        >>> proved_bound(lv.zoo.h2(4, layers=64, T=4.0)).way
        'multipliers'
    """
    flow = require_flow(flow)
    norms, multipliers = _both(flow, None, backwards and _inverse_is_apart(flow))
    rounding = rounding_of_norms(flow)
    by_norms = ProvedBound(float(norms) + rounding, "norms", rounding)
    if multipliers is None or not float(multipliers) < by_norms.log_u:
        return by_norms
    return ProvedBound(float(multipliers), "multipliers", 0.0)


def _inverse_is_apart(flow: Flow) -> bool:
    """Whether a composition of shears and its inverse may have different norms."""
    if not isinstance(flow.scheme, ShearScheme) or flow.scheme.kept_bits:
        raise NotImplementedError(f"no bound of the inverse is known for {type(flow.scheme).__name__}.")
    return needs_inverse(unwrapped(flow.field), flow.scheme)


def _smaller(flow: Flow, steps: int | None, backwards: bool) -> Tensor:
    norms, multipliers = _both(require_flow(flow), steps, backwards)
    return norms if multipliers is None or not float(multipliers.detach()) < float(norms.detach()) else multipliers


def _both(flow: Flow, steps: int | None, backwards: bool) -> tuple[Tensor, Tensor | None]:
    """log U by norms and, where it is known, by multipliers."""
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 0):
        raise ValueError(f"steps must be a whole number of at least 0, got {steps!r}.")
    norms = log_layer_bounds(flow).clamp(min=0.0).sum()
    return norms, None if steps == 0 else log_multiplier_bound(flow, _theta(flow.field), steps, backwards)


def rounding_of_norms(flow: Flow) -> float:
    """The error of log U by norms, evaluated in the dtype of the weights.

    LAPACK's norms of n x n matrices have a relative error of at most 10 n eps. The bound of a layer uses up to ten
    norms, each of which moves its logarithm by at most its relative error; then N logarithms are summed.

    Examples:
        >>> import liouville as lv
        >>> rounding_of_norms(lv.zoo.h2(4, layers=8, T=1.0).double()) < 1e-10
        True
    """
    weights = [w for w in flow.parameters() if w.dim() > 1]
    n = max((max(w.shape[1:]) * w[0, 0].numel() if w.dim() > 2 else w.shape[-1] for w in weights), default=1)
    return flow.layers * 200 * n * max((torch.finfo(w.dtype).eps for w in weights), default=0.0)


def log_exponential_bound(flow: Flow) -> Tensor:
    r"""The plain exponent sum_j h (L_p + L_q), or sum_j h L: the log of the bound without structure.

    For the separable field it is h s_max ||X|| sum_j (||K_p||^2 + ||K_q||^2), for forward Euler on the Hamiltonian
    field h s_max sum_j ||J|| ||K||^2. `log_upper_bound` is never larger, and about half or a quarter of it.

    Raises:
        NotImplementedError: if the field states no Lipschitz constants, or the bound does not hold for the scheme.

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
    """The field's constants for the map that its weights define in exact arithmetic; differentiable in the weights."""
    return field.lipschitz(_theta(field))


def _theta(field: VectorField) -> Any:
    """theta(), in the working precision."""
    tensors = {f"field.{name}": t for name, t in (*field.named_parameters(), *field.named_buffers())}
    for name, t in tensors.items():
        if t.is_floating_point() or t.is_complex():
            require_floating(t.dtype, name.removeprefix("field."))
    wide = {name: t.to(working(t.dtype)) for name, t in tensors.items() if t.dtype != working(t.dtype)}
    return functional_call(_Theta(field), wide, ()) if wide else theta_of(field)


class _Theta(nn.Module):
    """``theta()`` as a module's forward pass, so that it can be given other parameters."""

    def __init__(self, field: VectorField) -> None:
        super().__init__()
        self.field = field

    def forward(self) -> Any:
        return self.field.theta()
