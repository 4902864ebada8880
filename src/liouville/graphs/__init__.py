"""Graphs: who may receive from whom, from whatever form somebody else's graph comes in."""

from liouville.graphs.pattern import Pattern, as_pattern, distances
from liouville.graphs.sources import adjacency

__all__ = ["Pattern", "adjacency", "as_pattern", "distances"]
