r"""Step sizes: the distance of each layer, frozen and linearised, from the limit of its scheme.

The margin is h times the fastest rate of the layer's field: by a bound that holds for every state (`margin`), or
measured at the states of a given input (`step_margin`). With changing layers or a moving state, differences may grow
although every layer is stable: two alternating stable layers can amplify several times. Measured sensitivities are
facts; a margin is advice.

A scheme's limit is for imaginary rates. Where a layer's rates are not imaginary, the eigenvalues of its whole step
decide; `modes` measures them at given states: h lambda in the scheme's stability region, for any scheme.
"""

from __future__ import annotations

__all__ = ["ROUNDING", "Modes", "StepMargin", "first_nonfinite_layer", "margin", "modes", "off_axis", "step_margin"]

import copy
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import jvp

from liouville.analysis.jacobians import layer_jacobians
from liouville.analysis.precise import precisely
from liouville.analysis.proofs.routes import imaginary_facts
from liouville.analysis.regions import eigenvalues, layer_spectra
from liouville.analysis.states import run_of
from liouville.backprop import slices
from liouville.fields.base import Theta
from liouville.flow import Flow, require_flow
from liouville.schemes import ImplicitSymplecticEuler, SplittingScheme, State
from liouville.schemes.twostep import TwoStep

_WIDEST = 256  # maximum numbers in a state whose step is computed as a matrix
_WORK = 5e8
ROUNDING = 1e-6  # a double eigenvalue is accurate to the square root of eps


@precisely
@torch.no_grad()
def margin(flow: Flow) -> Tensor:
    r"""h times the rate bound of every layer, (N,): advice about the step size, not a proof.

    The rate is s_max ||K|| for residual, antisymmetric and pair fields, s_max ||X|| ||K_p|| ||K_q|| for the separable
    and s_max ||J|| ||K||^2 for the general Hamiltonian field, and the square root of the force's rate for second-order
    fields. A frozen, linearised oscillation is stable below ``flow.scheme.stability_limit``: 2 for symplectic Euler and
    Verlet, 1 for Midpoint, 2 sqrt 2 for RK4, 0 for forward Euler. Compare with it where rates are imaginary, as
    ``flow.field.spectrum`` states; for others use `step_margin`. Changing layers may amplify although each is stable.

    Raises:
        NotImplementedError: if the field states no rate.

    Examples:
        >>> import liouville as lv
        >>> lv.analysis.margin(lv.zoo.h2(4, layers=8, T=1.0)).shape
        torch.Size([8])
    """
    flow = require_flow(flow)
    return flow.h * flow.field.rate(flow.field.theta()).expand(flow.layers)


@dataclass(frozen=True)
class StepMargin:
    """h times the measured rate of every layer and sample; print it for the verdict.

    ``values`` and ``errors`` are (N, *batch): the spectral radius of h f' and the change of its last estimates;
    ``limit`` is the scheme's limit on the imaginary axis, and ``imaginary`` whether it applies: True if the rates of
    the layers are imaginary, by the field's formula or as measured, False if they were measured and are not, None
    if unknown. ``growth`` is the largest modulus of an eigenvalue of a layer's step, NaN where it was not
    needed or the state is too wide.
    """

    values: Tensor
    errors: Tensor
    limit: float
    verdict: str
    imaginary: bool | None = None
    growth: float = math.nan

    def __str__(self) -> str:
        return self.verdict


@precisely
@torch.no_grad()
def step_margin(flow: Flow, y: Tensor, *, iterations: int = 40, generator: torch.Generator | None = None) -> StepMargin:
    r"""h times the spectral radius of f' at the state of every layer and sample, by power iteration: images too.

    ||M^(2k) v|| / ||M^k v|| from a random v gives the radius^k, for complex pairs as well, up to a factor whose effect
    vanishes with k; only products M v are needed. Unlike `margin` it uses sigma' at the actual states. Where no formula
    shows that rates are imaginary, they are measured, for states of at most 256 numbers (`modes`).

    Args:
        flow: the flow.
        y: the input.
        iterations: 2 k, at least 4.
        generator: random generator of the start vectors; a fixed seed if None.

    Raises:
        ValueError: if there are fewer iterations.

    Examples:
        >>> import liouville as lv
        >>> print(step_margin(lv.zoo.h2(4, layers=8, T=1.0), torch.randn(10, 4)).verdict[:26])
        frozen layers, linearised:
    """
    if iterations < 4:
        raise ValueError(f"iterations must be at least 4, got {iterations}.")
    run = run_of(flow, y)
    if generator is None:
        generator = torch.Generator(y.device).manual_seed(0)
    states = [tuple(part[j] for part in run.parts) for j in range(flow.layers)]
    radii = [
        _radius(flow, theta_j, state, iterations, generator)
        for theta_j, state in zip(slices(run.theta, flow.layers), states, strict=True)
    ]
    values, errors = (flow.h * torch.stack(x).reshape(-1, *run.batch) for x in zip(*radii, strict=True))
    facts = imaginary_facts(flow)
    by_rate = not isinstance(flow.scheme, ImplicitSymplecticEuler)  # its limit is a limit of norms
    known = by_rate and bool(facts) and all(fact.holds for fact in facts)
    found = None if known else modes(flow, y)
    imaginary = True if known else found and found.imaginary
    growth = math.nan if found is None else found.growth
    return StepMargin(
        values, errors, flow.scheme.stability_limit, _verdict(flow, values, imaginary, found), imaginary, growth
    )


class Modes(NamedTuple):
    """Frozen layers at some states: the range of Re(h lambda), whether that is only rounding, the largest growth."""

    low: float
    high: float
    imaginary: bool
    growth: float


