"""Does `liouville predict` give every row of a table its own answer, or refuse the table in one sentence?

Each case writes known numbers in a random dialect, half of them with one defect, and compares the command's answers
with the network's own; a defect must be refused, and its line named where it has one.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import gzip
import io
import random
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from dialects import MISSING, SPELLED, Sheet, draw, written
from sweep import Outcome, run

import liouville as lv
from liouville.cli import run as command
from liouville.runs import Run

TRAIN = ("--layers", "2", "--epochs", "1", "--threads", "1", "--no-figures", "--quiet")
RUNS = {"swiss-roll": ("-d", "points=200", "--features", "4"), "iris": (), "diabetes": ()}


class Model(NamedTuple):
    """A trained network: where it is, its answers to raw numbers, its width and the names of its inputs."""

    path: Path
    answers: Callable[[torch.Tensor], torch.Tensor]
    width: int
    known: list[str] | None


@functools.cache
def models() -> list[Model]:
    """Runs without and with names of columns, a regression, and a file without its run."""
    folder, found = Path(tempfile.mkdtemp(prefix="liouville-tables-")), []
    for name, more in RUNS.items():
        if command(["train", "--data", name, *more, *TRAIN, "--out", str(folder / name)]):
            raise SystemExit(f"no model on {name}")
        opened = Run.open(folder / name)
        data = opened.config["data"]
        found.append(Model(folder / name, functools.partial(_answers, opened), data["shape"][0], data["column_names"]))
    network = lv.classifier("h2", inputs=1, classes=2, features=2, layers=2, T=1.0)
    lv.save(network, folder / "one.safetensors")
    return [*found, Model(folder / "one.safetensors", lambda x: network.eval()(x.float()).double(), 1, None)]


def _answers(opened: Run, x: torch.Tensor) -> torch.Tensor:
    """Probabilities, or the prediction in the target's units."""
    facts = opened.facts
    offset, scale = facts.tensor("offset"), facts.tensor("scale")
    x = x if offset is None or scale is None else (x - offset) / scale
    y = opened.network().eval()(x.float()).double().reshape(len(x), -1)
    if not facts.classes:
        return y * facts.tensor("target_scale") + facts.tensor("target_offset")
    return torch.cat((1 - y.sigmoid(), y.sigmoid()), 1) if facts.classes == 2 else y.softmax(1)


class Flaw(NamedTuple):
    """What was spoilt: a row of the grid, how its text and the file are changed, and whether the line must be told."""

    row: int | None = None
    text: Callable[[str], str] = str
    file: Callable[[bytes], bytes] = bytes
    told: bool = True


class DoesNotApply(Exception):
    """This flaw cannot be had in this table."""


def _need(condition: object) -> None:
    if not condition:
        raise DoesNotApply


