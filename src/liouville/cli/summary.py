"""What ``liouville train`` says and draws of a training: before it, and after it."""

from __future__ import annotations

__all__ = ["describe", "draw", "page", "report"]

from pathlib import Path
from typing import TYPE_CHECKING

import click

from liouville.cli.exits import BadInput
from liouville.cli.output import say, table
from liouville.cli.own import described

if TYPE_CHECKING:
    from liouville.data import Split
    from liouville.network import Network
    from liouville.processes import Processes
    from liouville.runs import Plan, Run
    from liouville.train import History


def draw(done: Run, folder: Path, svg: bool, quiet: bool) -> list[Path]:
    """The figures of a run; none, with a note, where what draws them is not installed."""
    from liouville.report import draw_all
    from liouville.runs.folder import figures

    network, history, split = _in_memory(done)
    try:
        return draw_all(network, split, history, figures(folder), svg=svg)
    except ImportError as error:
        if not quiet:
            click.echo(f"liouville: note: no figures: {error}.", err=True)
        return []
    except OSError as error:
        raise BadInput(
            f"figures cannot be written to {folder}: {error.strerror or error}; the run is whole without them."
        ) from error


def page(done: Run, folder: Path, quiet: bool) -> Path | None:
    """The run's report; none, with a note, where it cannot be written: the run is whole without it."""
    from liouville.report import html

    try:
        return html(done)
    except Exception as error:  # whatever it is, hours of training are not lost for a page
        why = (isinstance(error, OSError) and error.strerror) or str(error)
        if not quiet:
            click.echo(f"liouville: note: no report: {why.rstrip('.')}; the run is whole without it.", err=True)
        return None


def describe(plan: Plan, split: Split, network: Network, processes: Processes) -> str:
    """Data, network and processes, before the training."""
    held = f", of which {plan.settings.validation:.0%} are held out for validation" if plan.settings.validation else ""
    shape = " x ".join(map(str, split.x_train.shape[1:]))
    task = f"{split.classes} classes" if split.classes else "real-valued targets"
    return (
        f"{split.name}: {len(split.x_train):,} training samples{held}, {len(split.x_test):,} test samples; "
        f"inputs {shape}, {task}\n"
        + ("" if split.preprocessing is None else f"{described(split)}\n")
        + plan.describe(network)
        + (f"; {processes.size} processes share every batch" if processes.size > 1 else "")
    )


def _in_memory(done: Run) -> tuple[Network, History, Split]:
    assert done.trained is not None
    return done.trained


def report(done: Run, folder: Path, drawn: list[Path], laps: dict[str, float]) -> None:
    """Results, times and places, after it."""
    network, history, split = _in_memory(done)
    name = history.score_name
    rows = []
    for part, more in (("train", ""), ("validation", f"best epoch {history.best_epoch}"), ("test", "read once, now")):
        if f"{part}_loss" in history.metrics:
            score = history.metrics[f"{part}_{name}"]
            shown = f"{100 * score:.2f} %" if name == "accuracy" else f"{score:.4f}"
            rows.append((part, shown, f"{history.metrics[f'{part}_loss']:.4g}", more))
    say()
    table("result", ("part", name, "loss", ""), rows)
    if levels := getattr(history, "levels", ()):
        rows = [
            (" + ".join(map(str, v.layers)), f"{v.start[name]:.4f}", f"{v.end[name]:.4f}", f"{v.epochs} epochs")
            for v in levels
        ]
        table("levels", ("layers", f"validation {name}", "at the end", ""), rows)
    spent = ", ".join(f"{lap} {seconds:.1f}" for lap, seconds in laps.items())
    say(f"{sum(laps.values()):.1f} s ({spent}); {history.stopped}")
    say("engine: " + "; ".join(dict.fromkeys(repr(flow.backprop) for flow in network.flows())))
    say(f"run: {folder}")
    for path in drawn:
        say(f"     {path}")
    inputs = "POINTS.csv" if split.preprocessing is None else "ROWS.csv"
    say(f"next: liouville predict {folder} {'IMAGES.gz' if split.x_train.ndim == 4 else inputs}")
