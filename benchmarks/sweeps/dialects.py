"""Tables for `tables.py`: numbers that are known, written as programs and people write them."""

from __future__ import annotations

__all__ = ["MISSING", "SPELLED", "Sheet", "draw", "written"]

import contextlib
import csv
import gzip
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

NAMES = [
    "width",
    "größe",
    "T [°C]",
    "a b",
    "x, y",
    "weight_kg",
    "p95",
    "Länge",
    "e",
    "m²",
    "#count",
    "θ1",
    "Ca",
    "h(t)",
]
TEXTS = [
    "a",
    "unit 7",
    "x, y",
    'say "so"',
    "Ü",
    "two\nlines",
    "",
    "5;6",
    "007",
    "2024-01-01",
    "NA",
    "é|è",
    "=1+1",
    "-5",
]
MISSING = ["NA", "nan", "NaN", "null", "None", "#N/A", "n/a", "-", "?", "inf", "-inf", "N/A", "missing", ".", "<NA>"]
SPELLED = [
    "1_0",
    "\u22121",
    "\u0661\u0662",
    "1e",
    "0x1F",
    "$5",
    "5 %",
    "5€",
    "(5)",
    "5-",
    "1/2",
    "12:30",
    "5 kg",
    "O.5",
]
SPELLED += [
    "1d3",
    "'5",
    "- 5",
    "1.2.3",
    "5\u00a0000",
    "1\u202f000",
    "\uff11",
    "1'000",
    "--5",
    "+-1",
    "0,5",
    "1.000,5",
    "O.5",
]


@dataclass
class Sheet:
    """A table, how it is to be written, and what is true of it.

    Args:
        grid: all cells, the header first if there is one.
        header: whether there is one.
        inputs: the columns of the network's inputs.
        copied: the columns for ``--id``.
        values: the inputs as numbers.
        separator: between the cells.
        ends: the line end, or "mixed".
        encoding: of the text.
        quoting: of the csv module.
        packing: what is done to the bytes.
        blanks: whether a blank follows each separator.
        gaps: whether there are blank lines between the rows.
        words: further options of the command.
    """

    grid: list[list[str]]
    header: bool
    inputs: list[int]
    copied: list[int]
    values: list[list[float]]
    separator: str = ","
    ends: str = "\n"
    encoding: str = "utf-8"
    quoting: int = csv.QUOTE_MINIMAL
    packing: Callable[[bytes], bytes] = bytes
    blanks: bool = False
    gaps: bool = False
    words: list[str] = field(default_factory=list)

    @property
    def body(self) -> list[list[str]]:
        """The rows."""
        return self.grid[self.header :]


def draw(r: random.Random, width: int, known: Sequence[str] | None) -> Sheet:
    """A sound table for a network of ``width`` inputs, whose names are ``known`` or not."""
    rows = [[_spelled(r, r.gauss(0.5, 2)) for _ in range(width)] for _ in range(r.choice((1, 2, 3, 5, 9, 40)))]
    rows[0][0] = "0.5"  # a row of whole numbers may be a header
    values = [[float(cell) for cell in row] for row in rows]
    kind = r.choice(("none", "names", "numbers") if width > 1 else ("none", "names"))
    names = {
        "none": [""] * width,
        "names": [_dressed(r, name) for name in known]
        if known
        else r.sample([name for name in NAMES if width > 1 or "," not in name], width),
        "numbers": [str(k) for k in range(width)],
    }[kind]
    columns = [(name, [row[k] for row in rows], k) for k, name in enumerate(names)]
    for name in r.sample(("id", "sample no", "Ort"), r.choice((0, 0, 0, 1, 1, 2))):
        cells = ["t" * (kind == "none") + r.choice(TEXTS) for _ in rows]
        columns.insert(r.randint(0, len(columns)), (name, cells, -1))
    copied = [k for k, (_, _, place) in enumerate(columns) if place < 0]
    index = kind != "none" and r.random() < 0.2
    if index:
        columns.insert(0, (r.choice(("", "Unnamed: 0")), [str(k) for k in range(len(rows))], -2))
    grid = [list(row) for row in zip(*(cells for _, cells, _ in columns), strict=True)]
    grid = grid if kind == "none" else [[name for name, _, _ in columns], *grid]
    sheet = Sheet(grid, kind != "none", [k + index for k in range(width + len(copied))], [], values)
    sheet.copied = [k + index for k in copied]
    sheet.inputs = [k for k in sheet.inputs if k not in sheet.copied]
    _style(r, sheet)
    return sheet


