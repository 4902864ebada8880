r"""Phase planes: trajectories of a few points through a network with two features, over the arrows of its field."""

from __future__ import annotations

__all__ = ["phase_planes"]

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from liouville.backprop import layer
from liouville.flow import Flow
from liouville.report.style import DARK, canvas, colours, heading, shapes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ARROWS = 13


@torch.no_grad()
def phase_planes(flows: Mapping[str, Flow], inputs: Tensor, title: str = "", side: float | None = None) -> Figure:
    """The trajectories of the inputs, a dot for each layer, one panel for each flow; arrows show the field of layer 0.

    Args:
        flows: flows by the title of their panel; two features each.
        inputs: (points, 2).
        title: the title of the figure.
        side: the panels show [-side, side]^2; by default large enough for all trajectories of all flows.

    Raises:
        ValueError: if there is no flow, or the inputs do not lie in the plane.

    Examples:
        >>> import liouville as lv
        >>> figure = phase_planes({"h2": lv.zoo.h2(2, layers=8, T=1.0)}, torch.randn(3, 2))
    """
    if not flows or inputs.dim() != 2 or inputs.shape[1] != 2:
        raise ValueError(f"expected a flow and points (points, 2), got {len(flows)} flows, {tuple(inputs.shape)}.")
    paths = {name: flow.trajectory(inputs.to(next(flow.parameters()))) for name, flow in flows.items()}
    with styled():
        figure = canvas(3.3 * len(flows) + 0.3, 4.1)
        panels = figure.subplots(1, len(flows), squeeze=False)[0]
        reach = side or 1.1 * float(max(path.abs().max() for path in paths.values()))
        for axes, (name, flow) in zip(panels, flows.items(), strict=True):
            _arrows(axes, flow, reach)
            for k, (colour, shape) in enumerate(zip(colours(len(inputs)), shapes(len(inputs)), strict=True)):
                across, up = paths[name][:, k].double().cpu().unbind(1)
                axes.plot(across, up, color=colour, marker=shape, markersize=3.6, linewidth=1.2)
                axes.plot(across[0], up[0], color=colour, marker=shape, markersize=8, markeredgecolor=DARK)
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="$y_1$", title=name)
        panels[0].set_ylabel("$y_2$")
        heading(
            figure,
            title,
            "ringed: the inputs; a dot for each layer; arrows: direction of the field; all panels have one scale",
        )
    return figure


def _arrows(axes: Axes, flow: Flow, reach: float) -> None:
    ticks = torch.linspace(-0.95 * reach, 0.95 * reach, _ARROWS).to(next(flow.parameters()))
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1)
    velocity = flow.field(grid, layer(flow.field.theta(), 0)).double().cpu()
    across, up = (velocity / velocity.norm(dim=-1, keepdim=True).clamp(min=1e-12)).unbind(-1)
    x, y = grid.double().cpu().unbind(-1)
    axes.quiver(x, y, across, up, color="#BBBBBB", pivot="mid", scale=22, width=0.004, zorder=0)
