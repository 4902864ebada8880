r"""Native kernels for whole runs, the engine that uses them, and the engine that chooses among all engines."""

from liouville.backprop import Backprop, Checkpointed, Reversible, Stored
from liouville.kernels.auto import Auto
from liouville.kernels.batchlast import BatchLast
from liouville.kernels.fused import Fused
from liouville.kernels.table import NoKernelError, supported
from liouville.renamed import names_moved

ENGINES: dict[str, type[Backprop]] = {
    "auto": Auto,
    "stored": Stored,
    "checkpointed": Checkpointed,
    "reversible": Reversible,
    "fused": Fused,
    "batch-last": BatchLast,
}

__all__ = ["ENGINES", "Auto", "BatchLast", "Fused", "NoKernelError", "supported"]

__getattr__ = names_moved(__name__, Choice="auto", isa="library", is_built="library")
