"""``liouville verify``: every statement of the papers as a check that runs."""

from __future__ import annotations

__all__ = ["verify_command"]

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from liouville.cli import completion
from liouville.cli.completion import names_of
from liouville.cli.help import Command

if TYPE_CHECKING:
    from liouville.verify import Record


@click.command(
    "verify",
    cls=Command,
    short_help="Check the papers' statements that the library rests on.",
    examples=(
        ("liouville verify", "all statements, in seconds"),
        ("liouville verify p2 --figures theory", "one paper's, with the pictures of the theory"),
    ),
    failure="a check fails",
)
@click.argument("names", metavar="[NAME]...", nargs=-1, **names_of(completion.statements))
@click.option("--json", "as_json", is_flag=True, help="Print the records as one JSON object.")
@click.option(
    "--figures",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Draw the pictures of the theory into DIR.",
)
def verify_command(names: tuple[str, ...], as_json: bool, figures: Path | None) -> int:
    """Check the statements NAME, all of a paper (p1, p2, p3), or all.

    Each gets a line: the verdict, its name, the source, the statement, the measured and the expected numbers. A
    statement that is wrong as printed in the paper is shown to fail, and a correction to hold; its verdict is
    "corrected".
    """
    from liouville.names import spelled
    from liouville.verify import STATEMENTS, select

    known = {*STATEMENTS, *(name.split("-")[0] for name in STATEMENTS)}
    statements, start = select([spelled(name, known) for name in names]), time.perf_counter()
    records = []
    for statement in statements:
        records.append(statement.verify())
        if not as_json:
            click.echo(_line(records[-1], max(len(s.name) for s in statements)))
    seconds = time.perf_counter() - start
    click.echo(_json(records, seconds) if as_json else _summary(records, seconds))
    if figures is not None:
        from liouville.verify.pictures import draw_pictures

        for path in draw_pictures(figures):
            click.echo(f"wrote {path}", err=as_json)
    return 0 if all(record.holds for record in records) else 1


def _line(record: Record, width: int) -> str:
    verdict = "FAILS" if not record.holds else "corrected" if record.correction else "holds"
    return f"{verdict:9}  {record.name.ljust(width)}  {record}"


def _summary(records: list[Record], seconds: float) -> str:
    failed = [record.name for record in records if not record.holds]
    corrected = sum(bool(record.correction) for record in records)
    verdict = f"FAILED: {', '.join(failed)}" if failed else "all hold"
    number = f"{len(records)} statement{'s' * (len(records) != 1)}"
    return f"{number} in {seconds:.1f} s, {verdict}; {corrected} of them only as corrected."


def _json(records: list[Record], seconds: float) -> str:
    holds = all(record.holds for record in records)
    return json.dumps({"holds": holds, "seconds": seconds, "statements": [r.as_dict() for r in records]}, indent=2)
