r"""Sequences in one native call: depth is time, one weight for all steps, inputs through the biases.

    b_t = b + W u_t,        part += h tau_t c velocity(other part; K, b_t)        in step t, stage by stage

The kernel reads the inputs as they are, (T, batch, inputs), and multiplies them by W some steps at a time. So nothing
of size (T, batch, features) exists but what the caller asks for. Gradients of K, W and b are summed on the way back.
"""

from liouville.kernels.sequence.engine import over_time
from liouville.kernels.sequence.plan import SequencePlan, planned

__all__ = ["SequencePlan", "over_time", "planned"]
