"""The pictures of the theory pages: networks with random initial weights, drawn from measurements of `analysis`."""

from __future__ import annotations

__all__ = ["draw_pictures"]

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from liouville import zoo
from liouville.analysis import backward_sensitivity, layer_spectra, norms, singular_spectra
from liouville.fields import AntisymmetricField, Smooth
from liouville.flow import Flow
from liouville.report import (
    growth_over_time,
    phase_planes,
    save,
    sensitivity_by_depth,
    singular_values_by_depth,
    spectra_over_regions,
)
from liouville.schemes import RK4
from liouville.verify.measuring import float64, generator
from liouville.verify.p2_sensitivity import log_log_slope
from liouville.zoo.examples import EXAMPLE_1_INPUTS, appendix_iii, example_1

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_pictures(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Draw all of them into ``folder`` and yield their files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, draw in _PICTURES.items():
        with float64():
            figure = draw()
        yield from save(figure, Path(folder) / f"{name}.png")


def _example() -> Figure:
    names = {
        "spread": r"$K_+$, $\lambda = 2$ (twice)",
        "collapse": r"$K_-$, $\lambda = -2$ (twice)",
        "rotation": r"$K_0$, $\lambda = \pm i$",
    }
    flows = {names[name]: example_1(name) for name in names}
    return phase_planes(flows, torch.tensor(EXAMPLE_1_INPUTS), "Ten residual layers: inputs spread, collapse, or turn")


def _inputs() -> Tensor:
    return torch.randn(100, 4, generator=generator(1))


def _sensitivity() -> Figure:
    y = _inputs()
    curves = {name: norms(backward_sensitivity(flow, y)).two for name, flow in _deep().items()}
    return sensitivity_by_depth({**curves, "tanh MLP": norms(torch.stack(backward_sensitivity(_mlp(), y))).two})


def _singular_values() -> Figure:
    return singular_values_by_depth(
        {name: singular_spectra(backward_sensitivity(flow, _inputs())) for name, flow in _deep().items()}
    )


def _deep() -> dict[str, Flow]:
    starts = {"h2": Smooth(), "ms2": Smooth(), "resnet": Smooth(mean=0.0)}  # around 0, as residual networks start
    return {name: zoo.MODELS[name](4, 64, 6.4, init=init, generator=generator()) for name, init in starts.items()}


def _mlp() -> list[nn.Module]:
    """64 layers tanh(K y + b) of width 4, K with the variance 1/n that keeps the size of the features."""
    layers: list[nn.Module] = []
    random = generator()
    for _ in range(64):
        linear = nn.Linear(4, 4)
        with torch.no_grad():
            linear.weight.normal_(std=0.5, generator=random)
            linear.bias.zero_()
        layers.append(nn.Sequential(linear, nn.Tanh()))
    return layers


def _regions() -> Figure:
    skew = AntisymmetricField(4, 32, generator=generator())
    flows = {
        "h2, symplectic Euler": zoo.h2(4, 32, 6.4, generator=generator()),
        "ms2, forward Euler": zoo.ms2(4, 32, 6.4, generator=generator()),
        "midpoint": zoo.midpoint(4, 32, 6.4, generator=generator()),
        "ms2's field, RK4": Flow(skew, RK4(), 6.4),
    }
    return spectra_over_regions({name: (flow.scheme, layer_spectra(flow, _inputs())) for name, flow in flows.items()})


def _counterexample() -> Figure:
    curves = {}
    for eps in (1.0, 0.1):
        flow, y = appendix_iii(eps)
        curves[f"eps = {eps:g}"] = torch.linalg.matrix_norm(backward_sensitivity(flow, y)[:, 0], ord=2).flip(0)[1:]
    times = flow.h * torch.arange(1, flow.layers + 1)
    return growth_over_time(times, curves, log_log_slope(times, curves["eps = 1"]))


_PICTURES: dict[str, Callable[[], Figure]] = {
    "phase-planes": _example,
    "sensitivity": _sensitivity,
    "singular-values": _singular_values,
    "stability-regions": _regions,
    "counterexample": _counterexample,
}
