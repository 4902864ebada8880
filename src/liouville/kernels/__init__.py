r"""Native kernels for whole runs, the engine that uses them, and the one that chooses among all engines."""

from liouville.backprop import Backprop, Checkpointed, Reversible, Stored
from liouville.kernels.auto import Auto, Choice
from liouville.kernels.batchlast import BatchLast
from liouville.kernels.fused import Fused
from liouville.kernels.library import is_built, isa
from liouville.kernels.table import NoKernelError, supported

ENGINES: dict[str, type[Backprop]] = {
    "auto": Auto,
    "stored": Stored,
    "checkpointed": Checkpointed,
    "reversible": Reversible,
    "fused": Fused,
    "batch-last": BatchLast,
}

__all__ = ["ENGINES", "Auto", "BatchLast", "Choice", "Fused", "NoKernelError", "is_built", "isa", "supported"]
