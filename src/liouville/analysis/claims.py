r"""The claims of a certificate, one function each: from routes, bounds and measurements to a verdict."""

from __future__ import annotations

__all__ = ["Claim", "of_flow", "of_network", "probes"]

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from liouville.analysis.attack import attacked
from liouville.analysis.bounds import log_inverse_bound, log_upper_bound
from liouville.analysis.measured import NORMS, Measured, measure
from liouville.analysis.robustness import certified_radius
from liouville.analysis.routes import (
    Assumption,
    Route,
    activation_facts,
    activation_of,
    find_route,
    imaginary_facts,
    plain_field,
    weights_finite,
)
from liouville.analysis.stability import ROUNDING, margin, modes, off_axis
from liouville.budget import BudgetedField
from liouville.flow import Flow
from liouville.multipliers.budgets import needs_inverse
from liouville.network import Network
from liouville.precision import in_working_precision, name_of, widened
from liouville.schemes import (
    Midpoint,
    ReversibleScheme,
    SplittingScheme,
)

Status = Literal["pass", "not applicable", "broken"]


@dataclass(frozen=True)
class Claim:
    """One statement about a network.

    Args:
        name: short, for tables.
        statement: what is claimed, in full.
        status: ``"pass"``, ``"not applicable"`` or ``"broken"``.
        route: of the proof: ``"symplectic"``, ``"det = 1"``, ``"det >= 1"``, ``"norms"``,
            ``"multipliers"``, ``"enclosure"``, ``"measured"`` or ``"none"``.
        assumptions: what the proof needs, as measured on the object.
        bound: guaranteed numbers.
        measured: the same numbers over the given data.
        note: why it is broken or not applicable, or how to read it.
        flow: which flow of a network; None for the network itself.
    """

    name: str
    statement: str
    status: Status
    route: str = "none"
    assumptions: tuple[Assumption, ...] = ()
    bound: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    flow: int | None = None


_PROBES = 32
_LINEAR = 1e-4  # beyond such a drift nothing can be expected of linearised layers
_SLACK = 1e3  # roundings inside a velocity, and the residual of an implicit layer (10 eps), are not counted in drift
_NO_DIRECTION = "a norm >= 1 does not mean that no direction shrinks"
_WIDE = "not measured: the state is too wide"


def probes(flow: Flow) -> Tensor:
    """States to measure where none are given: normal, 5 x 5 pixels for images, 5 tokens for sequences.

    Raises:
        ValueError: if the flow does not run on them.
    """
    shape = (_PROBES, *flow.field.sample_shape())
    y = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(next(flow.parameters()))
    try:
        next(states := flow.states(y)), next(states)
    except ArithmeticError:
        return y  # an implicit layer without a solution, which the claims say
    except Exception as error:
        raise ValueError(
            f"no input was given, and the flow does not run on random ones of shape {shape} ({type(error).__name__}: "
            f"{error}); give y, and state the field's sample_ndim where a sample has more axes."
        ) from error
    return y


def of_flow(flow: Flow, y: Tensor, number: int | None) -> Iterator[Claim]:
    """All claims about one flow, in evaluation mode, measured at the states y."""
    finite = weights_finite(flow)
    text = "all weights, and all states and sensitivities over the given data, are finite numbers"
    exact = widened(flow)  # proofs are about exact arithmetic; finite states and the inverse about the flow as it runs
    try:
        _require_finite(flow, y, finite)
        route = _on_grid(flow, y, find_route(exact))
        found = measure(flow, y, route.J)
    except ArithmeticError as error:
        yield Claim("finite", text, "broken", "measured", (finite,), note=str(error).rstrip("."), flow=number)
        return
    yield Claim("finite", text, "pass", "measured", (finite,), flow=number)
    yield _lower_bound(exact, route, found, number)
    yield _layer_law(route, found, number)
    upper = _upper_bound(exact, route, found, number)
    yield upper
    yield _spectrum(exact, route, upper, found, number)
    if isinstance(flow.field, BudgetedField):
        yield _budget(flow.field, upper, number)
    yield _inverse(flow, y, found, number)
    yield _step_size(exact, in_working_precision(y), number)


