"""What can be said of a flow: pure functions of a flow and an input."""

from liouville.analysis.bounds import log_exponential_bound, log_layer_bounds, log_upper_bound
from liouville.analysis.certificate import Certificate, certify
from liouville.analysis.claims import Claim
from liouville.analysis.inversion import reconstruction_error
from liouville.analysis.jacobians import flat_states, layer_jacobians
from liouville.analysis.memory import MemoryReport, MemoryUse, memory
from liouville.analysis.robustness import certified_radius
from liouville.analysis.sensitivity import backward_sensitivity
from liouville.analysis.stability import first_nonfinite_layer, margin

__all__ = [
    "Certificate",
    "Claim",
    "MemoryReport",
    "MemoryUse",
    "backward_sensitivity",
    "certified_radius",
    "certify",
    "first_nonfinite_layer",
    "flat_states",
    "layer_jacobians",
    "log_exponential_bound",
    "log_layer_bounds",
    "log_upper_bound",
    "margin",
    "memory",
    "reconstruction_error",
]