def _style(r: random.Random, sheet: Sheet) -> None:
    sheet.separator = r.choice(",,;\t| ")
    sheet.ends = r.choice(("\n", "\n", "\r\n", "\r", "mixed"))
    sheet.encoding = r.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"))
    sheet.quoting = r.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    sheet.packing = r.choice((bytes, bytes, bytes, gzip.compress, _members))
    sheet.blanks = sheet.separator != " " and r.random() < 0.2
    sheet.gaps = len(sheet.grid[0]) > 1 and r.random() < 0.1
    if sheet.separator != " " and len(sheet.grid[0]) > 1 and r.random() < 0.1:
        for row in sheet.grid:
            row.append("")
    if sheet.encoding == "cp1252" and any("θ" in cell for cell in sheet.grid[0]):
        sheet.encoding = "utf-8"  # it has no such letter
    if r.random() < 0.2:
        sheet.words = ["--header", "yes" if sheet.header else "no"]
    for k in sheet.copied:
        by_name = sheet.header and r.random() < 0.5
        sheet.words += ["--id", sheet.grid[0][k] if by_name else str(k + 1)]


def _spelled(r: random.Random, value: float) -> str:
    """One of the ways in which programs write a number."""
    text = r.choice(
        (f"{value:.6g}", f"{value:.3f}", f"{value:e}", f"{value:.9E}", repr(value), f"{value:+.2f}", f"{value:.0f}")
    )
    return text[1:] if text.startswith("0.") and r.random() < 0.2 else text


def _dressed(r: random.Random, name: str) -> str:
    """A name as another program writes it."""
    return r.choice((name, name, name.upper(), name.replace(" ", "_"), name.replace(" (cm)", ".cm")))


def _members(data: bytes) -> bytes:
    return gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])


def written(r: random.Random, sheet: Sheet, spoil: Callable[[int, str], str]) -> tuple[bytes, list[int]]:
    """The file, and the line on which each row of the grid begins; ``spoil`` may change a row's text."""
    records, lines, line = [], [], 1
    for k, row in enumerate(sheet.grid):
        if sheet.gaps and k and r.random() < 0.3:
            records.append("")
            line += 1
        lines.append(line)
        records.append(spoil(k, _record(sheet, row)))
        line += 1 + records[-1].count("\n")
    text = "\n".join(records) + "\n" * r.choice((0, 1, 1, 1, 3))
    parts = text.split("\n")
    kinds = ("\n", "\r\n") if "" in parts[:-1] else ("\n", "\r\n", "\r")  # CR and LF of two line ends are one
    ends = [r.choice(kinds) if sheet.ends == "mixed" else sheet.ends for _ in parts[1:]]
    text = parts[0] + "".join(end + part for end, part in zip(ends, parts[1:], strict=True))
    with contextlib.suppress(UnicodeEncodeError):  # Windows-1252 has few letters
        return sheet.packing(text.encode(sheet.encoding)), lines
    return sheet.packing(text.encode()), lines


def _record(sheet: Sheet, row: Sequence[str]) -> str:
    buffer = io.StringIO()
    quoting = csv.QUOTE_ALL if sheet.separator == " " and "" in row else sheet.quoting
    csv.writer(buffer, delimiter=sheet.separator, lineterminator="\n", quoting=quoting).writerow(row)
    text = buffer.getvalue().removesuffix("\n")
    return text.replace(sheet.separator, sheet.separator + " ") if sheet.blanks and '"' not in text else text
