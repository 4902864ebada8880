"""How strongly the last state depends on earlier ones, by depth, with what is guaranteed of it."""

from __future__ import annotations

__all__ = ["Norms", "gradients", "norms_of"]

from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.analysis import Certificate, backward_sensitivity, gradient_norms, norms
from liouville.answering import evaluation_mode, outputs_of
from liouville.flow import Flow
from liouville.report.page.blocks import Chart, Section, Table, axis, log_axis, number
from liouville.report.page.record import Record
from liouville.report.style import TRAIN
from liouville.task import Task

_WIDEST, _SAMPLES, _CELLS = 64, 50, 4_000_000  # numbers in a state, samples, numbers in all matrices
_ROWS = 9


class Norms(NamedTuple):
    """By the number of layers between: the least, median and largest sample, (N,) each, and what was measured."""

    least: Tensor
    median: Tensor
    largest: Tensor
    of_matrices: bool


def norms_of(record: Record) -> Norms | str:
    """The norms of dState_N/dState_j where the state is small, else of the loss's gradient; or why there are none.

    They are measured over some training samples, in float64.
    """
    network, split = record.network, record.split
    if network is None or split is None:
        return record.lacks
    flows = list(network.flows())
    if len(flows) != 1 or flows[0] is not network.body:
        return f"the network has {len(flows)} flows, whose states differ in size."
    flow = flows[0]
    x = split.x_train[:_SAMPLES].to(next(network.parameters()))
    try:
        with torch.no_grad(), evaluation_mode(network):
            y = network.lift(x)
            size = 2 * y[0].numel()
            if size <= _WIDEST:
                few = max(4, min(len(y), _CELLS // (flow.layers * size**2)))
                found = norms(backward_sensitivity(flow, y[:few])).two
            else:
                found = _of_the_loss(record, flow, x[:16], y[:16])
    except (ValueError, NotImplementedError, ArithmeticError) as error:
        return str(error)
    found = found.detach().double().cpu().flatten(1)[:-1].flip(0)  # by l = 1 ... N
    if not found.isfinite().all():
        return "a norm is not finite."
    return Norms(found.amin(1), found.median(1).values, found.amax(1), size <= _WIDEST)


def _of_the_loss(record: Record, flow: Flow, x: Tensor, y: Tensor) -> Tensor:
    """||dL/dState_j|| / ||dL/dState_N|| of every sample."""
    network, split = record.network, record.split
    assert network is not None and split is not None
    last = flow(y).detach().requires_grad_()
    with torch.enable_grad():
        scores = network.head(last)
        task = Task.of(split.classes, outputs_of(network, x[:1]).shape[1])
        loss = task.loss(scores, split.y_train[: len(x)].to(x.device))
        (gradient,) = torch.autograd.grad(loss, last)
    found = gradient_norms(flow, y, gradient)
    return found / found[-1].clamp_min(1e-300)


def gradients(record: Record, found: Norms | str) -> Section:
    """The curve, the bound 1 where it is proved, and U where there is one."""
    title = "Gradient norms by depth"
    if isinstance(found, str):
        return Section(title, f"Not applicable: {found}")
    lower, upper = _bounds(record.certificate)
    what = "‖∂y_N/∂y_j‖" if found.of_matrices else "‖∂L/∂y_j‖ / ‖∂L/∂y_N‖"
    N = len(found.median)
    lead = f"Through all {N} layers {what} is {number(float(found.median[-1]))} (median of the samples); "
    lead += (
        f"over all depths it lies between {number(float(found.least.min()))} and {number(float(found.largest.max()))}."
    )
    shown_lower = lower and found.of_matrices
    if shown_lower:
        lead += " It is proved never to fall below 1 (dashed), for any input."
    elif found.of_matrices:
        lead += " For this network no proof keeps it from falling below 1."
    if upper is not None:
        lead += f" It is proved never to exceed {number(upper)}."
    chart = Chart(
        f"{what} over the number of layers between. {lead}", _figure(found, what, shown_lower, upper), _numbers(found)
    )
    return Section(title, lead, [chart])


def _bounds(certificate: Certificate | None) -> tuple[bool, float | None]:
    """Whether the lower bound 1 is proved, and U."""
    claims = (
        {} if certificate is None else {claim.name: claim for claim in certificate.claims if claim.status == "pass"}
    )
    upper = claims["upper bound"].bound.get("U") if "upper bound" in claims else None
    return "lower bound" in claims, upper


def curve(found: Norms, name: str, colour: str, dash: str = "solid") -> list[dict[str, Any]]:
    """The median as a line, the extremes as a band."""
    at = list(range(1, len(found.median) + 1))
    least, median, largest = ([float(f"{v:.4g}") for v in values.clamp_min(1e-30).tolist()] for values in found[:3])
    line: dict[str, Any] = {"type": "scatter", "mode": "lines", "x": at, "legendgroup": name, "hoverinfo": "skip"}
    edge = {**line, "line": {"width": 0}, "showlegend": False}
    return [
        {**edge, "y": least},
        {**edge, "y": largest, "fill": "tonexty", "fillcolor": "rgba(128,128,128,0.25)"},
        {**line, "y": median, "name": name, "line": {"color": colour, "width": 2, "dash": dash}, "hoverinfo": "x+y"},
    ]


def _figure(found: Norms, what: str, lower: bool, upper: float | None) -> dict[str, Any]:
    data = curve(found, "median of the samples; band: least to largest", TRAIN)
    ends = [1, len(found.median)]
    line = {"type": "scatter", "mode": "lines", "x": ends, "hoverinfo": "skip"}
    if lower:
        data.append({**line, "y": [1, 1], "name": "proved: at least 1", "line": {"color": "@ink", "dash": "dash"}})
    if upper is not None:
        name = f"proved: at most {number(upper)}"
        data.append({**line, "y": [upper, upper], "name": name, "line": {"color": "@ink", "dash": "dot"}})
    layout = {
        "height": 360,
        "xaxis": axis("layers between"),
        "yaxis": log_axis(what, [v for trace in data for v in trace["y"]]),
    }
    return {"data": data, "layout": layout}


def _numbers(found: Norms) -> Table:
    N = len(found.median)
    depths = torch.linspace(1, N, min(N, _ROWS)).round().long().tolist()
    rows = [[str(d), *(number(float(values[d - 1])) for values in found[:3])] for d in depths]
    return Table("Norms at some depths", ("layers between", "least", "median", "largest"), rows, folded=True)
