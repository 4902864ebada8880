"""What a page shows of a run, as plain values: the report knows no run, and a run makes its record."""

from __future__ import annotations

__all__ = ["Record", "Recorded"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from liouville.analysis import Certificate
from liouville.data import Split
from liouville.facts import Facts
from liouville.network import Network


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run, as a page shows it.

    Args:
        name: of the run.
        facts: of its data.
        what: what was trained and how, a sentence or a number under each label, in this order.
        history: one record for each epoch, as `liouville.train.History.records`.
        metrics: what was measured at the end.
        use: lines of Python that load the network and use it.
        command: a command that does the same, or "".
        network: in evaluation mode; None where training left none.
        split: the data; None where they are not at hand.
        certificate: of the network, or None.
        without_data: why there is no split, a sentence.
    """

    name: str
    facts: Facts
    what: Mapping[str, str]
    history: Sequence[Mapping[str, Any]] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    use: str = ""
    command: str = ""
    network: Network | None = None
    split: Split | None = None
    certificate: Certificate | None = None
    without_data: str = "the data are not at hand."

    @property
    def score_name(self) -> str:
        """``accuracy`` for classes, ``r2`` for real targets."""
        return "accuracy" if self.facts.classes else "r2"

    @property
    def lacks(self) -> str:
        """What is not there of network and data, for the sections that need both."""
        return "training left no network." if self.network is None else self.without_data

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names; their numbers where they have none. Of several targets those of the first."""
        if isinstance(self.facts.classes, tuple):
            return tuple(map(str, self.facts.names()[0]))
        return self.facts.label_names or tuple(f"class {k}" for k in range(self.facts.classes))


class Recorded(Protocol):
    """Whatever makes a record of itself, such as a `liouville.runs.Run`."""

    def record(self) -> Record:
        """What a page shows of it."""
        ...
