"""A table of one's own at the command line: what `liouville train` asks of it, and says of it."""

from __future__ import annotations

__all__ = [
    "HOW",
    "Words",
    "described",
    "note",
    "of_a_table",
    "one_target",
    "refuse_columns",
    "table_of",
    "table_options",
]

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from liouville.cli.exits import BadInput
from liouville.cli.options import convert_data_options, data_option
from liouville.terminal import printable

if TYPE_CHECKING:
    from liouville.data import Split, TableFile

HOW = "A table of your own is --data FILE.csv --target COLUMN."
_OPTIONS = ("test_fraction", "seed")
_COLUMNS = {"ids": "--id", "categories": "--category", "header": "--header"}  # what only a table has


def of_a_table(option: Callable[..., Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """A decorator that gives a command the options of a table; ``option`` is like ``click.option``."""
    declared = (
        option(
            "--id", "ids", metavar="COLUMN", multiple=True, help="Leave a column of your table out; may be given again."
        ),
        option(
            "--category",
            "categories",
            metavar="COLUMN",
            multiple=True,
            help="Take a column of numbers for categories, the target for classes; may be given again.",
        ),
        option(
            "--header",
            metavar="auto|yes|no",
            help="Say whether your table's first row names its columns.  [default: auto]",
        ),
        data_option(option),
    )

    def decorated(command: Any) -> Any:
        for one in reversed(declared):
            command = one(command)
        return command

    return decorated


def refuse_columns(typed: Mapping[str, Any], more: Mapping[str, str]) -> None:
    """Refuse words that only a table has, for a data set with a name.

    Args:
        typed: the values of the options, by name.
        more: names and options that the command has besides those of `of_a_table`.

    Raises:
        BadInput: one was given.
    """
    for name, option in {**more, **_COLUMNS}.items():
        if typed[name] not in (None, ()):
            also = "; the validation score to stop at is --target-score" if name == "target" else ""
            raise BadInput(f"{option} is for a table of your own, --data FILE.csv --target COLUMN{also}.")


def one_target(names: tuple[str, ...]) -> str | None:
    """The column to predict, if one was named.

    Raises:
        BadInput: several were, of which the others would be taken for inputs.
    """
    if len(names) > 1:
        raise BadInput(
            f"--target names {len(names)} columns ({', '.join(names)}), and train predicts one: name it, and leave the "
            "others out of the inputs with --id."
        )
    return names[0] if names else None


class Words(NamedTuple):
    """What was typed of a table; None or empty where it was not."""

    data: str | None
    target: str | None
    ids: tuple[str, ...]
    categories: tuple[str, ...]
    header: str | None
    options: tuple[str, ...]


def table_of(words: Words, before: TableFile | None, known: bool) -> TableFile | None:
    """The table that was asked for; None for a data set with a name.

    Args:
        words: what was typed.
        before: the table of the run that one starts from.
        known: whether ``words.data`` is the name of a data set.

    Raises:
        BadInput: words of a table without one, or a table without a target.
    """
    import dataclasses

    from liouville.data import TableFile

    file = words.data is not None and not known
    if not file and (words.data is not None or before is None):
        refuse_columns(words._asdict(), {"target": "--target"})
        return None
    asked = {
        "path": None if words.data is None else str(Path(words.data).absolute()),
        "target": words.target,
        "ids": words.ids or None,
        "categories": words.categories or None,
        "header": words.header,
        **table_options(words.options),
    }
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if before is not None:
        return dataclasses.replace(before, **given)
    if words.target is None:
        _ask_for_the_target(str(words.data), words.header)
    return TableFile(**given)


def table_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """What -d says of a table: its test part."""
    from liouville.data import TableFile

    values = convert_data_options(TableFile, pairs)
    for name in values:
        if name not in _OPTIONS:
            raise BadInput(f"a table has no data option {name!r}; -d takes {' and '.join(_OPTIONS)}.")
    return values


def _ask_for_the_target(name: str, header: str | None) -> None:
    from liouville.data.headers import listed
    from liouville.data.raw import read_raw

    raw = read_raw(name, header=header or "auto")
    raise BadInput(f"say which column of {name} to predict: --target COLUMN; its columns are {listed(raw.names)}.")


def note(text: str) -> None:
    """A sentence on standard error, in one line."""
    click.echo(printable(f"liouville: note: {' '.join(text.split())}"), err=True)


def described(split: Split) -> str:
    """A line on the columns of a table, from its split."""
    from liouville.columns import Number
    from liouville.task import in_words

    assert split.preprocessing is not None
    columns = split.preprocessing.columns
    numbers = [c.name for c in columns if isinstance(c, Number)]
    words = [c.name for c in columns if not isinstance(c, Number)]
    gaps = [c.name for c in columns if c.missing]
    parts = [f"{what}: {_few(names)}" for what, names in (("numbers", numbers), ("categories", words)) if names]
    more = [f"missing values in {_few(gaps)}"] if gaps else []
    real = f"targets {_few(split.targets)}" if split.targets else f"target {split.target}"
    target = f"classes of {split.target}: {_few(split.label_names)}" if split.label_names else real
    if isinstance(split.classes, tuple):
        target = f"{real} of {in_words(split.classes)} classes"
    return "; ".join((*parts, *more, target))


def _few(names: tuple[str, ...] | list[str]) -> str:
    shown = [name if len(name) <= 24 else f"{name[:21]}..." for name in names[:6]]
    return ", ".join(shown) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
