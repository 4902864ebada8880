"""``liouville predict``: a trained network on new inputs, which are transformed as in training."""

from __future__ import annotations

__all__ = ["predict"]

import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from liouville.cli.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor, nn

    from liouville.runs import Run


@click.command(short_help="Apply a trained network to new inputs.")
@click.argument("run")
@click.argument("inputs", metavar="INPUT")
@click.option("--out", metavar="FILE", help="Write the CSV there instead of to standard output.")
@click.option("--probabilities", is_flag=True, help="Add a column with the probability of every class.")
@click.option(
    "--id",
    "ids",
    metavar="COLUMN",
    multiple=True,
    help="Copy this column of the table beside the answers, by its name or number (from 1); may be given again.",
)
@click.option(
    "--header",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    show_default=True,
    help="Say whether the table's first row has the names of its columns.",
)
def predict(run: str, inputs: str, out: str | None, probabilities: bool, ids: tuple[str, ...], header: str) -> None:
    """Apply the network of RUN, a run folder or a model file, to INPUT.

    INPUT is a table of text (CSV, with or without a header), a .npy array, or an IDX file of images, gzipped or not;
    `-` reads standard input. Values are raw: they are scaled here as the training data was. The answer is a CSV with a
    header and one row for each row of INPUT; what cannot be read is refused, never left out. Notes go to standard
    error.
    """
    import torch

    from liouville.cli.inputs import read_inputs

    torch.set_flush_denormal(True)
    source, network = _open(run)
    if source is None:
        if probabilities:
            raise BadInput(f"{run} is a model file without its run, which says what the outputs mean; give the folder.")
        _note(
            f"{run} is a model file without its run: inputs are taken as they are, and the network's raw outputs are "
            "given."
        )
    known = None if source is None else source.config["data"].get("column_names")
    read = read_inputs(inputs, _shape(source, network), known=known, header=header, ids=ids)
    for note in read.notes:
        _note(note)
    outputs = _apply(source, network, read.samples, run)
    names, columns = _columns(source, outputs, probabilities)
    text = _csv([*read.names, *names], [*map(_copied, read.copied), *columns])
    if out is None:
        click.echo(text, nl=False, file=sys.stdout)
    else:
        _write(Path(out), text)


def _note(text: str) -> None:
    click.echo(f"liouville: note: {text}", err=True)


def _open(name: str) -> tuple[Run | None, Any]:
    """The run and its network; no run where a model file lies alone."""
    from liouville.checkpoint import load
    from liouville.runs import CONFIG, MODEL, Run

    path = Path(name)
    if path.is_dir():
        return _answering(Run.open(path))
    if not path.exists():
        raise FileNotFoundError(f"there is no run folder or model file {name}.")
    if path.name == MODEL and (path.parent / CONFIG).is_file():
        return _answering(Run.open(path.parent))
    return None, load(path)


def _answering(run: Run) -> tuple[Run, Any]:
    run.require_answers()
    if run.edited:
        _note(
            f"what {run.path}'s config.json says of the data was changed after it was written; the answers follow what "
            "it says now."
        )
    return run, run.network()


def _shape(run: Run | None, network: nn.Module) -> list[int | None]:
    """The shape of one sample, as far as it is known."""
    from torch import nn

    from liouville.network import Lift

    if run is not None:
        return list(run.config["data"]["shape"])
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return [module.in_channels, None, None]
        if isinstance(module, Lift) and module.inputs is None:
            break  # it takes any width up to its own
        width = getattr(module, "in_features", None) or getattr(module, "inputs", None)
        if isinstance(width, int):
            return [width]
    raise ValueError(
        "the width of this network's inputs is not known, its lift takes any: give the run folder that it belongs to, "
        "or save the network with Lift(features, inputs=WIDTH)."
    )


