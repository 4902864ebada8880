"""What the README states, by the command that it shows: real training runs, minutes each."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import liouville as lv
from liouville.runs import Plan
from liouville.train import Penalty, Settings, fit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

needs_mnist = pytest.mark.skipif(
    not os.environ.get("LIOUVILLE_DATA"), reason="LIOUVILLE_DATA does not name a folder with the MNIST files"
)


def train(tmp_path: Path, *options: str) -> tuple[dict, float]:
    """``liouville train`` in a process of its own: its metrics, and seconds from start to end."""
    start = time.perf_counter()
    words = [sys.executable, "-m", "liouville", "train", "--quiet", "--out", str(tmp_path / "run"), *options]
    subprocess.run(words, check=True, timeout=1200)
    return json.loads((tmp_path / "run" / "metrics.json").read_text()), time.perf_counter() - start


def test_default_reaches_99_5_percent_on_the_noisy_swiss_roll_within_a_minute(tmp_path: Path) -> None:
    metrics, seconds = train(tmp_path)
    assert metrics["test_accuracy"] >= 0.995
    assert seconds < 60


def test_h1_reaches_the_figures_of_the_authors_readme_on_the_swiss_roll(tmp_path: Path) -> None:
    metrics, _ = train(tmp_path, "--data", "swiss-roll", "--preset", "h1-64")
    assert metrics["test_accuracy"] == 1.0


def test_h1_reaches_the_figures_of_the_authors_readme_on_double_circles(tmp_path: Path) -> None:
    metrics, _ = train(tmp_path, "--data", "double-circles", "--preset", "h1-64")
    assert metrics["test_accuracy"] >= 0.997


@needs_mnist
def test_convolutional_h2_on_mnist(tmp_path: Path) -> None:
    metrics, seconds = train(tmp_path, "--data", "mnist")
    assert metrics["test_accuracy"] >= 0.994
    assert seconds < 360


@needs_mnist
def test_pixelwise_network_lands_in_the_published_range(tmp_path: Path) -> None:
    metrics, _ = train(tmp_path, "--data", "mnist", "--preset", "pixelwise")
    assert 0.977 <= metrics["test_accuracy"] <= 0.983


@pytest.mark.parametrize(("model", "T"), [("h2", 4.0), ("ms2", 10.0)])
def test_1024_layers_learn_from_the_first_epoch_on(model: str, T: float) -> None:
    network = lv.classifier(model, 2, 2, 4, 1024, T, generator=torch.Generator().manual_seed(0))
    settings = Settings(epochs=10, batch_size=125, lr=0.07, penalty=Penalty(smoothness=1e-5, decay=1e-3))
    history = fit(network, lv.data.load("swiss-roll"), settings)
    assert history.epochs[0].loss < 0.6931
    assert history.metrics["test_accuracy"] > 0.97


@pytest.mark.parametrize("lr", [0.07, 0.005, 0.0005])
def test_a_plain_mlp_of_1024_layers_does_not_learn(lr: float) -> None:
    torch.manual_seed(0)
    body = [layer for i in range(1024) for layer in (torch.nn.Linear(4 if i else 2, 4), torch.nn.Tanh())]
    network = torch.nn.Sequential(*body, torch.nn.Linear(4, 1))
    history = fit(network, lv.data.load("swiss-roll"), Settings(epochs=10, batch_size=125, lr=lr))
    assert history.metrics["test_accuracy"] < 0.6


BUDGET = ("--features", "8", "--lift", "linear", "--lr", "0.1", "--T", "1")


def spectra(split: lv.data.Split, *options: str) -> tuple[list[float], list[float], float]:
    """The smallest and the largest singular value of all sensitivities after every epoch, and the test accuracy."""
    words = dict(zip((o.removeprefix("--") for o in options[::2]), options[1::2], strict=True))
    kinds = {"features": int, "lift": str, "lr": float, "T": float, "budget": float}
    plan = Plan.of("swiss-roll").changed(**{name: kinds[name](value) for name, value in words.items()})
    network = plan.network(split.facts())
    y, low, high = split.x_train[::60].double(), [], []

    def look(_: object) -> None:
        twin = copy.deepcopy(network).double()
        with torch.no_grad():
            s = torch.linalg.svdvals(lv.analysis.backward_sensitivity(twin.body, twin.lift(y)))
        low.append(float(s.min()))
        high.append(float(s.max()))

    look(None)
    history = fit(network, split, plan.fit_settings(), on_epoch=look)
    look(None)
    return low, high, history.metrics["test_accuracy"]


def test_with_a_budget_of_20_every_singular_value_stays_within_it_through_training() -> None:
    split = lv.data.load("swiss-roll")
    low, high, accuracy = spectra(split, *BUDGET, "--budget", "20")
    assert len(low) == 122 and min(low) >= 1 / 20 and max(high) <= 20
    free_low, free_high, free_accuracy = spectra(split, *BUDGET)
    assert max(free_high) > 20 and min(free_low) < 1 / 20
    assert accuracy >= free_accuracy - 0.005


def test_without_a_budget_the_default_network_explodes() -> None:
    low, high, _ = spectra(lv.data.load("swiss-roll"))
    assert max(high) > 100 and min(low) < 0.01