def of_network(network: Network, x: Tensor) -> Iterator[Claim]:
    """The radius within which no prediction changes, for every given input, and what attacks on it found."""
    network, x = widened(network), in_working_precision(x)
    text = "the predicted class stays the same within this distance of an input, in the 2-norm of the network's inputs"
    try:
        radius, route = _radius(network, x)
    except NotImplementedError as error:
        yield Claim("robustness radius", text, "not applicable", note=str(error))
        return
    except (ArithmeticError, ValueError) as error:
        yield Claim("robustness radius", text, "broken", note=str(error).rstrip("."))
        return
    if not bool((radius > 0).any()):
        yield Claim("robustness radius", text, "not applicable", route, note="no radius above 0 is known")
        return
    bound = {"median": float(radius.median()), "smallest": float(radius.min()), "largest": float(radius.max())}
    attack = attacked(network, x, radius)
    measured = {"changed predictions": float(attack.flips)}
    status: Status = "broken" if attack.flips else "pass"
    yield Claim("robustness radius", text, status, route, bound=bound, measured=measured, note=attack.note)


def _radius(network: Network, x: Tensor) -> tuple[Tensor, str]:
    """The radius, and the route of its proof."""
    try:
        return certified_radius(network, x, "local"), "enclosure"
    except NotImplementedError:
        return certified_radius(network, x, "global"), "norms"


def _lower_bound(flow: Flow, route: Route, found: Measured, number: int | None) -> Claim:
    text = (
        "||dState_N/dState_j|| >= 1 for every j, every input and every sub-multiplicative norm; the full state's matrix"
    )
    measured = {f"least {norm}": found.smallest[norm] for norm in NORMS if norm in found.smallest}
    status, note = _verdict(route)
    if status == "pass" and min(found.smallest.values()) < 1 - found.rounding:
        status, note = "broken", f"a measured norm is below 1 by more than rounding ({found.rounding:.2g})"
    bound = {"norm >=": 1.0} if status == "pass" else {}
    return Claim("lower bound", text, status, route.name, route.assumptions, bound, measured, note, number)


def _layer_law(route: Route, found: Measured, number: int | None) -> Claim:
    text = {
        "symplectic": "A J A^T = J for the Jacobian A of every layer, relative to ||A||^2 ||J||; so det A = 1",
        "det = 1": "|det A| = 1 for the Jacobian A of every layer",
        "det >= 1": "det A >= 1 for the Jacobian A of every layer",
        "none": "no law of the layers' Jacobians is known",
    }[route.name]
    status, note = _verdict(route)
    measured: dict[str, float] = {}
    if found.log_det is not None:
        measured = {"least log det": found.log_det[0], "largest": found.log_det[1]}
        slack = found.log_det_rounding
        off = max(-found.log_det[0], 0.0 if route.name == "det >= 1" else found.log_det[1])
        if found.defect is not None:
            measured = {"defect": found.defect, **measured}
            off = max(off, found.defect)
        if status == "pass" and off > slack:
            status, note = "broken", f"the layers are off by {off:.3g}, more than rounding ({slack:.2g})"
    elif status == "pass":
        note = _WIDE
    return Claim("layers", text, status, route.name, route.assumptions, {}, measured, note, number)