def _apply(run: Run | None, network: nn.Module, raw: Tensor, name: str) -> Tensor:
    import torch

    like = next(network.parameters())
    offset, scale = (run.tensor("offset"), run.tensor("scale")) if run is not None else (None, None)
    x = raw if offset is None or scale is None else (raw - offset) / scale
    network.eval()
    try:
        with torch.no_grad():
            outputs = torch.cat([network(part.to(like)) for part in x.split(1000)])
    except RuntimeError as error:
        raise ValueError(
            f"the network of {name} does not accept inputs of shape {tuple(x.shape[1:])}: {error}."
        ) from error
    outputs = outputs.reshape(len(x), -1).double()
    if not outputs.isfinite().all():
        row = int((~outputs.isfinite()).any(1).nonzero()[0]) + 1
        raise ValueError(f"the network's output is not finite for row {row} (counted from 1); are the inputs raw?")
    return outputs


def _columns(run: Run | None, outputs: Tensor, probabilities: bool) -> tuple[list[str], list[list[str]]]:
    """Names and columns of the answer."""
    from liouville.train import Task

    width = outputs.shape[1]
    if run is None:
        return [f"output_{k}" for k in range(width)], _texts(outputs)
    classes = run.config["data"].get("classes")
    if classes == 0:
        if probabilities:
            raise BadInput(f"{run.path} is a regression; there are no probabilities.")
        offset, scale = run.tensor("target_offset"), run.tensor("target_scale")
        fits = all(t is None or (t.ndim < 3 and {t.numel(), *t.shape[-1:]} <= {1, width}) for t in (offset, scale))
        values = outputs if offset is None or scale is None or not fits else outputs * scale + offset
        if not fits or not values.isfinite().all():
            raise ValueError(
                f"{run.path} does not fit together: data.target_scale and data.target_offset of its config.json do "
                f"not give {width} finite value(s) for a row."
            )
        return ["prediction"] if width == 1 else [f"prediction_{k}" for k in range(width)], _texts(values)
    if not isinstance(classes, int) or width != (1 if classes == 2 else classes):
        raise ValueError(f"{run.path} does not fit together: {classes} classes, but a network of {width} output(s).")
    task = Task("logistic" if classes == 2 else "softmax", classes)
    names = [_harmless(str(n)) for n in run.config["data"].get("label_names") or range(classes)]
    predictions = [names[k] for k in task.labels(outputs).tolist()]
    if not probabilities:
        return ["prediction"], [predictions]
    return ["prediction", *(f"p({n})" for n in names)], [predictions, *_texts(task.probabilities(outputs))]


def _texts(values: Tensor) -> list[list[str]]:
    """Each column as text."""
    return [[f"{value:.6g}" for value in column] for column in values.T.tolist()]


def _csv(names: list[str], columns: list[list[str]]) -> str:
    """A header and the rows."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(_harmless, names))
    writer.writerows(zip(*columns, strict=True))
    return buffer.getvalue()


def _copied(column: list[str]) -> list[str]:
    """A column of somebody's table, safe to print and to open; a note says where it is changed."""
    safe = [_harmless(cell) for cell in column]
    changed = sum(a != b for a, b in zip(column, safe, strict=True))
    if changed:
        _note(f"{changed} copied cell(s) begin like a formula of a spreadsheet and have an apostrophe in front.")
    return safe


def _harmless(cell: str) -> str:
    """Without what a terminal obeys, and with an apostrophe where it begins like a formula and is no number."""
    if not cell.isprintable():
        cell = "".join(c if c.isprintable() or c in "\t\n" else "\N{REPLACEMENT CHARACTER}" for c in cell)
    if not cell.startswith(("=", "+", "-", "@")):
        return cell
    from liouville.data.cells import number

    return cell if number(cell) is not None else "'" + cell


def _write(target: Path, text: str) -> None:
    from liouville.files import atomic

    try:
        if target.is_dir():
            raise IsADirectoryError(f"cannot write {target}: it is a folder.")
        if target.exists() and not target.is_file():  # a device or a pipe: nothing to replace
            target.write_text(text, encoding="utf-8")
            return
        with atomic(target) as path:
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OSError(f"cannot write {target}: {error.strerror}." if error.errno else str(error)) from error
