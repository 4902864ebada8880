"""A deep network spread over the nodes of a graph, each with its own state and weights, talking to its neighbours."""

from liouville.agents.cutting import node_part
from liouville.agents.exchange import Exchange, Simulation
from liouville.agents.export import export_node, read_part
from liouville.agents.failurebound import log_failing_bound
from liouville.agents.locality import Locality, Violation, check, derived_mask
from liouville.agents.network import SpreadFlow, SpreadNetwork, spread, to_central
from liouville.agents.parts import NodePart, Round, together
from liouville.agents.patterns import GeneralPattern, SeparablePattern
from liouville.agents.transport import AgentFault, Distributed
from liouville.agents.unreliable import Failures, Fates, Unreliable, unreliable
from liouville.nodes import Placement

__all__ = [
    "AgentFault",
    "Distributed",
    "Exchange",
    "Failures",
    "Fates",
    "GeneralPattern",
    "Locality",
    "NodePart",
    "Placement",
    "Round",
    "SeparablePattern",
    "Simulation",
    "SpreadFlow",
    "SpreadNetwork",
    "Unreliable",
    "Violation",
    "check",
    "derived_mask",
    "export_node",
    "log_failing_bound",
    "node_part",
    "read_part",
    "spread",
    "to_central",
    "together",
    "unreliable",
]
