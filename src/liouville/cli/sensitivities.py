"""``liouville sensitivities``: norms by depth and the Lyapunov spectrum of a trained network, measured."""

from __future__ import annotations

__all__ = ["sensitivities"]

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from liouville.cli import completion
from liouville.cli.check import find_run, split_of
from liouville.cli.completion import names_of
from liouville.cli.exits import BadInput
from liouville.cli.help import Command
from liouville.cli.options import data_option
from liouville.cli.output import say, table

if TYPE_CHECKING:
    from torch import Tensor

    from liouville.flow import Flow
    from liouville.runs import Run


@click.command(
    cls=Command,
    short_help="Measure a network's norms by depth and Lyapunov spectrum.",
    examples=(
        ("liouville sensitivities runs/swiss-roll-h2-1", "do gradients survive in it?"),
        ("liouville sensitivities runs/swiss-roll-h2-1 --figure norms.png", "the same, drawn"),
    ),
)
@click.argument("run", type=click.Path())
@click.option(
    "--data",
    metavar="NAME",
    help="Measure over this data set.  [default: the run's own]",
    **names_of(completion.data),
)
@data_option()
@click.option(
    "--samples", type=click.IntRange(1, 256), default=50, show_default=True, help="Take so many training samples."
)
@click.option("--figure", metavar="FILE", type=click.Path(path_type=Path), help="Draw both into a .png or .svg file.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers of every sample as JSON.")
def sensitivities(
    run: str, data: str | None, data_options: tuple[str, ...], samples: int, figure: Path | None, as_json: bool
) -> None:
    """Measure how the last state of the network of RUN, a run folder or a model file, depends on the states before it.

    The norms of dState_N/dState_j by the number of layers between, and the finite-time Lyapunov exponents: log of the
    singular values of dState_N/dState_0, per unit of time, by QR over the layers, in float64. These are measurements;
    for proofs use `liouville check`.
    """
    import torch

    from liouville.analysis import backward_sensitivity, lyapunov_spectrum, norms

    if data_options and data is None:
        raise BadInput("-d belongs to --data; give both, or none for the run's own data.")
    if figure is not None and figure.suffix not in (".png", ".svg"):
        raise BadInput(f"--figure takes a file that ends in .png or .svg, got {figure.name}.")
    if figure is not None and not figure.parent.is_dir():
        raise BadInput(f"there is no folder {figure.parent} for --figure {figure}; make it first.")
    flow, y, name = _measured(run, data, data_options, samples)
    with torch.no_grad():
        found = norms(backward_sensitivity(flow, y)).two.flatten(1)
        spectrum = lyapunov_spectrum(flow, y).flatten(0, -2)
    if as_json:
        say(json.dumps({"T": flow.T, "layers": flow.layers, "norms": found.tolist(), "exponents": spectrum.tolist()}))
    else:
        _show(flow, found, spectrum, name)
    if figure is not None:
        from liouville.report import lyapunov_spectra, save

        for path in save(lyapunov_spectra({name: found}, {name: spectrum}), figure):
            click.echo(f"wrote {path}", err=True)


def _measured(run: str, data: str | None, options: tuple[str, ...], samples: int) -> tuple[Flow, Tensor, str]:
    """The flow in float64, the states that enter it, and a name."""
    import torch

    from liouville.checkpoint import load
    from liouville.flow import Flow
    from liouville.runs.certifying import samples_of

    folder, file = find_run(run)
    network = load(file).double().eval()
    flow: Any = network if isinstance(network, Flow) else network.body
    if not isinstance(flow, Flow):
        raise BadInput(
            "the network has several flows, whose states differ in size; in Python, analysis.backward_sensitivity "
            "takes each by itself."
        )
    split = split_of(folder, data, options)
    if isinstance(network, Flow) or (folder is None and split is None):
        raise BadInput("a model file has no inputs to measure at; give a network's file and --data, or a run folder.")
    with torch.no_grad():
        if split is not None:
            x = samples_of(network, split)[:samples]
        else:
            assert folder is not None
            x = _probes(folder, samples).to(next(network.parameters()))
        return flow, network.lift(x), Path(run).name if folder is not None else file.stem


def _probes(run: Run, samples: int) -> Tensor:
    """Inputs for a run on data of one's own, which its folder does not hold."""
    import torch

    click.echo(
        f"liouville: note: {run.path} was trained on data of one's own, which it does not hold: measured at {samples} "
        "normally distributed inputs; --data measures over a data set.",
        err=True,
    )
    return torch.randn((samples, *run.facts.shape), generator=torch.Generator().manual_seed(0))


def _show(flow: Flow, found: Tensor, spectrum: Tensor, name: str) -> None:
    """Norms at distances that double, and every exponent (the outer ones of many)."""
    N, n = flow.layers, spectrum.shape[-1]
    distances = sorted({*(2**k for k in range(N.bit_length()) if 2**k <= N), N})
    rows = [(f"{d}", *_range(found[N - d])) for d in distances]
    head = ("layers between", "least", "median", "largest")
    table(f"{name}: spectral norms of dState_N/dState_j over {found.shape[1]} samples", head, rows, heads=True)
    shown = range(n) if n <= 16 else [*range(8), *range(n - 8, n)]
    rows = [(f"{k + 1}", *_range(spectrum[:, k])) for k in shown] + [("sum", *_range(spectrum.sum(-1)))]
    note = f"log of the singular values of dState_N/dState_0 over T = {flow.T:g}; 0 keeps a length, the sum is volume's"
    table("Lyapunov exponents, per unit of time", ("k", *head[1:]), rows, note, heads=True)


def _range(values: Tensor) -> tuple[str, str, str]:
    least, median, largest = (f"{float(v) + 0.0:.4g}" for v in (values.amin(), values.median(), values.amax()))
    return least, median, largest
