"""What can be said of a flow: pure functions of a flow and an input."""

from liouville.analysis.inversion import reconstruction_error
from liouville.analysis.memory import MemoryReport, MemoryUse, memory
from liouville.analysis.stability import first_nonfinite_layer, margin

__all__ = ["MemoryReport", "MemoryUse", "first_nonfinite_layer", "margin", "memory", "reconstruction_error"]
