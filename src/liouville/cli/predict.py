"""``liouville predict``: a trained network on new inputs, which are transformed as in training."""

from __future__ import annotations

__all__ = ["predict"]

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from liouville.cli.exits import BadInput
from liouville.cli.help import Command
from liouville.cli.options import on_device
from liouville.cli.own import note

if TYPE_CHECKING:
    from torch import Tensor, nn

    from liouville.facts import Facts
    from liouville.network import Network
    from liouville.runs import Run


_AT_ONCE = 2000  # samples
_OTHERS = (".parquet", ".pq", ".feather", ".arrow", ".xlsx", ".xls", ".json", ".npy", ".gz", ".zip")  # no CSV
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last are full-width


@click.command(
    cls=Command,
    short_help="Apply a trained network to new inputs.",
    examples=(
        ("liouville predict runs/swiss-roll-h2-1 points.csv", "a class for each row"),
        ("liouville predict runs/flats rows.csv --id id --probabilities", "with the row's name and all probabilities"),
        ("liouville predict runs/mnist images.idx3.gz --out answers.csv", "images, into a file"),
    ),
)
@click.argument("run", type=click.Path())
@click.argument("inputs", metavar="INPUT", type=click.Path())
@click.option("--out", metavar="FILE", help="Write the CSV to this file instead of standard output.")
@click.option("--probabilities", is_flag=True, help="Add a column with the probability of every class.")
@click.option(
    "--id",
    "ids",
    metavar="COLUMN",
    multiple=True,
    help="Copy this column of the table next to the answers, by name or number (from 1); may be repeated.",
)
@click.option(
    "--header",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    show_default=True,
    help="State whether the table's first row holds column names.",
)
@click.option(
    "--unpack",
    type=click.FloatRange(1),
    metavar="TIMES",
    default=20,
    show_default=True,
    help="Refuse a gzip file that unpacks to more than so many times its own size, and 4 MiB.",
)
@on_device
def predict(
    run: str,
    inputs: str,
    out: str | None,
    probabilities: bool,
    ids: tuple[str, ...],
    header: str,
    unpack: float,
    device: str,
) -> None:
    """Apply the network of RUN, a run folder or a model file, to INPUT.

    INPUT is a table of text (CSV, with or without a header), a .npy array, or an IDX file of images, gzipped or not;
    `-` reads standard input. Values are raw: they are scaled here like the training data. The answer is a CSV with a
    header and one row for each row of INPUT; unreadable rows are refused, never left out. Notes go to standard error.

    For a network that was trained on your table, INPUT is such a table, CSV or Parquet. Its columns are found by name;
    others, the target among them, are left aside.
    """
    import torch

    from liouville.cli.inputs import read_inputs
    from liouville.cli.rows import read_rows
    from liouville.runs.place import device_of

    if out is not None and out.casefold().endswith(_OTHERS):
        raise BadInput(
            f"--out writes CSV, and {Path(out).suffix} is the ending of another kind of file; give it a name in .csv."
        )
    torch.set_flush_denormal(True)
    network = _open(run).to(device_of(device))
    facts: Facts | None = getattr(network, "facts", None)
    if facts is None:
        if probabilities:
            raise BadInput(f"{run} is a model file that does not know its data, nor what its outputs mean; give a run.")
        note(
            f"{run} is a model file that does not know its data: inputs are taken as they are, and the network's raw "
            "outputs are given."
        )
    known, shape = (None, _shape(network)) if facts is None else (facts.column_names, facts.shape)
    table = facts is not None and facts.preprocessing is not None
    if facts is not None and table:
        read = read_rows(inputs, facts, header, ids, unpack)
    else:
        read = read_inputs(inputs, shape, known=known, header=header, ids=ids, unpack=unpack)
    for text in read.notes:
        note(text)
    outputs = _outputs(network, read.samples, raw=facts is not None and not table)
    copied = [_copied(column) for column in read.copied]

    def lines() -> Iterator[str]:
        for start in range(0, len(outputs), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            names, columns = _columns(facts, outputs[part], probabilities, run)
            yield _csv([*read.names, *names] if start == 0 else [], [*(cells[part] for cells in copied), *columns])

    if out is None:
        for text in lines():
            click.echo(text, nl=False, file=sys.stdout)
    else:
        _write(Path(out), lines())


def _outputs(network: Network, samples: Tensor, raw: bool) -> Tensor:
    """What the network says of all samples, a part at a time: they may have been read in one byte a number."""
    import torch

    from liouville.answering import outputs_of

    parts = []
    for start in range(0, len(samples), _AT_ONCE):
        part = samples[start : start + _AT_ONCE].double()
        parts.append(outputs_of(network, network.transform(part) if raw else part, start).cpu())
    return torch.cat(parts)


def _open(name: str) -> Any:
    """The network of a run or of a model file."""
    from liouville.checkpoint import load
    from liouville.runs import Run
    from liouville.runs.run import CONFIG, MODEL

    path = Path(name)
    if path.is_dir():
        return _answering(Run.open(path))
    if not path.exists():
        raise FileNotFoundError(f"there is no run folder or model file {name}.")
    if path.name == MODEL and (path.parent / CONFIG).is_file():
        return _answering(Run.open(path.parent))
    return load(path)


def _answering(run: Run) -> Network:
    """Its network, once what its files say of the data is compared."""
    network = run.network()
    if edited := run.edited(network):
        followed = "what it says now" if network.facts == run.facts else "the model file"
        note(
            f"what {run.path}'s config.json says of the data ({', '.join(edited)}) was changed after it was written; "
            f"the answers follow {followed}."
        )
    return network


def _shape(network: nn.Module) -> list[int | None]:
    """The shape of one sample, as far as a network says it that does not know its data."""
    from torch import nn

    from liouville.network import Lift

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


def _columns(facts: Facts | None, outputs: Tensor, probabilities: bool, run: str) -> tuple[list[str], list[list[str]]]:
    """Names and columns of the answer."""
    width = outputs.shape[1]
    if facts is None:
        return [f"output_{k}" for k in range(width)], _texts(outputs)
    if probabilities and not facts.classes:
        raise BadInput(f"{run} is a regression; there are no probabilities.")
    try:
        answers = facts.answers(outputs)
        shares = _texts(facts.probabilities(outputs)) if probabilities else []
    except ValueError as error:
        raise ValueError(f"{run} does not fit together: {error}") from error
    if isinstance(facts.classes, tuple):
        return _of_several(facts, answers, shares)
    if not isinstance(answers, list):
        called = facts.targets or range(width)
        return ["prediction"] if width == 1 else [f"prediction_{name}" for name in called], _texts(answers)
    names = [_harmless(str(n)) for n in facts.label_names or range(facts.classes)]
    shown = [f"p({n})" for n in names] if probabilities else []
    return ["prediction", *shown], [[_harmless(str(answer)) for answer in answers], *shares]


def _of_several(facts: Facts, answers: Any, shares: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """A column for each of several targets of classes, and after it the probabilities of its classes."""
    names: list[str] = []
    columns: list[list[str]] = []
    left = iter(shares)
    for k, own in enumerate(facts.names()):
        target = facts.targets[k] if facts.targets else str(k)
        names.append(f"prediction_{target}")
        columns.append([_harmless(str(answer[k])) for answer in answers])
        if shares:
            names += [f"p({target}={name})" for name in own]
            columns += [next(left) for _ in own]
    return names, columns


def _texts(values: Tensor) -> list[list[str]]:
    """Each column as text."""
    return [[f"{value:.6g}" for value in column] for column in values.T.tolist()]


def _csv(names: list[str], columns: list[list[str]]) -> str:
    """A header, if there are names, and the rows."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if names:
        writer.writerow(map(_harmless, names))
    writer.writerows(zip(*columns, strict=True))
    return buffer.getvalue()


def _copied(column: list[str]) -> list[str]:
    """A column of somebody's table, safe to print and to open; a note says where it is changed."""
    safe = [_harmless(cell) for cell in column]
    changed = sum(a != b for a, b in zip(column, safe, strict=True))
    if changed:
        note(f"{changed} copied cell(s) begin like a formula of a spreadsheet and have an apostrophe in front.")
    return safe


def _harmless(cell: str) -> str:
    """Without what a terminal obeys, and with an apostrophe where it begins like a formula and is no number.

    What begins a formula for a spreadsheet: OWASP, *CSV Injection*.
    """
    if not cell.isprintable():
        cell = "".join(c if c.isprintable() or c in "\t\n" else "\N{REPLACEMENT CHARACTER}" for c in cell)
    if not cell.lstrip(" ").startswith(_FORMULAS):
        return cell
    from liouville.data.cells import number

    return cell if number(cell) is not None else "'" + cell


def _write(target: Path, lines: Iterator[str]) -> None:
    from liouville.files import atomic

    try:
        if target.is_dir():
            raise IsADirectoryError(f"cannot write {target}: it is a folder.")
        if target.exists() and not target.is_file():  # a device or a pipe: nothing to replace
            with target.open("w", encoding="utf-8") as file:
                file.writelines(lines)
            return
        with atomic(target) as path, path.open("w", encoding="utf-8") as file:
            file.writelines(lines)
    except OSError as error:
        raise OSError(f"cannot write {target}: {error.strerror}." if error.errno else str(error)) from error