def _upper_bound(flow: Flow, route: Route, found: Measured, number: int | None) -> Claim:
    text = "||dState_N/dState_j||_2 <= U for every j and every input, from the weights alone"
    measured = {"largest 2-norm": found.largest["2"]}
    try:
        log_upper = log_upper_bound(flow)
        log_u, by_norms = float(log_upper.double()), float(log_upper_bound(flow, steps=0))
        text += f", evaluated in {name_of(log_upper.dtype)}"
    except NotImplementedError as error:
        return Claim("upper bound", text, "not applicable", measured=measured, note=str(error), flow=number)
    facts = tuple(a for a in route.assumptions if a.text.startswith("it computes"))
    facts += activation_facts(sigma := activation_of(plain_field(flow.field)), monotone=sigma.monotone)
    if any(not fact.holds for fact in facts):
        note = _failed(facts)
        return Claim("upper bound", text, "broken", "norms", facts, measured=measured, note=note, flow=number)
    if log_u > 700:
        note = "the bound is too large for a number"
        return Claim("upper bound", text, "not applicable", "norms", facts, {"log U": log_u}, measured, note, number)
    bound, status, note = {"U": math.exp(log_u)}, "pass", ""
    way = "multipliers" if log_u < by_norms else "norms"
    if found.largest["2"] > bound["U"] * (1 + found.rounding / found.largest["2"] + 1e-6):
        status, note = "broken", "a measured norm exceeds the bound"
    return Claim("upper bound", text, status, way, facts, bound, measured, note, number)  # type: ignore[arg-type]


def _spectrum(flow: Flow, route: Route, upper: Claim, found: Measured, number: int | None) -> Claim:
    text = "every singular value of every dState_N/dState_j lies in [1/U', U], U' the bound of the inverse"
    if route.J is not None:
        text += "; for a canonical J they come in pairs (s, 1/s)"
    measured = {"smallest": found.singular[0], "largest": found.singular[1]}
    shears = isinstance(flow.scheme, SplittingScheme | Midpoint)
    if upper.status != "pass" or not (shears or _is_orthogonal(route.J)):
        why = "no upper bound" if upper.status != "pass" else "the inverse of a layer has no bound here"
        status: Status = "broken" if upper.status == "broken" else "not applicable"
        return Claim("singular values", text, status, measured=measured, note=f"{why}; {_NO_DIRECTION}", flow=number)
    U = upper.bound["U"]
    least = math.exp(-float(log_inverse_bound(flow))) if needs_inverse(plain_field(flow.field), flow.scheme) else 1 / U
    off = found.singular[0] < (1 - 1e-6) * least - found.rounding
    note = "a measured singular value is below 1/U'" if off else _NO_DIRECTION
    bound = {"smallest": least, "largest": U}
    return Claim("singular values", text, "broken" if off else "pass", upper.route, (), bound, measured, note, number)


def _budget(budgeted: BudgetedField, upper: Claim, number: int | None) -> Claim:
    text = f"U <= {budgeted.budget:g}, whatever the weights become"
    U = upper.bound.get("U", math.inf)
    kept = budgeted.budget >= U
    note = "" if kept else "the flow's own bound exceeds the budget: its T or scheme is not the budget's"
    status: Status = "pass" if kept else "broken"
    return Claim("budget", text, status, "norms", (), {"C": budgeted.budget}, {"U": U}, note, number)


def _inverse(flow: Flow, y: Tensor, found: Measured, number: int | None) -> Claim:
    text = "every layer is a bijection with a known inverse, so that states can be rebuilt instead of stored"
    if not isinstance(flow.scheme, ReversibleScheme):
        why = f"{type(flow.scheme).__name__} has no inverse"
        return Claim("inverse", text, "not applicable", note=why, flow=number)
    dtypes = dict.fromkeys((y.dtype, torch.float32, torch.float64))
    expected = {_name(dtype): torch.finfo(dtype).eps * found.drift for dtype in dtypes}
    try:
        drift, likely = _drift(flow, y), torch.finfo(y.dtype).eps * found.drift
    except ArithmeticError as error:  # an implicit layer without a solution
        return Claim("inverse", text, "not applicable", note=str(error).split(";")[0], flow=number)
    off = likely < _LINEAR and not drift <= _SLACK * likely
    note = "relative, to state 0; guaranteed stands for expected"
    if off:
        note = f"undoing the layers leads elsewhere, by more than {_SLACK:g} times the expected drift"
    measured = {_name(y.dtype): drift}
    status: Status = "broken" if off else "pass"
    return Claim(
        "inverse",
        text,
        status,
        "closed form",
        (),
        expected if math.isfinite(found.drift) else {},
        measured,
        note,
        number,
    )


