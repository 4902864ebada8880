r"""The claims about one flow, one function each: from routes, bounds and measurements to a verdict."""

from __future__ import annotations

__all__ = ["Claim", "of_flow", "probes"]

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from liouville.analysis.bounds import proved_bound
from liouville.analysis.certificates.claim import Claim, Status
from liouville.analysis.certificates.dissipation import dissipation
from liouville.analysis.certificates.measured import NORMS, Measured, measure
from liouville.analysis.certificates.reversal import inverse
from liouville.analysis.certificates.steps import step_size
from liouville.analysis.proofs.assumptions import Assumption, activation_facts, activation_of
from liouville.analysis.proofs.routes import Route, find_route, weights_finite
from liouville.analysis.proofs.untouched import unknown_run, unknown_velocities
from liouville.budget import BudgetedField
from liouville.fields.wrapped import unwrapped
from liouville.flow import Flow
from liouville.multipliers.budgets import needs_inverse
from liouville.precision import in_working_precision, name_of, widened
from liouville.schemes import ShearScheme

_PROBES = 32
_KEPT = 256  # maximum number of states per layer at which velocities are checked
_NO_DIRECTION = "a norm >= 1 does not mean that no direction shrinks"
_WIDE = "not measured: the state is too wide"


def probes(flow: Flow) -> Tensor:
    """Default states to measure: normally distributed, 5 x 5 pixels for images, 5 tokens for sequences.

    Raises:
        ValueError: if the flow does not run on them.
    """
    shape = (_PROBES, *flow.field.sample_shape())
    y = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(next(flow.parameters()))
    try:
        next(states := flow.states(y)), next(states)
    except ArithmeticError:
        return y  # an implicit layer without a solution, which the claims report
    except Exception as error:
        raise ValueError(
            f"no input was given, but the flow does not run on random states of shape {shape} ({type(error).__name__}: "
            f"{error}); give y, and state the field's sample_ndim where a sample has more axes."
        ) from error
    return y


def of_flow(flow: Flow, y: Tensor, number: int | None) -> Iterator[Claim]:
    """All claims about one flow, in evaluation mode, measured at the states y."""
    finite = weights_finite(flow)
    text = "all weights, and all states and sensitivities over the given data, are finite numbers"
    exact, double = widened(flow), copy.deepcopy(flow).double()  # proofs are about exact arithmetic, runs are not
    try:
        points = _finite_points(flow, y, finite)
        route = _on_grid(flow, y, find_route(exact, points))
        found = measure(double, y, route.J)
    except ArithmeticError as error:
        yield Claim("finite", text, "broken", "measured", (finite,), note=str(error).rstrip("."), flow=number)
        return
    if found.derivative is not None:
        route = route._replace(assumptions=(*route.assumptions, found.derivative))
    yield Claim("finite", text, "pass", "measured", (finite,), flow=number)
    yield _lower_bound(route, found, number)
    yield _layer_law(route, found, number)
    yield from dissipation(double, y, route, found, number)
    upper = _upper_bound(double, y.dtype, route, found, number)
    yield upper
    yield _spectrum(double, route, upper, found, number)
    if isinstance(flow.field, BudgetedField):
        yield _budget(flow.field, upper, number)
    yield inverse(flow, y, found.drift, number)
    yield step_size(exact, in_working_precision(y), route, number)


def _lower_bound(route: Route, found: Measured, number: int | None) -> Claim:
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


def _upper_bound(flow: Flow, dtype: torch.dtype, route: Route, found: Measured, number: int | None) -> Claim:
    """U of the flow in float64; ``dtype`` is the dtype in which it runs."""
    text = (
        "||dState_N/dState_j||_2 <= U for every j and every input, in exact arithmetic, only from the weights; "
        "evaluated in float64 and rounded up"
    )
    measured = {"largest 2-norm": found.largest["2"]}
    sigma = activation_of(flow.field)
    facts = tuple(a for a in route.assumptions if a.text.startswith(("it computes", "the Jacobian")))
    facts += activation_facts(sigma, monotone=sigma is not None and sigma.monotone)
    if any(not fact.holds for fact in facts):
        status: Status = "broken" if any(fact.claimed and not fact.holds for fact in facts) else "not applicable"
        return Claim("upper bound", text, status, "norms", facts, measured=measured, note=_failed(facts), flow=number)
    try:
        log_u, way, rounding = proved_bound(flow)
    except NotImplementedError as error:
        return Claim("upper bound", text, "not applicable", measured=measured, note=str(error), flow=number)
    if not log_u <= 700:
        note, bound = "the bound is too large for a floating-point number", {"log U": log_u}
        return Claim("upper bound", text, "not applicable", way, facts, bound, measured, note, number)
    U = math.exp(log_u)
    if found.largest["2"] > U * (1 + 1e-6) + found.rounding:
        note = "a measured norm exceeds the bound"
        return Claim("upper bound", text, "broken", way, facts, {"U": U}, measured, note, number)
    if why := unknown_run(flow) or unknown_velocities(flow.field):
        note = f"{why}; if its own statements are right, U is {U:.4g}, which no measurement contradicts"
        return Claim("upper bound", text, "not applicable", "stated", facts, {}, measured, note, number)
    added = found.rounding / torch.finfo(torch.float64).eps * torch.finfo(dtype).eps
    own = f"rounded up by {rounding:.1g} of itself" if rounding else "proved with its rounding"
    note = f"{way}; {own}, while {name_of(dtype)} may add {added:.1g} to a norm"
    return Claim("upper bound", text, "pass", way, facts, {"U": U}, measured, note, number)


