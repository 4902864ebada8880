r"""Every statement of the papers that the library rests on, as an executable check.

P1 is Haber & Ruthotto 2017 (1705.03341), P2 Galimberti et al. 2023 (2105.13205), P3 its predecessor (2104.13166), P4
Chang et al. 2018 (1709.03698); claims of certificates beyond them are called proved. Each check measures numbers in
float64 and compares them with the interval that the statement allows. A statement that fails as printed is shown to
fail, and its correction to hold.
"""

from __future__ import annotations

__all__ = ["STATEMENTS", "Finding", "Number", "Record", "Statement", "select", "verify"]

from collections.abc import Iterable, Iterator

from liouville.names import suggestion
from liouville.verify import (  # noqa: F401 (they register their statements)
    dissipation,
    learning,
    p1_propagation,
    p1_schemes,
    p2_networks,
    p2_sensitivity,
    p2_wider,
    p3_unified,
    proved,
)
from liouville.verify.statements import STATEMENTS, Finding, Number, Record, Statement


def select(names: Iterable[str] = ()) -> list[Statement]:
    """The statements of these names, in the order of the papers; a paper's name selects all of its statements; no name
    selects all.

    Raises:
        ValueError: for an unknown name, with the nearest right one.

    Examples:
        >>> [s.name for s in select(["p1-lemma-1"])]
        ['p1-lemma-1']
    """
    papers = {name.split("-")[0] for name in STATEMENTS}
    chosen: set[str] = set()
    for name in names:
        whole = [known for known in STATEMENTS if known.startswith(f"{name}-")] if name in papers else []
        if not whole and name not in STATEMENTS:
            raise ValueError(
                f"unknown statement {name!r}; {suggestion(name, STATEMENTS)}{', '.join(sorted(papers))} select "
                "all of a paper; liouville verify without a name checks and lists all."
            )
        chosen.update(whole or [name])
    ordered = sorted(STATEMENTS.values(), key=lambda s: s.name.split("-")[0])
    return [s for s in ordered if not chosen or s.name in chosen]


def verify(names: Iterable[str] = ()) -> Iterator[Record]:
    """Check these statements, or all, in turn.

    Examples:
        >>> [record.holds for record in verify(["p1-3.7"])]
        [True]
    """
    return (statement.verify() for statement in select(names))
