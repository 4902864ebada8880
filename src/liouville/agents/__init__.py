"""A deep network spread over the nodes of a graph, each with its own state and weights, talking to its neighbours."""

from liouville.agents.exchange import Exchange, Simulation
from liouville.agents.locality import Locality, Violation, check, derived_mask
from liouville.agents.network import spread, to_central
from liouville.agents.patterns import GeneralPattern, SeparablePattern
from liouville.agents.transport import AgentFault, Distributed

__all__ = [
    "AgentFault",
    "Distributed",
    "Exchange",
    "GeneralPattern",
    "Locality",
    "SeparablePattern",
    "Simulation",
    "Violation",
    "check",
    "derived_mask",
    "spread",
    "to_central",
]
