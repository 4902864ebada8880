"""A deep network spread over the nodes of a graph, each with its own state and weights, talking to its neighbours."""

from liouville.agents.locality import Locality, Violation, check, derived_mask
from liouville.agents.patterns import GeneralPattern, SeparablePattern

__all__ = ["GeneralPattern", "Locality", "SeparablePattern", "Violation", "check", "derived_mask"]