def _name(dtype: torch.dtype) -> str:
    return f"drift {name_of(dtype)}"


def _step_size(flow: Flow, y: Tensor, number: int | None) -> Claim:
    text = "h times the rate of every frozen, linearised layer is below the limit of the scheme: advice, not a proof"
    limit = flow.scheme.stability_limit
    try:
        largest = float(margin(flow).max())
    except NotImplementedError as error:
        return Claim("step size", text, "not applicable", note=str(error), flow=number)
    measured = {"largest h x rate": largest}
    facts = imaginary_facts(flow)
    if not facts or not all(fact.holds for fact in facts):
        return _modes_claim(flow, y, measured, number)
    if math.isnan(limit):
        note = f"no limit of {type(flow.scheme).__name__} is known"
        return Claim("step size", text, "not applicable", "none", facts, measured=measured, note=note, flow=number)
    below = largest < limit
    note = "advice; frozen layer, linearised" + ("" if below else ": above the limit")
    status: Status = "pass" if below else "not applicable"
    return Claim("step size", text, status, "advice", facts, {"limit": limit}, measured, note, number)


def _modes_claim(flow: Flow, y: Tensor, measured: dict[str, float], number: int | None) -> Claim:
    """The claim where no formula says that rates are imaginary: what the steps do to modes at the given states."""
    text = (
        "at the given states no mode of a frozen, linearised layer grows in a step of the scheme: advice, not a proof"
    )
    found = modes(flow, y)
    if found is None or found.growth > 1 + ROUNDING:
        growth = {} if found is None else {"largest growth a step": found.growth}
        return Claim(
            "step size",
            text,
            "not applicable",
            measured={**measured, **growth},
            note=off_axis(flow, found),
            flow=number,
        )
    measured = {**measured, "largest growth a step": found.growth}
    return Claim("step size", text, "pass", "measured", (), {}, measured, "advice; frozen layer, linearised", number)


def _verdict(route: Route) -> tuple[Status, str]:
    """What the route alone says, and why not where it does not pass."""
    if route.broken:
        return "broken", _failed(route.assumptions)
    if route.name == "none":
        return "not applicable", f"no route: {route.why}"
    if not route.proved:
        return "not applicable", f"no route: {_failed(route.assumptions)}"
    return "pass", ""


def _failed(assumptions: tuple[Assumption, ...]) -> str:
    return "; ".join(f"not true that {a.text}: {a.evidence}" for a in assumptions if not a.holds)


def _require_finite(flow: Flow, y: Tensor, weights: Assumption) -> None:
    if not weights.holds:
        raise ArithmeticError(weights.evidence)
    for j, state in enumerate(flow.states(y)):
        if not all(bool(part.isfinite().all()) for part in state):
            raise ArithmeticError(f"the state behind layer {j - 1} is not finite" if j else "the given states are not")


def _drift(flow: Flow, y: Tensor) -> float:
    """How far state 0 is off, relative to its largest entry, when all layers are done and undone."""
    first, *_, last = flow.states(y)
    back = flow.inverse_state(last)
    off = max(float((a - b).abs().max()) for a, b in zip(back, first, strict=True))
    return off / max(float(part.abs().max()) for part in first)


def _on_grid(flow: Flow, y: Tensor, route: Route) -> Route:
    """A run on an integer grid that leaves its range is not the map that was proved anything of."""
    try:
        with torch.enable_grad():
            flow(y.detach().requires_grad_())
    except ArithmeticError as error:
        return Route("none", str(error).split(": ")[0], route.assumptions)
    except (RuntimeError, ValueError):
        pass  # an engine that cannot run here is another command's concern
    return route


def _is_orthogonal(J: Tensor | None) -> bool:
    """Whether J is c times an orthogonal matrix, so that A^-1 = J A^T J^-1 has the norm of A."""
    if J is None:
        return False
    gram = J.mT @ J
    c = gram.diagonal().mean()
    return bool(c > 0) and bool(((gram - c * torch.eye(len(J)).to(J)).abs() <= 1e-6 * c).all())
