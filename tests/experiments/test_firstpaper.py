"""The first paper's planar experiments: networks and settings, what a run records, and what is made of records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import liouville as lv
from liouville.experiments import load
from liouville.experiments.p1 import swiss_roll as roll
from liouville.experiments.p1.firstpaper import NETWORKS, build, levels_table, pictures, reached, trained
from liouville.experiments.records import Record
from liouville.train import GaussNewton, Penalty, Task

NAMES = ("ellipses", "swiss-roll", "peaks")


def record(case: Any, **values: Any) -> Record:
    return Record(case, values, 1.0, {})


def level(layers: int, best: float, iterations: int = 3, **more: Any) -> dict[str, Any]:
    scores = [best] * iterations
    return {
        "layers": layers,
        "arrival": 0.5,
        "best": best,
        "iterations": iterations,
        "work": 10,
        "scores": scores,
        **more,
    }


def weights(net: lv.Network) -> dict[str, torch.Tensor]:
    return dict(net.body.field.named_parameters())


def test_starts_are_those_of_the_code() -> None:
    """K = I, W = 0 and K = -I/100 in every layer, biases 0, of ResNet one a layer; gamma = 1e-4."""
    nets = {name: build(name, "code", 4, 8, 20.0, 2, seed=1) for name in NETWORKS}
    assert all(
        torch.equal(K, torch.eye(2).double().expand(8, 2, 2)) for n, K in weights(nets["Verlet"]).items() if "K" in n
    )
    assert all(not w.any() for w in weights(nets["antisymmetric"]).values())
    resnet = weights(nets["ResNet"])
    assert torch.equal(resnet["K"], (-torch.eye(4) / 100).double().expand(8, 4, 4)) and resnet["b"].numel() == 8
    assert nets["antisymmetric"].body.field.gamma == 1e-4
    for net in nets.values():
        assert not any(w.any() for n, w in weights(net).items() if n.startswith("b"))
        assert net.body.T == 20.0 and next(net.parameters()).dtype is torch.float64


@pytest.mark.parametrize("name", NETWORKS)
def test_the_points_lie_in_the_first_two_features_and_verlet_classifies_them_alone(name: str) -> None:
    x = torch.randn(5, 2).double()
    net = build(name, "code", 4, 2, 1.0, 2, seed=0)
    lifted = net.lift(x)
    data = lifted[:, 2:] if name == "Verlet" else lifted[:, :2]  # [p, q]
    assert torch.equal(data, x) and lifted.square().sum() == x.square().sum()
    wide = build(name, "random", 8, 2, 1.0, 5, seed=0, opening=True)
    assert wide(x).shape == (5, 5) and wide.lift(x).abs().max() < 1


def test_the_swiss_roll_has_the_codes_settings() -> None:
    """papers: alpha and head decay by network, but for the antisymmetric alpha."""
    penalties = {name: (s.penalty.smoothness, s.penalty.head_decay) for name, s in roll.SETTINGS.items()}
    assert penalties == {"Verlet": (5e-3, 1e-4), "antisymmetric": (5e-5, 1e-3), "ResNet": (5e-3, 1e-3)}
    cases = roll.cases(5, quick=False)
    depths = {c.layers * 2**k for c in cases if c.kind == "cascade" for k in range(c.levels)}
    assert roll.T == 20.0 and depths == {2**k for k in range(4, 11)}
    assert {c.iterations for c in cases if c.kind == "alone"} == {60}
    split, (x, y) = roll.load(3)
    assert len(split.x_train) == len(x) == len(split.x_test) == 513
    assert not any(bool((split.x_test[:, None] == points).all(-1).any()) for points in (x, split.x_train))
    assert int(y.sum()) in (256, 257)


@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_run_gives_what_render_reads(name: str, tmp_path: Path) -> None:
    experiment = load(name)
    case = max(experiment.cases(1, True), key=lambda case: case.levels)
    case = replace(case, iterations=1, layers=16, levels=2, **({"points": 20} if name != "swiss-roll" else {}))
    values = experiment.run(case, tmp_path)
    rendering = experiment.render([record(case, **values)], tmp_path)
    assert rendering.tables and rendering.text and "levels" in rendering.pictures
    assert values["work"] == sum(v["work"] for v in values["levels"])
    assert all("not available" in row for table in rendering.tables for row in table.rows)


def test_what_is_recorded_is_what_happened() -> None:
    split = lv.data.load("ellipses", train=40, test=20, dtype=torch.float64)
    settings = GaussNewton(iterations=4, patience=4, penalty=Penalty(smoothness=1e-3, head_decay=1e-3))
    net = build("antisymmetric", "near", 4, 16, 4.0, 2, seed=0)
    values = trained(net, split, (split.x_test, split.y_test), settings, levels=2)
    assert [v["layers"] for v in values["levels"]] == [16, 32] and net.body.layers == 32
    for each in values["levels"]:
        assert each["iterations"] == len(each["scores"]) == 4
        assert each["best"] == pytest.approx(max([each["arrival"], *each["scores"]]), abs=5e-5)
    work, scores = zip(*values["improvements"], strict=True)
    assert list(work) == sorted(set(work)) and list(scores) == sorted(set(scores)) and work[-1] <= values["work"]
    assert scores[-1] == pytest.approx(max(s for v in values["levels"] for s in v["scores"]))
    assert values["validation"] == values["levels"][-1]["best"]


def test_levels_are_medians_over_the_runs_that_have_them() -> None:
    case = roll.Config("cascade", "Verlet", "code", 16, 2, 100, 0)
    runs = [
        record(case, levels=[level(16, 1.0, 4), level(32, 0.99, 8)]),
        record(replace(case, seed=1), levels=[level(16, 0.9, 6)]),
        record(replace(case, seed=2), diverged="at 16 layers"),
    ]
    rows = levels_table("", {"Verlet": runs}).rows
    assert rows[0] == [
        "Verlet",
        "16",
        "50.00 (50.00–50.00)",
        "95.00 (90.00–100.00)",
        "not available",
        "5 (4–6)",
        "10",
        "2 of 3",
    ]
    assert rows[1][:4] == ["Verlet", "32", "50.00", "99.00"] and rows[1][-1] == "1 of 3"
    assert [reached(v) for v in runs[0].values["levels"]] == [4, None]


def test_the_block_descent_is_read_at_the_work_of_variable_projection() -> None:
    alone = roll.Config("alone", "Verlet", "code", 16, 1, 60, 0)
    blocks = replace(alone, kind="blocks", iterations=200)
    theirs = record(
        alone, levels=[level(16, 1.0, gradient=1.0)], work=100, validation=1.0, accuracy=1.0, improvements=[]
    )
    curve = [(50, 0.7), (100, 0.8), (101, 0.9)]
    mine = record(blocks, levels=[level(16, 0.9)], work=150, validation=0.9, accuracy=0.9, improvements=curve)
    table = roll.render([theirs, mine], Path()).tables[-1]
    assert [(row[1], row[3]) for row in table.rows] == [("100.00", "1e+02"), ("80.00", "1e+02"), ("90.00", "1.5e+02")]


@pytest.mark.parametrize("name", NAMES)
def test_a_rendering_of_runs_that_diverged_is_a_rendering(name: str, tmp_path: Path) -> None:
    experiment = load(name)
    rendering = experiment.render([record(case, diverged="...") for case in experiment.cases(1, False)], tmp_path)
    assert not rendering.pictures and all(row for table in rendering.tables for row in table.rows)


def test_models_that_are_gone_are_not_drawn(tmp_path: Path) -> None:
    case = roll.Config("alone", "Verlet", "code", 64, 1, 60, 0)
    x, y = torch.randn(4, 2), torch.arange(4) % 2
    assert not pictures({"Verlet": [record(case, model="gone.safetensors")]}, tmp_path, x, y, Task("logistic", 2), "")
