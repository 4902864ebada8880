"""Features of some samples layer by layer, in one basis for all depths: what moves when a slider goes through them."""

from __future__ import annotations

__all__ = ["Depths", "through_depths"]

from dataclasses import dataclass

import torch
from torch import Tensor

from liouville.answering import evaluation_mode
from liouville.flow import Flow
from liouville.network import Network
from liouville.report.plane import head_plane
from liouville.schemes import State
from liouville.task import Task


@dataclass(frozen=True)
class Depths:
    """Samples after some layers.

    Args:
        labels: the depth in words, for each position.
        points: (positions, samples, axes), two or three axes, in float64.
        classes: the class of each sample, (samples,); None for real targets.
        targets: a number for each sample, (samples,), by which they are coloured where there are no classes.
        axes: what each axis is.
        plane: where the head's dividing plane crosses the first axis after the last layer, or None.
    """

    labels: tuple[str, ...]
    points: Tensor
    classes: Tensor | None
    targets: Tensor | None
    axes: tuple[str, ...]
    plane: float | None


@torch.no_grad()
def through_depths(network: Network, x: Tensor, y: Tensor, *, samples: int = 300, positions: int = 49) -> Depths:
    """The features of some samples after every layer, or after as many as there are positions.

    Every flow has an orthonormal basis of its own, the same for all its layers: the principal components of its last
    features. Before a head with one score of a classifier the first axis is the normal of the head's dividing plane
    instead. Two axes are shown where a flow has two features.

    Args:
        network: any, with a flow in its body.
        x: inputs.
        y: their classes, whole numbers, or their real targets.
        samples: how many of them at most.
        positions: of the slider, at most.

    Raises:
        ValueError: there is no flow, no sample, or the targets do not belong to the inputs.

    Examples:
        >>> import liouville as lv
        >>> net = lv.classifier("h2", inputs=2, classes=2, features=4, layers=8, T=1.0)
        >>> found = through_depths(net, torch.randn(10, 2), torch.arange(10) % 2)
        >>> found.points.shape, found.labels[1]
        (torch.Size([9, 10, 3]), 'layer 1 of 8, t = 0.125')
    """
    flows = list(network.flows())
    if not flows or len(x) == 0 or len(x) != len(y):
        raise ValueError(f"expected a flow and a target for each sample, got {len(flows)}, {len(x)} and {len(y)}.")
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:samples].sort().values
    x, y = x[chosen].to(next(network.parameters())), y[chosen].cpu()
    classes = None if y.is_floating_point() else y
    labels: list[str] = []
    clouds: list[Tensor] = []
    plane = None
    with evaluation_mode(network):
        entering = _entering(network, flows, x)
        for k, (flow, state) in enumerate(zip(flows, entering, strict=True)):
            last = k == len(flows) - 1
            depths = _chosen(flow.layers, max(2, positions // len(flows)))
            states = _states(flow, state, depths)
            scores = classes is not None and last and _one_score(network, states[-1])
            basis, crossing = _basis(network, states[-1]) if scores else (_components(states[-1].flatten(1)), None)
            plane = crossing if last else None
            found = torch.stack([s.flatten(1).double().cpu() @ basis for s in states])
            clouds.append(found)
            which = "" if len(flows) == 1 else f"flow {k + 1}, "
            labels += [f"{which}layer {j} of {flow.layers}, t = {j * flow.h:.3g}" for j in depths]
    width = min(cloud.shape[-1] for cloud in clouds)
    first = "normal of the head's plane" if plane is not None else "1st component"
    names = (first, *(("1st", "2nd") if plane is not None else ("2nd", "3rd")))
    axes = (names[0], *(f"{name} component" for name in names[1:]))[:width]
    targets = None if classes is not None else y.reshape(len(y), -1)[:, 0].double()
    return Depths(tuple(labels), torch.cat([c[..., :width] for c in clouds]), classes, targets, axes, plane)


def _entering(network: Network, flows: list[Flow], x: Tensor) -> list[Tensor]:
    """The input of each flow, as the network runs."""
    seen: dict[Flow, Tensor] = {}

    def note(flow: Flow, args: tuple[Tensor, ...]) -> None:
        seen.setdefault(flow, args[0])

    hooks = [flow.register_forward_pre_hook(note) for flow in flows]
    try:
        network.features(x)
    finally:
        for hook in hooks:
            hook.remove()
    if len(seen) < len(flows):
        raise ValueError("not every flow of the body runs on these inputs.")
    return [seen[flow] for flow in flows]


def _chosen(layers: int, most: int) -> list[int]:
    return torch.linspace(0, layers, min(most, layers + 1)).round().long().unique().tolist()


def _states(flow: Flow, y: Tensor, depths: list[int]) -> list[Tensor]:
    """y_j for the given depths, as `Flow.trajectory` has them, without keeping the others."""
    kept = set(depths)
    found: list[Tensor] = []
    state: State
    for j, state in enumerate(flow.states(y)):
        if j in kept:
            found.append(flow.scheme.final(flow.field, state))
    return found


def _one_score(network: Network, features: Tensor) -> bool:
    if features.ndim != 2:
        return False
    return network.head(features[:1]).shape[-1] == Task.of(2, 1).classes - 1


def _basis(network: Network, features: Tensor) -> tuple[Tensor, float]:
    """The normal of the head's plane and two components orthogonal to it, (n, at most 3)."""
    normal, plane = head_plane(network, features)
    normal, values = normal.cpu(), features.double().cpu()
    spread = values - (values @ normal)[:, None] * normal
    others = _components(spread, min(2, len(normal) - 1))
    return torch.cat((normal[:, None], others), 1), plane


def _components(values: Tensor, count: int = 3) -> Tensor:
    """(n, count) principal directions of (samples, n), their largest entry positive; zero where there are no more."""
    values = values.double().cpu()
    right = torch.linalg.svd(values - values.mean(0), full_matrices=False)[2][:count].mT
    signs = right.gather(0, right.abs().argmax(0, keepdim=True)).sign()
    return right * torch.where(signs == 0, 1, signs)
