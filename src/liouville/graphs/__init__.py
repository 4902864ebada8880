"""Communication graphs, which node may receive from which, read from many formats."""

from liouville.graphs.pattern import Pattern, as_pattern, distances
from liouville.graphs.sources import adjacency

__all__ = ["Pattern", "adjacency", "as_pattern", "distances"]