def _spectrum(flow: Flow, route: Route, upper: Claim, found: Measured, number: int | None) -> Claim:
    text = "every singular value of every dState_N/dState_j lies in [1/U', U], U' the bound of the inverse"
    if route.J is not None:
        text += "; for a canonical J they come in pairs (s, 1/s)"
    measured = {"smallest": found.singular[0], "largest": found.singular[1]}
    shears = isinstance(flow.scheme, ShearScheme) and not flow.scheme.kept_bits
    inverts = shears or (route.proved and _is_orthogonal(route.J))
    if upper.status != "pass" or not inverts:
        why = "no upper bound" if upper.status != "pass" else "the inverse of a layer has no bound here"
        status: Status = "broken" if upper.status == "broken" else "not applicable"
        return Claim("singular values", text, status, measured=measured, note=f"{why}; {_NO_DIRECTION}", flow=number)
    U = upper.bound["U"]
    least = 1 / U
    if needs_inverse(unwrapped(flow.field), flow.scheme):
        least = math.exp(-proved_bound(flow, backwards=True).log_u)
    off = found.singular[0] < (1 - 1e-6) * least - found.rounding
    note = "a measured singular value is below 1/U'" if off else _NO_DIRECTION
    bound = {"smallest": least, "largest": U}
    facts = (*upper.assumptions, *(a for a in route.assumptions if a not in upper.assumptions))
    return Claim(
        "singular values", text, "broken" if off else "pass", upper.route, facts, bound, measured, note, number
    )


def _budget(budgeted: BudgetedField, upper: Claim, number: int | None) -> Claim:
    text = f"U <= {budgeted.budget:g} for any weights"
    U = upper.bound.get("U", math.inf)
    status: Status = "pass" if upper.status == "pass" else upper.status
    note = "" if status == "pass" else f"no upper bound: {upper.note}"
    if status != "broken" and (upper.bound or status == "pass") and not budgeted.budget >= U:
        status, note = "broken", "the flow's bound exceeds the budget: its T or scheme differs from the budget's"
    measured = {"U": U} if math.isfinite(U) else {}
    return Claim("budget", text, status, "norms", (), {"C": budgeted.budget}, measured, note, number)


def _verdict(route: Route) -> tuple[Status, str]:
    """A claim that needs only the route, with the reason if it does not pass."""
    if route.broken:
        return "broken", _failed(route.assumptions)
    if not route.proved:
        why = [f"no route: {route.why}"] if route.why else []
        failed = [_failed(route.assumptions)] if any(not a.holds for a in route.assumptions) else []
        return "not applicable", "; ".join(why + failed)
    return "pass", ""


def _failed(assumptions: tuple[Assumption, ...]) -> str:
    return "; ".join(f"not true that {a.text}: {a.evidence}" for a in assumptions if not a.holds)


def _finite_points(flow: Flow, y: Tensor, weights: Assumption) -> Tensor:
    """y before every layer, (N, B, ...), after a check that all are finite."""
    if not weights.holds:
        raise ArithmeticError(weights.evidence)
    axes, points = len(flow.field.batch_shape(y)), []
    for j, state in enumerate(flow.states(y)):
        if not all(bool(part.isfinite().all()) for part in state):
            raise ArithmeticError(f"{f'the state after layer {j - 1}' if j else 'a given state'} is not finite")
        point = in_working_precision(flow.scheme.final(flow.field, state))
        points.append(point.flatten(0, axes - 1)[:_KEPT] if axes else point[None])
    return torch.stack(points[:-1])


def _on_grid(flow: Flow, y: Tensor, route: Route) -> Route:
    """The proofs do not apply to a run on an integer grid that leaves its range."""
    try:
        with torch.enable_grad():
            flow(y.detach().requires_grad_())
    except ArithmeticError as error:
        return Route("none", str(error).split(": ")[0], route.assumptions)
    except (RuntimeError, ValueError):
        pass  # an engine that cannot run here is not this claim's concern
    return route


def _is_orthogonal(J: Tensor | None) -> bool:
    """Whether J is c times an orthogonal matrix, so that A^-1 = J A^T J^-1 has the norm of A."""
    if J is None:
        return False
    gram = J.mT @ J
    c = gram.diagonal().mean()
    return bool(c > 0) and bool(((gram - c * torch.eye(len(J)).to(J)).abs() <= 1e-6 * c).all())