@torch.no_grad()
def modes(flow: Flow, y: Tensor) -> Modes | None:
    """The eigenvalues of h f' and of the step, in all layers, at as many samples as a second or two allows.

    None for a state of more than 256 numbers, or one without a sample.

    Examples:
        >>> import liouville as lv
        >>> flow = lv.Flow(lv.AntisymmetricField(4, layers=8, gamma=0.5), lv.RK4(), T=1.0)
        >>> found = modes(flow, torch.randn(10, 4))
        >>> found.imaginary, found.growth <= 1
        (False, True)
    """
    flow, y = copy.deepcopy(flow).double(), y.double()
    batch = flow.field.batch_shape(y)
    y = y.flatten(0, len(batch) - 1) if batch else y[None]
    n = sum(part[0].numel() for part in next(iter(flow.states(y))))
    samples = min(len(y), int(_WORK / (25 * flow.layers * n**3)))
    if n > _WIDEST or samples < 1:
        return None
    y = y[torch.linspace(0, len(y) - 1, samples).long()]
    rates, steps = layer_spectra(flow, y), eigenvalues(layer_jacobians(flow, y)).abs()
    low, high = float(rates.real.min()), float(rates.real.max())
    return Modes(low, high, max(high, -low) <= ROUNDING * float(rates.abs().max()), float(steps.max()))


@torch.no_grad()
def first_nonfinite_layer(flow: Flow, y: Tensor) -> int | None:
    """The first layer whose output is not finite for the input y, or None; -1 if y itself is not.

    Examples:
        >>> import liouville as lv
        >>> first_nonfinite_layer(lv.zoo.h2(4, layers=8, T=1.0), torch.zeros(1, 4)) is None
        True
    """
    for j, state in enumerate(require_flow(flow).states(y)):
        if not all(part.isfinite().all() for part in state):
            return j - 1
    return None


def _radius(
    flow: Flow, theta_j: Theta, state: State, iterations: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Spectral radius of f' for every sample, (B,), and the last change of its estimate."""
    v = tuple(torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device) for x in state)
    if not isinstance(flow.scheme, SplittingScheme):
        state, v = (_point(flow, state),), (_point(flow, v),)
    growth = []
    for _ in range(iterations):
        v = _times(flow, theta_j, state, v)
        length = torch.cat([x.flatten(1) for x in v], -1).norm(dim=-1).clamp(min=torch.finfo(v[0].dtype).tiny)
        v = tuple(x / length.reshape(-1, *(1,) * (x.dim() - 1)) for x in v)
        growth.append(length.log())
    third, fourth = (
        torch.stack(part).mean(0).exp()
        for part in (growth[-iterations // 2 : -iterations // 4], growth[-iterations // 4 :])
    )
    return (third * fourth).sqrt(), (third - fourth).abs()


def _times(flow: Flow, theta_j: Theta, state: State, v: State) -> State:
    """f' v: by (p, q) where the halves move in turn, else by y."""
    field: Any = flow.field
    if not isinstance(flow.scheme, SplittingScheme):
        return (jvp(lambda y: field(y, theta_j), state, v)[1],)
    (p, q), (dp, dq) = state, v
    p_dot = jvp(lambda x: field.p_dot(x, theta_j), (q,), (dq,))[1]
    return p_dot, jvp(lambda x: field.q_dot(x, theta_j), (p,), (dp,))[1]


def _point(flow: Flow, state: State) -> Tensor:
    return flow.scheme.final(flow.field, state)


def _verdict(flow: Flow, values: Tensor, imaginary: bool | None, found: Modes | None) -> str:
    per_layer = values.reshape(len(values), -1).amax(1)
    worst, layer = float(per_layer.max()), int(per_layer.argmax())
    name, limit = type(flow.scheme).__name__, flow.scheme.stability_limit
    if not math.isfinite(worst):
        return f"frozen layers, linearised: h x rate is {worst} in layer {layer}, which permits no statement."
    start = f"frozen layers, linearised: h x rate is at most {worst:.3g} (layer {layer})"
    if not imaginary:
        return f"{start}; a limit on the imaginary axis is not applicable: {off_axis(flow, found)}."
    if found is not None:
        return f"{start}; {off_axis(flow, found)}; layers that change may still grow."
    if limit != limit:
        return f"{start}; no limit of {name} is known here."
    if limit == 0:
        return f"{start}; {name} amplifies every oscillation, by up to {(1 + worst**2) ** 0.5:.3g} in that layer."
    beyond = int((per_layer >= limit).sum())
    if beyond:
        return (
            f"{start}, and {beyond} of {len(per_layer)} layers reach the limit {limit:.3g} of {name}: take more layers."
        )
    return f"{start}, below the limit {limit:.3g} of {name}; layers that change may still grow."


def off_axis(flow: Flow, found: Modes | None) -> str:
    """Why the limit on the imaginary axis does not decide, and the effect of a step on the measured modes."""
    name = type(flow.scheme).__name__
    if found is None:
        return f"the rates of {type(flow.field).__name__} are not known to be imaginary"
    reason = f"the rates are not imaginary (h Re lambda from {found.low:.2g} to {found.high:.2g})"
    if found.imaginary:
        reason = "the rates are imaginary at these states"
    if found.growth <= 1 + ROUNDING:
        return f"{reason}, and no mode grows in a step of {name} at these states"
    damped = isinstance(flow.scheme, TwoStep) and not found.imaginary and found.low < 0
    cause = ", which amplifies damped modes" if damped else ""
    return f"{reason}, and a mode grows by up to {found.growth:.4g} in a step of {name} at these states{cause}"
