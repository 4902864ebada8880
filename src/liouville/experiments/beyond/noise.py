"""Noisy images, and how well the networks are calibrated.

Networks are trained on clean images and tested on x + s e, e ~ N(0, I), s in grey values from 0 to 1. A network is
calibrated if its accuracy equals its confidence: the expected calibration error is the mean over all samples of
|accuracy - confidence| of the sample's bin of confidence (Guo et al., 1706.04599, eq. (3)).
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "cases", "reliability", "render", "run"]

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor, nn

from liouville.experiments.beyond.image_networks import NETWORKS, SEEDS, Config, some_images, standing, trained
from liouville.experiments.comparing import spread
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.paired import sign_test
from liouville.experiments.records import Record, rounded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
SURE = (0.0, 0.3)  # the levels of the calibration tables
BINS = 15


class Reliability(TypedDict):
    """One level of noise: the contents of every bin of confidence."""

    share: list[float]
    confidence: list[float]
    accuracy: list[float]
    error: float


class Values(TypedDict):
    """The recorded values of a case."""

    accuracy: list[float]
    reliability: dict[str, Reliability]


def cases(seeds: int, quick: bool) -> list[Config]:
    """Every network, trained once for each seed."""
    if quick:
        return [Config(network, 200, 1, 500, 0) for network in NETWORKS]
    return [Config(network, 5000, 10, 10_000, seed) for network in NETWORKS for seed in range(min(seeds, SEEDS))]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train one network on clean images, and test it at every level of noise."""
    split = some_images(config)
    network, _ = trained(config, split)
    noise = torch.randn(split.x_test.shape, generator=torch.Generator().manual_seed(config.seed))
    grey = 1.0 if split.scale is None else 255 / float(split.scale)
    found: dict[str, Any] = {"accuracy": [], "reliability": {}}
    for level in LEVELS:
        probabilities = _probabilities(network, split.x_test + level * grey * noise)
        found["accuracy"].append(float((probabilities.argmax(-1) == split.y_test).double().mean()))
        if level in SURE:
            found["reliability"][str(level)] = reliability(probabilities, split.y_test)
    return found


def reliability(probabilities: Tensor, y: Tensor, bins: int = BINS) -> dict[str, Any]:
    """Confidence and accuracy, by bins of equal width of the largest probability.

    Args:
        probabilities: (samples, classes).
        y: the labels, (samples,).
        bins: number of bins of [0, 1].

    Returns:
        ``share``, ``confidence`` and ``accuracy`` of every bin, zero where it is empty, and ``error``, the expected
        calibration error.

    Examples:
        >>> reliability(torch.tensor([[0.9, 0.1], [0.9, 0.1]]), torch.tensor([0, 1]), bins=2)["error"]
        0.4
    """
    confidence, predicted = probabilities.double().max(-1)
    right = (predicted == y).double()
    at = (confidence * bins).long().clamp(max=bins - 1)
    count = torch.bincount(at, minlength=bins)
    sums = [torch.bincount(at, weights=values, minlength=bins) for values in (confidence, right)]
    mean = [total / count.clamp(min=1) for total in sums]
    share = count / len(y)
    error = float((share * (mean[0] - mean[1]).abs()).sum())
    named = {"share": share, "confidence": mean[0], "accuracy": mean[1]}
    return {name: [rounded(v) for v in values.tolist()] for name, values in named.items()} | {"error": rounded(error)}


