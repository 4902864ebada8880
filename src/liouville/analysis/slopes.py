r"""The upper bound of sensitivities by multipliers: of each activation only the range of slopes, [0, s], is used.

`liouville.multipliers.recursion` has the recursion and its proof, `liouville.multipliers.proof` the rounding proof.
"""

from __future__ import annotations

__all__ = ["log_multiplier_bound"]

import math
from typing import Any

import torch
from torch import Tensor, nn

from liouville.analysis.proofs.untouched import require_untouched
from liouville.budget import BUDGETED
from liouville.fields.base import Theta
from liouville.fields.wrapped import unwrapped
from liouville.flow import Flow
from liouville.multipliers.budgets import factors
from liouville.multipliers.proof import proved_log_bound
from liouville.multipliers.scaling import worst
from liouville.multipliers.search import Found, search, start
from liouville.multipliers.sectors import Sectors, sectors_of
from liouville.multipliers.steps import FIELDS
from liouville.precision import working

_KNOWN: tuple[type[nn.Module], ...] = (Flow, *FIELDS, *BUDGETED)
_USUAL = 100  # steps of the search, fewer for large networks
_OPERATIONS = 6e9  # multiplications of all steps: about a second
_LARGEST = 300.0  # log U beyond which squares overflow


def log_multiplier_bound(flow: Flow, theta: Theta, steps: int | None, backwards: bool = False) -> Tensor | None:
    """log U, differentiable in ``theta``, the flow's weights; None where this bound does not apply to the flow.

    It is computed and proved in float64, and rounded upwards to the working precision of the weights.

    Args:
        flow: the flow.
        theta: its weights, for the field or the field inside a budget.
        steps: how many multipliers are tried; None: 100, or as many as about a second allows.
        backwards: bound the inverse steps of a composition of shears instead.
    """
    try:
        require_untouched(flow, _KNOWN)
        sectors = _sectors(flow, theta, backwards)
    except (NotImplementedError, ValueError):  # it has the bound by norms, or the reason why it has none
        return None
    steps = _affordable(sectors) if steps is None else steps
    if steps < 1:
        return None
    with torch.no_grad():
        found = _best(flow, sectors, steps, backwards)
        if not found.squared < math.exp(2 * _LARGEST):
            return None
        value = proved_log_bound(sectors, found.multipliers)
        at = worst(sectors, found.multipliers)
    if value is None or at is None:
        return None
    like = next(flow.parameters())
    proved = _upwards(value, working(like.dtype)).to(like.device)  # computed on the CPU
    if not torch.is_grad_enabled():
        return proved
    ratio = sectors.ratio()  # multipliers that follow the sizes of the weights, as in a budget
    energy = sectors.energy(at.x, at.w, found.multipliers / ratio.detach() * ratio)
    return proved + ((energy - energy.detach()) / (2 * at.squared)).to(proved)


def _upwards(value: float, dtype: torch.dtype) -> Tensor:
    rounded = torch.tensor(value, dtype=dtype)
    return rounded if float(rounded) >= value else torch.nextafter(rounded, torch.tensor(math.inf, dtype=dtype))


def _sectors(flow: Flow, theta: Theta, backwards: bool) -> Sectors:
    sectors = sectors_of(unwrapped(flow.field), flow.scheme, theta, flow.h, sized=True)
    return sectors.inverse() if backwards else sectors


def _best(flow: Flow, sectors: Sectors, steps: int, backwards: bool) -> Found:
    """Start from the closed form, or from the multipliers of a budget, which give U <= C and may only improve."""
    field: Any = flow.field
    if getattr(field, "multipliers", None) is None:
        return search(sectors, start(sectors), steps)
    runs = [sectors.inverse(), sectors] if backwards else [sectors, sectors.inverse()]
    own = factors(field.multipliers)
    run = int(backwards and len(own) > 1)
    found = search(sectors, own[run] * runs[run].ratio(), steps)
    return found if math.isfinite(found.squared) else search(sectors, start(sectors), steps)  # T is not the budget's


def _affordable(sectors: Sectors) -> int:
    """How many steps take about a second."""
    n, p = sectors.B.shape
    w = max(columns.stop - columns.start for columns in sectors.layout.windows)
    operations = p / w * (w**3 + 6 * n * w**2 + 6 * n**2 * w + 2e6)
    return min(_USUAL, int(_OPERATIONS / operations))
