"""Whether the first row of a table has the names of its columns: seen in the row itself, in the rows below, or asked.

A row that may be one or the other is never guessed at, as an answer too few or too many belongs to another row.
"""

from __future__ import annotations

__all__ = ["UNNAMED", "counted", "is_header", "listed", "plain"]

import itertools
import re
from collections.abc import Sequence

from liouville.data.cells import is_name, missing, number, spelling
from liouville.data.records import Records

UNNAMED = ("", "Unnamed: 0")  # how pandas names the column of its index
_ASK = "say --header yes or --header no"


def is_header(
    first: Sequence[str], rest: Records, where: str, known: Sequence[str] | None = None
) -> tuple[bool, str | None]:
    """Whether ``first`` is a header, and a note where that is not plain to see.

    Args:
        first: the cells of the first row.
        rest: the rows below.
        where: the place of the first row, in words.
        known: the names that the columns should have; one of them suffices.

    Raises:
        ValueError: it may be both, or is neither.
    """
    if known and {plain(cell) for cell in first} & {plain(cell) for cell in known}:
        return True, None
    labels = [cell for cell in first if number(cell) is not None]
    others = [cell for cell in first if number(cell) is None and cell not in UNNAMED]
    if labels and first[0] in UNNAMED and not others and not counted(labels):
        return False, None
    if labels and all(is_name(cell) for cell in others):
        return _numbered(labels, first, rest, where)
    if labels:
        return False, None
    if others and all(is_name(cell) for cell in others) and _no_gaps(first, rest):
        return True, None
    if not any(first):
        raise ValueError(f"{where}: all cells are empty; fill or remove this row.")
    doubtful = next((cell for cell in others if not is_name(cell)), "")
    what = repr(doubtful) if doubtful else "an empty cell"
    why = " (a missing value?)" if doubtful and missing(doubtful) else advice(doubtful)
    raise ValueError(
        f"{where}: {what} is neither a number nor clearly the name of a column{why}; correct or remove this row, or "
        "say --header yes if it has the names of the columns."
    )


def _no_gaps(first: Sequence[str], rest: Records) -> bool:
    """Whether all have names but an index in front, and a last column that is empty, as separators after it make."""
    trailing = (
        first[-1] == "" and len(rest) > 0 and not any(rest.row(k)[-1].strip() for k in range(min(len(rest), 1000)))
    )
    return all(first[1:-1]) and (len(first) == 1 or first[-1] != "" or trailing)


def _numbered(labels: list[str], first: Sequence[str], rest: Records, where: str) -> tuple[bool, str | None]:
    """A row with numbers in it: a row, unless these are 0, 1, ... as pandas numbers columns without names, or years."""
    if not len(rest) or not (counted(labels) or _years(labels)):
        return False, None
    places = [k for k, cell in enumerate(first) if number(cell) is not None]
    sample = [rest.row(k) for k in range(min(len(rest), 1000))]
    body = {cells[k].strip() for cells in sample for k in places if k < len(cells)}
    shown = listed(first)
    if first[0] in UNNAMED:
        return True, None
    if _years(labels):
        if all(_years([cell]) for cell in body):
            return False, None
        raise ValueError(f"{where}: {shown} may be a row, or years that name the columns; {_ASK}.")
    from_1 = labels[0] == "1"  # as MATLAB and R count
    if from_1 and len(labels) < (2 if any("." in cell for cell in body) else 3):
        return False, None
    if from_1 or len(labels) == 1 or body <= set(labels):
        raise ValueError(f"{where}: {shown} may be a row, or the numbers of columns without names; {_ASK}.")
    return True, (
        f"{where}: {shown} is taken for a header, as pandas writes one for columns without names; if it is a row, say "
        "--header no."
    )


def counted(labels: Sequence[str]) -> bool:
    """Whether these are 0, 1, ... or 1, 2, ..., as programs number columns without names."""
    return any(list(labels) == [str(first + k) for k in range(len(labels))] for first in (0, 1))


def _years(labels: Sequence[str]) -> bool:
    rising = all(a < b for a, b in itertools.pairwise(labels))
    return rising and len(labels) > 0 and all(re.fullmatch("(?:1[89]|20|21)[0-9]{2}", cell) for cell in labels)


def plain(name: str) -> str:
    """A name without its case, blanks and marks, which programs write differently.

    Examples:
        >>> plain("sepal length (cm)") == plain("Sepal_Length_cm")
        True
    """
    return re.sub(r"[\W_]+", "", name.casefold()) or name.strip()


def advice(cell: str) -> str:
    """What is unusual in a number, in brackets; empty where nothing is known of it."""
    what = spelling(cell)
    return "" if what is None else f" ({what}; write it like -1234.5)"


def listed(names: Sequence[str]) -> str:
    """Names with commas between; long ones and many are cut."""
    shown = [name if len(name) <= 40 else name[:37] + "..." for name in names]
    return ", ".join(shown if len(shown) <= 40 else [*shown[:20], "...", *shown[-5:]])
