"""The figures of a run: always the training curves, others by the kind of data."""

from __future__ import annotations

__all__ = ["draw_all"]

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from liouville.data import Split
from liouville.network import Network
from liouville.report.images import hardest_mistakes
from liouville.report.nodes import communication_graph
from liouville.report.plane import decision_regions, features_at_depths
from liouville.report.style import save
from liouville.report.training import predictions, training_curves
from liouville.train import History
from liouville.train.trainable import task_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_all(
    network: Network, split: Split, history: History, folder: str | os.PathLike[str], *, svg: bool = False
) -> list[Path]:
    """Draw every figure that fits the data into ``folder``.

    Returns:
        The files, training curves first.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figures: dict[str, Figure] = {}
    if history.epochs:
        figures["training"] = training_curves(history)
    figures |= _by_data(network, split) | _of_nodes(network)
    files = [save(figure, Path(folder) / f"{name}.png", svg=svg) for name, figure in figures.items()]
    return [path for group in files for path in group]


@torch.no_grad()
def _by_data(network: Network, split: Split) -> dict[str, Figure]:
    network.eval()
    like = next(network.parameters())
    split = split.to(device=like.device, dtype=like.dtype)
    task = task_of(network, split)
    x, y, shape = split.x_test, split.y_test, split.x_test.shape[1:]
    if not split.classes:
        predicted = torch.cat([network(part) for part in x.split(1000)])
        return {"predictions": _predictions(split, predicted, task.score(predicted, y))}
    if isinstance(split.classes, tuple):
        return {}
    if shape == (2,):
        regions = {"regions": decision_regions(network, x, y, task, split.label_names)}
        one_flow = len(list(network.flows())) == 1
        return regions | ({"features": features_at_depths(network, x, y, task, split.label_names)} if one_flow else {})
    if len(shape) == 3:
        return {"mistakes": hardest_mistakes(network, x, y, task, split.label_names)}
    return {}


def _of_nodes(network: Network) -> dict[str, Figure]:
    """The graph of a network that is placed on one."""
    if network.placement is None:
        return {}
    graph, owners = network.placement.graph, network.body.field.operator.owners(network.body.field.features)  # type: ignore[union-attr, operator]
    taken = [int(owners[k]) for k in getattr(network.lift, "place", ()) if isinstance(k, int)]
    acting = getattr(network.head, "outputs", ())
    counts = [[list(nodes).count(i) for i in range(len(graph))] for nodes in (taken, acting)]
    return {"graph": communication_graph(graph, "Who hears whom", *counts)}


def _predictions(split: Split, predicted: Tensor, r2: float) -> Figure:
    """In the targets' own unit, where the split knows it."""
    facts, targets = split.facts(), split.y_test.reshape(predicted.shape)
    name = facts.target or "target"
    if facts.target_scale is None:
        return predictions(predicted, targets, r2, f"{name}, as the data have it")
    answers, wanted = (facts.answers(values.double().cpu()) for values in (predicted, targets))
    assert isinstance(answers, Tensor) and isinstance(wanted, Tensor)
    return predictions(answers, wanted, r2, f"{name}, in its own unit")
