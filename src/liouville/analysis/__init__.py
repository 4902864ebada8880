"""What can be said of a flow: pure functions of a flow and an input."""

from liouville.analysis.stability import first_nonfinite_layer, margin

__all__ = ["first_nonfinite_layer", "margin"]