@torch.no_grad()
def _probabilities(network: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([network(part).softmax(-1) for part in x.split(1000)])


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Tables and figures of accuracy by noise, and of calibration."""
    found = {name: [r for r in records if r.case.network == name] for name in NETWORKS}
    found = {name: mine for name, mine in found.items() if mine}
    by_level = [{name: _at_level(mine, k) for name, mine in found.items()} for k in range(len(LEVELS))]
    rows = [(name, *(spread(values[name], 1) for values in by_level)) for name in found]
    note = "Noise in grey values from 0 to 1. At most three seeds."
    accuracy = Table("Test accuracy in percent by noise", ("network", *(f"{s:g}" for s in LEVELS)), rows, note)
    return Rendering(
        _text(by_level, found),
        [accuracy, _calibration_table(found)],
        {
            "noise": Picture(
                "Test accuracy of networks trained on clean images, by the noise on the test images: median and range.",
                lambda: _noise_figure(by_level),
            ),
            "calibration": Picture(
                "Accuracy of the networks by confidence; on the dashed line they are calibrated.",
                lambda: _calibration_figure(found),
            ),
        }
        if found
        else {},
    )


def _at_level(records: Sequence[Record], k: int) -> list[float]:
    """Accuracy in percent at one level of noise, of every seed."""
    return [0.0 if r.diverged else 100 * r.values["accuracy"][k] for r in records]


def _errors(records: Sequence[Record], level: float) -> list[float]:
    """Expected calibration errors in percent."""
    return [100 * r.values["reliability"][str(level)]["error"] for r in records if not r.diverged]


def _calibration_table(found: Mapping[str, Sequence[Record]]) -> Table:
    head = ("network", *(f"noise {level:g}" for level in SURE))
    rows = [(name, *(spread(_errors(mine, level), 1) for level in SURE)) for name, mine in found.items()]
    return Table("Expected calibration error in percent", head, rows, f"{BINS} bins of equal width; smaller is better.")


def _text(by_level: Sequence[Mapping[str, Sequence[float]]], found: Mapping[str, Sequence[Record]]) -> str:
    if not found:
        return ""
    sentences = [f"With noise {LEVELS[k]:g}: {standing(by_level[k])}" for k in (0, LEVELS.index(SURE[-1]))]
    for level in SURE:
        errors = {name: _errors(mine, level) for name, mine in found.items()}
        sentences.append(f"Calibration error with noise {level:g}: {standing(errors, smaller=True)}")
    runs = max(map(len, found.values()))
    sentences.append(
        f"With {runs} seeds no two networks can be told apart at one level: the least p of the sign test is "
        f"{sign_test(runs, 0):.2g}, and levels, which share their networks, are not pooled."
    )
    sentences.append("Of these networks only the ResNet normalises batches, with averages over clean images.")
    return " ".join(sentences)


def _noise_figure(by_level: Sequence[Mapping[str, Sequence[float]]]) -> Figure:
    from liouville.report.style import canvas, heading, key, look_of

    figure = canvas(6.4, 3.6)
    axes = figure.subplots()
    for name in by_level[0]:
        values, look = torch.tensor([list(at[name]) for at in by_level]), look_of(name)
        line = {"color": look.colour, "linestyle": look.dashes, "marker": "o", "markersize": 3}
        axes.plot(LEVELS, values.quantile(0.5, dim=1), label=name, **line)
        axes.fill_between(LEVELS, values.amin(1), values.amax(1), color=look.colour, alpha=0.18, linewidth=0)
    axes.set(xlabel="standard deviation of the noise, in grey values from 0 to 1", ylabel="test accuracy in percent")
    axes.grid(axis="y")
    key(figure, "trained on clean images; median and range over seeds", handlelength=3.0)
    last = sorted((statistics.median(values), name) for name, values in by_level[-1].items())
    (least, worst), (most, best) = last[0], last[-1]
    heading(figure, f"At noise {LEVELS[-1]:g} {best} keeps {most:.0f} %, {worst} {least:.0f} %")
    return figure


def _calibration_figure(found: Mapping[str, Sequence[Record]]) -> Figure:
    from liouville.report.style import GREY, canvas, heading, key, look_of

    figure = canvas(7.6, 3.8)
    for axes, level in zip(figure.subplots(1, len(SURE), sharey=True), SURE, strict=True):
        axes.plot((0, 1), (0, 1), color=GREY, linestyle="--", linewidth=0.8)
        for name, mine in found.items():
            look = look_of(name)
            confidence, accuracy = _pooled([r.values["reliability"][str(level)] for r in mine if not r.diverged])
            line = {"color": look.colour, "linestyle": look.dashes, "marker": "o", "markersize": 3}
            axes.plot(confidence, accuracy, label=name, **line)
        axes.set(title=f"noise {level:g}", xlabel="how sure", xlim=(0, 1.02), ylim=(0, 1.02))
    figure.axes[0].set_ylabel("how often right")
    key(figure, "bins with at least one in 500 test images; dashed grey: as often right as sure", handlelength=3.0)
    heading(figure, "How sure the networks are, and how often right")
    return figure


def _pooled(seeds: Sequence[Mapping[str, Sequence[float]]]) -> tuple[list[float], list[float]]:
    """Mean confidence and accuracy over all seeds of every bin that holds a five-hundredth of the samples."""
    share, *sums = (torch.zeros(BINS, dtype=torch.float64) for _ in range(3))
    for seed in seeds:
        weight = torch.tensor(seed["share"], dtype=torch.float64) / len(seeds)
        share += weight
        for total, name in zip(sums, ("confidence", "accuracy"), strict=True):
            total += weight * torch.tensor(seed[name], dtype=torch.float64)
    kept = share >= 1 / 500
    confidence, accuracy = ((total / share)[kept].tolist() for total in sums)
    return confidence, accuracy


EXPERIMENT = Experiment(
    name="noise",
    title="Noisy images, and how sure the networks are",
    source="beyond the papers",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: 2.0 + (case.images * case.epochs + 2 * case.test) * NETWORKS[case.network].cost,
)
