r"""Kernels: whole runs in one native call, and the table of what has one."""

from liouville.kernels.fused import Fused
from liouville.kernels.library import is_built, isa
from liouville.kernels.table import NoKernelError, supported

__all__ = ["Fused", "NoKernelError", "is_built", "isa", "supported"]
