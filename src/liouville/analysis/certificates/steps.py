r"""The claim about step sizes: advice, where the rates of the layers are known to be imaginary or were measured."""

from __future__ import annotations

__all__ = ["step_size"]

import math

from torch import Tensor

from liouville.analysis.certificates.claim import Claim, Status
from liouville.analysis.proofs.routes import Route, imaginary_facts
from liouville.analysis.proofs.untouched import states_its_own, unknown_run
from liouville.analysis.stability import ROUNDING, margin, modes, off_axis
from liouville.flow import Flow


def step_size(flow: Flow, y: Tensor, route: Route, number: int | None) -> Claim:
    """Whether modes of frozen, linearised layers stay bounded: by the scheme's limit, or measured at the states y."""
    text = "h times the rate of every frozen, linearised layer is below the limit of the scheme: advice, not a proof"
    try:
        measured = {"largest h x rate": float(margin(flow).max())}
    except NotImplementedError as error:
        return Claim("step size", text, "not applicable", note=str(error), flow=number)
    formula = tuple(a for a in route.assumptions if a.text.startswith("it computes"))
    facts = imaginary_facts(flow, formula)
    known = not unknown_run(flow) and not states_its_own(flow.scheme, "stability_limit")
    if not known or not facts or not all(fact.holds for fact in facts):
        return _as_measured(flow, y, measured, route, number)
    limit = flow.scheme.stability_limit
    if math.isnan(limit):
        note = f"no limit of {type(flow.scheme).__name__} is known"
        return Claim("step size", text, "not applicable", "none", facts, measured=measured, note=note, flow=number)
    below = measured["largest h x rate"] < limit
    note = "advice; frozen layer, linearised" + ("" if below else ": above the limit")
    status: Status = "pass" if below else "not applicable"
    return Claim("step size", text, status, "advice", facts, {"limit": limit}, measured, note, number)


def _as_measured(flow: Flow, y: Tensor, measured: dict[str, float], route: Route, number: int | None) -> Claim:
    """The claim where no formula shows imaginary rates: the measured growth of modes at the given states."""
    text = (
        "at the given states no mode of a frozen, linearised layer grows in a step of the scheme: advice, not a proof"
    )
    wrong = [a for a in route.assumptions if a.text.startswith("the Jacobian") and not a.holds]
    if wrong:
        note = f"not true that {wrong[0].text}: {wrong[0].evidence}"
        return Claim("step size", text, "not applicable", measured=measured, note=note, flow=number)
    found = modes(flow, y)
    if found is None or not found.growth <= 1 + ROUNDING:
        growth = {} if found is None else {"largest growth a step": found.growth}
        note = off_axis(flow, found)
        return Claim("step size", text, "not applicable", measured={**measured, **growth}, note=note, flow=number)
    measured = {**measured, "largest growth a step": found.growth}
    return Claim("step size", text, "pass", "measured", (), {}, measured, "advice; frozen layer, linearised", number)
