r"""One claim of a certificate: a statement about a network, its grounds, and its status."""

from __future__ import annotations

__all__ = ["Claim", "Status"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from liouville.analysis.proofs.assumptions import Assumption

Status = Literal["pass", "not applicable", "broken"]


@dataclass(frozen=True)
class Claim:
    """One statement about a network.

    Args:
        name: a short name, for tables.
        statement: the full statement.
        status: ``"pass"``, ``"not applicable"`` or ``"broken"``.
        route: route of the proof: ``"symplectic"``, ``"det = 1"``, ``"det >= 1"``, ``"norms"``, ``"multipliers"``,
            ``"enclosure"``, ``"volume"``, ``"discrete gradient"``, ``"measured"`` or ``"none"``.
        assumptions: the assumptions of the proof, as measured on the object.
        bound: guaranteed numbers.
        measured: the same numbers over the given data.
        note: why it is broken or not applicable, or how to read it.
        flow: index of the flow in a network; None for the network.
    """

    name: str
    statement: str
    status: Status
    route: str = "none"
    assumptions: tuple[Assumption, ...] = ()
    bound: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    flow: int | None = None
