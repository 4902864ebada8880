r"""Engines: run the N steps of a scheme and make them differentiable. All compute the same map and gradient.

An engine decides which states are kept between forward and backward, never the result. It gets the field once, for
its formulas, and all weights as stacked tensors; a layer is a slice of them.
"""

from liouville.backprop.base import Backprop, Stored, layer, slices  # noqa: F401 (whoever writes an engine takes both)
from liouville.backprop.checkpointed import Checkpointed
from liouville.backprop.drift import DriftWarning
from liouville.backprop.reversible import Reversible

__all__ = [
    "Backprop",
    "Checkpointed",
    "DriftWarning",
    "Reversible",
    "Stored",
]
