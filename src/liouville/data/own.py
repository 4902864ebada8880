"""A table of one's own: which file it is, and which column is predicted."""

from __future__ import annotations

__all__ = ["TableFile", "is_file_name"]

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from liouville.data.numbers import real_number, whole_number
from liouville.data.split import Split

if TYPE_CHECKING:
    from liouville.data.raw import Raw

_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data", ".parquet", ".pq", ".gz")


@dataclass(frozen=True)
class TableFile:
    """A table in a file, and what is to be learned from it; `load` reads it.

    Args:
        path: of a table of text, or of a Parquet file.
        target: the column to predict: real numbers, or text, which are classes; or several columns of real numbers.
        ids: columns that are no inputs.
        categories: columns of numbers that are categories; the target among them has classes.
        header: whether the first row of a table of text has the names of the columns; "auto" sees.
        test_fraction: share of the rows in the test part.
        seed: of the division into training and test part.

    Raises:
        ValueError: a value out of range.
    """

    path: str
    target: str | tuple[str, ...]
    ids: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    header: Literal["auto", "yes", "no"] = "auto"
    test_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        real_number("test_fraction", self.test_fraction, low=0.0, high=1.0)
        whole_number("seed", self.seed, low=0, high=2**32 - 1)

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict."""
        return (self.target,) if isinstance(self.target, str) else self.target

    @property
    def name(self) -> str:
        """What the data set is called: the file's name without its endings."""
        stem = re.sub(r"(\.[A-Za-z]+)+$", "", Path(self.path).name) or Path(self.path).name
        return stem if stem.isprintable() else "table"

    def load(self, dtype: torch.dtype = torch.float32, notes: list[str] | None = None) -> Split:
        """The rows in two parts, their columns as a network reads them.

        Numbers have mean 0 and standard deviation 1 in the training part, the median stands for missing ones, and a
        feature says where; categories have a feature for each. Real targets are standardised too. Classes keep their
        proportions in both parts.

        Args:
            dtype: of the inputs.
            notes: takes sentences on what had to be guessed or left out.

        Raises:
            OSError: the file cannot be read.
            ImportError: pandas or scikit-learn is not installed.
            ValueError: whatever cannot be learned from, in one sentence that names row or column.
        """
        from liouville.data.loading import load_table

        return load_table(self, dtype, notes)

    def look(self) -> tuple[int, bool]:
        """How many rows there are, and whether classes are predicted; no other column is looked at.

        Raises:
            OSError, ImportError, ValueError: as `load`.
        """
        from liouville.data.loading import targets_of

        raw = self.raw()
        return raw.rows, targets_of(raw, self)[0].kind == "categories"

    def raw(self) -> Raw:
        """What is in the file, which messages call by its place below the present folder, if it is there."""
        from liouville.data.raw import read_raw

        path = Path(self.path)
        below = path.is_absolute() and path.is_relative_to(Path.cwd())
        return read_raw(path, str(path.relative_to(Path.cwd()) if below else path), self.header, self.targets)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TableFile:
        """The one that `dataclasses.asdict` made a JSON value of."""
        given: dict[str, Any] = {key: tuple(part) if isinstance(part, list) else part for key, part in value.items()}
        return cls(**given)


def is_file_name(word: str) -> bool:
    """Whether ``word`` names a file rather than a data set.

    Examples:
        >>> is_file_name("my.csv"), is_file_name("../flowers"), is_file_name("iris")
        (True, True, False)
    """
    return Path(word).suffix.lower() in _SUFFIXES or "/" in word or "\\" in word or Path(word).is_file()
