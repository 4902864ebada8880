"""Analysis of a flow, or of any chain of modules: pure functions of a network and an input."""

from liouville.analysis.bounds import log_exponential_bound, log_inverse_bound, log_layer_bounds, log_upper_bound
from liouville.analysis.certificates import Certificate, Claim, certify
from liouville.analysis.depth import DepthCheck, depth_check
from liouville.analysis.dissipation import log_lower_bound
from liouville.analysis.extremes import SingularExtremes, extreme_singular_values
from liouville.analysis.invariants import EnergyBalance, energy_balance, structure, symplectic_defect
from liouville.analysis.inversion import reconstruction_error
from liouville.analysis.jacobians import layer_jacobians
from liouville.analysis.lyapunov import lyapunov_spectrum
from liouville.analysis.memory import MemoryReport, MemoryUse, memory
from liouville.analysis.regions import amplification, imaginary_limit, layer_spectra
from liouville.analysis.robustness import certified_radius
from liouville.analysis.sensitivity import backward_sensitivity, gradient_norms
from liouville.analysis.spectra import (
    Norms,
    gradient_alignment,
    growth_exponents,
    log_determinants,
    norms,
    singular_spectra,
)
from liouville.analysis.stability import StepMargin, first_nonfinite_layer, margin, step_margin
from liouville.analysis.verdict import gradient_verdict
from liouville.renamed import names_moved

__all__ = [
    "Certificate",
    "Claim",
    "DepthCheck",
    "EnergyBalance",
    "MemoryReport",
    "MemoryUse",
    "Norms",
    "SingularExtremes",
    "StepMargin",
    "amplification",
    "backward_sensitivity",
    "certified_radius",
    "certify",
    "depth_check",
    "energy_balance",
    "extreme_singular_values",
    "first_nonfinite_layer",
    "gradient_alignment",
    "gradient_norms",
    "gradient_verdict",
    "growth_exponents",
    "imaginary_limit",
    "layer_jacobians",
    "layer_spectra",
    "log_determinants",
    "log_exponential_bound",
    "log_inverse_bound",
    "log_layer_bounds",
    "log_lower_bound",
    "log_upper_bound",
    "lyapunov_spectrum",
    "margin",
    "memory",
    "norms",
    "reconstruction_error",
    "singular_spectra",
    "step_margin",
    "structure",
    "symplectic_defect",
]

__getattr__ = names_moved(__name__, flat_states="states")