def _in_a_cell(*contents: str) -> Callable[[random.Random, Sheet, Model], Flaw]:
    def spoil(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
        row = r.randrange(sheet.header, len(sheet.grid))
        sheet.grid[row][r.choice(sheet.inputs)] = r.choice(contents)
        return Flaw(row, told=row > 0 or len(sheet.inputs) > 1)  # without numbers, the first row looks like a header

    return spoil


def _first_row(*contents: str) -> Callable[[random.Random, Sheet, Model], Flaw]:
    """A first row that must not be taken for a header."""

    def spoil(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
        _need(not sheet.header and not sheet.copied)
        for k in sheet.inputs:
            sheet.grid[0][k] = r.choice(contents)
        return Flaw(0)

    return spoil


def a_word(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    _need(model.width > 1 or sheet.header)  # a first row of words only is a header
    return _in_a_cell("word", "e5", "so so")(r, sheet, model)


def hollow(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    row = r.randrange(sheet.header, len(sheet.grid))
    sheet.grid[row] = [""] * len(sheet.grid[row])
    return Flaw(row)


def ragged(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    _need(len(sheet.body) > 2 and model.width > 1)
    row = r.randrange(sheet.header, len(sheet.grid))
    sheet.grid[row] = r.choice((sheet.grid[row][:-1], [*sheet.grid[row], "1"]))
    return Flaw(row)


def reordered(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    _need(sheet.header and model.width > 1 and sheet.grid[0][sheet.inputs[0]] != "0")
    a, b = r.sample(sheet.inputs, 2)
    head = sheet.grid[0]
    head[a], head[b] = (head[b], head[a]) if model.known else r.choice((("y", "x"), ("x2", "x1"), ("f10", "f9")))
    if a > b and not model.known:
        head[a], head[b] = head[b], head[a]
    return Flaw()


def unknown(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    _need(sheet.header and model.known and sheet.grid[0][sheet.inputs[0]] != "0")
    sheet.grid[0][r.choice(sheet.inputs)] = "foo"
    return Flaw()


def twice(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    _need(sheet.header and model.width > 1 and sheet.grid[0][sheet.inputs[0]] != "0")
    a, b = r.sample(sheet.inputs, 2)
    sheet.grid[0][a] = sheet.grid[0][b]
    return Flaw()


def stranger(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    for k, row in enumerate(sheet.grid):
        row.append("extra" if sheet.header and not k else "7.5")
    return Flaw()


def lost(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    _need(model.width > 1 and not sheet.copied and sheet.grid[0][0] not in ("", "Unnamed: 0"))
    for row in sheet.grid:
        del row[sheet.inputs[-1]]
    return Flaw()


def open_quote(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    sheet.quoting = csv.QUOTE_MINIMAL
    sheet.separator = "," if sheet.separator == " " else sheet.separator
    row, told = r.randrange(len(sheet.grid)), not any('"' in cell for row in sheet.grid for cell in row)
    return Flaw(row, lambda text: '"' + text, told=told and not sheet.copied)


def stray_quote(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    sheet.quoting = csv.QUOTE_MINIMAL
    _need(not sheet.copied)
    return Flaw(r.randrange(len(sheet.grid)), lambda text: text + '0"')


def nul(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    _need(sheet.encoding in ("utf-8", "utf-8-sig", "utf-16"))
    return Flaw(r.randrange(len(sheet.grid)), lambda text: text[:2] + r.choice("\0\x1b\x08") + text[2:])


def cut(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    sheet.packing = bytes
    return Flaw(file=lambda data: gzip.compress(data)[: -r.randint(1, 12)])


def garbage(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    sheet.packing = bytes
    return Flaw(file=lambda data: gzip.compress(data) + b"0.1,0.2\n")


def blank_line(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    _need(len(sheet.grid[0]) == 1 and len(sheet.grid) > 1)
    return Flaw(r.randrange(len(sheet.grid) - 1), lambda text: "")


def no_rows(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    _need(sheet.header and sheet.grid[0][sheet.inputs[0]] != "0")
    del sheet.grid[1:]
    return Flaw()


def decimal_commas(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    for row in sheet.body:
        for k in sheet.inputs:
            row[k] = row[k].replace(".", ",")
    return Flaw(int(sheet.header), told=model.width > 1)


def half_header(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    _need(sheet.header and model.width > 1 and not sheet.words and sheet.grid[0][sheet.inputs[0]] != "0")
    sheet.grid[0][r.choice(sheet.inputs)] = "3.5"
    return Flaw()


def header_again(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    _need(sheet.header and sheet.grid[0][sheet.inputs[0]] != "0")
    row = r.randint(1, len(sheet.grid))
    sheet.grid.insert(row, list(sheet.grid[0]))
    return Flaw(row)


def no_such_column(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    sheet.words += ["--id", r.choice(("nowhere", "99", "-1", ""))]
    return Flaw()


def no_table(r: random.Random, sheet: Sheet, model: Model) -> Flaw:
    contents = (
        b"",
        b"\n\n",
        b"PAR1\0\1",
        b"PK\3\4\0xl/",
        b'{"x": [1, 2]}',
        b"<!DOCTYPE html><html>",
        b"\x89PNG\r\n\x1a\n",
    )
    contents += ("\ufeff".encode(), b"\xff\xfe", "\u00a0\n".encode(), random.Random(r.random()).randbytes(300))
    return Flaw(file=lambda data: r.choice(contents))


FLAWS = (
    *(_in_a_cell(""), _in_a_cell(*MISSING), _in_a_cell(*SPELLED), _first_row(*MISSING), _first_row(*SPELLED)),
    *(_in_a_cell("1e999", "1 2", "0.1.2", "+"), a_word, hollow, ragged, reordered, unknown, twice, stranger, lost),
    *(open_quote, stray_quote, nul, cut, garbage, blank_line, no_rows, decimal_commas, half_header, header_again),
    *(no_such_column, no_table),
)


def table(r: random.Random) -> Outcome:
    """One table, sound or spoilt."""
    model = r.choice(models())
    sheet = draw(r, model.width, model.known)
    flaw, name = None, "sound"
    while flaw is None and r.random() < 0.5:
        spoil = r.choice(FLAWS)
        with contextlib.suppress(DoesNotApply):
            flaw, name = spoil(r, sheet, model), getattr(spoil, "__qualname__", "").split(".")[0]
    text = flaw.text if flaw else str
    data, lines = written(r, sheet, lambda k, row: text(row) if flaw and k == flaw.row else row)
    data = flaw.file(data) if flaw else data
    code, out, err = _predict(model, sheet, data)
    case = f"{name}; {model.path.name} {' '.join(sheet.words)}; {data[:300]!r}; exit {code}, "
    case += f"{out[:200]!r}, {err[:300]!r}"
    if code not in (0, 2):
        return Outcome("defect", case)
    if flaw is None:
        return Outcome("right" if code == 0 and _agrees(out, sheet, model) else "wrong", case)
    told = code == 2 and out == "" and _errors(err) == 1
    named = flaw.row is None or not flaw.told or re.search(rf"\bline {lines[flaw.row]}\b", err)
    return Outcome("refused" if told and named else "wrong", case)


def _predict(model: Model, sheet: Sheet, data: bytes) -> tuple[int, str, str]:
    out, err, stdin = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(data))
    probabilities = ["--probabilities"] if model.path.name in ("swiss-roll", "iris") else []
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = command(["predict", str(model.path), "-", *probabilities, *sheet.words])
    finally:
        sys.stdin = stdin
    return code, out.getvalue(), err.getvalue()


def _errors(err: str) -> int:
    """Lines on standard error that are no notes."""
    return sum(not line.startswith("liouville: note: ") for line in err.splitlines())


def _agrees(out: str, sheet: Sheet, model: Model) -> bool:
    """Whether every row has its own answer, and its own text."""
    rows = list(csv.reader(io.StringIO(out)))[1:]
    with torch.no_grad():
        expected = model.answers(torch.tensor(sheet.values, dtype=torch.float64)).tolist()
    if len(rows) != len(expected):
        return False
    for row, cells, answer in zip(rows, sheet.body, expected, strict=True):
        if [text.removeprefix("'") for text in row[: len(sheet.copied)]] != [cells[k] for k in sheet.copied]:
            return False
        if any(abs(float(a) - b) > 1e-4 * (1 + abs(b)) for a, b in zip(row[-len(answer) :], answer, strict=True)):
            return False
    return True


if __name__ == "__main__":
    sys.exit(run("tables", table, 2000))
