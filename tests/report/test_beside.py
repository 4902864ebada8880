"""Networks beside each other, and levels: every panel shows what it says."""

from __future__ import annotations

import pytest
import torch

import liouville as lv
from liouville.report.beside import features_beside, planes_beside
from liouville.report.levels import convergence_by_level
from liouville.train import Task


def networks(classes: int) -> dict[str, lv.Network]:
    generator = torch.Generator().manual_seed(0)
    return {name: lv.classifier(name, 2, classes, 4, 4, 1.0, generator=generator) for name in ("h2", "verlet", "ms2")}


@pytest.mark.parametrize("classes", [2, 3])
def test_panels_by_network_and_depth(classes: int) -> None:
    x, y = torch.randn(60, 2), torch.arange(60) % classes
    task = Task("logistic" if classes == 2 else "softmax", classes)
    nets = networks(classes)
    figure = features_beside(nets, x, y, task, "Features", panels=3)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["layer 0", "layer 2", "layer 4"] * 3
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == list(nets)
    titles = [axes.get_title(loc="left") for axes in planes_beside(nets, x, y, task, "Planes").axes]
    for title, (name, net) in zip(titles, nets.items(), strict=True):
        with torch.no_grad():
            assert title == f"{name}: {100 * task.score(net(x), y):.2f} %"


@torch.no_grad()
def test_the_dashed_line_parts_the_last_features_as_the_head_does() -> None:
    """As many points lie beyond it as have a positive score, behind the last layer of every network."""
    x, y = torch.randn(80, 2), torch.arange(80) % 2
    nets = networks(2)
    figure = features_beside(nets, x, y, Task("logistic", 2), "Features", panels=3)
    for axes, net in zip(figure.axes[2::3], nets.values(), strict=True):
        plane = axes.lines[0].get_xdata()[0]
        beyond = sum(float(across) > plane for across, _ in axes.collections[0].get_offsets())
        assert beyond == int((net(x) > 0).sum())


def test_a_level_begins_where_the_one_before_ended() -> None:
    figure = convergence_by_level({"a": [(16, [0.5, 0.6, 0.9]), (32, [0.7, 1.0])], "b": [(32, [0.4])]}, "Levels")
    first, second = figure.axes[:2]
    curves = [line for line in first.lines if len(line.get_xdata()) > 1 and line.get_marker() == "None"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in curves] == [
        ([0, 1, 2], [50.0, 60.0, 90.0]),
        ([2, 3], [70.0, 100.0]),
    ]
    assert curves[1].get_color() == second.lines[0].get_color() != curves[0].get_color()
    with pytest.raises(ValueError, match="there is no run"):
        convergence_by_level({}, "Levels")
