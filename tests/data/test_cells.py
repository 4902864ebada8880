"""Cells of tables: one grammar of numbers, the fast way equal to the slow one, and records equal to those of csv."""

import csv
import io
import math
import random

import pytest

pytest.importorskip("numpy")

from liouville.data.cells import is_name, missing, number, numbers, spelling
from liouville.data.records import records

ALPHABET = [
    "0",
    "1",
    "9",
    ".",
    "-",
    "+",
    "e",
    "E",
    " ",
    "\t",
    "_",
    ",",
    "x",
    "n",
    "a",
    "\u2212",
    "\u0661",
    "\u00a0",
    "%",
]


def test_numbers_of_a_column_are_the_numbers_of_its_cells():
    random_ = random.Random(0)
    for size in (1, 2, 9):
        for _ in range(500):
            cells = ["".join(random_.choices(ALPHABET[: size * 3], k=random_.randint(0, 5))) for _ in range(size)]
            assert numbers(cells) == [number(cell) for cell in cells]


def test_a_cell_is_a_number_exactly_where_its_ascii_digits_say_so():
    for cell in ("0", "-1", "+.5", "5.", "1e5", "1E-05", "007", " 1 ", "\t2"):
        assert number(cell) == float(cell)
    for cell in (
        "",
        ".",
        "1e",
        "e5",
        "1_0",
        "\u0661",
        "nan",
        "inf",
        "Infinity",
        "0x1",
        "1 2",
        "1\n",
        "\u00a01",
        "True",
    ):
        assert number(cell) is None
    assert number("1e999") == math.inf


def test_every_cell_is_at_most_one_of_number_missing_and_name():
    random_ = random.Random(1)
    for _ in range(1000):
        cell = "".join(random_.choices(ALPHABET, k=random_.randint(0, 6)))
        assert (number(cell) is not None) + missing(cell) + is_name(cell) <= 1
        assert not (is_name(cell) and spelling(cell)) and not (number(cell) is not None and spelling(cell))


def test_long_cells_and_long_runs_of_blanks_take_no_long_time():
    for cell in ("1" * 10**6 + "x", "1_" * 10**6, "1," * 10**6, " " * 10**6 + "x", "." * 10**6):
        assert number(cell) is None and spelling(cell) is None and not missing(cell)
    for text in ('x,y\n0.1,{}"0.2"\n', '"0.1" "{}" 0.2\n', "0.1{}0.2\n", '"0.1"{},0.2\n'):
        assert len(records(text.format(" " * 10**6).encode(), "table")) == text.count("\n")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_records_are_those_of_the_csv_module(separator):
    random_ = random.Random(2)
    for _ in range(20):
        rows = [["".join(random_.choices('a"\n 1,;', k=random_.randint(0, 4))) for _ in range(3)] for _ in range(5)]
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
        found = records(buffer.getvalue().encode(), "table")
        assert [found.row(k) for k in range(len(found))] == rows
        before = [sum(1 + "".join(row).count("\n") for row in rows[:k]) for k in range(5)]
        assert list(found.lines) == [1 + k for k in before] and found.cells.tolist() == [3] * 5
